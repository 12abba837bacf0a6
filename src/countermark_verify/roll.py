"""Whose key signs for whom now: the bundle in force, keys enrolled and removed by record (docs/spec/record.md)."""

from collections.abc import Collection
from dataclasses import dataclass, field

from countermark_verify.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Enrolled:
    """`seq` is that of the record; `by` are the people who signed it."""

    person: str
    seq: int
    by: tuple[str, ...]


@dataclass(slots=True)
class Roll:
    """Folded from every readable record, in order."""

    enrolled: dict[str, Enrolled] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    # Who is away -> who answers, from, until: the newest word.
    absences: dict[str, tuple[str, int, int]] = field(default_factory=dict)

    def keys(self, bundle: Bundle | None, person: str) -> list[str]:
        """All keys that sign for a person under a bundle; none for somebody who is not in it."""
        known = bundle.people.get(person) if bundle is not None else None
        if known is None:
            return []
        listed = [key for key in known["keys"] if key not in self.removed]
        return listed + [key for key, one in self.enrolled.items() if one.person == person and key not in listed]

    def owner(self, bundle: Bundle, key: str) -> str | None:
        """The person or the agent of the bundle whom a key belongs to."""
        people = (person for person in bundle.people if key in self.keys(bundle, person))
        agents = (agent for agent, keys in bundle.keys.items() if key in keys)
        return next(people, None) or next(agents, None)

    def away(self, person: str, stands_in: str, since: int, until: int) -> None:
        self.absences[person] = (stands_in, since, until)

    def place(self, bundle: Bundle, person: str, roles: list[str], at: int) -> str | None:
        """Whose place in a quorum somebody's answer takes: their own, else that of the first for whom they stand in."""
        for name in (person, *self.stands_in(bundle, person, at)):
            known = bundle.people.get(name)
            if known is not None and set(roles) & set(known["roles"]):
                return name
        return None

    def stands_in(self, bundle: Bundle, person: str, at: int) -> list[str]:
        """For whom somebody answers at a time, sorted: people of the bundle who are away and named them."""
        return sorted(
            absent
            for absent, (named, since, until) in self.absences.items()
            if named == person and since <= at < until and absent in bundle.people and person in bundle.people
        )

    def enrol(self, key: str, person: str, seq: int, by: tuple[str, ...]) -> None:
        self.enrolled[key] = Enrolled(person, seq, by)

    def remove(self, key: str, seq: int) -> None:
        self.enrolled.pop(key, None)
        self.removed[key] = seq

    def activate(self, people: Collection[str], seq: int) -> None:
        """Keys of people who are not in the new bundle end for good."""
        for key in [key for key, one in self.enrolled.items() if one.person not in people]:
            self.remove(key, seq)
