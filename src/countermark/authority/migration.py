"""A person's order that a run of a definition goes on by another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.fields import DIGEST, Fields
from countermark.authority.hindsight import one_of_two
from countermark.authority.keys import parse_key, verify
from countermark.authority.people import Person, enrolled
from countermark.model.digest import MIGRATION
from countermark.model.values import RUN

_MEMBERS = ("v", "deployment", "run", "from", "to", "reason")


@dataclass(frozen=True, slots=True)
class Migration:
    """The run goes on by the definition ``to``, no longer by ``source``."""

    deployment: str
    run: str
    source: str
    to: str
    reason: str

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "run": self.run, "from": self.source, "to": self.to,
                "reason": self.reason}  # fmt: skip


def parse_migration(value: object) -> Migration:
    """Check the document strictly. Raises ``AuthorityError`` (``bad_migration``)."""
    fields = Fields("migration", value, frozenset(_MEMBERS))
    fields.version()
    return Migration(
        fields.string("deployment"), fields.string("run", RUN), fields.string("from", DIGEST),
        fields.string("to", DIGEST), fields.text("reason"),
    )  # fmt: skip


def sign_migration(document: Mapping[str, Any], person: str, private: Ed25519PrivateKey) -> dict[str, str]:
    """A person's signature of the document: ``{"person", "key", "sig"}``."""
    return one_of_two(MIGRATION, parse_migration(document).document(), person, private)


def verify_migration(body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person]) -> Migration:
    """Check the body of a ``run.migrated``. Whether the run fits the other definition is the engine's question.

    Raises:
        AuthorityError: ``bad_migration`` or ``not_authorised``.
        SignatureError: the key or the signature is wrong.
    """
    names = frozenset(("run", "agent", "from", "to", "reason", "person", "key", "sig"))
    fields = Fields("migration", body, names)
    order = parse_migration({"v": 1, "deployment": deployment, **{name: body[name] for name in _MEMBERS[2:]}})
    key = parse_key(fields.member("key"))
    verify(key, MIGRATION, order.document(), fields.member("sig"))
    enrolled(people, fields.string("person"), key)
    return order
