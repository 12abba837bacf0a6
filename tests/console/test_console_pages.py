"""What every page has in common: headers, assets, roles, and what the vendored script is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import Stage
from visitor import text_of

from countermark.server.console import PAGES
from countermark.server.console.assets import HTMX, KINDS
from countermark.server.console.console import FILES_AT_ONCE_MAX, FORM_BYTES_MAX, FORM_FIELDS_MAX
from countermark.server.console.roles import PERMITS, SAID, permitted
from countermark.server.console.sessions import (
    IDLE_S_MAX,
    LIFE_S_MAX,
    SESSIONS_MAX,
    SESSIONS_PER_PERSON_MAX,
)
from countermark.server.console.waiting import LISTED_MAX
from countermark.server.console.words import ago, hostile, left, local, named
from countermark.server.offers import OFFERS_MAX
from countermark.server.once import ALL_MAX, EACH_MAX

HOME = Path(__file__).resolve().parent.parent.parent / "src" / "countermark" / "server" / "console"
US = 1_000_000
POLICY = {
    "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'",
    "connect-src": "'self'", "form-action": "'self'", "frame-ancestors": "'none'", "base-uri": "'none'",
}  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(Path(tmp_path_factory.mktemp("console")) / "d") as found:
        yield found


def test_every_answer_is_guarded(stage: Stage) -> None:
    """Pages, redirects, refusals, fragments and files all carry the policy; what is of a person is never stored."""
    name = stage.ask_people(1)
    visitor = stage.visitor("controller")
    seen = [
        visitor.get(path) for path in ("/", "/waiting", f"/waiting/{name}", "/login", "/waiting/esc_x", "/waiting?x=1")
    ]
    seen += [visitor.poll("/waiting/rows"), stage.visitor().poll("/waiting/rows"), stage.visitor().get("/waiting")]
    seen.append(visitor.post("/logout", {"token": "x"}))
    css = re.findall(r'href="(/assets/console[^"]+)"', text_of(visitor.get("/waiting")))[0]
    for answer in (*seen, visitor.get(css)):
        found = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert found == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-frame-options"] == "DENY"
    assert {answer.headers["cache-control"] for answer in seen} == {"no-store"}


def test_templates_have_no_script_and_no_style_of_their_own() -> None:
    """No template holds an inline script, style or handler: the policy would refuse it, and nobody shall be tempted."""
    for path in (HOME / "templates").glob("*.html"):
        text = path.read_text("utf-8")
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|hx-on|hx-vals='js|\|safe\b|autoescape", text), (
            path
        )
        assert all('src="{{ asset(' in tag for tag in re.findall(r"<script[^>]*>", text)), path


def test_files_are_named_by_what_they_hold(stage: Stage) -> None:
    """A file is cached for good under the name with its digest; asked for again it is not sent; other names are 404."""
    visitor = stage.visitor()
    page = text_of(visitor.get("/login"))
    urls = set(re.findall(r'"(/assets/[^"]+)"', page))
    assert len(urls) == len(KINDS) - 1
    urls |= set(re.findall(r'"(/assets/upload[^"]+)"', text_of(stage.visitor("auditor").get("/evidence"))))
    assert len(urls) == len(KINDS)
    for url in urls:
        answer = visitor.get(url)
        assert answer.status == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert hashlib.sha256(answer.body).hexdigest()[:16] in url
        again = visitor.get(url, If_None_Match=answer.headers["etag"])
        assert (again.status, again.body) == (304, b"")
    for name in ("console.css", "console.0000000000000000.css", "..%2fconsole.py", "README.md", "htmx-LICENSE.txt"):
        assert visitor.get(f"/assets/{name}").status == 404


def test_htmx_is_the_published_one() -> None:
    """The vendored file has the digest that its README names, and its licence lies beside it."""
    folder = HOME / "static"
    said = re.search(rf"`{re.escape(HTMX)}`.*`([0-9a-f]{{64}})`", (folder / "README.md").read_text("utf-8"))
    assert said is not None
    assert hashlib.sha256((folder / HTMX).read_bytes()).hexdigest() == said[1]
    assert "Zero-Clause BSD" in (folder / "htmx-LICENSE.txt").read_text("utf-8")


def test_our_script_knows_passkeys_and_nothing_else() -> None:
    """It makes no request, writes no markup and evaluates nothing."""
    text = (HOME / "static" / "console.js").read_text("utf-8")
    for word in ("fetch", "XMLHttpRequest", "innerHTML", "outerHTML", "eval", "Function(", "document.cookie", "Storage",
                 "insertAdjacent", "document.write", "location"):  # fmt: skip
        assert word not in text, word


def test_roles_permit_what_the_table_says() -> None:
    """Looking and stopping is everybody's; each role adds its own; who a ladder names is an approver."""
    everybody = {"look", "stop"}
    assert permitted((), ()) == everybody
    assert permitted(("visitor",), ("approver",)) == everybody
    assert permitted(("cfo",), ("cfo",)) == permitted(("approver",), ()) == everybody | {"words", "answer"}
    assert permitted(("auditor",), ()) == everybody | {"words", "prove"}
    assert permitted(("operator",), ()) == everybody | {"words", "operate", "prove"}
    assert permitted(("principal",), ()) == everybody | {"words", "grant"}
    assert PERMITS.keys() == SAID.keys()


