"""Sessions: how they begin, what ends them, and what neither a page of another site nor an agent can do with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from stage import OTHER_NAME, Stage
from visitor import FORM, Visitor, fields_of, text_of

from countermark.authority import encode64, generate, sign_session, until_of, write_code
from countermark.authority.keys import challenge_of
from countermark.cli import main
from countermark.model.clock import FakeClock
from countermark.model.digest import SESSION
from countermark.server.console.sessions import (
    IDLE_S_MAX,
    LIFE_S_MAX,
    NONCE_LIFE_S,
    SESSIONS_MAX,
    SESSIONS_PER_PERSON_MAX,
    Sessions,
)


@pytest.fixture(scope="module")
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, clock: FakeClock) -> Iterator[Stage]:
    with Stage(Path(tmp_path_factory.mktemp("console")) / "d", clock=clock) as found:
        yield found


def asked(visitor: Visitor, person: str) -> tuple[dict[str, str], str]:
    """The login page's hidden fields for a passkey, and its nonce."""
    page = text_of(visitor.get(f"/login?person={person}"))
    fields = fields_of(page, "/login/passkey")
    return fields, fields["nonce"]


def test_a_key_file_signs_a_person_in(stage: Stage) -> None:
    """The code of a key file opens a session under a fresh cookie, and the door's cookie ends."""
    visitor = stage.visitor()
    answer = visitor.sign_in("controller")
    assert (answer.status, answer.headers["location"]) == (303, "/waiting")
    assert set(visitor.cookies) == {"countermark"}
    assert "Cleo Controller" in text_of(visitor.get("/waiting"))


def test_the_command_that_the_page_shows_signs_in(stage: Stage) -> None:
    """The very words of the login page, run on another machine, print the code that the page takes."""
    visitor = stage.visitor()
    page = text_of(visitor.get("/login?person=controller"))
    words = re.search(r"<code>countermark (console link [^<]+)FILE</code>", page)
    assert words is not None
    done = CliRunner().invoke(main, [*words[1].split(), str(stage.made.people["controller"])])
    assert done.exit_code == 0, done.output
    fields = fields_of(page, "/login/code")
    assert visitor.post("/login/code", {**fields, "code": done.stdout}).status == 303
    assert visitor.get("/waiting").status == 200
    wrong = CliRunner().invoke(main, ["console", "link", "0", *words[1].split()[3:], str(stage.made.people["chief"])])
    assert (wrong.exit_code, "bad_session" in wrong.stderr) == (1, True)


def test_a_passkey_signs_a_person_in(stage: Stage) -> None:
    """The challenge of the login page is the digest of the session's document, and the passkey's answer opens it."""
    visitor = stage.visitor()
    fields, nonce = asked(visitor, "controller")
    document = {"v": 1, "deployment": "test", "person": "controller", "nonce": nonce, "origin": stage.console,
                "not_after": until_of(nonce)}  # fmt: skip
    assert fields["challenge"] == encode64(challenge_of(SESSION, document))
    answer = visitor.post("/login/passkey", {**fields, **stage.answered("controller", fields["challenge"])})
    assert answer.status == 303, text_of(answer)
    assert visitor.get("/waiting").status == 200


def test_each_session_has_a_cookie_of_its_own(stage: Stage) -> None:
    """Signing in again does not go on with the cookie that the browser brought: nobody can plant one."""
    visitor = stage.visitor("controller")
    first = visitor.cookies["countermark"]
    planted = "A" * 43
    visitor.cookies["countermark"] = planted
    assert visitor.sign_in("controller").status == 303
    assert visitor.cookies["countermark"] not in (first, planted)


def test_the_cookie_is_kept_from_scripts_and_other_sites(stage: Stage) -> None:
    """HttpOnly, SameSite=Strict, for the whole host, without a Domain."""
    visitor = stage.visitor()
    visitor.get("/login?person=controller")
    answer = visitor.sign_in("controller")
    assert answer.headers["set-cookie"].count("countermark") == 1
    for said in (answer.headers["set-cookie"], visitor.get("/login?person=x").headers.get("set-cookie", "")):
        if said:
            assert "HttpOnly" in said
            assert "SameSite=Strict" in said
            assert "Path=/" in said
            assert "Domain" not in said


