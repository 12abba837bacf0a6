"""Everything that a client could make large, slow or ambiguous has a bound, and the bound answers."""

from __future__ import annotations

import gc
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from face import TOKEN, Face, answers_in, is_problem, received
from rig import AGENT, TOOL, Provider, args_for
from support import records

from countermark.authority import load_private, make_pass
from countermark.model.clock import US, SystemClock
from countermark.server import wire
from countermark.server.surroundings import Counters
from countermark.server.wire import IDLE_TICKS, Cycle, wire_of
from countermark.wiring import ServeLimits, ServeSettings

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


def test_fields_behind_a_body_are_not_taken(face: Face) -> None:
    """A trailer is no header: a credential that whoever looked at the head has not seen is refused."""
    body, kind = action("trailed"), b"Host: localhost\r\nContent-Type: application/json\r\n"
    chunk = b"%x\r\n" % len(body) + body + b"\r\n0\r\n"
    for trailer in (b"Authorization: Bearer " + TOKEN.encode(), b"X-Harmless: 1"):
        head = b"POST /v1/actions HTTP/1.1\r\n" + kind + b"Transfer-Encoding: chunked\r\n\r\n"
        only(face, head + chunk + trailer + b"\r\n\r\n", 400, "bad_request")
    assert not any(record.body.get("call_id") == "b-trailed" for record in records(face.root))


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


def test_an_answered_request_leaves_nothing_for_the_garbage_collector(face: Face) -> None:
    """What was made for a request is gone with it: to look for it, the collector would stop every other request."""
    several = [
        posted(action("gone")),
        b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET /none HTTP/1.1\r\n" + HEAD + b"\r\n",
    ]
    gc.collect()
    gc.disable()
    try:
        with face.connect() as connection:
            for number in range(60):
                connection.sendall(several[number % 3])
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 ")
            left = sum(isinstance(one, Cycle) for one in gc.get_objects())
    finally:
        gc.enable()
    assert left < 10  # the last of each connection


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


def test_people_reach_a_gate_that_agents_keep_busy(tmp_path: Path) -> None:
    """Each connection that there may be has a request under way, more wait at the door, and some show a pass that is
    none: a person stops the agent all the same, and agents are told to come back.
    """
    provider = Provider(["hold"] * 4)
    with Face(tmp_path / "d", provider, {"connections_max": 4, "idle_ms_max": 60_000, "read_ms_max": 60_000}) as face:
        threads = [threading.Thread(target=face.pay, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert provider.held.acquire(timeout=20)
        others = [face.connect() for _ in range(60)]
        for number, one in enumerate(others[-20:]):
            one.sendall(b"" if number % 2 else b"POST /v1/kills HTTP/1.1\r\nAuthorization: Countermark-Pass x\r\nX")
        body = json.dumps({"kind": "agent", "value": AGENT, "reason": "busy"}).encode()
        shown = make_pass(
            load_private(face.made.people["treasurer"]), deployment=face.made.deployment, method="POST",
            target="/v1/kills", body=body, person="treasurer", not_after=SystemClock().now_us() + 60 * US,
        )  # fmt: skip
        killed = face.ask("POST", "/v1/kills", body, {"authorization": shown}, token="")
        assert (killed.status, len(killed.json["in_flight"])) == (201, 4)
        assert (face.ask("GET", "/healthz").status, face.pay("more").status) == (503, 503)
        provider.go.set()
        for one in (*threads, *others):
            one.join() if isinstance(one, threading.Thread) else one.close()
        assert face.pay("after").code == "killed"


class Stuck:
    """Stands for a transport that was told to close and has bytes which its client does not take; and for its loop."""

    cut = False

    def is_closing(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 1

    def abort(self) -> None:
        self.cut = True

    def call_later(self, seconds: float, work: object) -> None:
        """Nothing: the test itself is the clock."""


def test_a_last_answer_that_nobody_takes_is_cut() -> None:
    """A connection that ends as soon as its answer is taken does not stay for ever when it is not."""
    kind = wire_of(ServeSettings(), Counters())
    one, stuck = object.__new__(kind), Stuck()
    one.limits, one.loop, one.transport, one._active, one._quiet = ServeLimits(), stuck, stuck, None, 0  # type: ignore[assignment]
    one._reading = one._ended = False
    for _ in range(IDLE_TICKS):
        one._tick()
        assert not stuck.cut
    one._tick()
    assert stuck.cut


@pytest.mark.parametrize(
    "begun",
    [
        b"", b"POST /v1/actions HTTP/1.1\r\nX: ", b"nonsense\r\n\r\n",
        b"POST /v1/actions HTTP/1.1\r\n" + HEAD + b"Content-Length: 9\r\n\r\n{",
    ],
)  # fmt: skip
def test_nobody_keeps_others_out(tmp_path: Path, begun: bytes) -> None:
    """Connections that send nothing, half a head, half a body or nonsense, as many as there may be, and whatever time
    each has: the next one is answered.
    """
    with Face(tmp_path / "d", limits={"connections_max": 4, "idle_ms_max": 60_000, "read_ms_max": 60_000}) as face:
        held = [face.connect() for _ in range(4)]
        for one in held:
            one.sendall(begun)
        for _ in range(3):
            assert face.ask("GET", "/healthz").status == 200
        held += [face.connect() for _ in range(4)]
        assert face.ask("GET", "/healthz").status == 200
        for one in held:
            one.close()


def test_who_is_gone_before_it_is_refused_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that reset their connections at once, while there is no room for them: no trace of each in the log."""
    monkeypatch.setattr(wire, "PEOPLE_MAX", 0)
    provider = Provider(["hold"] * 2)
    with Face(tmp_path / "d", provider, {"connections_max": 2}) as face:
        threads = [threading.Thread(target=face.pay, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert provider.held.acquire(timeout=20)
        went = threading.Event()
        face.handle.gate.loop.call_soon_threadsafe(went.wait, 20)  # the server looks when they are gone
        for _ in range(50):
            with face.connect() as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        went.set()
        provider.go.set()
        for thread in threads:
            thread.join()
        assert face.ask("GET", "/healthz").status == 200
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


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
