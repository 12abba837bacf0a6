"""A run's receipt: what each step rests on, record by record, and what was not run.

It says what the records say and no more. How far they can be believed, axis by axis, only a verifier can say; of the
axes the receipt names the tier alone, the weakest one of the run's effects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from countermark.model.errors import ArgumentError
from countermark.model.records import Record
from countermark.workflow.machine import Machine
from countermark.workflow.plan import DefinitionLike
from countermark.workflow.progress import Row

TIERS = ("observing", "embedded", "enforcing")  # from the weakest to the strongest


def receipt(definition: DefinitionLike, records: Sequence[Record], *, event: Any = None) -> dict[str, Any]:
    """The receipt of a run, also of one that has not ended.

    Args:
        definition: the one that the run goes by now.
        records: all records of the run's stream, in their order.
        event: the payload of the event that started it, or None.

    Returns:
        ``{"run", "agent", "name", "definition", "bundle", "code", "inputs", "trigger", "parent", "started", "ended",
        "cancelled", "migrated": [...], "status", "outputs", "undone", "left", "tier", "steps": [STEP...], "not_run":
        [places], "strays": [seqs], "size"}``. A record is cited as ``{"seq", "digest", "at"}``; ``ended`` and
        ``cancelled`` are null when there was none, and ``tier`` is when there was no effect. STEP is ``{"place",
        "kind", "name", "conclusion", "outcome", "code", "began", "ended"}`` and, by kind, ``attempts`` (effects:
        decisions with their bundle, approvals, keys, outcomes), ``computed`` (code, input and output by digest) or
        ``waited`` with ``other``, the run that it waits for.

    Raises:
        ArgumentError: the records are not those of a run of a definition.
    """
    if not records or records[0].kind != "run.started" or "workflow" not in records[0].body:
        raise ArgumentError("these are not the records of a run of a definition", field="records")
    started = records[0].body
    machine = Machine(definition, started["run"], started["agent"], started, records[0].at, event=event)
    at_place = _Places()
    for record in records[1:]:
        if not at_place.see(record) and record.kind in _OF_THE_RUN:
            at_place.run.setdefault(record.kind, []).append(record)
        machine.apply(record.kind, record.body, record.at, record.seq)
    given, rows = started["workflow"], machine.progress()
    return {
        "run": started["run"], "agent": started["agent"], "name": given["name"], "definition": definition.digest,
        "bundle": given["bundle"], "code": given["code"], "inputs": given["inputs"], "trigger": given["trigger"],
        "parent": given["parent"], "started": _cited(records[0]), **at_place.turns(), **_end(machine, at_place),
        "tier": at_place.tier(), "steps": [_step(row, at_place) for row in rows if row.began is not None],
        "not_run": list(machine.not_run()), "strays": [seq for seq, _ in machine.strays], "size": len(records),
    }  # fmt: skip


def weakest(tiers: Iterable[str]) -> str | None:
    """The weakest of these tiers; one that nobody knows is weaker than any."""
    order = {tier: place for place, tier in enumerate(TIERS)}
    return min(tiers, key=lambda tier: (order.get(tier, -1), tier), default=None)


_OF_THE_RUN = ("run.cancelled", "run.migrated", "run.ended")


def _cited(record: Record) -> dict[str, Any]:
    return {"seq": record.seq, "digest": record.digest, "at": record.at}


class _Places:
    """The records of a run by the place that they are about."""

    def __init__(self) -> None:
        self.run: dict[str, list[Record]] = {}
        self.attempts: dict[str, dict[str, dict[str, Any]]] = {}  # place -> call_id -> what became of it
        self.computed: dict[str, list[dict[str, Any]]] = {}
        self.waited: dict[str, dict[str, Any]] = {}
        self._actions: dict[str, dict[str, Any]] = {}
        self._tiers: set[str] = set()

    def see(self, record: Record) -> bool:
        """Take a record in; False when it is about no place."""
        kind, body = record.kind, record.body
        if kind == "compute.executed":
            what = {name: body[name] for name in ("attempt", "engine", "code", "input", "status", "result", "ticks")}
            self.computed.setdefault(body["place"], []).append({**_cited(record), **what})
        elif kind == "step.waiting":
            self.waited[body["place"]] = {"waiting": _cited(record), "for": body["for"], "until": body["until"]}
        elif kind == "step.resumed":
            resumed = {**_cited(record), "status": body["status"], "code": body["code"], "event": body["event"]}
            self.waited.setdefault(body["place"], {})["resumed"] = resumed
        elif kind.startswith(("action.", "escalation.")):
            self._action(record)
        else:
            return False
        return True

    def _action(self, record: Record) -> None:
        kind, body = record.kind, record.body
        if kind in ("action.decided", "action.refused"):
            attempt = self._attempt(body["call_id"])
            if kind == "action.refused":
                attempt["refused"] = {**_cited(record), "code": body["code"], "field": body["field"]}
                return
            attempt |= {"action": body["id"], "key": body["key"], "request": body["request"], "digest": body["action"]}
            self._actions[body["id"]] = attempt
            self._tiers.add(body["tier"])
            what = {name: body[name] for name in ("disposition", "stage", "code", "reasons", "bundle", "tier")}
            attempt["decided"].append({**_cited(record), **what, "because": list(body["claimed"]["because"])})
            return
        found = self._actions.get(body["id"])
        if found is None:
            return
        if kind == "action.settled":
            what = {name: body[name] for name in ("outcome", "code", "ref", "settled", "via", "response", "tier")}
            found["settled"].append({**_cited(record), **what})
        elif kind == "escalation.answered":
            approval = body["approval"]
            what = {name: approval[name] for name in ("person", "verdict", "ladder", "rung")}
            found["answers"].append({**_cited(record), **what, "state": body["state"]})
        elif kind == "escalation.expired":
            found["expired"] = {**_cited(record), "because": body.get("because", "time")}

    def _attempt(self, call_id: str) -> dict[str, Any]:
        calls = self.attempts.setdefault(call_id.rpartition(":")[0], {})
        empty = {"call_id": call_id, "decided": [], "answers": [], "settled": []}
        return calls.setdefault(call_id, empty)

    def turns(self) -> dict[str, Any]:
        """What happened to the run as a whole."""
        ended, cancelled = (self.run.get(kind, []) for kind in ("run.ended", "run.cancelled"))
        moved = self.run.get("run.migrated", [])
        return {
            "ended": _cited(ended[0]) if ended else None,
            "cancelled": None if not cancelled else {
                **_cited(cancelled[0]), "reason": cancelled[0].body["reason"], "person": cancelled[0].body["person"],
            },
            "migrated": [
                {**_cited(one), **{name: one.body[name] for name in ("from", "to", "person", "reason")}}
                for one in moved
            ],
        }  # fmt: skip

    def tier(self) -> str | None:
        """The weakest tier of the run's own effects."""
        return weakest(self._tiers)


def _end(machine: Machine, places: _Places) -> dict[str, Any]:
    found = places.run.get("run.ended")
    said: Mapping[str, Any] = found[0].body.get("workflow", {}) if found else {}
    return {
        "status": said.get("status", machine.status), "outputs": said.get("outputs", {}),
        "undone": said.get("undone", []), "left": said.get("left", []),
    }  # fmt: skip


def _step(row: Row, places: _Places) -> dict[str, Any]:
    found: dict[str, Any] = {
        "place": row.place, "kind": row.kind, "name": row.name, "conclusion": row.conclusion, "outcome": row.outcome,
        "code": row.code, "began": row.began, "ended": row.ended,
    }  # fmt: skip
    if row.kind == "effect":
        found["attempts"] = list(places.attempts.get(row.place, {}).values())
    elif row.kind == "pure":
        found["computed"] = places.computed.get(row.place, [])
    else:
        found["waited"] = places.waited.get(row.place)
        found["other"] = row.other
    return found