def test_behind_tls_the_cookie_is_bound_to_the_host(tmp_path: Path) -> None:
    """Where the console's address is https, a proxy in front or not: ``__Host-``, Secure, and HSTS on every page."""
    with Stage(tmp_path / "d", console="https://approvals.example") as stage:
        visitor = stage.visitor()
        visitor.origin_is = stage.console
        answer = visitor.sign_in("controller")
        assert answer.status == 303, text_of(answer)
        said = answer.headers["set-cookie"]
        assert "__Host-countermark" in said
        assert "Secure" in said
        assert set(visitor.cookies) == {"__Host-countermark"}
        page = visitor.get("/waiting")
        assert page.status == 200
        assert page.headers["strict-transport-security"] == "max-age=31536000"
        visitor.cookies = {"countermark": visitor.cookies["__Host-countermark"]}  # a name that anybody could plant
        assert visitor.get("/waiting").status == 303


def test_a_session_ends_when_nobody_asks_for_anything(stage: Stage, clock: FakeClock) -> None:
    """After the idle time the session is gone, although the page refreshed itself all the while."""
    visitor = stage.visitor("controller")
    for _ in range(3):
        clock.advance(IDLE_S_MAX / 3 - 1)
        assert visitor.poll("/waiting/rows").status == 200
    clock.advance(4)
    answer = visitor.poll("/waiting/rows")
    assert (answer.status, answer.headers["hx-redirect"]) == (401, "/login")
    assert visitor.get("/waiting").headers["location"].startswith("/login")


