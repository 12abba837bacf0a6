"""What a record demands of the next one, with which it shares a commit, and what the gate's starts and stops allow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from countermark.model.records import Record
from countermark.model.tool import CALLER
from countermark.model.values import is_reader
from countermark.policy import State


class Differs(Protocol):
    """Told of every pair of derived and recorded value; ``seq`` names another record than the present one."""

    def __call__(self, what: str, expected: Any, actual: Any, seq: int | None = None) -> None: ...


class Follow:
    """Checks each record, before it is folded, against the one directly before it and the gate's last start."""

    def __init__(self, state: State, differs: Differs) -> None:
        self._state = state
        self._differs = differs
        self._tier: str | None = None
        self._running = False
        self._resolved: Mapping[str, Any] | None = None  # what people agreed on in the record directly before
        self._kills: set[str] = set()
        self._due: tuple[dict[str, Any], int] | None = None  # kind and members that are due, and after which seq

    def check(self, record: Record) -> None:
        """Compare one record with what may stand here, and remember what it demands."""
        kind, body = record.kind, record.body
        if self._due is not None:
            self._demanded(self._due[0], kind, body)
        if kind == "action.decided":
            self._differs("tier", self._tier_of(body["tool"]), body["tier"])
            if not self._running:
                self._differs("gate", "one that was started and has not stopped", "stopped")
        elif kind == "action.settled":
            self._by_people(body)
            if body["code"] == "booked_differently":
                self._stops_its_tool(record.seq, body["tool"])
        elif kind == "action.resolved":
            said = body["resolution"]
            members = {"id": body["id"], "outcome": said["outcome"], "ref": said["ref"], "via": "people"}
            self._due = ({"kind": "action.settled", **members}, record.seq)
        elif kind == "log.read":
            if not 0 <= body["from"] < body["to"] <= record.seq:
                self._differs("to", "records that were there to be read", [body["from"], body["to"]])
            if not is_reader(body["reader"], self._state.people):
                self._differs("reader", "a user, or a person of the policy in force", body["reader"])
        elif kind == "request.signed":
            self._due = ({"kind": "action.decided", "id": body["id"], "escalation": None}, record.seq)
        elif kind == "escalation.answered":
            if body["state"] == "approved":
                # An approval that is kept would decide with the facts of a time that its people never saw.
                self._due = ({"kind": "action.decided", "escalation": body["escalation"]}, record.seq)
        elif kind == "kill.set":
            if body["kill"] in self._kills:
                self._differs("kill", "an id that was never used", body["kill"])
            self._kills.add(body["kill"])
        elif kind == "gate.started":
            self._tier, self._running = body["tier"], True
        elif kind == "gate.stopped":
            self._running = False
        self._resolved = body["resolution"] if kind == "action.resolved" else None

    def _tier_of(self, tool: str) -> str | None:
        """What its caller runs is only reported, wherever the gate stands."""
        bundle = self._state.bundle
        found = None if bundle is None else bundle.compiled.tools.get(tool)
        return "observing" if found is not None and found.connector == CALLER else self._tier

    def _by_people(self, body: Mapping[str, Any]) -> None:
        """An outcome is told by people exactly when two of them signed it in the record before."""
        if (body["via"] == "people") != (self._resolved is not None):
            self._differs("via", "people exactly after an action.resolved", body["via"])
        elif self._resolved is not None:
            moved = None if body["settled"] is None else body["settled"]["amount"]
            self._differs("settled", self._resolved["amount"], moved)

    def end(self) -> None:
        """What was still due when the records end is reported at the record that demanded it."""
        if self._due is not None:
            self._differs("next", self._due[0], None, self._due[1])

    def _demanded(self, due: Mapping[str, Any], kind: str, body: Mapping[str, Any]) -> None:
        self._due = None
        self._differs("next", due, {name: kind if name == "kind" else body.get(name) for name in due})

    def _stops_its_tool(self, seq: int, tool: str) -> None:
        """A provider that books something else than was asked is stopped, unless its tool already is."""
        scope = {"kind": "tool", "value": tool}
        if scope not in self._state.kills.values():
            self._due = ({"kind": "kill.set", "scope": scope, "reason": "booked_differently"}, seq)
