"""Everything that a client could make large, slow or ambiguous has a bound, and the bound answers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from face import TOKEN, Face, answers_in, is_problem, received
from rig import TOOL, Provider, args_for

LIMITS = {"read_ms_max": 300, "idle_ms_max": 400, "header_bytes_max": 4_096, "headers_max": 20, "target_bytes_max": 500}
HEAD = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n".encode()


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face]:
    with Face(tmp_path_factory.mktemp("bounds") / "d", limits=LIMITS) as served:
        yield served


def action(number: object) -> bytes:
    return json.dumps({"call_id": f"b-{number}", "tool": TOOL, "args": args_for(number)}).encode()


def posted(body: bytes, *more: bytes) -> bytes:
    lines = b"".join(line + b"\r\n" for line in more)
    return b"POST /v1/actions HTTP/1.1\r\n" + HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


def only(face: Face, raw: bytes, status: int, code: str) -> None:
    """The bytes get exactly one answer, this problem, and the connection ends."""
    (answer,) = face.raw(raw)
    assert (answer.status, answer.code) == (status, code)
    assert is_problem(answer)
    assert answer.headers["connection"] == "close"


def test_long_targets_and_heads(face: Face) -> None:
    """414 for an address, 431 for headers by count, by their length, and without an end."""
    only(face, b"GET /" + b"a" * 600 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 414, "target_too_long")
    many = b"".join(b"X-%d: y\r\n" % n for n in range(30))
    only(face, b"GET / HTTP/1.1\r\n" + HEAD + many + b"\r\n", 431, "headers_too_large")
    only(face, b"GET / HTTP/1.1\r\n" + HEAD + b"X: " + b"y" * 5_000 + b"\r\n\r\n", 431, "headers_too_large")
    with face.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + HEAD + b"X: ")
        for _ in range(200):
            connection.sendall(b"y" * 4_096)
        (answer,) = answers_in(received(connection))
    assert (answer.status, answer.code) == (431, "headers_too_large")


def test_long_bodies(face: Face) -> None:
    """413 at once for a length that is too large, and for chunks as soon as they are too many."""
    only(face, b"POST /v1/actions HTTP/1.1\r\n" + HEAD + b"Content-Length: 9999999\r\n\r\n", 413, "body_too_large")
    chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    only(face, b"POST /v1/actions HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 9, 413,
         "body_too_large")  # fmt: skip


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 2", b"Transfer-Encoding: chunked"), (b"Content-Length: 2", b"Content-Length: 2"),
        (b"Content-Length: 2", b"Content-Length: 3"), (b"Content-Length: 2, 2",), (b"Content-Length: -1",),
        (b"Content-Length: +2",), (b"Content-Length: 0x2",), (b"Content-Length: 18446744073709551618",),
        (b"Transfer-Encoding: gzip, chunked",), (b"Transfer-Encoding: identity",), (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), (b"Transfer-Encoding : chunked",),
        (b"Transfer-Encoding: chunked, identity",), (b"Content-Length: 2 ", b"Transfer-Encoding:\tchunked"),
    ],
)  # fmt: skip
def test_smuggling(face: Face, lines: tuple[bytes, ...]) -> None:
    """A body whose length two readers could see differently is refused, and what follows it is never a request."""
    hidden = posted(action("smuggled"))
    head = b"POST /v1/actions HTTP/1.1\r\n" + HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    found = face.raw(head + b"0\r\n\r\n" + hidden)
    assert [answer.status for answer in found] == [400], found
    assert is_problem(found[0])


def test_bytes_after_close_are_no_request(face: Face) -> None:
    """After a request that ends the connection nothing more is read from it."""
    found = face.raw(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n" + posted(action("late")))
    assert [answer.status for answer in found] == [200]


def test_slow_requests(face: Face) -> None:
    """A head or a body that does not arrive in time is answered 408; the deadline is not for the bytes but for all."""
    for begun in (b"GET /", b"POST /v1/actions HTTP/1.1\r\n" + HEAD + b"Content-Length: 50\r\n\r\n{"):
        with face.connect() as connection:
            connection.sendall(begun)
            for _ in range(3):
                time.sleep(0.05)
                connection.sendall(b"x")
            (answer,) = answers_in(received(connection))
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert is_problem(answer)


def test_idle_connections_end(face: Face) -> None:
    """A connection on which nothing comes is closed, at its beginning and between two requests."""
    with face.connect() as connection:
        assert received(connection) == b""
    with face.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert [answer.status for answer in answers_in(received(connection))] == [200]


def test_requests_sent_ahead(face: Face) -> None:
    """Pipelined requests are answered in order; too many of them end the connection after those that were taken."""
    some = b"".join(posted(action(f"ahead-{n}")) for n in range(5))
    found = face.raw(some + b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n")
    assert [answer.status for answer in found] == [200] * 6
    many = face.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
    assert 1 <= len(many) <= 40
    assert all(answer.status == 200 for answer in many)


def test_expect_continue(face: Face) -> None:
    """A client that asks before it sends its body is told to go on, and refused at once when it is too long."""
    body = action("expect")
    with face.connect() as connection:
        connection.sendall(posted(body, b"Expect: 100-continue", b"Connection: close")[: -len(body)])
        assert connection.recv(1_024).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert [answer.status for answer in answers_in(received(connection))] == [200]
    long = b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
    only(face, b"POST /v1/actions HTTP/1.1\r\n" + HEAD + long, 413, "body_too_large")


def test_names_of_the_server(face: Face) -> None:
    """Only names of this server are answered to: a page of a foreign name that resolves to loopback gets nothing."""
    for name, status in (("localhost", 200), ("LOCALHOST:80", 200), ("127.0.0.1:1", 200), ("[::1]:5", 200),
                         ("evil.example", 421), ("localhost.evil.example", 421), ("", 421),
                         ("127.0.0.1@evil", 421)):  # fmt: skip
        assert face.ask("GET", "/healthz", headers={"host": name}).status == status, name


def test_forwarded_headers_change_nothing(face: Face) -> None:
    """Nobody's word about other addresses counts: neither for the name nor for anything else."""
    forged = {"x-forwarded-host": "evil.example", "x-forwarded-for": "1.2.3.4", "forwarded": "for=1.2.3.4;host=evil",
              "x-original-url": "/v1/kills", "x-http-method-override": "POST"}  # fmt: skip
    assert face.ask("GET", "/healthz", headers=forged).status == 200
    assert face.ask("GET", "/v1/escalations", headers=forged).status == 403


