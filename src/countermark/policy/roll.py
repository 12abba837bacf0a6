"""Who signs for whom now: the people of the bundle in force, keys enrolled and removed by record, and who is away.

What everybody asks for, ``Roll.people``, is made anew only when something about people is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from countermark.authority import KEYS_MAX, PRINCIPAL, Key, Passkey, Person, fingerprint, parse_key
from countermark.model.errors import AuthorityError
from countermark.model.records import Record

if TYPE_CHECKING:
    from countermark.policy.bundle import Bundle
    from countermark.policy.state import State


@dataclass(frozen=True, slots=True)
class EnrolledKey:
    """A key enrolled by record ``seq`` at ``at`` (microseconds), signed by ``by``."""

    person: str
    label: str
    seq: int
    at: int
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Away:
    """``stands_in`` answers for ``person`` in ``[since, until)``, microseconds; said by record ``seq``."""

    person: str
    stands_in: str
    since: int
    until: int
    seq: int


@dataclass(slots=True)
class Roll:
    """``enrolled`` and ``removed`` are by the key's text, ``absences`` by who is away: the newest word of each."""

    enrolled: dict[str, EnrolledKey] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)  # seq of the record that ended it
    absences: dict[str, Away] = field(default_factory=dict)
    people: Mapping[str, Person] = field(default_factory=lambda: MappingProxyType({}))

    def renew(self, bundle: Bundle) -> None:
        """Make ``people`` anew: the bundle's keys and those enrolled, without those removed."""
        found: dict[str, Person] = {}
        theirs: dict[str, list[str]] = {}
        for text, row in sorted(self.enrolled.items(), key=lambda item: item[1].seq):  # after a start as before it
            theirs.setdefault(row.person, []).append(text)
        for name, person in bundle.compiled.people.items():
            texts = [text for text in map(str, person.keys) if text not in self.removed]
            texts += [text for text in theirs.get(name, ()) if text not in texts]
            found[name] = replace(person, keys=tuple(parse_key(text) for text in texts))
        self.people = MappingProxyType(found)

    def owner_of(self, key: str) -> str | None:
        """The person for whom a key signs now."""
        return next((name for name, one in self.people.items() if any(str(own) == key for own in one.keys)), None)

    def stand_ins(self, at: int) -> dict[str, tuple[str, ...]]:
        """Each person who answers for others at ``at``, and for whom."""
        found: dict[str, tuple[str, ...]] = {}
        for one in self.absences.values():
            known = one.person in self.people and one.stands_in in self.people
            if known and one.since <= at < one.until:
                found[one.stands_in] = (*found.get(one.stands_in, ()), one.person)
        return found

    def listed(self) -> list[dict[str, Any]]:
        """Everybody as a document, by id: roles, keys with when and by whom they were enrolled, absence."""
        found = []
        for name, one in sorted(self.people.items()):
            away = self.absences.get(name)
            absence = None if away is None else {"stands_in": away.stands_in, "from": away.since, "until": away.until}
            keys = [self._key(key) for key in one.keys]
            found.append(
                {"person": name, "name": one.name, "roles": sorted(one.roles), "keys": keys, "absence": absence}
            )
        return found

    def _key(self, key: Key) -> dict[str, Any]:
        row, text = self.enrolled.get(str(key)), str(key)
        return {
            "key": text, "kind": "passkey" if isinstance(key, Passkey) else "ed25519",
            "fingerprint": fingerprint(text), "label": "" if row is None else row.label,
            "enrolled": None if row is None else {"seq": row.seq, "at": row.at, "by": list(row.by)},
        }  # fmt: skip

    def dump(self) -> dict[str, Any]:
        return {
            "enrolled": {key: [one.person, one.label, one.seq, one.at, list(one.by)]
                         for key, one in self.enrolled.items()},
            "removed": dict(self.removed),
            "absences": [[one.person, one.stands_in, one.since, one.until, one.seq] for one in self.absences.values()],
        }  # fmt: skip

    def load(self, doc: Mapping[str, Any], bundle: Bundle | None) -> None:
        """Restore what ``dump`` wrote."""
        self.enrolled = {
            key: EnrolledKey(row[0], row[1], row[2], row[3], tuple(row[4])) for key, row in doc["enrolled"].items()
        }
        self.removed = dict(doc["removed"])
        self.absences = {row[0]: Away(*row) for row in doc["absences"]}
        if bundle is not None:
            self.renew(bundle)


