"""What people sign about keeping and erasing: a legal hold, its end, and the erasure of a subject's values.

A hold takes one person, because it only ever keeps; its end and an erasure take two, as a resolution does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.fields import DIGEST, PAYEE, Fields
from countermark.authority.hindsight import Eyes, check_four_eyes_of, one_of_two
from countermark.authority.keys import parse_key, public_of, sign, verify
from countermark.authority.people import Person, enrolled
from countermark.model.digest import ERASURE, HOLD, RELEASE
from countermark.model.errors import AuthorityError
from countermark.model.values import NAME, RUN

HOLD_KINDS = ("subject", "payee", "agent", "run", "all")
SUBJECT_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}|p:[0-9a-f]{32}|agent:[a-z0-9][a-z0-9_.-]{0,63}")
HOLD_ID = re.compile(r"hold_[0-9a-f]{16}")

_SCOPES: Mapping[str, re.Pattern[str]] = {
    "subject": SUBJECT_FORM, "payee": PAYEE, "agent": NAME, "run": RUN, "all": re.compile(""),
}  # fmt: skip
_KIND = re.compile("|".join(HOLD_KINDS))


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing that ``kind`` and ``value`` cover is erased until the hold is cleared. ``value`` is empty for ``all``."""

    deployment: str
    hold: str
    kind: str
    value: str
    reason: str
    person: str

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "hold": self.hold,
                "scope": {"kind": self.kind, "value": self.value}, "reason": self.reason,
                "person": self.person}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Release:
    """A hold ends."""

    deployment: str
    hold: str
    reason: str

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "hold": self.hold, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Erasure:
    """A subject's values are erased: exactly those that the two people saw.

    ``generation`` counts the erasures of the subject before, so that no signature serves twice. ``records``, ``values``
    and ``digest`` say what the subject has at that time (``docs/spec/record.md``).
    """

    deployment: str
    subject: str
    generation: int
    records: int
    values: int
    digest: str
    reason: str

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "subject": self.subject, "generation": self.generation,
                "records": self.records, "values": self.values, "digest": self.digest,
                "reason": self.reason}  # fmt: skip


def parse_hold(value: object) -> Hold:
    """Check a hold's document strictly. Raises ``AuthorityError`` (``bad_hold``)."""
    fields = Fields("hold", value, frozenset(("v", "deployment", "hold", "scope", "reason", "person")))
    fields.version()
    scope = Fields("hold", fields.member("scope"), frozenset(("kind", "value")))
    kind = scope.string("kind", _KIND)
    return Hold(
        fields.string("deployment"), fields.string("hold", HOLD_ID), kind, scope.string("value", _SCOPES[kind]),
        fields.text("reason"), fields.string("person"),
    )  # fmt: skip


def parse_release(value: object) -> Release:
    """Check a release's document strictly. Raises ``AuthorityError`` (``bad_release``)."""
    fields = Fields("release", value, frozenset(("v", "deployment", "hold", "reason")))
    fields.version()
    return Release(fields.string("deployment"), fields.string("hold", HOLD_ID), fields.text("reason"))


def parse_erasure(value: object) -> Erasure:
    """Check an erasure's document strictly. Raises ``AuthorityError`` (``bad_erasure``)."""
    names = ("v", "deployment", "subject", "generation", "records", "values", "digest", "reason")
    fields = Fields("erasure", value, frozenset(names))
    fields.version()
    return Erasure(
        fields.string("deployment"), fields.string("subject", SUBJECT_FORM), fields.integer("generation"),
        fields.integer("records", low=1), fields.integer("values", low=1), fields.string("digest", DIGEST),
        fields.text("reason"),
    )  # fmt: skip


def sign_hold(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign a hold: ``{"order", "key", "sig"}``."""
    plain = parse_hold(document).document()
    return {"order": plain, "key": str(public_of(private)), "sig": sign(private, HOLD, plain)}


def sign_release(document: Mapping[str, Any], person: str, private: Ed25519PrivateKey) -> dict[str, str]:
    """One of the two signatures of a release: ``{"person", "key", "sig"}``."""
    return one_of_two(RELEASE, parse_release(document).document(), person, private)


def sign_erasure(document: Mapping[str, Any], person: str, private: Ed25519PrivateKey) -> dict[str, str]:
    """One of the two signatures of an erasure: ``{"person", "key", "sig"}``."""
    return one_of_two(ERASURE, parse_erasure(document).document(), person, private)


def verify_hold(body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person]) -> Hold:
    """Check ``{"order", "key", "sig"}``: by somebody enrolled who has a role.

    Raises:
        AuthorityError: ``bad_hold`` or ``not_authorised``.
        SignatureError: the key or the signature is wrong.
    """
    fields = Fields("hold", body, frozenset(("order", "key", "sig")))
    order = parse_hold(fields.member("order"))
    key = parse_key(fields.member("key"))
    verify(key, HOLD, order.document(), fields.member("sig"))
    if order.deployment != deployment:
        raise AuthorityError("the hold is for another deployment")
    if not enrolled(people, order.person, key).roles:
        raise AuthorityError("only somebody with a role sets a hold", hint="Give the person a role in limits.toml.")
    return order


def verify_release(body: Mapping[str, Any], *, deployment: str, eyes: Eyes) -> Release:
    """Check ``{"release", "signed"}``. Raises ``AuthorityError`` (``bad_release``, ``four_eyes``, ``not_authorised``)
    or ``SignatureError``.
    """
    fields = Fields("release", body, frozenset(("release", "signed")))
    order = parse_release(fields.member("release"))
    check_four_eyes_of(fields, RELEASE, order.document(), deployment, eyes)
    return order


def verify_erasure(body: Mapping[str, Any], *, deployment: str, eyes: Eyes) -> Erasure:
    """Check ``{"erasure", "signed"}``; raises as ``verify_release`` does, ``bad_erasure`` for its form."""
    fields = Fields("erasure", body, frozenset(("erasure", "signed")))
    order = parse_erasure(fields.member("erasure"))
    check_four_eyes_of(fields, ERASURE, order.document(), deployment, eyes)
    return order
