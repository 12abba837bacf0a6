"""Mandates: signed grants of authority from a principal to an agent (``docs/spec/record.md``).

A child may only narrow its parent. That a hold debits every ancestor keeps the parent's limits in force anyway; what is
refused here is a child that claims more than it could ever use, so that each document alone says nothing untrue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.fields import CURRENCY, DIGEST, HEX32, PAYEE, Fields
from countermark.authority.keys import PublicKey, parse_key, public_of, sign, verify
from countermark.authority.people import PRINCIPAL, Person, enrolled
from countermark.model.canon import INTEGER_ABS_MAX
from countermark.model.digest import MANDATE, digest_of
from countermark.model.errors import AuthorityError
from countermark.model.values import TOOL

ANY = "*"
COUNT = "*"  # the currency of a limit on the number of payments
TOOLS_MAX = 256
PAYEES_MAX = 512
LIMITS_MAX = 32
NAMED_MAX = 256
OVER_US_MAX = 3_660 * 86_400 * 1_000_000  # ten years; a longer budget is one over the mandate's life

_MEMBERS = frozenset(
    ("v", "deployment", "parent", "principal", "agent", "agent_key", "tools", "payees", "limits", "named", "purpose",
     "not_before", "not_after", "nonce")
)  # fmt: skip
_LIMIT_MEMBERS = frozenset(("currency", "amount", "over_us"))
_BODY_MEMBERS = frozenset(("mandate", "digest", "key", "sig"))


@dataclass(frozen=True, slots=True)
class Limit:
    """``amount`` minor units of ``currency``: a payment (``over_us`` 0), a window of microseconds, or a life (None).

    With the currency ``*`` it is a number of payments, of whatever amount and currency.
    """

    currency: str
    amount: int
    over_us: int | None

    def document(self) -> dict[str, Any]:
        return {"currency": self.currency, "amount": self.amount, "over_us": self.over_us}


@dataclass(frozen=True, slots=True)
class Mandate:
    """A mandate's document, checked. Times are microseconds UTC; ``tools`` and ``payees`` are names, or ``("*",)``."""

    deployment: str
    parent: str | None
    principal: str
    agent: str
    agent_key: PublicKey | None
    tools: tuple[str, ...]
    payees: tuple[str, ...]
    limits: tuple[Limit, ...]
    named: tuple[str, ...]
    purpose: str
    not_before: int
    not_after: int
    nonce: str

    def document(self) -> dict[str, Any]:
        """The canonical document; ``parse_mandate`` of it gives an equal mandate."""
        return {
            "v": 1, "deployment": self.deployment, "parent": self.parent, "principal": self.principal,
            "agent": self.agent, "agent_key": None if self.agent_key is None else str(self.agent_key),
            "tools": list(self.tools), "payees": list(self.payees),
            "limits": [limit.document() for limit in self.limits], "named": list(self.named),
            "purpose": self.purpose, "not_before": self.not_before, "not_after": self.not_after,
            "nonce": self.nonce,
        }  # fmt: skip

    def in_force(self, at_us: int) -> bool:
        """Whether the validity covers a time; revocation is another question."""
        return self.not_before <= at_us < self.not_after

    def covers_tool(self, tool: str) -> bool:
        return _covers(self.tools, tool)

    def covers_payee(self, payee: str) -> bool:
        """``payee`` is a payee's id or a pseudonym; only ``*`` covers somebody whom the bundle does not know."""
        return _covers(self.payees, payee)

    def covers_currency(self, currency: str) -> bool:
        """Without limits on amounts any currency is covered; with such limits, those that have one."""
        known = [limit.currency for limit in self.limits if limit.currency != COUNT]
        return not known or currency in known

    def covers_purpose(self, purpose: str) -> bool:
        """A purpose is narrowed by going on after a colon: under "Pay invoices" stands "Pay invoices: November"."""
        return self.purpose in ("", purpose) or purpose.startswith(self.purpose + ": ")


def _covers(names: tuple[str, ...], name: str) -> bool:
    return names == (ANY,) or name in names


def parse_mandate(value: object) -> Mandate:
    """Check a mandate's document strictly.

    Raises:
        AuthorityError: code ``bad_mandate``.
        SignatureError: code ``bad_key``, for the agent's key.
    """
    fields = Fields("mandate", value, _MEMBERS)
    fields.version()
    agent_key = fields.member("agent_key")
    mandate = Mandate(
        deployment=fields.string("deployment"),
        parent=fields.optional("parent", DIGEST),
        principal=fields.string("principal"),
        agent=fields.string("agent"),
        agent_key=None if agent_key is None else PublicKey.parse(agent_key),
        tools=_names_or_any(fields, "tools", TOOLS_MAX, 1),
        payees=_names_or_any(fields, "payees", PAYEES_MAX, 0),
        limits=_limits(fields),
        named=fields.strings("named", HEX32, NAMED_MAX),
        purpose=fields.text("purpose", chars_min=0),
        not_before=fields.integer("not_before"),
        not_after=fields.integer("not_after"),
        nonce=fields.string("nonce", HEX32),
    )
    if mandate.not_before >= mandate.not_after:
        raise fields.error("ends before it begins")
    return mandate


