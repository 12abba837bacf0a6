"""How an escalation was put to people, rung after rung, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from countermark.audit import words
from countermark.model.records import Record

Rungs = Mapping[str, Sequence[Mapping[str, Any]]]


def rungs_of(compiled: Mapping[str, Any]) -> Rungs:
    """The rungs of every ladder of a compiled bundle."""
    return {ladder["id"]: ladder["rungs"] for ladder in compiled["ladders"]}


def raised(body: Mapping[str, Any], rungs: Rungs) -> list[str]:
    """``ladder finance was asked to lift ...: one of approver, until ...``"""
    lines = []
    for ladder, ids in body["ladders"].items():
        until = words.when(body["due"][ladder])
        lines.append(f"ladder {ladder} was asked to lift {', '.join(ids)}: {whom(rungs[ladder][0])}, until {until}")
    return lines


def climbed(record: Record, rungs: Rungs, before: Sequence[Record]) -> str:
    """``nobody of approver answered by ...; asked one of board, until ...``: ``before`` are the action's records."""
    body = record.body
    ladder, number = body["ladder"], body["rung"]
    left = rungs[ladder][number - 2]
    given = [
        r for r in before
        if r.kind == "escalation.answered" and r.body["approval"]["ladder"] == ladder
        and r.body["approval"]["rung"] == number - 1 and r.body["approval"]["verdict"] == "approve"
    ]  # fmt: skip
    roles = " or ".join(left["roles"])
    who = "nobody" if not given else f"only {len(given)} of the {left['quorum']} needed"
    if body["because"] == "deadline":
        told = f"{who} of {roles} answered by {words.when(_end(record, before))}"
    else:
        told = f"{who} of {roles} had answered, and nobody of them could be told on {words.when(record.at)}"
    counts = "; what was said before counts no more" if given else ""
    return f"{told}; asked {whom(rungs[ladder][number - 1])}, until {words.when(body['due'])}{counts}"


def _end(record: Record, before: Sequence[Record]) -> int:
    """When the rung that was left had ended."""
    end = record.at
    for earlier in before:
        if earlier.seq >= record.seq:
            break
        if earlier.kind == "escalation.raised":
            end = earlier.body["due"][record.body["ladder"]]
        elif earlier.kind == "escalation.climbed" and earlier.body["ladder"] == record.body["ladder"]:
            end = earlier.body["due"]
    return int(end)


def whom(rung: Mapping[str, Any]) -> str:
    """``2 of approver or board, in business hours``."""
    hours = "" if rung["hours"] is None else ", in business hours"
    count = "one" if rung["quorum"] == 1 else str(rung["quorum"])
    return f"{count} of {' or '.join(rung['roles'])}{hours}"


def deadline(records: Sequence[Record]) -> int | None:
    """When the first of the rungs that are asked now ends, by an action's records; None when nothing was asked."""
    due: dict[str, int] = {}
    for record in records:
        if record.kind == "escalation.raised":
            due = dict(record.body["due"])
        elif record.kind == "escalation.climbed":
            due[record.body["ladder"]] = record.body["due"]
    return min(due.values(), default=None)
