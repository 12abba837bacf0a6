"""Attacks on the pages: cookies and hosts of others, roles on every page, what jobs are given, hostile texts."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from stage import Stage
from visitor import Visitor, pay, text_of

from countermark.model.clock import FakeClock
from countermark.model.errors import GateBusyError
from countermark.server.console import PAGES, jobs
from countermark.server.console.agents import STOPS_MAX
from countermark.server.console.books import NOTED_MAX, Books
from countermark.server.console.console import FILES_AT_ONCE_MAX
from countermark.server.console.doors import cookies_of
from countermark.server.console.jobs import VERIFIER, Bounds, Job, Jobs
from countermark.server.console.roles import PERMITS
from countermark.server.console.words import shown
from countermark.server.once import EACH_MAX, Once

PEOPLE = {"treasurer": {"principal", "operator"}, "controller": {"approver"}, "chief": {"approver"},
          "auditor": {"auditor"}, "visitor": set()}  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
TOOL = "stripe.transfers.create"
WORDS_OF_A_DRAFT = "the agent asked for it in these words"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(Path(tmp_path_factory.mktemp("console")) / "d") as found:
        yield found


def pages() -> dict[str, dict[str, str | None]]:
    """What each path takes: method -> what a role must permit."""
    found: dict[str, dict[str, str | None]] = {}
    for page in PAGES:
        found.setdefault(page.path, {})[page.method] = page.needs
    return found


def address(path: str, escalation: str, action: str) -> str:
    return path.replace("{escalation}", escalation).replace("{id}", action).replace("{name}", "x.zip")


@pytest.mark.parametrize("person", ["", *PEOPLE])
def test_every_page_by_every_method_asks_the_table_of_roles(stage: Stage, person: str) -> None:
    """All pages x methods x people: what a page does not take is 405; without a session nothing is shown; what the
    table does not permit is 403, whatever else the request holds."""
    action = pay(stage.handle, f"m-{person}", 48_000).action
    escalation = stage.ask_people(f"e-{person}")
    visitor = stage.visitor(person)
    token = visitor.token("/waiting" if person else "/enrol")
    own = {"viewer", *PEOPLE[person]} if person else set()
    for (path, takes), method in itertools.product(pages().items(), METHODS):
        if path == "/logout":
            continue
        target = address(path, escalation, action)
        asked = "GET" if method == "HEAD" else method
        if method == "POST":  # a right token and no field of the form: nothing is done by it
            answer = visitor.post(target, {"token": token, "none-of-its-fields": "1"})
        else:
            answer = visitor.ask(method, target, None, Sec_Fetch_Site="same-origin")
        said = (person, method, path, answer.status)
        assert answer.headers["x-content-type-options"] == "nosniff", said
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], said
        if asked not in takes:
            assert answer.status == 405, said
            continue
        needs = takes[asked]
        if needs is None:
            assert answer.status in (200, 303, 400), said
        elif not person:
            assert (answer.status == 303 and not answer.body) or answer.status == 403, said
        elif not PERMITS[needs] & own:
            assert answer.status in (400, 403), said
            assert method == "POST" or answer.status == 403, said
        else:
            assert answer.status != 403 or path == "/evidence/check", said
    assert stage.handle.call("status", {})["kills"] == []


def test_a_role_that_may_not_is_refused_with_a_right_form(stage: Stage) -> None:
    """A form with all its fields and its token, sent by somebody whose role the table does not name: 403."""
    action = pay(stage.handle, "right", 48_000).action
    for person, roles in PEOPLE.items():
        visitor = stage.visitor(person)
        token = visitor.token()
        for page in PAGES:
            if page.method != "POST" or page.needs is None or PERMITS[page.needs] & {"viewer", *roles}:
                continue
            fields = dict.fromkeys(page.form, "1")
            answer = visitor.post(address(page.path, "esc_" + "0" * 32, action), {**fields, "token": token})
            assert answer.status == 403, (person, page.path)
            assert "your roles here do not let you" in text_of(answer)


OTHERS = (
    'theme={"dark": true}', "list[0]=1", "a,b=c", 'open="never closed', "expires", "é=1", "$Version=9", "=",
    "x" * 8_000, "countermarks=1", "path=/", "__Host-countermark=" + "B" * 43,
)  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
def test_a_cookie_of_another_server_does_not_sign_anybody_out(stage: Stage, other: str) -> None:
    """Whatever a neighbour under the same name has set, in front of ours or behind it: who is signed in stays so.

    Otherwise any site beside the console could keep approvers from answering until the deadline refuses for them.
    """
    visitor = stage.visitor("controller")
    own = f"countermark={visitor.cookies['countermark']}"
    for sent in (f"{other}; {own}", f"{own}; {other}"):
        answer = visitor.get("/waiting", Cookie=sent.encode("utf-8").decode("latin-1"))
        assert answer.status == 200, sent


@pytest.mark.parametrize("space", [b"\xa0", b"\x85", b"\x0b", b"\x1c", "\u2000".encode()])
def test_a_cookie_that_only_looks_bound_to_the_host_is_none(space: bytes) -> None:
    """A name with an odd space in front escapes a browser's rules for ``__Host-``; here it is another name."""
    raw = b"a=1;" + space + b"__Host-countermark=" + b"A" * 43
    assert cookies_of([(b"cookie", raw)], secure=True) == ("", "")
    assert cookies_of([(b"cookie", b"a=1; __Host-countermark=" + b"A" * 43)], secure=True) == ("A" * 43, "")


