"""A hijacked agent on the socket: it must not lock people out, outrun a stop, or starve what people order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import TOOL, Provider, args_for, clear_kill, hold, kinds, make, pay, signed_revocation, unsound
from socket_peers import LENGTH, Later, Raw, busy_lane, request, until
from support import records

import countermark
from countermark.gate import lane as lane_module
from countermark.gate import socket as socket_module
from countermark.gate.dispatch import Intent
from countermark.gate.lane import Rank
from countermark.gate.socket import CONNECTIONS_MAX
from countermark.model.errors import CountermarkError
from countermark.wiring.init import Made

STOP = {"kind": "deployment", "value": "", "reason": "strange"}
Stage = tuple[Path, Provider, countermark.Deployment, Made]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        yield tmp_path / "d", provider, handle, made
    assert unsound(tmp_path / "d") == []


def test_idle_connections_give_way(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """When connections that only wait take all the room, a stop still gets in: the one idle for longest must go."""
    root, _, _, _ = stage
    assert CONNECTIONS_MAX >= 64
    monkeypatch.setattr(socket_module, "CONNECTIONS_MAX", 10)
    idle = [Raw(root) for _ in range(10)]
    for peer in idle:
        peer.frame(request())
        assert peer.answer() is not None
    idle[0].frame(request())
    assert idle[0].answer() is not None
    idle[1].end.sendall(LENGTH.pack(100)[:2])  # half a frame is no work either
    with Raw(root) as person:
        person.frame(request("kill.set", STOP))
        assert person.answer()["ok"]["in_flight"] == []
        assert idle[1].answer() is None
        idle[0].frame(request())
        assert idle[0].answer() is not None
    for peer in idle:
        peer.end.close()


def test_busy_connections_give_way_and_their_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When payments under way take all the room, a stop still gets in; what lost its connection is settled."""
    monkeypatch.setattr(socket_module, "CONNECTIONS_MAX", 3)
    provider = Provider(["hold"] * 3)
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        busy = [Raw(tmp_path / "d") for _ in range(3)]
        for number, peer in enumerate(busy):
            peer.frame(request("act", {"run": run, "call_id": f"b{number}", "tool": TOOL, "args": args_for(number)}))
            assert provider.held.acquire(timeout=10)
        with Raw(tmp_path / "d") as person:
            person.frame(request("kill.set", STOP))
            assert len(person.answer()["ok"]["in_flight"]) == 3
        assert busy[0].answer() is None
        provider.go.set()
        assert [peer.answer()["ok"]["status"] for peer in busy[1:]] == ["confirmed"] * 2
        until(lambda: not handle.gate._dispatch.in_flight)
        for peer in busy:
            peer.end.close()
    assert kinds(tmp_path / "d").count("action.settled") == 3
    assert unsound(tmp_path / "d") == []


