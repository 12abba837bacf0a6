"""What people sign afterwards: how an unknown action ended, that a flagged one was looked at, what was paid before.

A resolution, a reopening and an import move no money, but free or take a business key: they need four eyes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.fields import DIGEST, Fields
from countermark.authority.keys import parse_key, public_of, sign, verify
from countermark.authority.people import Person, enrolled
from countermark.model.digest import IMPORT, REOPENING, RESOLUTION, REVIEW
from countermark.model.errors import AuthorityError
from countermark.model.values import ACT_ID, TOOL

EYES = 2  # pairs of them
PAIRS_MAX = 64

_OUTCOME = re.compile(r"confirmed|failed")
_REF = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{0,256}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ALIAS = re.compile(r"[A-Za-z0-9_.$-]{1,64}")
_VALUE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{0,1024}")


@dataclass(frozen=True, slots=True)
class Resolution:
    """How an intent without a final outcome ended. ``amount``: minor units moved, None when none could be."""

    deployment: str
    action: str
    intent_digest: str
    outcome: Literal["confirmed", "failed"]
    ref: str
    amount: int | None
    reason: str

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "action": self.action, "intent_digest": self.intent_digest,
                "outcome": self.outcome, "ref": self.ref, "amount": self.amount, "reason": self.reason}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Review:
    """Somebody looked at a flagged action. ``decided_digest`` names the record that decided it."""

    deployment: str
    action: str
    decided_digest: str
    person: str
    note: str

    def document(self) -> dict[str, Any]:
        return {"deployment": self.deployment, "action": self.action, "decided_digest": self.decided_digest,
                "person": self.person, "note": self.note}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reopening:
    """What a person refused may be asked about again. ``refusal_digest`` names the record that refused it."""

    deployment: str
    action: str
    refusal_digest: str
    reason: str

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "action": self.action, "refusal_digest": self.refusal_digest,
                "reason": self.reason}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Imported:
    """An obligation settled before the gate. ``pairs`` are those of the tool's business key, sorted by name."""

    deployment: str
    tool: str
    pairs: tuple[tuple[str, str], ...]
    ref: str
    day: str
    source: str

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "tool": self.tool, "pairs": [list(pair) for pair in self.pairs],
                "ref": self.ref, "date": self.day, "source": self.source}  # fmt: skip


def parse_resolution(value: object) -> Resolution:
    """Check a resolution's document strictly. Raises ``AuthorityError`` (``bad_resolution``)."""
    names = ("v", "deployment", "action", "intent_digest", "outcome", "ref", "amount", "reason")
    fields = Fields("resolution", value, frozenset(names))
    fields.version()
    outcome = cast(Literal["confirmed", "failed"], fields.string("outcome", _OUTCOME))
    amount = None if fields.member("amount") is None else fields.integer("amount")
    if outcome == "failed" and amount is not None:
        raise fields.error("moves an amount although it failed")
    return Resolution(
        fields.string("deployment"), fields.string("action", ACT_ID), fields.string("intent_digest", DIGEST), outcome,
        fields.string("ref", _REF), amount, fields.text("reason"),
    )  # fmt: skip


def parse_review(value: object) -> Review:
    """Check a review's document strictly. Raises ``AuthorityError`` (``bad_review``)."""
    fields = Fields("review", value, frozenset(("deployment", "action", "decided_digest", "person", "note")))
    return Review(
        fields.string("deployment"), fields.string("action", ACT_ID), fields.string("decided_digest", DIGEST),
        fields.string("person"), fields.text("note"),
    )  # fmt: skip


def parse_reopening(value: object) -> Reopening:
    """Check a reopening's document strictly. Raises ``AuthorityError`` (``bad_reopening``)."""
    fields = Fields("reopening", value, frozenset(("v", "deployment", "action", "refusal_digest", "reason")))
    fields.version()
    return Reopening(
        fields.string("deployment"), fields.string("action", ACT_ID), fields.string("refusal_digest", DIGEST),
        fields.text("reason"),
    )  # fmt: skip


def parse_import(value: object) -> Imported:
    """Check an import's document strictly. Raises ``AuthorityError`` (``bad_import``)."""
    fields = Fields("import", value, frozenset(("v", "deployment", "tool", "pairs", "ref", "date", "source")))
    fields.version()
    pairs: list[tuple[str, str]] = []
    for row in fields.items("pairs", PAIRS_MAX):
        if type(row) is not list or len(row) != 2 or any(type(part) is not str for part in row):
            raise fields.error("has a pair that is not a name and a value")
        if _ALIAS.fullmatch(row[0]) is None or _VALUE.fullmatch(row[1]) is None:
            raise fields.error("has a pair of an invalid form")
        pairs.append((row[0], row[1]))
    if not pairs or [name for name, _ in pairs] != sorted({name for name, _ in pairs}):
        raise fields.error("has no pairs, or they are not sorted, or one stands there twice")
    day = fields.string("date", _DAY)
    try:
        date.fromisoformat(day)
    except ValueError:
        raise fields.error("has no valid date") from None
    return Imported(
        fields.string("deployment"), fields.string("tool", TOOL), tuple(pairs), fields.string("ref", _REF), day,
        fields.text("source"),
    )  # fmt: skip


