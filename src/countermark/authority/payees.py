"""A person's signed order about a payee: who it is, and to which account it is paid from now on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.fields import DIGEST, HEX32, PAYEE, Fields
from countermark.authority.keys import parse_key, public_of, sign, verify
from countermark.authority.people import Person, enrolled
from countermark.model import digest as d
from countermark.model.errors import AuthorityError

PAYEES_ROLE = "payees"  # who may set what payees are paid to
ACCOUNT_CHARS_MAX = 200
NAME_CHARS_MAX = 200
ALIKE_MAX = 64

_ACCOUNT = re.compile(rf"[^\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]{{0,{ACCOUNT_CHARS_MAX}}}")
_NAME = re.compile(rf"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{{1,{NAME_CHARS_MAX}}}")
_MEMBERS = frozenset(
    ("v", "deployment", "payee", "name", "account", "previous", "alike", "reason", "person", "not_after", "nonce")
)
_PREVIOUS = frozenset(("account", "record"))


@dataclass(frozen=True, slots=True)
class Previous:
    """The details that an order replaces: the account, and the digest of the record that set it.

    ``record`` is None for details of the policy bundle.
    """

    account: str
    record: str | None

    def document(self) -> dict[str, Any]:
        return {"account": self.account, "record": self.record}


@dataclass(frozen=True, slots=True)
class PayeeOrder:
    """An order about a payee, checked. ``previous`` is None for a payee that nobody knows yet; an empty ``account``
    closes the payee. ``alike`` are the payees whose likeness the person has seen. ``not_after`` is microseconds UTC.
    """

    deployment: str
    payee: str
    name: str
    account: str
    previous: Previous | None
    alike: tuple[str, ...]
    reason: str
    person: str
    not_after: int
    nonce: str

    def document(self) -> dict[str, Any]:
        """The canonical document; ``parse_payee_order`` of it gives an equal order."""
        return {
            "v": 1, "deployment": self.deployment, "payee": self.payee, "name": self.name, "account": self.account,
            "previous": None if self.previous is None else self.previous.document(), "alike": list(self.alike),
            "reason": self.reason, "person": self.person, "not_after": self.not_after, "nonce": self.nonce,
        }  # fmt: skip


def parse_payee_order(value: object) -> PayeeOrder:
    """Check an order's document strictly. Raises ``AuthorityError`` (``bad_payee``)."""
    fields = Fields("payee", value, _MEMBERS)
    fields.version()
    alike = fields.strings("alike", PAYEE, ALIKE_MAX)
    if list(alike) != sorted(alike):
        raise fields.error("lists those alike in another order than the alphabet's")
    if not fields.string("name", _NAME).strip():
        raise fields.error("has a name that nobody can see")
    return PayeeOrder(
        deployment=fields.string("deployment"), payee=fields.string("payee", PAYEE),
        name=fields.string("name", _NAME), account=fields.string("account", _ACCOUNT),
        previous=_previous(fields.member("previous")), alike=alike, reason=fields.text("reason"),
        person=fields.string("person"), not_after=fields.integer("not_after"), nonce=fields.string("nonce", HEX32),
    )  # fmt: skip


def _previous(value: object) -> Previous | None:
    if value is None:
        return None
    fields = Fields("payee", value, _PREVIOUS)
    return Previous(fields.string("account", _ACCOUNT), fields.optional("record", DIGEST))


def set_payee(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign an order about a payee: ``{"details", "key", "sig"}``, what a ``payee.changed`` record begins with."""
    plain = parse_payee_order(document).document()
    return {"details": plain, "key": str(public_of(private)), "sig": sign(private, d.PAYEE, plain)}


def verify_payee_order(body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person]) -> PayeeOrder:
    """Check a signed order: form, signature, deployment, the person's key and role.

    Raises:
        AuthorityError: ``bad_payee`` or ``not_authorised``.
        SignatureError: the key or the signature is wrong.
    """
    fields = Fields("payee", body, frozenset(("details", "key", "sig")))
    order = parse_payee_order(fields.member("details"))
    key = parse_key(fields.member("key"))
    verify(key, d.PAYEE, order.document(), fields.member("sig"))
    if order.deployment != deployment:
        raise AuthorityError("the order is for another deployment")
    if PAYEES_ROLE not in enrolled(people, order.person, key).roles:
        raise AuthorityError(f"only somebody with the role {PAYEES_ROLE} sets what payees are paid to",
                             hint=f'Give the person the role "{PAYEES_ROLE}" in limits.toml.')  # fmt: skip
    return order