def test_a_session_ends_after_a_working_day(stage: Stage, clock: FakeClock) -> None:
    """Whoever goes on working signs in anew after the longest life of a session."""
    visitor = stage.visitor("controller")
    for _ in range(LIFE_S_MAX // (IDLE_S_MAX - 60)):
        clock.advance(IDLE_S_MAX - 60)
        assert visitor.get("/waiting").status == 200
    clock.advance(IDLE_S_MAX - 60)
    assert visitor.get("/waiting").status == 303


def test_signing_out_ends_the_session_at_the_server(stage: Stage) -> None:
    """The old cookie opens nothing after the form to sign out."""
    visitor = stage.visitor("controller")
    kept = dict(visitor.cookies)
    assert visitor.post("/logout", {"token": visitor.token()}).status == 303
    visitor.cookies = kept
    assert visitor.get("/waiting").status == 303


def test_a_sign_in_is_for_one_browser_one_time_and_some_minutes(stage: Stage, clock: FakeClock) -> None:
    """A code opens nothing in another browser, nothing a second time, and nothing when it is over."""
    visitor = stage.visitor()
    fields, nonce = asked(visitor, "controller")
    fields = {name: fields[name] for name in ("nonce", "person", "next", "token")}
    code = visitor.code("controller", nonce, stage.console)
    other = stage.visitor()
    mine = asked(other, "controller")[0]["token"]
    assert other.post("/login/code", {**fields, "code": code, "token": mine}).status == 403
    assert visitor.post("/login/code", {**fields, "code": code}).status == 303
    again = stage.visitor()
    again.cookies = {"countermark-door": "A" * 43}
    assert again.post("/login/code", {**fields, "code": code}).status == 403
    late = stage.visitor()
    fields, nonce = asked(late, "controller")
    clock.advance(NONCE_LIFE_S)
    fields = {name: fields[name] for name in ("nonce", "person", "next", "token")}
    assert late.post("/login/code", {**fields, "code": late.code("controller", nonce, stage.console)}).status == 403


def test_only_the_enrolled_key_of_the_person_opens_a_session(stage: Stage) -> None:
    """A stranger's key, another person's key and another page's name are refused, each with 403."""
    visitor = stage.visitor()
    fields, nonce = asked(visitor, "controller")
    fields = {name: fields[name] for name in ("nonce", "person", "next", "token")}
    document = {"v": 1, "deployment": "test", "person": "controller", "nonce": nonce, "origin": stage.console,
                "not_after": until_of(nonce)}  # fmt: skip
    forged = [
        sign_session(document, generate()),
        sign_session(document, stage.private("chief")),
        sign_session({**document, "origin": "http://localhost:1"}, stage.private("controller")),
        sign_session({**document, "person": "chief"}, stage.private("chief")),
        sign_session({**document, "deployment": "other"}, stage.private("controller")),
    ]
    for body in forged:
        assert visitor.post("/login/code", {**fields, "code": write_code(body)}).status == 403
    for code in ("", "!!!", "e30", "A" * 8_000):
        assert visitor.post("/login/code", {**fields, "code": code}).status in (400, 403, 413)
    assert "countermark" not in visitor.cookies


def test_who_is_enrolled_does_not_show(stage: Stage) -> None:
    """The login page looks the same for a name that nobody has: a stand-in credential, the same for each question."""
    visitor = stage.visitor()
    pages = [text_of(visitor.get(f"/login?person={name}")) for name in ("nobody-here", "nobody-here", "controller")]
    shown = [re.findall(r'data-credentials="([^"]+)"', page) for page in pages]
    assert shown[0] == shown[1]
    assert all(len(one) == 1 and len(one[0]) >= 20 for one in shown)
    changing = r"[A-Za-z0-9_-]{22,}|nobody-here|controller"
    assert re.sub(changing, "", pages[0]) == re.sub(changing, "", pages[2])


def test_a_form_of_another_site_is_refused(stage: Stage) -> None:
    """Another origin, another Sec-Fetch-Site, none of both, or a token that is not this browser's: nothing happens."""
    visitor = stage.visitor("controller")
    token = visitor.token()
    for headers in (
        {"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"}, {"Origin": "", "Sec_Fetch_Site": ""}, {"Origin": "null", "Sec_Fetch_Site": ""},
        {"Origin": stage.console + "0"},
    ):  # fmt: skip
        answer = visitor.post("/logout", {"token": token}, **headers)
        assert (answer.status, "other_page" in text_of(answer)) == (403, True), headers
    for wrong in ("", "A" * 43, stage.visitor("controller").token()):
        assert visitor.post("/logout", {"token": wrong}).status == 403
    assert visitor.post("/logout", {"token": token, "more": "1"}).status == 400
    assert visitor.ask("POST", "/logout", b"{}", Content_Type="application/json", Origin=stage.console).status == 415
    assert visitor.get("/waiting").status == 200
    assert (
        visitor.post("/logout", {"token": token}, Origin="null").status == 303
    )  # as a browser writes without referrer


def test_looking_changes_nothing(stage: Stage) -> None:
    """What a form does is not done by asking for its address."""
    visitor = stage.visitor("controller")
    for path in ("/logout", "/login/code", "/login/passkey"):
        assert visitor.get(path).status == 405
    assert visitor.get("/waiting").status == 200


def test_a_link_from_elsewhere_is_asked_for_once_more(stage: Stage) -> None:
    """A browser leaves a strict cookie out when another site links here: the page then asks for itself."""
    visitor = stage.visitor("controller")
    bare = stage.visitor()
    answer = bare.get("/waiting/esc_" + "0" * 32, Sec_Fetch_Site="cross-site")
    assert answer.status == 200
    assert 'http-equiv="refresh" content="0;url=/waiting/esc_' in text_of(answer)
    assert bare.get("/waiting", Sec_Fetch_Site="same-origin").status == 303
    assert visitor.get("/waiting").status == 200


def test_an_agents_credential_opens_no_page(stage: Stage) -> None:
    """Whatever an agent shows, with a person's cookie beside it or not, pages refuse it unread."""
    visitor = stage.visitor("controller")
    for headers in (
        {"Authorization": "Bearer cmk_x"},
        {"X_Api_Key": "x"},
        {"Signature": "x"},
        {"Signature_Input": "x"},
    ):
        answer = visitor.get("/waiting", **headers)
        assert answer.status == 403, headers
        assert answer.json["code"] == "people_only"


def test_a_session_opens_no_route_of_agents(stage: Stage) -> None:
    """The cookie is nothing on /v1: agents' and people's routes there ask for their own credentials."""
    visitor = stage.visitor("controller")
    for method, path in (("GET", "/v1/actions/act_" + "0" * 32), ("POST", "/v1/actions"), ("GET", "/v1/escalations"),
                         ("POST", "/v1/kills")):  # fmt: skip
        body = b"{}" if method == "POST" else None
        answer = visitor.ask(method, path, body, Content_Type="application/json", Origin=stage.console)
        assert answer.status == 401, path


def test_a_name_that_was_made_to_lead_here_shows_nothing(stage: Stage) -> None:
    """Only the console's own name and the loopback's answer: DNS rebinding finds no page."""
    port = stage.address[1]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "localhost"):
        assert Visitor(stage, host).get("/login").status == 200, host
    for host in ("evil.example", f"evil.example:{port}", f"localhost.{OTHER_NAME}", f"{OTHER_NAME}:{port}", OTHER_NAME):
        assert Visitor(stage, host).get("/login").status == 421, host
    assert Visitor(stage, OTHER_NAME).get("/healthz").status == 200