@pytest.mark.parametrize("host", [b"localhost:" + b"1" * 5_000, b"localhost:" + b"9" * 6, b"127.0.0.1:" + b"0" * 4_400])
def test_a_port_that_is_none_is_refused(stage: Stage, host: bytes) -> None:
    """A Host header with digits without end is a wrong name, not a fault of the server."""
    (answer,) = stage.raw(b"GET /login HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    assert (answer.status, answer.code) == (421, "wrong_host")


def test_a_link_does_not_speak_in_our_name(stage: Stage) -> None:
    """What the page of stops says was done is one of its own sentences, whatever stands in the address."""
    visitor = stage.visitor("controller")
    page = text_of(visitor.get("/agents?done=stopped-call+0900-1234+now"))
    assert "0900" not in page
    assert 'role="status"' not in page
    assert "Stopped." in text_of(visitor.get("/agents?done=stopped-2"))


def test_who_may_not_compare_sees_no_comparison(stage: Stage) -> None:
    """What a draft would change was found with sealed values at hand: it is shown to those who may compare."""
    console = stage.listener.front._console
    assert console is not None
    out = json.dumps({"error": {"message": WORDS_OF_A_DRAFT, "hint": ""}}).encode()
    for name in ("policy-draft", "policy-tests"):
        console.jobs._jobs[name] = Job(name, "controller", 1, ended=2, code=0, out=out)
    try:
        for path in ("/policy", "/policy/draft"):
            for person, roles in PEOPLE.items():
                sees = WORDS_OF_A_DRAFT in text_of(stage.visitor(person).get(path))
                assert sees == bool(roles & PERMITS["words"]), (path, person)
    finally:
        console.jobs._jobs.clear()


def test_a_rule_is_read_in_the_order_in_which_it_is_written() -> None:
    """A rule's text cannot turn itself around on the page, nor hide a part: a reviewer reads what Cedar reads."""
    rule = "forbid (principal, action, resource)\n\twhen { true /* \u202e} \u2066if admin\u2069 \u200b*/ };"
    assert shown(rule) == (
        "forbid (principal, action, resource)\n    when { true /* \\u202e} \\u2066if admin\\u2069 \\u200b*/ };"
    )


# Jobs --------------------------------------------------------------------------------------------------


def ended(made: Jobs, job: Job) -> Job:
    for _ in range(600):
        if not job.running:
            made.close()
            return job
        time.sleep(0.05)
    raise AssertionError(job)


def test_a_job_loads_no_module_from_where_the_server_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write to the directory in which an operator starts the server runs nothing in the gate's name."""
    for name in ("resource", "runpy", "countermark_verify"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'taken')!r}, 'w')\nraise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    made = Jobs(FakeClock())
    job = ended(made, made.start("x", "p", VERIFIER, ["--help"], Bounds(30, 30)))
    assert not (tmp_path / "taken").exists()
    assert (job.code, b"PACK" in job.out) == (0, True), job.err


