"""A successor lane in the state: closed from the restore on, until two people accept it (``docs/spec/record.md``).

While it is closed a stop of the whole deployment stands, so that nothing is decided, dispatched or sent again; what was
open is only looked up. Every mandate of before has ended: a revocation may be among the records that were lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from countermark.model.records import Record

if TYPE_CHECKING:
    from countermark.policy.state import State

ACCEPTED_BY = 2  # different people


@dataclass(slots=True)
class Succession:
    """A lane that waits for people. ``record`` is the digest of its ``lane.succeeded``; ``people`` have accepted."""

    record: str
    lane: str
    imported: int = 0
    people: list[str] = field(default_factory=list)

    @property
    def kill(self) -> str:
        """The id of the stop that stands meanwhile; no record sets it and no clearance ends it."""
        return "kill_" + self.record[7:23]

    def dump(self) -> list[Any]:
        return [self.record, self.lane, self.imported, self.people]


def succeeded(state: State, record: Record, _: Callable[[], Iterable[Record]]) -> None:
    if state.succession is not None:  # restored again before anybody accepted: only the newest restore waits
        state.kills.pop(state.succession.kill, None)
    state.succession = Succession(record.digest, record.body["lane"])
    state.log_key, state.rotation = record.body["log_key"], None
    state.revoked.update(state.mandates)
    state.kills[state.succession.kill] = {"kind": "deployment", "value": state.deployment}


def imported(state: State, record: Record, _: Callable[[], Iterable[Record]]) -> None:
    obligation = record.body["obligation"]
    if obligation is not None:  # also from an open intent: should that fail, this payment still holds the key
        state.keys.put("ob:" + obligation, record.seq)
    if state.succession is not None:
        state.succession.imported += 1


def accepted(state: State, record: Record, _: Callable[[], Iterable[Record]]) -> None:
    if state.succession is None:
        return
    state.succession.people.append(record.body["acceptance"]["person"])
    if len(set(state.succession.people)) >= ACCEPTED_BY:
        state.kills.pop(state.succession.kill, None)
        state.succession = None
