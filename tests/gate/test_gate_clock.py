"""A clock that jumps stops the gate until people clear it; the order of records never goes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from rig import Provider, bodies, clear_kill, hold, make, pay, unsound
from support import records

from countermark.model.clock import FakeClock

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