def test_a_job_is_not_given_the_servers_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A provider's key stands in the server's environment; what compares drafts and makes packs does not get it."""
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_live_secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "tells.py").write_text("import os\nprint(dict(os.environ))\n")
    made = Jobs(FakeClock())
    job = ended(made, made.start("x", "p", "tells", [], Bounds(30, 30)))
    assert b"PATH" in job.out, job.err
    assert b"sk_live_secret" not in job.out
    assert set(jobs.plain_environment()) <= {"HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "TMPDIR", "TZ"}
    assert "STRIPE_SECRET_KEY" in os.environ


def test_files_are_not_held_in_memory_without_end(stage: Stage) -> None:
    """So many files are taken at once; the next is refused before its body is read, and there is room again after."""
    visitor = stage.visitor("visitor")
    token = visitor.token("/evidence")
    cookie = visitor.cookies["countermark"]
    head = (
        f"POST /evidence/check HTTP/1.1\r\nHost: {visitor.host}\r\nCookie: countermark={cookie}\r\n"
        f"Origin: {visitor.origin}\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/octet-stream\r\n"
        f"X-Countermark-Token: {token}\r\nContent-Length: 1000000\r\n\r\n"
    ).encode()
    console = stage.listener.front._console
    assert console is not None
    begun = [stage.connect() for _ in range(FILES_AT_ONCE_MAX)]
    try:
        for connection in begun:
            connection.sendall(head + b"\0" * 1_000)
        for _ in range(400):
            if console._files == FILES_AT_ONCE_MAX:
                break
            threading.Event().wait(0.01)
        assert check(visitor, token) == 503
    finally:
        for connection in begun:
            connection.close()
    for _ in range(400):
        if console._files == 0:
            break
        threading.Event().wait(0.01)
    assert check(visitor, token) == 200


def test_nobody_keeps_others_out_by_signing_again_and_again() -> None:
    """One person fills a part of what is remembered as used; all others still sign in, and nothing counts twice."""
    once, until = Once(), 60_000_000
    for number in range(EACH_MAX):
        once.add(f"n{number}", "mallory", until, 0)
    with pytest.raises(GateBusyError):
        once.add("more", "mallory", until, 0)
    once.add("mine", "controller", until, 0)
    assert "mine" in once
    assert "n0" in once
    once.add("later", "mallory", 2 * until, until)
    assert "n0" not in once


def test_very_many_stops_make_no_long_page(stage: Stage) -> None:
    """Whoever has a session may stop, and may do so again and again: the page draws the newest and counts the rest."""
    visitor = stage.visitor("visitor")
    for number in range(STOPS_MAX + 3):
        stage.handle.call("kill.set", {"kind": "tool", "value": TOOL, "reason": f"n{number}."})
    page = text_of(visitor.get("/agents"))
    assert page.count("stopped-card") == STOPS_MAX
    assert "and 3 older" in page
    assert f"n{STOPS_MAX + 2}." in page


def check(visitor: Visitor, token: str) -> int:
    return visitor.ask(
        "POST", "/evidence/check", b"\0\0\0\0junk", Origin=visitor.origin, Sec_Fetch_Site="same-origin",
        Content_Type="application/octet-stream", X_Countermark_Token=token,
    ).status  # fmt: skip


def test_a_session_remembers_so_many_readings() -> None:
    """Whoever walks through all payments in one session fills no memory; what is forgotten is noted again."""
    noted: list[str] = []

    async def call(op: str, body: dict[str, object]) -> None:
        noted.append(op)

    session = SimpleNamespace(person="p", noted=set())
    books = Books(SimpleNamespace(call=call))  # type: ignore[arg-type]
    visit = SimpleNamespace(session=session, now=0)

    async def read_all() -> None:
        for number in range(NOTED_MAX + 2):
            await books.note(visit, f"one:{number}", "explain", 0, 1)  # type: ignore[arg-type]

    asyncio.run(read_all())
    assert len(session.noted) == 2
    assert noted == ["log.read"] * (NOTED_MAX + 2)
