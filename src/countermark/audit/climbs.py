"""How an escalation goes on when nobody answers: each step is derived from the question, the answers and the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.audit.follow import Differs
from countermark.model.records import Record
from countermark.policy import Escalation, State, due_at

_SHARED = ("id", "agent", "run", "terms")


class Climbs:
    """Checks ``escalation.climbed`` and ``escalation.expired`` against the state before them."""

    def __init__(self, state: State, differs: Differs) -> None:
        self._state = state
        self._differs = differs
        self.checks = {"escalation.climbed": self._climbed, "escalation.expired": self._expired}

    def _waiting(self, body: Mapping[str, Any]) -> Escalation | None:
        parked = self._state.parked.get(body["escalation"])
        if parked is None or parked.state != "pending":
            self._differs("escalation", "one that waits", body["escalation"])
            return None
        asked = parked.body
        for member in _SHARED:
            self._differs(member, asked[member], body[member])
        return parked

    def _climbed(self, record: Record) -> None:
        """The next rung, in its turn: at the end of the one before, or earlier when nobody there could be told."""
        body = record.body
        parked = self._waiting(body)
        if parked is None:
            return
        ladder, step = body["ladder"], parked.next
        found = next((known for known in parked.plan.ladders if known.id == ladder), None)
        if found is None or parked.last(ladder) or parked.satisfied(ladder):
            self._differs("ladder", "one that has another rung to ask", ladder)
            return
        number = parked.rung(ladder) + 1
        self._differs("rung", number, body["rung"])
        if body["because"] == "deadline":
            self._differs("ladder", step.ladder, ladder)
            if record.at < step.at:
                self._differs("at", f"not before the end of the rung {step.at}", record.at)
            since = step.at
        else:
            self._differs("because", "unreachable", body["because"])
            if record.at >= step.at:
                self._differs("at", f"before {step.at}, when the next step was due", record.at)
            since = record.at
        rung = found.rungs[number - 1]
        self._differs("due", due_at(since, rung.deadline_s, rung.hours, parked.plan.zone), body["due"])

    def _expired(self, record: Record) -> None:
        """Only when a ladder's last rung has ended without its people, and no other step was due before; or another
        policy is in force than asked; or its run was cancelled, of which whoever follows the run judges."""
        parked = self._waiting(record.body)
        if parked is None:
            return
        if record.body.get("because") == "policy":
            bundle = self._state.bundle
            if bundle is None or bundle.digest == parked.body["bundle"]:
                self._differs("because", "absent while the policy that asked is in force", "policy")
            return
        run = self._state.runs.get(record.body["run"])
        if "because" in record.body and run is not None and run.definition:
            return
        step = parked.next
        if step.ladder:
            self._differs("next", f"the ladder {step.ladder} climbs", record.kind)
        if record.at < step.at:
            self._differs("at", f"not before the deadline {step.at}", record.at)