def test_connections_are_bounded(tmp_path: Path) -> None:
    """A connection that only waits gives way to a new one; when all are busy the new one is told to come back."""
    provider = Provider(["hold"] * 4)
    with Face(tmp_path / "d", provider, {"connections_max": 4, "idle_ms_max": 20_000}) as face:
        idle = [face.connect() for _ in range(12)]
        assert face.ask("GET", "/healthz").status == 200
        threads = [threading.Thread(target=face.pay, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert provider.held.acquire(timeout=20)
        (answer,) = face.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (answer.status, answer.code) == (503, "gate_busy")
        assert is_problem(answer)
        provider.go.set()
        for one in (*threads, *idle):
            one.join() if isinstance(one, threading.Thread) else one.close()
        assert face.ask("GET", "/healthz").status == 200


def test_requests_under_way_are_bounded(tmp_path: Path) -> None:
    """More requests at once than the bound are told to come back, with nothing recorded of them."""
    provider = Provider(["hold", "hold"])
    with Face(tmp_path / "d", provider, {"requests_max": 2}) as face:
        threads = [threading.Thread(target=face.pay, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert provider.held.acquire(timeout=20)
        answer = face.pay("third")
        assert (answer.status, answer.code) == (503, "gate_busy")
        assert is_problem(answer)
        assert answer.json["retryable"] is True
        provider.go.set()
        for thread in threads:
            thread.join()
        assert face.pay("third").status == 200


def test_a_client_that_leaves_loses_no_record(tmp_path: Path) -> None:
    """Whoever hangs up while its payment is under way finds the outcome later."""
    provider = Provider(["hold"])
    with Face(tmp_path / "d", provider) as face:
        run = face.ask("POST", "/v1/runs", {}).json["run"]
        body = json.dumps({"run": run, "call_id": "gone", "tool": TOOL, "args": args_for("gone")}).encode()
        connection = socket.create_connection(face.address)
        connection.sendall(posted(body))
        assert provider.held.acquire(timeout=20)
        connection.close()
        provider.go.set()
        deadline = time.monotonic() + 20
        while (answer := face.pay("gone", run=run, call_id="gone")).json["status"] == "pending":
            assert time.monotonic() < deadline
        assert answer.json["status"] == "confirmed"
        assert len(provider.effects) == 1
