"""The gate's socket against callers that send nonsense, are slow, are many; and owners that die."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import AGENT, TOOL, Provider, Stand, args_for, hold, kinds, make, pay, transfers, unsound
from socket_peers import LENGTH, Raw, request
from support import judge_books

import countermark
from countermark.gate import FRAME_BYTES_MAX, SocketClient
from countermark.gate.socket import FRAME_REQUESTS_MAX
from countermark.model.errors import CountermarkError, EncodingError

HERE = Path(__file__).resolve().parent


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[tuple[Path, Provider, countermark.Deployment]]:
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        yield tmp_path / "d", provider, handle
    assert unsound(tmp_path / "d") == []


def test_only_the_owner_may_open_the_socket(deployed: tuple[Path, Provider, countermark.Deployment]) -> None:
    """The socket file has mode 0600, and it is gone when the gate has closed."""
    root, _, handle = deployed
    mode = (root / "gate.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    handle.close()
    assert not (root / "gate.sock").exists()
    handle._end = hold(root, Provider())._end  # for the fixture to close


@pytest.mark.parametrize(
    "raw",
    [
        b"{", b"", b"\xff\xfe", b'{"id":1,"op":"status","body":{"a":NaN}}', b"[" * 60_000,
        b'"' + b"\xed\xa0\x80" + b'"', b"1e999", b"9" * 5_000,
        json.dumps([request()] * (FRAME_REQUESTS_MAX + 1)).encode(),
    ],
)  # fmt: skip
def test_a_frame_of_garbage_gets_an_error(deployed: tuple[Path, Provider, countermark.Deployment], raw: bytes) -> None:
    """The gate answers what is no strict JSON with an error, records nothing, and serves the next caller."""
    root, provider, handle = deployed
    before = handle.call("status", {})["records"]
    with Raw(root) as peer:
        peer.frame(raw)
        assert peer.answer()["error"]["code"] in ("bad_encoding", "bad_config")  # type: ignore[index]
    with Raw(root) as peer:
        peer.frame(request())
        assert peer.answer()["ok"]["records"] == before  # type: ignore[index]
    assert provider.sent == []


def test_an_oversized_frame_is_not_read(deployed: tuple[Path, Provider, countermark.Deployment]) -> None:
    """A length beyond the bound ends the connection before its bytes are read; the client refuses to send one."""
    root, _, handle = deployed
    with Raw(root) as peer:
        peer.end.sendall(LENGTH.pack(FRAME_BYTES_MAX + 1))
        assert peer.answer() is None
    with Raw(root) as peer:
        peer.end.sendall(LENGTH.pack(2**32 - 1) + b"x")
        assert peer.answer() is None
    client = SocketClient(root / "gate.sock")
    with pytest.raises(EncodingError):
        client.call("status", {"x": "y" * FRAME_BYTES_MAX}, AGENT)
    for odd in ({"a": {1, 2}}, {"a": 2**70}, {"a": "\ud800"}):
        with pytest.raises(EncodingError):
            client.call("status", odd, AGENT)
    client.close()
    assert handle.call("status", {})["records"]


@pytest.mark.parametrize(
    "value",
    [
        5, None, "x", {}, {"id": 1}, {"op": "status"}, {"op": "status", "body": []}, {"op": None, "body": {}},
        {"op": ["status"], "body": {}}, {"op": "status", "body": {}, "agent": ["x"]}, [], [5], [[]],
        {"op": "act", "body": {}},
    ],
)  # fmt: skip
def test_json_that_is_no_request_gets_an_error(
    deployed: tuple[Path, Provider, countermark.Deployment], value: object
) -> None:
    """Every JSON value gets an answer in the one error shape, or what it asked for; the connection stays usable."""
    root, provider, _ = deployed
    with Raw(root) as peer:
        peer.frame(value)
        answer = peer.answer()
        for one in answer if isinstance(answer, list) else [answer]:
            assert set(one) <= {"id", "ok", "error"}
            if "error" in one:
                assert set(one["error"]) == {"code", "message", "hint", "retryable"}
        peer.frame(request())
        assert "ok" in peer.answer()  # type: ignore[operator]
    assert provider.sent == []


def test_a_batch_is_answered_in_its_order(deployed: tuple[Path, Provider, countermark.Deployment]) -> None:
    """Many requests in one frame: each answered under its own id, errors beside successes."""
    root, provider, handle = deployed
    run = handle.start_run()
    asked = [
        request("act", {"run": run, "call_id": f"b-{n}", "tool": TOOL, "args": args_for(n, 1 if n % 2 else -1)}, n)
        for n in range(40)
    ]
    with Raw(root) as peer:
        peer.frame(asked)
        answers = peer.answer()
    assert [a["id"] for a in answers] == list(range(40))  # type: ignore[union-attr,index,call-overload]
    assert ["ok" in a for a in answers] == [bool(n % 2) for n in range(40)]  # type: ignore[union-attr]
    assert len(provider.effects) == 20


def test_slow_callers_stop_nobody(deployed: tuple[Path, Provider, countermark.Deployment]) -> None:
    """Connections that send half a frame, or never read their answer, do not delay others."""
    root, _, handle = deployed
    slow = [Raw(root) for _ in range(20)]
    for number, peer in enumerate(slow):
        peer.end.sendall(LENGTH.pack(100)[: 1 + number % 4])
    deaf = [Raw(root) for _ in range(5)]
    for peer in deaf:
        for _ in range(50):
            peer.frame(request())
    assert pay(handle, 1).status == "confirmed"
    with Raw(root) as peer:
        peer.frame(request())
        assert "ok" in peer.answer()  # type: ignore[operator]
    for peer in slow + deaf:
        peer.end.close()


def test_a_second_opener_is_a_client(deployed: tuple[Path, Provider, countermark.Deployment]) -> None:
    """One owner decides: who opens the directory while it lives speaks to it and gets the same answers."""
    root, provider, handle = deployed
    with hold(root, Provider()) as client:
        assert (handle.owner, client.owner) == (True, False)
        run = client.start_run()
        first = pay(client, 1, run=run)
        assert first.status == "confirmed"
        assert pay(handle, 1, run=run).ref == first.ref
        with pytest.raises(CountermarkError) as caught:
            pay(client, 2, -5, run=run)
        assert (caught.value.code, caught.value.retryable) == ("bad_argument", False)
    assert kinds(root).count("gate.started") == 2
    assert len(provider.effects) == 1


def test_a_client_becomes_the_owner(tmp_path: Path) -> None:
    """When the owner closes, a client's next call is answered all the same: by itself, as the new owner."""
    provider, second = Provider(), Provider()
    make(tmp_path / "d", provider)
    owner = hold(tmp_path / "d", provider)
    client = hold(tmp_path / "d", second)
    run = owner.start_run()
    assert pay(client, 1, run=run).status == "confirmed"
    owner.close()
    with client:
        assert pay(client, 2, run=run).status == "confirmed"
        assert client.owner
        with hold(tmp_path / "d", provider) as third:
            assert not third.owner
            assert pay(third, 3, run=run).status == "confirmed"
        assert pay(client, 1, run=run).status == "confirmed"
    assert (len(provider.effects), len(second.effects)) == (1, 2)
    assert unsound(tmp_path / "d") == []


