"""A clock that jumps stops the gate until people clear it; the order of records never goes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from laddered import tick
from rig import Provider, bodies, clear_kill, hold, make, pay, signed_answer, unsound, waiting
from support import records

from countermark.model.clock import US, FakeClock
from countermark.model.errors import GateHaltedError, StoreError

HOUR = 3_600


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 3, -3])
def test_a_jump_is_a_kill_by_the_gate(tmp_path: Path, jump: int) -> None:
    """Wall time that leaves the steady clock denies everything at once, with a kill of the whole deployment."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        assert pay(handle, 1, run=run).status == "confirmed"
        clock.step(jump)
        assert pay(handle, 2, run=run).code == "killed"
        (kill,) = handle.call("status", {})["kills"]
        assert kill["kind"] == "deployment"
        clear_kill(handle, made, kill["kill"])
        assert pay(handle, 3, run=run).status == "confirmed"
    assert [body["reason"] for body in bodies(tmp_path / "d", "kill.set")] == ["clock_jump"]
    found = records(tmp_path / "d")
    assert [r.at for r in found] == sorted(r.at for r in found)
    assert len(provider.sent) == 2
    assert unsound(tmp_path / "d") == []


def test_back_and_forth_is_two_jumps(tmp_path: Path) -> None:
    """Each jump needs a clearance of its own: the second one stops the gate again."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        for number, jump in enumerate((HOUR, -HOUR)):
            clock.step(jump)
            assert pay(handle, f"a{number}").code == "killed"
            clear_kill(handle, made, handle.call("status", {})["kills"][0]["kill"])
            assert pay(handle, f"b{number}").status == "confirmed"
    assert len(bodies(tmp_path / "d", "kill.set")) == 2


def test_a_jump_beside_another_stop_is_a_stop_of_its_own(tmp_path: Path) -> None:
    """Whoever lifts the stop that people set does not lift that of the clock, of which they may know nothing."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        drill = handle.call("kill.set", {"kind": "deployment", "value": "", "reason": "drill"})["kill"]
        clock.step(24 * HOUR)
        assert pay(handle, 1).code == "killed"
        clear_kill(handle, made, drill)
        assert pay(handle, 2).code == "killed"
        (alarm,) = handle.call("status", {})["kills"]
        clear_kill(handle, made, alarm["kill"])
        assert pay(handle, 3).status == "confirmed"
    assert [body["reason"] for body in bodies(tmp_path / "d", "kill.set")] == ["drill", "clock_jump"]
    assert unsound(tmp_path / "d") == []


def test_no_deadline_passes_by_a_clock_that_jumped(tmp_path: Path) -> None:
    """Questions wait while the clock's stop stands, and no record has its time; set right, all is as before."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        assert pay(handle, 1, 600_000).status == "escalated"
        true = clock.now_us()
        clock.step(24 * HOUR)
        for number in range(2, 5):
            tick(handle)
            assert pay(handle, number).code == "killed"
            clock.advance(1)
        assert len(waiting(handle)) == 1
        clock.step(-24 * HOUR)
        (alarm,) = handle.call("status", {})["kills"]
        clear_kill(handle, made, alarm["kill"])
        tick(handle)
        assert handle.call("status", {})["kills"] == []
        assert handle.call("answer", signed_answer(made, waiting(handle)[0]))["result"]["status"] == "confirmed"
        assert pay(handle, 5).status == "confirmed"
    assert all(r.at < true + 4 * HOUR * US for r in records(tmp_path / "d"))
    assert unsound(tmp_path / "d") == []


def test_a_jump_that_people_confirm_lets_deadlines_pass(tmp_path: Path) -> None:
    """A machine that slept: by the lifting of the stop the time is what the clock says, and what is due is due."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        assert pay(handle, 1, 600_000).status == "escalated"
        clock.step(24 * HOUR)
        tick(handle)
        assert len(waiting(handle)) == 1
        (alarm,) = handle.call("status", {})["kills"]
        clear_kill(handle, made, alarm["kill"])
        tick(handle)
        assert waiting(handle) == []
        assert pay(handle, 2).status == "confirmed"
    assert len(bodies(tmp_path / "d", "escalation.expired")) == 1
    assert unsound(tmp_path / "d") == []


def test_a_jump_while_the_lane_reopens_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane that halts keeps what it knew of the clocks: the jump in between stops it all the same."""
    provider, clock = Provider(), FakeClock()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        writer = handle.gate.lane._writer
        assert writer is not None

        def fail(*_: object) -> None:
            raise StoreError("disk full")

        monkeypatch.setattr(writer.store, "commit", fail)
        with pytest.raises(GateHaltedError):
            pay(handle, 1, run=run)
        clock.step(24 * HOUR)
        assert pay(handle, 1, run=run).code == "killed"
    assert unsound(tmp_path / "d") == []


def test_time_that_passes_is_no_jump(tmp_path: Path) -> None:
    """Hours and days pass without a kill, and a drift below the bound is none either."""
    provider, clock = Provider(), FakeClock()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        for number in range(5):
            clock.advance(5 * HOUR)
            clock.step(0.3)
            assert pay(handle, number).status == "confirmed"
    assert bodies(tmp_path / "d", "kill.set") == []


def test_a_clock_set_back_while_the_gate_was_down(tmp_path: Path) -> None:
    """A gate that starts before its newest record stops itself; with an hour forward there is nothing to see."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock)
    clock.step(-HOUR)
    with hold(tmp_path / "d", provider, clock) as handle:
        assert pay(handle, 1).code == "killed"
        clear_kill(handle, made, handle.call("status", {})["kills"][0]["kill"])
        assert pay(handle, 2).status == "confirmed"
    clock.step(2 * HOUR)
    with hold(tmp_path / "d", provider, clock) as handle:
        assert pay(handle, 3).status == "confirmed"
    found = records(tmp_path / "d")
    assert [r.at for r in found] == sorted(r.at for r in found)
    assert unsound(tmp_path / "d") == []


def test_a_window_does_not_empty_by_a_jump(tmp_path: Path) -> None:
    """A clock put forward a day does not buy a new day's limit: the gate is stopped before it decides again."""
    provider, clock = Provider(), FakeClock()
    make(tmp_path / "d", provider, clock=clock, changes={"max = 5000000\n": "max = 1000\n"})
    with hold(tmp_path / "d", provider, clock) as handle:
        assert pay(handle, 1).status == "confirmed"
        assert pay(handle, 2).code == "denied_by_policy"
        clock.step(25 * HOUR)
        assert pay(handle, 3).code == "killed"
    assert len(provider.sent) == 1


def test_a_jump_settles_nothing_as_failed(tmp_path: Path) -> None:
    """Quiet time is time that passed: a clock put forward does not turn "not found" into "failed"."""
    provider, clock = Provider(["lost_before"] * 3), FakeClock()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        assert pay(handle, 1, run=run).status == "unknown"
        clock.step(2 * HOUR)
        handle.call("recover", {})
        assert pay(handle, 1, run=run).status == "unknown"
