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
ROLES_MAX = 32
PRINCIPAL = "principal"

_MEMBERS = frozenset(("id", "name", "roles", "key"))


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody of the bundle. ``key`` is ``None`` for a person who signs nothing."""

    id: str
    name: str
    roles: frozenset[str]
    key: Key | None


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
        text = fields.member("key")
        key = None if text in (None, "") else parse_key(text)
        roles = frozenset(fields.strings("roles", NAME, ROLES_MAX))
        person = Person(fields.string("id"), fields.text("name", chars_min=0), roles, key)
        if person.id in people or len(people) == PEOPLE_MAX:
            raise fields.error(f"is listed twice, or is one of more than {PEOPLE_MAX}")
        if key is not None and owners.setdefault(key, person.id) != person.id:
            raise fields.error("shares a key with another person")
        people[person.id] = person
    return people


def enrolled(people: Mapping[str, Person], person: str, key: Key) -> Person:
    """The person, if ``key`` is the one enrolled for them. Raises ``AuthorityError`` (``not_authorised``)."""
    found = people.get(person)
    if found is None or found.key != key:
        raise AuthorityError(
            "the document is not signed by the key enrolled for the person it names",
            hint="Enrol the key in the policy bundle and activate it, or sign with the enrolled key.",
        )
    return found