def test_an_owner_killed_in_mid_effect(tmp_path: Path) -> None:
    """The owner gets SIGKILL after the effect and before its record: the client takes over and tells the outcome."""
    with Stand(tmp_path, tools=transfers(timeout_ms=500)) as stand:
        child = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), str(stand.root), str(tmp_path / "acks"), "500", "1"],
            env={**os.environ, "COUNTERMARK_CRASH": "effect.done:2", "WORKER_LINGER": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"waiting\n"  # it has paid once and still owns the lane
        with countermark.open(stand.root, agent=AGENT) as client:
            assert not client.owner
            run = client.start_run()
            result = pay(client, 1, run=run)  # the owner dies in this one
            assert child.wait(10) == -9
            assert client.owner
            assert pay(client, 1, run=run).status == "confirmed"
            assert result.action == pay(client, 1, run=run).action
        child.communicate()
        assert judge_books(stand.root, stand.twin) == []
        assert len(stand.twin.books().movements()) == 2
        assert unsound(stand.root) == []


def test_a_socket_that_cannot_be_made_releases_the_lane(tmp_path: Path) -> None:
    """When the socket's place is taken by a directory, opening fails, and works once that is gone: nothing is held."""
    provider = Provider()
    make(tmp_path / "d", provider)
    (tmp_path / "d" / "gate.sock").mkdir()
    alive = threading.active_count()
    with pytest.raises(CountermarkError):
        hold(tmp_path / "d", provider)
    assert threading.active_count() == alive
    (tmp_path / "d" / "gate.sock").rmdir()
    with hold(tmp_path / "d", provider) as handle:
        assert handle.owner
        assert pay(handle, 1).status == "confirmed"
    assert unsound(tmp_path / "d") == []


def test_a_left_over_socket_is_replaced(tmp_path: Path) -> None:
    """The socket file of a killed owner does not keep the next one from opening."""
    provider = Provider()
    make(tmp_path / "d", provider)
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(tmp_path / "d", os.O_RDONLY | os.O_DIRECTORY)
    stale.bind(f"/proc/self/fd/{folder}/gate.sock")
    os.close(folder)
    stale.close()
    with hold(tmp_path / "d", provider) as handle, hold(tmp_path / "d", provider) as client:
        assert (handle.owner, client.owner) == (True, False)
