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
    # The same by person, and by who answers: each look-up costs as much as what it finds.
    _theirs: dict[str, dict[str, None]] = field(default_factory=dict)
    _named: dict[str, dict[str, None]] = field(default_factory=dict)

    def holds(self, bundle: Bundle | None, person: str, key: str) -> bool:
        """Does a key sign for a person under a bundle? None does for somebody who is not in it."""
        known = bundle.people.get(person) if bundle is not None else None
        if known is None:
            return False
        return key in self._theirs.get(person, ()) or (key in known["keys"] and key not in self.removed)

    def count(self, bundle: Bundle, person: str) -> int:
        """How many keys sign for a person of the bundle."""
        theirs = self._theirs.get(person, {})
        listed = [key for key in bundle.people[person]["keys"] if key not in self.removed and key not in theirs]
        return len(listed) + len(theirs)

    def owner(self, bundle: Bundle, key: str) -> str | None:
        """The person or the agent of the bundle whom a key belongs to."""
        enrolled = self.enrolled.get(key)
        if enrolled is not None and enrolled.person in bundle.people:
            return enrolled.person
        holder = bundle.holders.get(key)
        return None if holder in bundle.people and key in self.removed else holder

    def left(self, bundle: Bundle, person: str, without: str) -> bool:
        """Has a person of the bundle another key than this one?"""
        return self.count(bundle, person) > int(self.holds(bundle, person, without))

    def away(self, person: str, stands_in: str, since: int, until: int) -> None:
        if (before := self.absences.get(person)) is not None:
            self._named[before[0]].pop(person, None)
        self._named.setdefault(stands_in, {})[person] = None
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
        found = []
        for absent in self._named.get(person, ()):
            _, since, until = self.absences[absent]
            if since <= at < until and absent in bundle.people and person in bundle.people:
                found.append(absent)
        return sorted(found)

    def enrol(self, key: str, person: str, seq: int, by: tuple[str, ...]) -> None:
        self._drop(key)
        self.enrolled[key] = Enrolled(person, seq, by)
        self._theirs.setdefault(person, {})[key] = None

    def remove(self, key: str, seq: int) -> None:
        self._drop(key)
        self.removed[key] = seq

    def _drop(self, key: str) -> None:
        if (known := self.enrolled.pop(key, None)) is not None:
            self._theirs[known.person].pop(key, None)

    def activate(self, people: Collection[str], seq: int) -> None:
        """Keys of people who are not in the new bundle end for good."""
        for key in [key for key, one in self.enrolled.items() if one.person not in people]:
            self.remove(key, seq)
