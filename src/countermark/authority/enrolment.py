"""Keys of people after the policy was written: enrolling one, removing one, and who answers while somebody is away.

Enrolling is signed by the person with another key of theirs, or by two others who may; a passkey signs as well, so that
nobody enrols what they do not hold. Whether a key is free is the caller's question: it needs the records.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.fields import HEX32, Fields
from countermark.authority.hindsight import one_of_two
from countermark.authority.keys import parse_key, public_of, sign, verify
from countermark.authority.passkeys import Passkey
from countermark.authority.people import OPERATOR, PRINCIPAL, Person, enrolled
from countermark.model.clock import US
from countermark.model.digest import ABSENCE, ENROLMENT, ENROLMENT_PROOF, REMOVAL
from countermark.model.errors import AuthorityError

VOUCHERS = frozenset((PRINCIPAL, OPERATOR))  # roles that may speak for somebody else's keys
SIGNERS_MAX = 2
ENROLMENT_S_MAX = 7 * 86_400  # from signing to recording
ABSENCE_S_MAX = 366 * 86_400
LABEL_CHARS_MAX = 64

_LABEL = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{0,64}")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A key becomes one of a person's. ``key`` is its text; at ``not_after`` (microseconds) it is too late."""

    deployment: str
    person: str
    key: str
    label: str
    nonce: str
    not_after: int

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "person": self.person, "key": self.key, "label": self.label,
                "nonce": self.nonce, "not_after": self.not_after}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Removal:
    """A key signs nothing any more, for anybody. ``by`` is who says so."""

    deployment: str
    person: str
    key: str
    by: str
    reason: str

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "person": self.person, "key": self.key, "by": self.by,
                "reason": self.reason}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Absence:
    """``stands_in`` answers with the roles of ``person`` in ``[since, until)``, microseconds."""

    deployment: str
    person: str
    stands_in: str
    since: int
    until: int

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "person": self.person, "stands_in": self.stands_in,
                "from": self.since, "until": self.until}  # fmt: skip


def parse_enrolment(value: object) -> Enrolment:
    """Check an enrolment's document strictly. Raises ``AuthorityError`` (``bad_enrolment``) or ``SignatureError``."""
    names = ("v", "deployment", "person", "key", "label", "nonce", "not_after")
    fields = Fields("enrolment", value, frozenset(names))
    fields.version()
    return Enrolment(
        fields.string("deployment"), fields.string("person"), str(parse_key(fields.member("key"))),
        fields.string("label", _LABEL), fields.string("nonce", HEX32), fields.integer("not_after"),
    )  # fmt: skip


def parse_removal(value: object) -> Removal:
    """Check a removal's document strictly. Raises ``AuthorityError`` (``bad_removal``) or ``SignatureError``."""
    fields = Fields("removal", value, frozenset(("v", "deployment", "person", "key", "by", "reason")))
    fields.version()
    return Removal(
        fields.string("deployment"), fields.string("person"), str(parse_key(fields.member("key"))),
        fields.string("by"), fields.text("reason"),
    )  # fmt: skip


def parse_absence(value: object) -> Absence:
    """Check an absence's document strictly. Raises ``AuthorityError`` (``bad_absence``)."""
    fields = Fields("absence", value, frozenset(("v", "deployment", "person", "stands_in", "from", "until")))
    fields.version()
    absence = Absence(fields.string("deployment"), fields.string("person"), fields.string("stands_in"),
                      fields.integer("from"), fields.integer("until"))  # fmt: skip
    if not 0 < absence.until - absence.since <= ABSENCE_S_MAX * US:
        raise fields.error(f"does not last from a moment to a later one, {ABSENCE_S_MAX // 86_400} days at the most")
    if absence.stands_in == absence.person:
        raise fields.error("names the person as their own stand-in")
    return absence


def sign_enrolment(document: Mapping[str, Any], person: str, private: Ed25519PrivateKey) -> dict[str, str]:
    """One of the signatures of an enrolment: ``{"person", "key", "sig"}``."""
    return one_of_two(ENROLMENT, parse_enrolment(document).document(), person, private)


def sign_absence(document: Mapping[str, Any], person: str, private: Ed25519PrivateKey) -> dict[str, str]:
    """One of the signatures of an absence: ``{"person", "key", "sig"}``."""
    return one_of_two(ABSENCE, parse_absence(document).document(), person, private)


