"""One error shape: every route, every way to go wrong, whoever asks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from face import Face, answers_in, is_problem
from starlette.routing import Route

from countermark.server.console import PAGES

FILL = {"id": "act_" + "0" * 32, "run": "run_" + "0" * 32, "escalation": "esc_" + "0" * 32, "kill": "kill_" + "0" * 16,
        "offer": "0000-0000", "mandate": "sha256:" + "0" * 64, "path": "0/000", "source": "nobody"}  # fmt: skip
PAGES_OF_PEOPLE = {page.path for page in PAGES}  # these are for eyes: tests/console
OWN_SHAPE = ("/stripe/", "/webhooks/", "/mcp", "/assets/")  # these answer in the shape of the protocol that they speak


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face]:
    with Face(tmp_path_factory.mktemp("errors") / "d") as served:
        yield served


def routes(face: Face) -> list[tuple[str, str]]:
    """Method and path of every route that the app has, filled with IDs of the right form."""
    found = []
    for route in face.listener.front.routes:
        if isinstance(route, Route) and not route.path.startswith(OWN_SHAPE) and route.path not in PAGES_OF_PEOPLE:
            path = re.sub(r"\{([a-z]+)(?::path)?\}", lambda match: FILL[match[1]], route.path)
            found += [(method, path) for method in route.methods or () if method != "HEAD"]
    return found


def test_the_walk_sees_the_routes_of_the_design(face: Face) -> None:
    """The app's own list of routes is what the walks below go through, and it is not empty of what matters."""
    found = routes(face)
    assert {("POST", "/v1/actions"), ("POST", "/v1/runs"), ("GET", "/v1/escalations"), ("GET", "/healthz")} <= set(
        found
    )
    assert len(found) >= 20


def test_strangers_get_the_one_shape_on_every_route(face: Face) -> None:
    """Without a credential every route answers with its document or with a problem, and never with a fault."""
    for method, path in routes(face):
        answer = face.ask(method, path, {} if method == "POST" else None, token="")
        assert answer.status < 500, (method, path)
        assert answer.status < 400 or is_problem(answer), (method, path, answer)


def test_wrong_methods_get_the_one_shape_on_every_route(face: Face) -> None:
    """405 with Allow, in the one shape, for every method that a route does not have."""
    for method, path in routes(face):
        for other in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - {method}:
            answer = face.ask(other, path, {} if other in ("POST", "PUT", "PATCH") else None)
            assert answer.status == 405, (other, path)
            assert is_problem(answer), (other, path)
            assert method in answer.headers["allow"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b"null", 400), (b'"x"', 400), (b"\xff\xfe", 400),
        (b'{"a":1,"a":2}', 400),
        (b'{"a":NaN}', 400), (b'{"a":1.0}', 400), (b'{"a":1e3}', 400), (b'{"a":99999999999999999999}', 400),
        (b'{"a":"\\ud800"}', 400), (b"[" * 500 + b"]" * 500, 400), (b'{"zzz":1}', 400), (b" " * 65_537, 413),
    ],
)  # fmt: skip
def test_bodies_that_are_no_request(face: Face, body: bytes, status: int) -> None:
    """What is not strict JSON of the route's form is a problem of the caller's, on every route that takes a body."""
    for method, path in routes(face):
        if method == "POST":
            answer = face.ask(method, path, body)
            assert is_problem(answer), (path, body[:40], answer)
            unknown = path.startswith("/hooks/") and answer.status == 404  # no such source, whatever it would say
            assert unknown or answer.status in (status, 401, 403), (path, body[:40], answer)


def test_other_content_types(face: Face) -> None:
    """A body that does not say that it is JSON is refused: a browser's form could be one."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""):
        answer = face.ask("POST", "/v1/actions", b"{}", {"content-type": kind})
        assert (answer.status, answer.code) == (415, "bad_media_type"), kind
        assert is_problem(answer)
    answer = face.ask("POST", "/v1/actions", b"{}", {"content-encoding": "gzip"})
    assert (answer.status, answer.code) == (415, "bad_media_type")


def test_unknown_addresses(face: Face) -> None:
    """Whatever is not there is a problem too, also where paths climb or are written strangely."""
    for path in ("/nope", "/v1", "/v1/actions/", "/v1/actions/../runs", "/v1/actions/%2e%2e", "/v1/actions/act_x", "//",
                 "/log/tile/entries/000", "/log/tile/0/00", "/log/tile/0/x001/000.p/0", "/log/tile/9/000", "/%00",
                 "/log/../openapi.json", "/log/tile/0/000.p/256", "/V1/RUNS"):  # fmt: skip
        answer = face.ask("GET", path)
        assert answer.status in (404, 405), path
        assert is_problem(answer), path


def test_queries_are_judged(face: Face) -> None:
    """An unknown or doubled query field, or a bad value, is refused rather than ignored."""
    for query in ("?wait=never", "?wait=outcome&wait=decision", "?now=1", "?wait", "?%ff=1", "?" + "a=1&" * 20):
        answer = face.pay("q", query)
        assert answer.status == 400, query
        assert is_problem(answer), query
    assert face.ask("GET", "/v1/actions/" + FILL["id"] + "?x=1").status == 400
    assert face.ask("GET", "/healthz?x=1").status == 400


def test_a_fault_of_ours_is_a_problem_without_a_traceback(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw answers 500 in the one shape, tells nothing, and the next request is served."""

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(type(face.handle.gate), "call", broken)
    answer = face.pay("fault")
    assert (answer.status, answer.code) == (500, "internal_error")
    assert is_problem(answer)
    assert b"secret" not in answer.body
    monkeypatch.undo()
    assert face.pay("after-fault").status == 200


def test_what_is_no_http_gets_the_one_shape(face: Face) -> None:
    """Bytes that cannot be a request are answered in the same shape before the connection ends."""
    whole = b"Host: localhost\r\n\r\n"
    upgrade = b"GET /nope HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    for raw in (b"garbage\r\n\r\n", b"GET / HTTP/9.9\r\n" + whole, b"GET / HTTP/1.1\r\n\r\n",
                b"GET  HTTP/1.1\r\n" + whole, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + whole,
                b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"GET http://localhost/ HTTP/1.1\r\n" + whole,
                b"OPTIONS * HTTP/1.1\r\n" + whole, b"\x16\x03\x01\x00", b"CONNECT localhost:80 HTTP/1.1\r\n" + whole,
                upgrade + whole, b"GET /%C3%BC\xfc HTTP/1.1\r\n" + whole, b"GET / HTTP/1.1\r\n X: folded\r\n" + whole,
                b"GET / HTTP/1.1\r\nA : b\r\n" + whole, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):  # fmt: skip
        found = face.raw(raw)
        assert len(found) == 1, raw
        assert 400 <= found[0].status < 500, raw
        assert is_problem(found[0]), raw
    assert answers_in(b"") == []