def check_free(state: State, person: str, key: str) -> None:
    """Whether a key may be enrolled for a person: it is, and was, nobody's.

    Raises:
        AuthorityError: ``key_taken``: somebody signs with it, an agent does, or it was removed; ``too_many_keys``.
    """
    roll, bundle = state.roll, state.bundle
    if key in roll.removed:
        raise AuthorityError("the key was removed: it signs for nobody any more", code="key_taken",
                             hint="Make a new key.")  # fmt: skip
    owner = roll.owner_of(key)
    agents = () if bundle is None else bundle.compiled.agents.values()
    owner = owner or next((agent.id for agent in agents if key in agent.keys), None)
    if owner is not None:
        raise AuthorityError(f"the key is {owner}'s already", code="key_taken", hint="Make a new key.")
    if person in roll.people and len(roll.people[person].keys) >= KEYS_MAX:
        raise AuthorityError(f"a person has at most {KEYS_MAX} keys", code="too_many_keys", hint="Remove one first.")


def check_left(state: State, key: str) -> None:
    """Whether a key may go: somebody must still be able to grant. Raises ``AuthorityError`` (``last_key``)."""
    for one in state.roll.people.values():
        if PRINCIPAL in one.roles and any(str(own) != key for own in one.keys):
            return
    raise AuthorityError("without this key nobody could grant or change anything any more", code="last_key",
                         hint="Enrol another key of a principal first.")  # fmt: skip


def check_disjoint(state: State, bundle: Bundle) -> None:
    """Whether a bundle to be activated gives no enrolled key to somebody else, and no removed key of a person to an
    agent. Raises ``AuthorityError`` (``key_taken``).
    """
    for person in bundle.compiled.people.values():
        for key in map(str, person.keys):
            row = state.roll.enrolled.get(key)
            if row is not None and row.person != person.id:
                raise AuthorityError(f"a key of {person.id} in this policy is enrolled for {row.person}",
                                     code="key_taken", hint="Take it out of limits.toml.")  # fmt: skip
    for agent in bundle.compiled.agents.values():
        if any(key in state.roll.enrolled or key in state.roll.removed for key in agent.keys):
            raise AuthorityError(f"a key of the agent {agent.id} in this policy is, or was, a person's",
                                 code="key_taken", hint="Take it out of limits.toml.")  # fmt: skip


def activated(state: State, bundle: Bundle, seq: int) -> None:
    """A new bundle: the enrolled keys of people who are in it stay, those of others end for good."""
    roll, people = state.roll, bundle.compiled.people
    for key, row in tuple(roll.enrolled.items()):
        if row.person not in people:
            del roll.enrolled[key]
            roll.removed[key] = seq
    roll.renew(bundle)


def enrolled(state: State, record: Record, _: Callable[[], Iterable[Record]]) -> None:
    order = record.body["enrolment"]
    by = tuple(row["person"] for row in record.body["signed"])
    state.roll.enrolled[order["key"]] = EnrolledKey(order["person"], order["label"], record.seq, record.at, by)
    _renew(state)


def removed(state: State, record: Record, _: Callable[[], Iterable[Record]]) -> None:
    key = record.body["removal"]["key"]
    state.roll.enrolled.pop(key, None)
    state.roll.removed[key] = record.seq
    _renew(state)


def away(state: State, record: Record, _: Callable[[], Iterable[Record]]) -> None:
    said = record.body["absence"]
    state.roll.absences[said["person"]] = Away(
        said["person"], said["stands_in"], said["from"], said["until"], record.seq
    )


def _renew(state: State) -> None:
    if state.bundle is not None:
        state.roll.renew(state.bundle)