def test_the_documents_say_what_the_code_does() -> None:
    """The table of roles and the bounds in docs/console.md are those of the source."""
    text = (HOME.parent.parent.parent.parent / "docs" / "console.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z]+)` \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    said = {
        name: "whoever has a session" if "viewer" in who else ", ".join(sorted(who)) for name, who in PERMITS.items()
    }
    assert {name: who for name, who, _ in rows} == said
    assert {name: what for name, _, what in rows} == SAID
    for number in (
        f"after {IDLE_S_MAX // 60} minutes", f"after {LIFE_S_MAX // 3_600} hours",
        f"at most {SESSIONS_PER_PERSON_MAX},", f"{SESSIONS_MAX:,}", f"the {LISTED_MAX} newest",
        f"{FORM_BYTES_MAX // 1_024} KiB and {FORM_FIELDS_MAX} fields", f"{OFFERS_MAX} passkeys",
        f"{ALL_MAX:,} sign-ins in five minutes, {EACH_MAX} of one person", f"{FILES_AT_ONCE_MAX} files at once",
    ):  # fmt: skip
        assert number in text.replace("\n", " "), number


def test_every_page_that_shows_something_needs_somebody(stage: Stage) -> None:
    """Without a session only signing in and enrolling can be reached; every form is refused."""
    visitor = stage.visitor()
    for page in PAGES:
        path = page.path.replace("{escalation}", "esc_" + "0" * 32).replace("{id}", "act_" + "0" * 32)
        answer = visitor.get(path) if page.method == "GET" else visitor.post(path, {})
        if page.needs is None:
            assert path.startswith(("/login", "/enrol")), path
        elif page.method == "GET":
            assert (answer.status, answer.headers.get("location", "")[:6]) == (303, "/login"), path
        else:
            assert answer.status == 403, path


def test_a_person_whose_key_is_gone_has_no_session(tmp_path: Path) -> None:
    """When the key that opened a session is removed, the session is over at the next request."""
    from countermark.authority import sign_removal

    with Stage(tmp_path / "d") as stage:
        visitor, other = stage.visitor("controller"), stage.visitor("chief")
        people = stage.handle.call("people", {})
        key = next(one["keys"][0]["key"] for one in people if one["person"] == "controller")
        order = {"v": 1, "deployment": "test", "person": "controller", "key": key, "by": "controller", "reason": "lost"}
        stage.handle.call("key.remove", sign_removal(order, stage.private("controller")))
        assert visitor.get("/waiting").status == 303
        assert other.get("/waiting").status == 200


def test_times_are_of_the_zone_with_its_offset() -> None:
    """Winter and summer of a zone, and a zone of half hours."""
    assert local(1_795_000_000 * US, "Europe/Berlin") == "18 Nov 2026, 12:06:40 (UTC+01:00)"
    assert local(1_783_000_000 * US, "Europe/Berlin") == "2 Jul 2026, 15:46:40 (UTC+02:00)"
    assert local(1_795_000_000 * US, "Asia/Kolkata") == "18 Nov 2026, 16:36:40 (UTC+05:30)"
    assert local(1_795_000_000 * US, "America/St_Johns") == "18 Nov 2026, 07:36:40 (UTC-03:30)"


def test_spans_are_said_in_two_units() -> None:
    """What is left, and how long ago."""
    assert left(90 * 60 * US, 0) == "1 hour 30 minutes"
    assert left(2 * 86_400 * US, 0) == "2 days"
    assert left(61 * US, 0) == "1 minute 1 second"
    assert left(0, 0) == left(0, 5 * US) == "over"
    assert ago(0, 86_400 * US) == "1 day ago"
    assert ago(5, 5) == "just now"


def test_hostile_text_is_text() -> None:
    """Markup is escaped, what cannot be seen is spelled out, length is bounded."""
    assert str(hostile('<b onclick="x">')) == '<bdi class="hostile" dir="ltr">&lt;b onclick=&#34;x&#34;&gt;</bdi>'
    assert "\\u202e" in hostile("\u202eabc")
    assert "\\u0000" in hostile("a\0b")
    assert "and 400 more characters" in hostile("x" * 1_000)
    assert "\u202e" not in named("a\u202eb")
    assert len(named("x" * 9_999)) < 200
