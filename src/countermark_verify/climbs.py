"""V11: how an escalation goes on without answers: when each rung ends, who is asked next, when it is over."""

from typing import Any

from countermark_verify.bundle import Bundle
from countermark_verify.escalation import Escalation
from countermark_verify.hours import due
from countermark_verify.report import Ledger
from countermark_verify.state import State


class Climbs:
    """Checks `escalation.raised`, `escalation.climbed` and `escalation.expired` against the state before them."""

    def __init__(self, ledger: Ledger, state: State) -> None:
        self._ledger = ledger
        self._state = state
        self._checks = {
            "escalation.raised": self._raised,
            "escalation.climbed": self._climbed,
            "escalation.expired": self._expired,
        }

    def check(self, position: int, record: dict[str, Any]) -> None:
        check = self._checks.get(record["kind"])
        if check is not None:
            check(position, record, record["body"])

    def _refute(self, message: str, seq: int, expected: Any = None, actual: Any = None) -> None:
        self._ledger.refute("V11.escalation", message, seq, expected, actual)

    def _end(self, seq: int, start: int, rung: dict[str, Any], zone: str) -> int | None:
        """When a rung that begins at `start` ends; None, and that is said, where it cannot be established."""
        try:
            found = due(start, rung["deadline_s"], rung["hours"], zone)
        except (KeyError, ValueError, OSError):
            self._ledger.lack("V11.no_zone", f"no time zone {zone!a} on this machine", seq)
            return None
        if found is None:
            self._refute("a rung whose business time does not come to its deadline", seq)
        return found

    def _raised(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        """The first rungs' ends, and the latest end of all, follow from the ladders and the time of the decision."""
        parked = self._state.parked.get(body["id"])
        bundle = self._state.bundles.get(body["bundle"])
        if parked is None or bundle is None:
            return
        if not body["ladders"] or not body["ladders"].keys() <= bundle.ladders.keys():
            self._refute("names ladders that the bundle does not have", seq, None, sorted(body["ladders"]))
            return
        ends = {name: self._ends(seq, parked.at, bundle, name) for name in body["ladders"]}
        if not all(ends.values()):
            return
        first = {name: found[0] for name, found in ends.items()}
        if body["due"] != first:
            self._refute("the first rungs end at other times", seq, first, body["due"])
        if body["not_after"] != (last := max(found[-1] for found in ends.values())):
            self._refute("another deadline than its ladders'", seq, last, body["not_after"])

    def _ends(self, seq: int, at: int, bundle: Bundle, name: str) -> list[int]:
        found: list[int] = []
        for rung in bundle.ladders[name]["rungs"]:
            end = self._end(seq, at, rung, bundle.zone)
            if end is None:
                return []
            at = end
            found.append(at)
        return found

    def _waiting(self, seq: int, body: dict[str, Any], what: str) -> Escalation | None:
        escalation = self._state.escalations.get(body["escalation"])
        if escalation is not None and escalation.state != "pending":
            self._refute(f"{what} although it is {escalation.state}", seq)
            return None
        return escalation

    def _climbed(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        escalation = self._waiting(seq, body, "climbs")
        if escalation is None or escalation.bundle is None:
            return
        name, now = body["ladder"], record["at"]
        if name not in escalation.rung:
            self._refute("climbs a ladder that is not asked", seq, sorted(escalation.rung), name)
            return
        rung, (step, at) = escalation.rung[name] + 1, escalation.next
        if body["rung"] != rung:
            self._refute("asks another rung than the next", seq, rung, body["rung"])
        if escalation.last(name):
            self._refute("climbs beyond the last rung", seq, rung - 1, body["rung"])
            return
        if escalation.satisfied(name):
            self._refute("climbs although enough people have approved on this ladder", seq)
        if body["because"] == "deadline":
            start = escalation.due[name]
            if step != name:
                self._refute("climbs before what was due earlier", seq, step, name)
            if now < start:
                self._refute("climbs before the rung has ended", seq, start, now)
        else:
            start = now
            if now >= at:
                self._refute("climbs for want of people although a step was due", seq, at, now)
        end = self._end(seq, start, escalation.bundle.ladders[name]["rungs"][rung - 1], escalation.bundle.zone)
        if end is not None and body["due"] != end:
            self._refute("the rung ends at another time", seq, end, body["due"])

    def _expired(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        escalation = self._waiting(seq, body, "expires")
        if escalation is None or escalation.bundle is None:
            return
        if body.get("because") == "policy":
            if escalation.body["bundle"] == self._state.activated:
                self._refute("withdrawn for another policy although the one that asked is in force", seq)
            return
        if "because" in body:
            return  # a cancelled run withdrew it: V21
        ladder, at = escalation.next
        if ladder and not escalation.last(ladder):
            self._refute(f"expires while the ladder {ladder} has another rung", seq, None, escalation.rung[ladder])
        elif record["at"] < at:
            self._refute("expires before its deadline", seq, at, record["at"])
