"""The clock of the ladders: who is asked next when nobody answers, and that no answer at all means no.

A rung ends at the time that was said when it was asked. Time during which the gate did not run counts as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from countermark.gate.writer import Writer
from countermark.model.errors import ArgumentError, AuthorityError, CountermarkError
from countermark.policy import Escalation, due_at

STEPS_PER_TURN_MAX = 128  # of one lane message, so that other messages get their turn in between

Because = Literal["deadline", "unreachable"]


def turn(writer: Writer) -> int:
    """Take the steps that are due, longest overdue first, and no more than one turn may. Returns how many."""
    for taken in range(STEPS_PER_TURN_MAX):
        parked = writer.state.parked.due(writer.at)
        if parked is None:
            return taken
        step = parked.next
        if not step.ladder:
            writer.add("escalation.expired", _shared(parked))
            continue
        try:
            due = _end(parked, step.ladder, step.at)
        except CountermarkError:  # this machine does not know the zone any more
            if taken:
                return taken  # what was added stands; the next turn says what is wrong
            raise
        _climb(writer, parked, step.ladder, "deadline", due)
    return STEPS_PER_TURN_MAX


def unreachable(writer: Writer, body: Mapping[str, Any]) -> dict[str, Any]:
    """Nobody on a rung could be told: ask the next one at once. Answers with the present rung and whether it climbed.

    Nothing happens when that rung is not asked any more, has its people's answers or is the last one.

    Raises:
        ArgumentError: the escalation does not ask that ladder.
        AuthorityError: ``approval_closed``, it does not wait.
    """
    parked = writer.state.parked.get(body["escalation"])
    if parked is None or parked.state != "pending":
        raise AuthorityError("this escalation is not waiting for an answer", code="approval_closed")
    ladder = body["ladder"]
    if all(ladder != asked.id for asked in parked.plan.ladders):
        raise ArgumentError("the escalation does not ask that ladder", field="ladder")
    waits = parked.rung(ladder) == body["rung"] and not parked.satisfied(ladder) and not parked.last(ladder)
    if waits and writer.at < parked.next.at:  # what is due comes first
        _climb(writer, parked, ladder, "unreachable", _end(parked, ladder, writer.at))
        return {"rung": parked.rung(ladder), "climbed": True}
    return {"rung": parked.rung(ladder), "climbed": False}


def _end(parked: Escalation, ladder: str, since: int) -> int:
    """When the next rung ends, whose time runs from ``since``: the end of the one before, or now."""
    rung = next(known for known in parked.plan.ladders if known.id == ladder).rungs[parked.rung(ladder)]
    return due_at(since, rung.deadline_s, rung.hours, parked.plan.zone)


def _climb(writer: Writer, parked: Escalation, ladder: str, because: Because, due: int) -> None:
    number = parked.rung(ladder) + 1
    body = {**_shared(parked), "ladder": ladder, "rung": number, "because": because, "due": due}
    writer.add("escalation.climbed", body)


def _shared(parked: Escalation) -> dict[str, Any]:
    body = parked.body
    return {name: body[name] for name in ("escalation", "id", "agent", "run", "terms")}