def _names_or_any(fields: Fields, name: str, count_max: int, count_min: int) -> tuple[str, ...]:
    if fields.member(name) == [ANY]:
        return (ANY,)
    return fields.strings(name, TOOL if name == "tools" else PAYEE, count_max, count_min)


def _limits(fields: Fields) -> tuple[Limit, ...]:
    limits = []
    for item in fields.items("limits", LIMITS_MAX):
        part = Fields("mandate", item, _LIMIT_MEMBERS)
        over_us = None if part.member("over_us") is None else part.integer("over_us", 0, OVER_US_MAX)
        currency = COUNT if part.member("currency") == COUNT else part.string("currency", CURRENCY)
        if currency == COUNT and over_us == 0:
            raise fields.error("counts payments within a single one")
        limits.append(Limit(currency, part.integer("amount", 0, INTEGER_ABS_MAX), over_us))
    if len({(limit.currency, limit.over_us) for limit in limits}) != len(limits):
        raise fields.error("has two limits for one currency and window")
    return tuple(limits)


def mandate_digest(document: Mapping[str, Any]) -> str:
    """The name of a mandate: the digest of its canonical document."""
    return digest_of(MANDATE, document)


def check_narrower(child: Mandate, parent: Mandate) -> None:
    """Raise ``AuthorityError`` (``mandate_not_narrower``) unless ``child`` grants nothing that ``parent`` does not.

    The agent may differ. ``named`` narrows too: otherwise an agent that delegates could write down a payee of its own
    as one that the principal named.
    """
    if child.deployment != parent.deployment:
        raise _wider("is for another deployment")
    if not _within(child.tools, parent.tools):
        raise _wider("covers tools that its parent does not")
    if not _within(child.payees, parent.payees):
        raise _wider("covers payees that its parent does not")
    if not _within(child.named, parent.named):
        raise _wider("names values that its parent does not")
    if child.not_before < parent.not_before or child.not_after > parent.not_after:
        raise _wider("is valid when its parent is not")
    if not parent.covers_purpose(child.purpose):
        raise _wider("has another purpose than its parent, or a wider one")
    ceilings = {(limit.currency, limit.over_us): limit.amount for limit in parent.limits}
    for limit in child.limits:
        if limit.amount > ceilings.get((limit.currency, limit.over_us), INTEGER_ABS_MAX):
            raise _wider("has a limit above its parent's")
        if limit.currency != COUNT and not parent.covers_currency(limit.currency):
            raise _wider("has a limit in a currency that its parent does not grant")


def _within(child: Sequence[str], parent: Sequence[str]) -> bool:
    return tuple(parent) == (ANY,) or set(child) <= set(parent)


def _wider(message: str) -> AuthorityError:
    return AuthorityError(f"the mandate {message}", code="mandate_not_narrower", hint="A child may only narrow.")


def grant(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign a mandate: the body of a ``mandate.granted`` record. The document is checked first."""
    plain = parse_mandate(document).document()
    return {
        "mandate": plain, "digest": mandate_digest(plain), "key": str(public_of(private)),
        "sig": sign(private, MANDATE, plain),
    }  # fmt: skip


def verify_grant(
    body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person], parent: Mandate | None
) -> Mandate:
    """Check the body of a ``mandate.granted`` record: form, digest, signature, who may sign, and narrowing.

    Args:
        parent: the mandate that the document's ``parent`` names, ``None`` for a root or when it is not known.

    Raises:
        AuthorityError: ``bad_mandate``, ``mandate_mismatch``, ``mandate_not_narrower`` or ``not_authorised``.
        SignatureError: a key or the signature is wrong.
    """
    fields = Fields("mandate", body, _BODY_MEMBERS)
    mandate = parse_mandate(fields.member("mandate"))
    plain = mandate.document()
    if mandate.deployment != deployment or fields.member("digest") != mandate_digest(plain):
        raise AuthorityError("the mandate is for another deployment, or not the one its digest names",
                             code="mandate_mismatch")  # fmt: skip
    key = parse_key(fields.member("key"))
    verify(key, MANDATE, plain, fields.member("sig"))
    named = None if parent is None else mandate_digest(parent.document())
    if named != mandate.parent:
        raise AuthorityError("the mandate's parent is not the one given", code="mandate_mismatch")
    if parent is not None:
        check_narrower(mandate, parent)
        if parent.agent_key == key and mandate.principal == parent.principal:
            return mandate
    if PRINCIPAL not in enrolled(people, mandate.principal, key).roles:
        raise AuthorityError(f"the mandate is signed by a person without the role {PRINCIPAL}")
    return mandate
