"""Whatever a browser sends: a page, a refusal, never a fault; and nothing is signed, sent or stopped by it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import Stage
from visitor import FORM

from countermark.server.console import PAGES

SEED = 20_261_129
ROUNDS = 12
PIECES = (
    "", "0", "-1", "1" * 400, "\x00", "\u202e", "<script>", "' or 1=1", "../../etc/passwd", "{}", "[[[[", "null",
    "é" * 40, "esc_" + "0" * 32, "act_" + "f" * 32, "A" * 43, "%", "%zz", "&=&", "approve", "refuse",
    "finance", "controller", "\ud7ff\ue000", "a\r\nSet-Cookie: x=y", '{"a":1.5}',
    '{"authenticator_data":"AA","client_data":"AA","signature":"AA"}',
)  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(Path(tmp_path_factory.mktemp("console")) / "d") as found:
        yield found


def filled(path: str, rng: random.Random, known: str) -> str:
    """A page's address with its parameters filled: what is there, or what cannot be."""
    from urllib.parse import quote

    parts = []
    for part in path.split("/"):
        parts.append(rng.choice([known, quote(rng.choice(PIECES), safe="") or "x"]) if part.startswith("{") else part)
    return "/".join(parts)


def test_random_forms_and_queries_are_refused_without_a_fault(stage: Stage) -> None:
    """Every page and every form, with and without a session and a right token: no 5xx, no redirect to another site."""
    rng = random.Random(SEED)
    name = stage.ask_people(1)
    before = len(stage.provider.sent)
    visitors = (stage.visitor("controller"), stage.visitor())
    visitors[1].get("/enrol")
    for page in PAGES:
        if page.path == "/logout" or page.path.endswith("/freeze"):
            continue  # those do what they say
        for _ in range(ROUNDS):
            visitor = rng.choice(visitors)
            token = visitor.token("/enrol")
            fields = {one: rng.choice(PIECES) for one in (page.query or page.form) if rng.random() < 0.8}
            path = filled(page.path, rng, name)
            if page.method == "POST":
                answer = visitor.post(path, {**fields, "token": rng.choice([token, token, "x"])})
            else:
                from urllib.parse import urlencode

                answer = visitor.get(path + ("?" + urlencode(fields) if fields else ""))
            busy = answer.status == 503 and b"under way" in answer.body  # a job was begun by the round before
            assert answer.status < 500 or busy, (SEED, page.path, fields, answer)
            assert answer.headers.get("location", "/").startswith("/"), (SEED, page.path, fields)
            assert not answer.headers.get("location", "/").startswith("//")
            assert "set-cookie: x" not in str(answer.headers).lower()
    assert [one["escalation"] for one in stage.waiting()] == [name]
    assert len(stage.provider.sent) == before


@pytest.mark.parametrize(
    "cookie",
    [
        "countermark=" + "A" * 43, "countermark=A; countermark=B", "countermark", "=", ";;;",
        "countermark=" + "A" * 9_000,
        'countermark="\\"; Path=/"', "countermark-door=é", "$Version=1; countermark=x", "countermark=%00", "a" * 4_000,
    ],
)  # fmt: skip
def test_a_cookie_that_is_none_of_ours_is_none(stage: Stage, cookie: str) -> None:
    """Unknown, doubled, malformed and long cookies sign nobody in and break nothing."""
    visitor = stage.visitor()
    for path, status in (("/waiting", 303), ("/login", 200)):
        assert visitor.get(path, Cookie=cookie.encode("utf-8").decode("latin-1")).status == status, cookie


def test_a_form_that_is_no_form_is_refused(stage: Stage) -> None:
    """Bytes that are no form: 400, 403 or 413, on every route that takes one."""
    visitor = stage.visitor("controller")
    sent = {"Content_Type": FORM, "Origin": stage.console, "Sec_Fetch_Site": "same-origin"}
    for page in PAGES:
        if page.method == "POST":
            path = page.path.replace("{escalation}", "esc_" + "0" * 32).replace("{id}", "act_" + "0" * 32)
            for body in (b"", b"\xff\xfe", b"a", b"=", b"&" * 50, b"token=%F0%28", b"{}", b"a=1;b=2"):
                assert visitor.ask("POST", path, body, **sent).status in (400, 403), (path, body)
