"""What one record demands of the next, and what the gate's starts and stops allow."""

from __future__ import annotations

from typing import Any

from countermark.audit.follow import Follow
from countermark.model.records import GENESIS, Record, seal
from countermark.policy import Bundle, DictKeys, State

STARTED = ("gate.started", {"tier": "embedded", "deployment": "acme", "log_key": "k"})
DECIDED = ("action.decided", {"tier": "embedded", "escalation": None, "id": "act_1", "tool": "pay"})
OUTCOME: dict[str, Any] = {"id": "act_1", "tool": "pay", "outcome": "confirmed", "ref": "r", "settled": None}
BOOKED = ("action.settled", {**OUTCOME, "code": "booked_differently", "via": "execute"})
SAID: dict[str, Any] = {"outcome": "confirmed", "ref": "r", "amount": None}
RESOLVED = ("action.resolved", {"id": "act_1", "resolution": SAID})
BY_PEOPLE = ("action.settled", {**OUTCOME, "code": "resolved", "via": "people"})
SIGNED = ("request.signed", {"id": "act_1"})


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


def test_what_two_people_signed_is_the_outcome_that_follows_at_once() -> None:
    """Its outcome, its reference and its amount; and no outcome is told by people whom no record asked."""
    assert differences(STARTED, RESOLVED, BY_PEOPLE) == []
    assert differences(STARTED, BY_PEOPLE) == [(1, "via")]
    assert differences(STARTED, RESOLVED) == [(1, "next")]
    assert differences(STARTED, RESOLVED, DECIDED, BY_PEOPLE) == [(2, "next"), (3, "via")]
    for member, value in (("outcome", "failed"), ("ref", "other"), ("id", "act_2"), ("via", "execute")):
        told = ("action.settled", {**BY_PEOPLE[1], member: value})
        assert (2, "next") in differences(STARTED, RESOLVED, told), member
    paid = ("action.settled", {**BY_PEOPLE[1], "settled": {"amount": 5, "currency": "eur"}})
    assert differences(STARTED, RESOLVED, paid) == [(2, "settled")]


def test_a_signed_request_is_decided_at_once() -> None:
    """The next record is the first decision about that very action."""
    assert differences(STARTED, SIGNED, DECIDED) == []
    assert differences(STARTED, SIGNED, STARTED, DECIDED) == [(2, "next")]
    assert differences(STARTED, SIGNED, ("action.decided", {**DECIDED[1], "id": "act_2"})) == [(2, "next")]
    assert differences(STARTED, SIGNED, ("action.decided", {**DECIDED[1], "escalation": "esc_1"})) == [(2, "next")]


def test_only_records_that_stand_already_can_be_read() -> None:
    """A reading names at least one record, and none at or after its own place."""
    for first, last, fits in ((0, 1, True), (0, 2, False), (1, 1, False), (-1, 1, False)):
        reading: tuple[str, dict[str, Any]] = ("log.read", {"from": first, "to": last, "reader": "uid:0"})
        assert (differences(STARTED, reading) == []) is fits, (first, last)