def sign_removal(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign a removal: the body of a ``key.removed`` record."""
    plain = parse_removal(document).document()
    return {"removal": plain, "key": str(public_of(private)), "sig": sign(private, REMOVAL, plain)}


def fingerprint(key: str) -> str:
    """What people compare: the first 16 hex digits of SHA-256 of a key's text, in groups of four."""
    digits = hashlib.sha256(key.encode("utf-8")).hexdigest()[:16]
    return " ".join(digits[at : at + 4] for at in range(0, 16, 4))


def check_possession(enrolment: Enrolment, proof: object) -> None:
    """A passkey signed its own enrolment; a key in a file does not, and ``proof`` is None.

    Raises:
        AuthorityError: ``bad_enrolment``: there is none where one is needed, or one where none belongs.
        SignatureError: it is not the key's over this very document.
    """
    key = parse_key(enrolment.key)
    if isinstance(key, Passkey) != (proof is not None):
        raise AuthorityError("a passkey proves that somebody holds it, and no other key does", code="bad_enrolment",
                             hint="Offer the passkey again, from the console's page.")  # fmt: skip
    if proof is not None:
        verify(key, ENROLMENT_PROOF, enrolment.document(), proof)


def verify_enrolment(
    body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person], test: bool, at_us: int
) -> Enrolment:
    """Check ``{"enrolment", "signed", "proof"}`` at ``at_us``. In a ``test`` deployment one other person is enough.

    Raises:
        AuthorityError: ``bad_enrolment``, ``enrolment_late``, ``four_eyes`` or ``not_authorised``.
        SignatureError: a key, a signature or the proof is wrong.
    """
    fields = Fields("enrolment", body, frozenset(("enrolment", "signed", "proof")))
    order = parse_enrolment(fields.member("enrolment"))
    check_possession(order, fields.member("proof"))
    signers = signers_of(fields, ENROLMENT, order.document(), people)
    if order.deployment != deployment:
        raise AuthorityError("the enrolment is for another deployment")
    if order.person not in people:
        raise AuthorityError("the policy knows no such person", hint="Add the person to limits.toml first.")
    if not at_us < order.not_after <= at_us + ENROLMENT_S_MAX * US:
        raise AuthorityError("the enrolment is over, or lasts too long", code="enrolment_late",
                             hint=f"It lasts at most {ENROLMENT_S_MAX // 86_400} days.")  # fmt: skip
    if [one.id for one in signers] != [order.person]:
        check_others(signers, (order.person,), VOUCHERS, 1 if test else SIGNERS_MAX)
    return order


def verify_removal(body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person]) -> Removal:
    """Check ``{"removal", "key", "sig"}``: by the person, with any key of theirs, or by one other who may.

    Raises:
        AuthorityError: ``bad_removal`` or ``not_authorised``.
        SignatureError: the key or the signature is wrong.
    """
    fields = Fields("removal", body, frozenset(("removal", "key", "sig")))
    order = parse_removal(fields.member("removal"))
    key = parse_key(fields.member("key"))
    verify(key, REMOVAL, order.document(), fields.member("sig"))
    if order.deployment != deployment:
        raise AuthorityError("the removal is for another deployment")
    signer = enrolled(people, order.by, key)
    enrolled(people, order.person, parse_key(order.key))
    if signer.id != order.person and signer.roles.isdisjoint(VOUCHERS):
        raise AuthorityError(f"somebody else's key is removed by a {PRINCIPAL} or an {OPERATOR}")
    return order


def verify_absence(body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person]) -> Absence:
    """Check ``{"absence", "signed"}``: by who is away, or by two principals, neither of them the stand-in.

    Raises:
        AuthorityError: ``bad_absence``, ``four_eyes`` or ``not_authorised``.
        SignatureError: a key or a signature is wrong.
    """
    fields = Fields("absence", body, frozenset(("absence", "signed")))
    order = parse_absence(fields.member("absence"))
    signers = signers_of(fields, ABSENCE, order.document(), people)
    if order.deployment != deployment:
        raise AuthorityError("the absence is for another deployment")
    if order.person not in people or order.stands_in not in people:
        raise AuthorityError("the policy knows no such person")
    if [one.id for one in signers] != [order.person]:
        check_others(signers, (order.person, order.stands_in), frozenset((PRINCIPAL,)), SIGNERS_MAX)
    return order


def signers_of(fields: Fields, domain: str, document: dict[str, Any], people: Mapping[str, Person]) -> list[Person]:
    """Who signed: the member ``signed``, rows ``{"person", "key", "sig"}``, each by a key in force of its person."""
    found = []
    for row in fields.items("signed", SIGNERS_MAX):
        signature = Fields(fields.kind, row, frozenset(("person", "key", "sig")))
        key = parse_key(signature.member("key"))
        verify(key, domain, document, signature.member("sig"))
        found.append(enrolled(people, signature.string("person"), key))
    return found


def check_others(signers: Sequence[Person], but: Collection[str], roles: frozenset[str], count: int) -> None:
    """Others than ``but``, all different, each with one of ``roles``, ``count`` of them or more."""
    if len(signers) < count or len({one.id for one in signers}) != len(signers):
        raise AuthorityError(f"signed by the person, or by {count} others", code="four_eyes",
                             hint="Sign with --out FILE, then somebody else with --second FILE.")  # fmt: skip
    if any(one.id in but or one.roles.isdisjoint(roles) for one in signers):
        raise AuthorityError(f"others who sign have a role of {', '.join(sorted(roles))}, and are not who it is about",
                             code="four_eyes")  # fmt: skip
