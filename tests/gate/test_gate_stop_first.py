"""A stop comes before anything that recovery would send, and no failure of the lane is silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from rig import Provider, hold, make, pay

import countermark
from countermark.journal import SqliteStore
from countermark.model.errors import CountermarkError, GateHaltedError


def kinds(root: Path) -> list[str]:
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        return [record.kind for record in store.records()]
    finally:
        store.close()


def test_a_stop_is_recorded_before_recovery_sends_anything(tmp_path: Path) -> None:
    """An intent is left open; whoever opens the deployment only to stop it sends nothing before the stop stands."""
    provider = Provider(["hold_lost"])
    made = make(tmp_path / "d", provider)
    with hold(made.root, provider) as handle:
        provider.go.set()
        assert pay(handle, 1).status in ("unknown", "confirmed")
    left = Provider()
    with countermark.open(made.root, agent="treasury", connectors={"stripe": left}, recover=False) as handle:
        assert left.sent == []
        handle.call("kill.set", {"kind": "deployment", "value": "", "reason": "stop first"})
        assert left.sent == []
    assert "kill.set" in kinds(made.root)


class Panic(BaseException):
    """What an extension written in Rust raises when it panics: no ``Exception``."""


def test_a_panic_halts_the_lane_and_the_next_call_is_answered(tmp_path: Path) -> None:
    """A BaseException in the lane's thread is answered with gate_halted, nothing is recorded, and the gate goes on."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(made.root, provider) as handle:

        def panic(_: object) -> None:
            raise Panic

        with pytest.raises(GateHaltedError):
            handle.gate.wait(handle.gate.lane.ask(panic))
        assert pay(handle, 2).status == "confirmed"


def test_what_stays_unknown_is_asked_for_less_and_less_often(tmp_path: Path) -> None:
    """Background recovery waits twice as long after each look at an intent that nobody can settle."""
    provider = Provider(["lost_before"] * 50, lookup="provider_error")
    made = make(tmp_path / "d", provider)
    with hold(made.root, provider) as handle:
        assert pay(handle, 3).status == "unknown"
        before = len(provider.asked)
        for _ in range(20):
            handle.gate.wait(handle.gate._recover_due())
        assert len(provider.asked) - before <= 2
        with pytest.raises(CountermarkError):
            handle.call("nonsense", {})
