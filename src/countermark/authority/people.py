"""The people of a policy bundle, and whether a key is the one enrolled for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.authority.fields import Fields
from countermark.authority.keys import Key, parse_key
from countermark.model.errors import AuthorityError
from countermark.model.values import NAME

PEOPLE_MAX = 1_024
KEYS_MAX = 16  # of one person
ROLES_MAX = 32
PRINCIPAL = "principal"
OPERATOR = "operator"

_MEMBERS = frozenset(("id", "name", "roles", "keys"))


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody of the bundle. ``keys`` are all that sign for them now; empty for a person who signs nothing."""

    id: str
    name: str
    roles: frozenset[str]
    keys: tuple[Key, ...]


def people_of(documents: Iterable[Mapping[str, Any]]) -> Mapping[str, Person]:
    """Read a bundle's ``people``: id -> person. This is where keys are enrolled, so weak ones are refused here.

    An approver is a person, not a key: two people with one key are refused as well.

    Raises:
        AuthorityError: code ``bad_person``.
        SignatureError: code ``bad_key``.
    """
    people: dict[str, Person] = {}
    owners: dict[Key, str] = {}
    for document in documents:
        fields = Fields("person", document, _MEMBERS)
        keys = tuple(parse_key(text) for text in fields.items("keys", KEYS_MAX))
        roles = frozenset(fields.strings("roles", NAME, ROLES_MAX))
        person = Person(fields.string("id"), fields.text("name", chars_min=0), roles, keys)
        if person.id in people or len(people) == PEOPLE_MAX:
            raise fields.error(f"is listed twice, or is one of more than {PEOPLE_MAX}")
        if any(key in owners for key in keys) or len(set(keys)) != len(keys):
            raise fields.error("has a key twice, or shares one with another person")
        owners |= dict.fromkeys(keys, person.id)
        people[person.id] = person
    return people


def enrolled(people: Mapping[str, Person], person: str, key: Key) -> Person:
    """The person, if ``key`` is one of those in force for them. Raises ``AuthorityError`` (``not_authorised``)."""
    found = people.get(person)
    if found is None or key not in found.keys:
        raise AuthorityError(
            "the document is not signed by a key enrolled for the person it names",
            hint="Enrol the key with `countermark people enrol`, or sign with an enrolled key.",
        )
    return found