def test_the_front_is_found_by_another_loopback_name_but_passkeys_are_not(stage: Stage) -> None:
    """Under 127.0.0.1 the page says where passkeys work."""
    page = text_of(Visitor(stage, f"127.0.0.1:{stage.address[1]}").get("/login?person=controller"))
    assert f'Passkeys work only at <a href="{stage.console}/login">' in page
    assert "data-passkey" not in page


def test_a_form_says_what_it_may_and_no_more(stage: Stage) -> None:
    """Too long, too many, twice or not a form at all: refused before a handler sees it."""
    visitor = stage.visitor("controller")
    token = visitor.token()
    sent = {"Content_Type": FORM, "Origin": stage.console, "Sec_Fetch_Site": "same-origin"}
    assert visitor.ask("POST", "/logout", b"token=" + b"a" * 20_000, **sent).status == 413
    for body in (f"token={token}&token={token}", "&".join(f"a{n}=1" for n in range(99)), "%ff=1", "token"):
        assert visitor.ask("POST", "/logout", body.encode(), **sent).status in (400, 403), body
    assert visitor.get("/waiting").status == 200


def test_sessions_are_bounded() -> None:
    """One person's oldest session gives way first, then the oldest of all; a store never grows beyond its bound."""
    clock = FakeClock()
    sessions = Sessions(clock)
    cookies = [sessions.open("a", "k") for _ in range(SESSIONS_PER_PERSON_MAX + 3)]
    assert len(sessions) == SESSIONS_PER_PERSON_MAX
    assert len(set(cookies)) == len(cookies)
    for number in range(SESSIONS_MAX + 5):
        sessions.open(f"p{number}", "k")
    assert len(sessions) == SESSIONS_MAX
    clock.advance(LIFE_S_MAX)
    sessions.open("late", "k")
    assert len(sessions) == 1


def test_a_nonce_proves_itself() -> None:
    """A nonce of another process, another door, an altered or a used one is none."""
    from countermark.model.errors import AuthorityError

    clock = FakeClock()
    mine, other = Sessions(clock), Sessions(clock)
    door = mine.door()
    nonce, until = mine.nonce(door)
    assert mine.until(nonce, door) == until == until_of(nonce)
    for sessions, value, cookie in (
        (other, nonce, door), (mine, nonce, mine.door()), (mine, nonce[:-2] + "00", door), (mine, "", door),
        (mine, "zz" * 40, door), (mine, nonce[:32] + "f" * 16 + nonce[48:], door),
    ):  # fmt: skip
        with pytest.raises(AuthorityError):
            sessions.until(value, cookie)
    mine.use(nonce, "p", until)
    with pytest.raises(AuthorityError):
        mine.until(nonce, door)