def sign_resolution(document: Mapping[str, Any], person: str, private: Ed25519PrivateKey) -> dict[str, str]:
    """One of the two signatures of a resolution: ``{"person", "key", "sig"}``."""
    return one_of_two(RESOLUTION, parse_resolution(document).document(), person, private)


def sign_reopening(document: Mapping[str, Any], person: str, private: Ed25519PrivateKey) -> dict[str, str]:
    """One of the two signatures of a reopening: ``{"person", "key", "sig"}``."""
    return one_of_two(REOPENING, parse_reopening(document).document(), person, private)


def sign_import(document: Mapping[str, Any], person: str, private: Ed25519PrivateKey) -> dict[str, str]:
    """One of the two signatures of an import: ``{"person", "key", "sig"}``."""
    return one_of_two(IMPORT, parse_import(document).document(), person, private)


def one_of_two(domain: str, plain: dict[str, Any], person: str, private: Ed25519PrivateKey) -> dict[str, str]:
    """One person's signature of a document that two sign: ``{"person", "key", "sig"}``."""
    return {"person": person, "key": str(public_of(private)), "sig": sign(private, domain, plain)}


def sign_review(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign a review: ``{"review", "key", "sig"}``."""
    plain = parse_review(document).document()
    return {"review": plain, "key": str(public_of(private)), "sig": sign(private, REVIEW, plain)}


@dataclass(frozen=True, slots=True)
class Eyes:
    """Who may sign for two: the people of the bundle in force, its ladders' roles, its author, the agent's owner."""

    people: Mapping[str, Person]
    roles: Collection[str]
    author: str
    owner: str | None = None


def verify_resolution(body: Mapping[str, Any], *, deployment: str, eyes: Eyes) -> Resolution:
    """Check ``{"resolution", "signed"}``.

    Raises:
        AuthorityError: ``bad_resolution``, ``not_authorised`` or ``four_eyes``.
        SignatureError: a key or a signature is wrong.
    """
    fields = Fields("resolution", body, frozenset(("resolution", "signed")))
    order = parse_resolution(fields.member("resolution"))
    check_four_eyes_of(fields, RESOLUTION, order.document(), deployment, eyes)
    return order


def verify_reopening(body: Mapping[str, Any], *, deployment: str, eyes: Eyes) -> Reopening:
    """Check ``{"reopening", "signed"}``; raises as ``verify_resolution`` does, ``bad_reopening`` for its form."""
    fields = Fields("reopening", body, frozenset(("reopening", "signed")))
    order = parse_reopening(fields.member("reopening"))
    check_four_eyes_of(fields, REOPENING, order.document(), deployment, eyes)
    return order


def verify_import(body: Mapping[str, Any], *, deployment: str, eyes: Eyes) -> Imported:
    """Check ``{"import", "signed"}``; raises as ``verify_resolution`` does, ``bad_import`` for its form."""
    fields = Fields("import", body, frozenset(("import", "signed")))
    order = parse_import(fields.member("import"))
    check_four_eyes_of(fields, IMPORT, order.document(), deployment, eyes)
    return order


def verify_review(body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person]) -> Review:
    """Check ``{"review", "key", "sig"}``. Whether the person owns the agent is the caller's question.

    Raises:
        AuthorityError: ``bad_review`` or ``not_authorised``.
        SignatureError: the key or the signature is wrong.
    """
    fields = Fields("review", body, frozenset(("review", "key", "sig")))
    order = parse_review(fields.member("review"))
    key = parse_key(fields.member("key"))
    verify(key, REVIEW, order.document(), fields.member("sig"))
    if order.deployment != deployment:
        raise AuthorityError("the review is for another deployment")
    enrolled(people, order.person, key)
    return order


def check_four_eyes_of(fields: Fields, domain: str, document: Mapping[str, Any], deployment: str, eyes: Eyes) -> None:
    """``signed`` are two people's signatures of the document. Raises ``AuthorityError`` or ``SignatureError``."""
    rows = fields.items("signed", EYES)
    found: list[Person] = []
    for row in rows:
        found.append(signer_of_two(fields.kind, domain, document, row, eyes))
    if document["deployment"] != deployment:
        raise AuthorityError(f"the {fields.kind} is for another deployment")
    check_four_eyes(found, eyes)


def signer_of_two(kind: str, domain: str, document: Mapping[str, Any], row: object, eyes: Eyes) -> Person:
    """Who signed one row of two. Raises ``AuthorityError`` or ``SignatureError``."""
    signature = Fields(kind, row, frozenset(("person", "key", "sig")))
    key = parse_key(signature.member("key"))
    verify(key, domain, dict(document), signature.member("sig"))
    return enrolled(eyes.people, signature.string("person"), key)


def check_four_eyes(found: Sequence[Person], eyes: Eyes) -> None:
    """Two different people, of whom one is independent. Raises ``AuthorityError`` (``four_eyes``)."""
    if len(found) != EYES or len({person.id for person in found}) != EYES:
        raise AuthorityError("two different people sign this", code="four_eyes")
    if not any(_independent(person, eyes) for person in found):
        raise AuthorityError(
            "one of the two must have a role of a ladder, and neither own the agent nor be the policy's author",
            code="four_eyes",
        )


def _independent(person: Person, eyes: Eyes) -> bool:
    return person.id not in (eyes.owner, eyes.author) and not person.roles.isdisjoint(eyes.roles)
