"""The fact machine: ``compute`` before a decision, ``apply`` for every record after it.

The machine is pure: no clock, no input or output. The gate, the back-test and re-performance run this same code, so
that the value of a fact at record n is a function of the records before n.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from countermark.facts.definition import OUTPUT, FactDef
from countermark.facts.kinds import MissingFactError, Subject, Tracker, WindowTracker, tracker_for
from countermark.facts.usage import usage
from countermark.model.canon import INTEGER_ABS_MAX, Json
from countermark.model.errors import PolicyError, StoreError
from countermark.model.records import Record
from countermark.model.values import EXECUTING

_SNAPSHOT_VERSION = 1


def subject_of(body: Mapping[str, Any]) -> dict[str, Json]:
    """The fields of an action, from the body of its ``action.decided``: sensitive arguments are not among them."""
    terms = body["terms"]
    mandates = body["mandates"]
    subject: dict[str, Json] = {
        "agent": body["agent"], "run": body["run"], "mandate": mandates[0] if mandates else None,
        "tool": body["tool"], "payee": terms["payee"], "currency": terms["currency"], "amount": terms["amount"],
    }  # fmt: skip
    for alias, value in body["args"].items():
        if value.__class__ is not dict:
            subject["args." + alias] = value
    return subject


class FactMachine:
    """State of all facts of a bundle, folded from records.

    ``compute`` changes nothing; ``apply`` takes every record once, in order of ``seq``.
    """

    def __init__(self, defs: Iterable[FactDef], since: Mapping[str, int] | None = None) -> None:
        """``since`` tells when each payee's present account was set (microseconds); it is read, never changed."""
        self._since: Mapping[str, int] = {} if since is None else since
        self._trackers: dict[str, Tracker] = {}
        for definition in defs:
            if definition.name in self._trackers:
                raise PolicyError(f"fact {definition.name} is defined twice")
            problem = definition.problem()
            if problem:
                raise PolicyError(f"fact {definition.name}: {problem}")
            self._trackers[definition.name] = tracker_for(definition, self._since)
        self._outputs = any(name.startswith(OUTPUT) for definition in self.defs for name, _ in definition.where)
        self._open: dict[int, tuple[int, Subject]] = {}
        self._at = 0

    @property
    def defs(self) -> tuple[FactDef, ...]:
        """The definitions in force, in the order given."""
        return tuple(tracker.definition for tracker in self._trackers.values())

    def compute(
        self, subject: Mapping[str, Json], because: Sequence[str], now_us: int, names: Iterable[str]
    ) -> dict[str, Json]:
        """Values of the facts ``names`` for an action decided at ``now_us``.

        ``subject`` holds the action's fields (``subject_of``), ``because`` the action ids it cites.

        Raises:
            MissingFactError: one of them cannot be computed; ``fact`` names it.
        """
        trackers = self._trackers
        values: dict[str, Json] = {}
        for name in names:
            tracker = trackers.get(name)
            if tracker is None:
                raise MissingFactError(name, "it is not defined")
            value = tracker.compute(subject, because, now_us)
            # A value outside the record profile could not be recorded, so it must not decide either.
            if value.__class__ is int and value > INTEGER_ABS_MAX:
                raise MissingFactError(name, "its value is beyond 2^53-1")
            values[name] = value
        return values

    def usage(self, now_us: int, groups_max: int) -> dict[str, dict[str, Any]]:
        """By name of each window that is a cap: its fullest groups (``facts.usage``)."""
        return {
            name: usage(tracker, self._open.values(), now_us, groups_max)
            for name, tracker in self._trackers.items()
            if isinstance(tracker, WindowTracker) and tracker.cap
        }

    def apply(self, record: Record) -> None:
        """Fold one record in: intents (``allow`` or ``flag``) and outcomes count, everything else is ignored."""
        kind = record.kind
        if kind == "action.decided":
            body = record.body
            if body["disposition"] not in EXECUTING:
                return
            self._at = at = record.at
            subject = subject_of(body)
            self._open[record.seq] = (at, subject)
            for tracker in self._trackers.values():
                tracker.intend(subject, at)
        elif kind == "action.settled":
            self._settle(record)

    def _settle(self, record: Record) -> None:
        body = record.body
        outcome = body["outcome"]
        if outcome == "unknown":
            return
        intent = self._open.pop(body["intent"], None)
        if intent is None:
            raise StoreError(f"record {record.seq} settles an intent that is not open")
        self._at = record.at
        at, subject = intent
        if body["tier"] == "observing":  # a report by the agent's own process releases nothing and proves nothing
            return
        if outcome == "failed":
            for tracker in self._trackers.values():
                tracker.fail(subject, at)
        else:
            if self._outputs:
                subject = {**subject, **{OUTPUT + name: value for name, value in body["output"].items()}}
            for tracker in self._trackers.values():
                tracker.confirm(subject, at, record.at, body)

    def dump(self) -> dict[str, Any]:
        """The whole state as JSON values; groups that can no longer count are dropped first."""
        facts: dict[str, Any] = {}
        for name, tracker in self._trackers.items():
            tracker.prune(self._at)
            facts[name] = {"definition": tracker.definition.document(), "state": tracker.dump()}
        return {
            "v": _SNAPSHOT_VERSION,
            "at": self._at,
            "open": [[seq, at, dict(subject)] for seq, (at, subject) in self._open.items()],
            "facts": facts,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that ``dump`` made under the same definitions.

        Raises:
            StoreError: the snapshot belongs to other definitions; replay the records instead.
        """
        facts = state.get("facts")
        mine = {name: tracker.definition.document() for name, tracker in self._trackers.items()}
        if state.get("v") != _SNAPSHOT_VERSION or type(facts) is not dict:
            raise StoreError("a snapshot of facts has an unknown form")
        if {name: entry["definition"] for name, entry in facts.items()} != mine:
            raise StoreError("a snapshot of facts belongs to other definitions")
        for name, tracker in self._trackers.items():
            tracker.load(facts[name]["state"])
        self._open = {seq: (at, dict(subject)) for seq, at, subject in state["open"]}
        self._at = state["at"]

    def redefine(self, defs: Iterable[FactDef], history: Iterable[Record]) -> FactMachine:
        """A machine for other definitions: unchanged ones keep their state, the others are backfilled.

        ``history`` is every record so far, from seq 0; it is read only when something must be backfilled. This
        machine stays as it is.
        """
        fresh = FactMachine(defs, self._since)
        kept = self.dump()
        missing: list[FactDef] = []
        for name, tracker in fresh._trackers.items():
            entry = kept["facts"].get(name)
            if entry is not None and entry["definition"] == tracker.definition.document():
                tracker.load(entry["state"])
            else:
                missing.append(tracker.definition)
        if missing:
            replay = FactMachine(missing, self._since)
            for record in history:
                replay.apply(record)
            for definition in missing:
                fresh._trackers[definition.name] = replay._trackers[definition.name]
        fresh._open = {seq: (at, dict(subject)) for seq, at, subject in kept["open"]}
        fresh._at = kept["at"]
        return fresh
