"""Ladders: who is asked, how many of them, until when, and who is asked next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.authority import RUNG_MAX
from countermark.model.errors import PolicyError
from countermark.policy.hours import SPAN_DAYS_MAX, BusinessHours, due_at, hours_of

DEADLINE_S_MAX = 30 * 86_400
_RUNG = frozenset(("roles", "quorum", "deadline_s", "hours"))


@dataclass(frozen=True, slots=True)
class Rung:
    """``quorum`` people with one of ``roles`` within ``deadline_s`` seconds, with ``hours`` of business time."""

    roles: tuple[str, ...]
    quorum: int
    deadline_s: int
    hours: BusinessHours | None = None

    @property
    def fits(self) -> bool:
        """Whether it ends in good time: a deadline of 30 days at most, and 120 by the calendar."""
        if not 1 <= self.deadline_s <= DEADLINE_S_MAX or self.quorum < 1:
            return False
        return self.hours is None or self.deadline_s * 7 <= SPAN_DAYS_MAX * self.hours.week_s

    def document(self) -> dict[str, Any]:
        return {
            "roles": list(self.roles), "quorum": self.quorum, "deadline_s": self.deadline_s,
            "hours": None if self.hours is None else self.hours.document(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ladder:
    """Who answers an escalation, rung after rung; nobody on the last one means no."""

    id: str
    rungs: tuple[Rung, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role of any rung."""
        return tuple(dict.fromkeys(role for rung in self.rungs for role in rung.roles))

    def rung(self, number: int) -> Rung | None:
        """A rung by its number, from 1."""
        return self.rungs[number - 1] if 1 <= number <= len(self.rungs) else None

    def ends(self, at: int, zone: str) -> tuple[int, ...]:
        """When each rung ends, if every one lasts as long as it may. ``at``: when the ladder is asked."""
        found: list[int] = []
        for rung in self.rungs:
            at = due_at(at, rung.deadline_s, rung.hours, zone)
            found.append(at)
        return tuple(found)

    def document(self) -> dict[str, Any]:
        return {"id": self.id, "rungs": [rung.document() for rung in self.rungs]}


def first_dues(ladders: Mapping[str, Ladder], names: Iterable[str], at: int, zone: str) -> tuple[dict[str, int], int]:
    """When the first rung of each ladder asked at ``at`` ends, and the latest end of any ladder's last one."""
    ends = {name: ladders[name].ends(at, zone) for name in sorted(names)}
    return {name: found[0] for name, found in ends.items()}, max((found[-1] for found in ends.values()), default=at)


def ladder_of(doc: Mapping[str, Any]) -> Ladder:
    """A ladder of a compiled bundle. Raises ``PolicyError``."""
    rungs = doc["rungs"]
    if doc.keys() != {"id", "rungs"} or not 1 <= len(rungs) <= RUNG_MAX or any(r.keys() != _RUNG for r in rungs):
        raise PolicyError("a ladder of the bundle does not have exactly its members")
    found = tuple(Rung(tuple(r["roles"]), r["quorum"], r["deadline_s"], hours_of(r["hours"])) for r in rungs)
    if not all(rung.fits for rung in found):
        raise PolicyError("a rung of the bundle needs nobody, or does not end in good time")
    return Ladder(doc["id"], found)
