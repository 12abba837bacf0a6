"""What one record demands of the next, and what the gate's starts and stops allow."""

from __future__ import annotations

from typing import Any

from countermark.audit.follow import Follow
from countermark.model.records import GENESIS, Record, seal
from countermark.policy import Bundle, DictKeys, State

STARTED = ("gate.started", {"tier": "embedded", "deployment": "acme", "log_key": "k"})
DECIDED = ("action.decided", {"tier": "embedded", "escalation": None})
BOOKED = ("action.settled", {"code": "booked_differently", "tool": "pay"})


def killed(kill: str, reason: str = "booked_differently", tool: str = "pay") -> tuple[str, dict[str, Any]]:
    return ("kill.set", {"kill": kill, "reason": reason, "scope": {"kind": "tool", "value": tool}})


def cleared(kill: str) -> tuple[str, dict[str, Any]]:
    return ("kill.cleared", {"clearance": {"kill": kill}})


def sealed(seq: int, kind: str, body: dict[str, Any]) -> Record:
    return seal(
        lane="l0", seq=seq, prev=GENESIS, kind=kind, at=seq, nonce=f"{seq:032x}", by="gate", streams={}, body=body
    )


def no_bundle(digest: str) -> Bundle:
    raise KeyError(digest)


def differences(*story: tuple[str, dict[str, Any]]) -> list[tuple[int, str]]:
    """Seq and member of every difference in a story of kinds and bodies; only kills are folded."""
    found: list[tuple[int, str]] = []
    at = 0

    def differs(what: str, expected: Any, actual: Any, seq: int | None = None) -> None:
        if expected != actual:
            found.append((at if seq is None else seq, what))

    state = State(DictKeys(), no_bundle)
    follow = Follow(state, differs)
    for at, (kind, body) in enumerate(story):
        record = sealed(at, kind, body)
        follow.check(record)
        if kind.startswith("kill."):
            state.apply(record, lambda: ())
    follow.end()
    return found


def test_a_tool_that_booked_something_else_is_stopped_by_the_next_record() -> None:
    """The kill follows at once, is the tool's own, and says why."""
    assert differences(STARTED, BOOKED, killed("a"), DECIDED) == []
    assert differences(STARTED, BOOKED, DECIDED, killed("a")) == [(2, "next")]
    assert differences(STARTED, BOOKED, killed("a", tool="other")) == [(2, "next")]
    assert differences(STARTED, BOOKED, killed("a", reason="looks wrong")) == [(2, "next")]
    assert differences(STARTED, BOOKED) == [(1, "next")]


def test_a_tool_that_is_stopped_already_needs_no_second_kill() -> None:
    """Only while the kill stands: after people cleared it, the next such booking takes a kill of its own."""
    stopped = killed("a", reason="looks wrong")
    assert differences(STARTED, stopped, BOOKED, cleared("a"), DECIDED) == []
    assert differences(STARTED, stopped, cleared("a"), BOOKED, DECIDED) == [(4, "next")]


def test_the_id_of_a_kill_is_never_used_again() -> None:
    """Not even after the first was cleared: a clearance signed for one would clear the other."""
    assert differences(STARTED, killed("a"), cleared("a"), killed("b")) == []
    assert differences(STARTED, killed("a"), cleared("a"), killed("a")) == [(3, "kill")]


def test_a_gate_decides_between_its_start_and_its_stop_with_the_tier_of_its_start() -> None:
    """A restart gives the tier anew; a start without a stop before it is what a crash leaves."""
    stopped: tuple[str, dict[str, Any]] = ("gate.stopped", {"reason": "closed"})
    enforcing = ("gate.started", {**STARTED[1], "tier": "enforcing"})
    assert differences(STARTED, DECIDED, STARTED, DECIDED, stopped, STARTED, DECIDED) == []
    assert differences(STARTED, DECIDED, stopped, DECIDED) == [(3, "gate")]
    assert differences(STARTED, stopped, enforcing, DECIDED) == [(3, "tier")]
