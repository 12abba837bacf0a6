"""A full inbox turns callers away before anything is recorded; outcomes and the order to stop always get in."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from rig import TOOL, Provider, args_for, hold, kinds, make, pay, unsound
from socket_peers import busy_lane
from support import records

from countermark.gate import lane as lane_module
from countermark.model.errors import CountermarkError


def test_a_full_inbox_answers_busy_and_records_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a caller hears ``gate_busy``, may ask again, and no trace of the call is in the journal."""
    monkeypatch.setattr(lane_module, "INBOX_MESSAGES_MAX", 20)
    provider = Provider()
    make(tmp_path / "d", provider)
    codes: list[str] = []
    lock = threading.Lock()
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()

        def caller(number: int) -> None:
            try:
                code = pay(handle, number, run=run).code
            except CountermarkError as error:
                code = error.code if error.retryable else "not retryable"
            with lock:
                codes.append(code)

        with busy_lane(handle):
            threads = [threading.Thread(target=caller, args=(number,)) for number in range(60)]
            for thread in threads:
                thread.start()
            for _ in range(2_000):
                if len(codes) == 40:
                    break
                threading.Event().wait(0.005)
            assert codes == ["gate_busy"] * 40
            assert provider.sent == []
        for thread in threads:
            thread.join()
        assert sorted(codes) == ["gate_busy"] * 40 + ["ok"] * 20
        assert kinds(tmp_path / "d").count("action.decided") == 20
        refused = [n for n in range(60) if pay(handle, n, run=run).status == "confirmed"]
        assert len(refused) == 60
    assert len(provider.effects) == 60
    assert unsound(tmp_path / "d") == []


def test_outcomes_and_the_order_to_stop_always_get_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full inbox the outcome of an effect is still recorded, and a kill is still taken."""
    provider = Provider(["hold"])
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        answers: list[object] = []
        payer = threading.Thread(target=lambda: answers.append(pay(handle, 1, run=run)))
        payer.start()
        assert provider.held.acquire(timeout=10)
        monkeypatch.setattr(lane_module, "INBOX_MESSAGES_MAX", 0)
        with pytest.raises(CountermarkError) as caught:
            handle.call("act", {"run": run, "call_id": "x", "tool": TOOL, "args": args_for("x")})
        assert caught.value.code == "gate_busy"
        killed = handle.call("kill.set", {"kind": "deployment", "value": "", "reason": "drill"})
        assert [entry["tool"] for entry in killed["in_flight"]] == [TOOL]
        provider.go.set()
        payer.join()
        assert answers[0].status == "confirmed"  # type: ignore[attr-defined]
        monkeypatch.undo()
    assert kinds(tmp_path / "d").count("action.settled") == 1


def test_an_exception_in_a_message_halts_and_reopens(tmp_path: Path) -> None:
    """A bug inside the lane fails every waiting caller, discards memory, and the next call reads the journal again."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        pay(handle, 1, run=run)
        before = len(records(tmp_path / "d"))

        def half(writer: object) -> None:
            writer.add("kill.set", {"scope": {"kind": "deployment", "value": "x"}, "reason": "", "kill": "k"})  # type: ignore[attr-defined]
            raise RuntimeError("a bug")

        with pytest.raises(CountermarkError) as caught:
            handle.gate.wait(handle.gate.lane.ask(half))
        assert caught.value.code == "gate_halted"
        assert len(records(tmp_path / "d")) == before
        assert handle.call("status", {})["kills"] == []
        assert pay(handle, 2, run=run).status == "confirmed"
    assert unsound(tmp_path / "d") == []