def test_a_frame_arrives_whole_or_not_at_all(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who begins a frame and does not end it is hung up on; who only waits is not."""
    root, _, _, _ = stage
    monkeypatch.setattr(socket_module, "FRAME_WAIT_S", 0.1)
    with Raw(root) as idle:
        idle.frame(request())
        assert idle.answer() is not None
        for half in (LENGTH.pack(100)[:1], LENGTH.pack(100), LENGTH.pack(100) + b"{"):
            with Raw(root) as peer:
                peer.end.sendall(half)
                assert peer.answer() is None
        idle.frame(request())
        assert idle.answer() is not None


def test_answers_that_nobody_takes_are_dropped(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for much and reads nothing loses the connection; nothing of it stays behind."""
    root, _, handle, _ = stage
    monkeypatch.setattr(socket_module, "FRAME_WAIT_S", 0.1)
    server = handle._end._server  # type: ignore[union-attr]
    with Raw(root) as deaf:
        for _ in range(4):  # more than the system's buffers and the gate's take together
            deaf.frame([request()] * 256)
        until(lambda: server._tasks)
        until(lambda: not server._tasks)
    assert server._peers == {}


def test_the_answers_to_a_frame_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many bytes an answer is an error that says so; each request still has its answer in its place."""
    root, _, _, _ = stage
    monkeypatch.setattr(socket_module, "ANSWER_BYTES_MAX", 5_000)
    with Raw(root) as peer:
        peer.frame([request(number=number) for number in range(100)])
        answers = peer.answer()
        assert [answer["id"] for answer in answers] == list(range(100))
        assert {answer["error"]["code"] for answer in answers if "error" in answer} == {"gate_busy"}
        assert 0 < sum("ok" in answer for answer in answers) < 10
        peer.frame(request())
        assert "ok" in peer.answer()


def test_a_connection_has_few_requests_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large frame only so many requests run at once; all connections together have a bound as well."""
    monkeypatch.setattr(socket_module, "CONNECTION_REQUESTS_MAX", 4)
    monkeypatch.setattr(socket_module, "REQUESTS_MAX", 6)
    provider = Provider(["hold"] * 6)
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle, Raw(tmp_path / "d") as one, Raw(tmp_path / "d") as other:
        run = handle.start_run()
        for name, peer, begun in (("one", one, 4), ("other", other, 2)):
            calls = [f"{name}{number}" for number in range(8)]
            bodies = [{"run": run, "call_id": call, "tool": TOOL, "args": args_for(call)} for call in calls]
            peer.frame([request("act", body) for body in bodies])
            for _ in range(begun):
                assert provider.held.acquire(timeout=10)
            assert not provider.held.acquire(timeout=0.1)
        assert len(provider.sent) == 6
        with Raw(tmp_path / "d") as person:
            person.frame(request("kill.set", {"kind": "payee", "value": "borealis-hosting", "reason": ""}))
            assert len(person.answer()["ok"]["in_flight"]) == 6
        provider.go.set()
        answers = one.answer()
        assert len(answers) == 8
        assert {answer["ok"]["status"] for answer in answers[:4]} == {"confirmed"}
        refused = [answer["error"]["code"] for answer in other.answer() if "error" in answer]
        assert set(refused) == {"gate_busy"}
        assert len(refused) >= 2


def test_a_large_frame_delays_no_stop(stage: Stage) -> None:
    """Large frames are decoded beside the loop: a stop does not wait for them."""
    root, _, handle, _ = stage
    go = threading.Event()
    blocked = Later(lambda: handle.gate.wait(handle.gate.aside(lambda: go.wait(30))))
    with Raw(root) as large, Raw(root) as person:
        large.frame(request("status", {"x": "y" * 100_000}))
        person.frame(request("kill.set", STOP))
        assert "ok" in person.answer()
        large.end.settimeout(0.1)
        with pytest.raises(TimeoutError):
            large.answer()
        large.end.settimeout(10)
        go.set()
        assert large.answer()["error"]["code"] == "unknown_argument"
    blocked.join()


def test_a_stop_is_handled_before_all_that_queues(stage: Stage) -> None:
    """Payments that were asked for before a stop and are not decided yet are denied by it: not one goes out."""
    _, provider, handle, _ = stage
    run = handle.start_run()
    lane = handle.gate.lane
    with busy_lane(handle):
        payers = [Later(lambda n=n: pay(handle, n, run=run)) for n in range(20)]  # type: ignore[misc]
        until(lambda: len(lane._inbox) == 20)
        stop = Later(lambda: handle.call("kill.set", STOP))
        until(lambda: lane._stops)
    assert "kill" in stop.join()
    assert {payer.join().code for payer in payers} == {"killed"}
    assert provider.sent == []


def test_dispatch_stops_when_a_stop_is_asked_for(stage: Stage) -> None:
    """From the moment a stop arrives no effect of its scope begins, though its record is not written yet."""
    root, _, handle, made = stage
    pay(handle, 1)
    intent = Intent(next(record for record in records(root) if record.kind == "action.decided"))
    dispatch = handle.gate._dispatch

    def begins() -> str | None:
        code = dispatch.begin(intent, intent.record.at)
        dispatch.end(intent.seq)
        return code

    assert begins() is None
    with busy_lane(handle):
        stop = Later(lambda: handle.call("kill.set", {"kind": "payee", "value": "acme-paper", "reason": ""}))
        until(lambda: handle.gate.lane._stops)
        assert begins() == "killed"
        assert dispatch.stopped(intent)
        elsewhere = Later(lambda: handle.call("kill.set", {"kind": "agent", "value": "nobody", "reason": ""}))
        until(lambda: len(handle.gate.lane._stops) == 2)
    reply = stop.join()
    assert elsewhere.join().code == "bad_argument"
    assert begins() == "killed"
    clear_kill(handle, made, reply["kill"])
    assert begins() is None
    assert dispatch._holds == {}


def test_a_stop_that_failed_stops_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the record of a stop cannot be written its caller hears so, and payments go on as recorded."""
    _, _, handle, _ = stage
    run = handle.start_run()
    writer = handle.gate.lane._writer
    assert writer is not None

    def broken() -> tuple[int, bytes]:
        raise OSError("no space")

    monkeypatch.setattr(writer, "commit", broken)
    with pytest.raises(CountermarkError) as caught:
        handle.call("kill.set", STOP)
    assert caught.value.code == "gate_halted"
    assert handle.gate._dispatch._holds == {}
    assert handle.call("status", {})["kills"] == []
    assert pay(handle, 1, run=run).status == "confirmed"


def test_a_stop_whose_caller_went_away_holds(stage: Stage) -> None:
    """Cancelling whoever waits for a stop's answer does not open dispatch before the record is there."""
    _, _, handle, _ = stage
    dispatch, gate = handle.gate._dispatch, handle.gate
    with busy_lane(handle):
        asking = gate._submit(gate._kill(STOP))
        until(lambda: gate.lane._stops)
        asking.cancel()
        for _ in range(3):
            gate.wait(asyncio.sleep(0))  # the loop has taken the cancelling to whom it concerns
        assert dispatch._holds
    assert len(handle.call("status", {})["kills"]) == 1
    assert dispatch._holds == {}
    assert pay(handle, 1).code == "killed"


def test_orders_of_people_come_before_what_agents_ask(stage: Stage) -> None:
    """A revocation is decided before payments that were asked for earlier and still queue."""
    _, provider, handle, made = stage
    run = handle.start_run()
    lane = handle.gate.lane
    with busy_lane(handle):
        payers = [Later(lambda n=n: pay(handle, n, run=run)) for n in range(10)]  # type: ignore[misc]
        until(lambda: len(lane._inbox) == 10)
        (mandate,) = made.mandates.values()
        order = Later(lambda: handle.call("mandate.revoke", signed_revocation(made, mandate)))
        until(lambda: lane._orders)
    assert order.join()["revoked"] == mandate
    assert {payer.join().code for payer in payers} == {"mandate_not_in_force"}
    assert provider.sent == []


def test_a_flood_of_orders_starves_nobody(stage: Stage) -> None:
    """However many orders come in, what agents ask for and outcomes get their part of every batch."""
    _, _, handle, _ = stage
    lane = handle.gate.lane
    handled: list[str] = []

    async def ask_all() -> None:
        asked = [lane.ask(lambda writer: handled.append("order"), rank=Rank.ORDER) for _ in range(100)]
        asked += [lane.ask(lambda writer: handled.append("rest")), lane.ask(
            lambda writer: handled.append("stop"), rank=Rank.STOP)]  # fmt: skip
        for work in asked:
            handle.gate.background.spawn(work)

    with busy_lane(handle):
        handle.gate.wait(ask_all())
        until(lambda: len(lane._orders) == 100 and lane._stops and lane._inbox)
    until(lambda: len(handled) == 102)
    assert handled[0] == "stop"
    assert handled.index("rest") <= 2 * lane_module.BATCH_ORDERS_MAX  # the batch that was held took some, too


def test_looks_take_turns(stage: Stage) -> None:
    """However many ask for the state at once, the lane has one look in its queue."""
    _, _, handle, _ = stage
    with busy_lane(handle):
        looks = [Later(lambda: handle.call("status", {})) for _ in range(10)]
        until(lambda: len(handle.gate._look._waiters or ()) == 9)  # the tenth is being looked at
        assert len(handle.gate.lane._inbox) == 1
    assert all("records" in look.join() for look in looks)
