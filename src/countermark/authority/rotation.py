"""The log's key changes hands: old and new sign the same document, and two people order it.

From that record on the new key is the log's. Until ``until`` the old one signs every head too, so that whoever knows
only the old key, such as a witness, has time to learn the new one from this very document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.enrolment import SIGNERS_MAX, VOUCHERS, check_others, signers_of
from countermark.authority.fields import Fields
from countermark.authority.hindsight import one_of_two
from countermark.authority.keys import PublicKey, sign, verify
from countermark.authority.people import Person
from countermark.model.clock import US
from countermark.model.digest import ROTATION
from countermark.model.errors import AuthorityError

OVERLAP_S_MAX = 400 * 86_400

_LANE = re.compile(r"l(?:0|[1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Rotation:
    """``old`` and ``new`` are keys of the lane's log; until ``until`` (microseconds) both sign its heads."""

    deployment: str
    lane: str
    old: PublicKey
    new: PublicKey
    until: int
    reason: str

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "lane": self.lane, "old": str(self.old), "new": str(self.new),
                "until": self.until, "reason": self.reason}  # fmt: skip


def parse_rotation(value: object) -> Rotation:
    """Check a rotation's document strictly. Raises ``AuthorityError`` (``bad_rotation``) or ``SignatureError``."""
    names = ("v", "deployment", "lane", "old", "new", "until", "reason")
    fields = Fields("rotation", value, frozenset(names))
    fields.version()
    order = Rotation(
        fields.string("deployment"), fields.string("lane", _LANE), PublicKey.parse(fields.member("old")),
        PublicKey.parse(fields.member("new")), fields.integer("until"), fields.text("reason"),
    )  # fmt: skip
    if order.old == order.new:
        raise fields.error("names one key twice")
    return order


def sign_rotation(document: Mapping[str, Any], person: str, private: Ed25519PrivateKey) -> dict[str, str]:
    """One of the two people's signatures of a rotation: ``{"person", "key", "sig"}``."""
    return one_of_two(ROTATION, parse_rotation(document).document(), person, private)


def prove_rotation(document: Mapping[str, Any], old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> dict[str, str]:
    """Both log keys' signatures of a rotation: ``{"old", "new"}``, base64."""
    plain = parse_rotation(document).document()
    return {"old": sign(old, ROTATION, plain), "new": sign(new, ROTATION, plain)}


def verify_rotation(
    body: Mapping[str, Any], *, deployment: str, lane: str, people: Mapping[str, Person], at_us: int
) -> Rotation:
    """Check ``{"rotation", "proofs", "signed"}`` at ``at_us``. Whether it begins with the log's key is the caller's.

    Raises:
        AuthorityError: ``bad_rotation``, ``four_eyes`` or ``not_authorised``.
        SignatureError: a key, a signature or a proof is wrong.
    """
    fields = Fields("rotation", body, frozenset(("rotation", "proofs", "signed")))
    order = parse_rotation(fields.member("rotation"))
    if (order.deployment, order.lane) != (deployment, lane):
        raise AuthorityError("the rotation is for another log")
    if order.until > at_us + OVERLAP_S_MAX * US:  # one that is over already is none
        raise AuthorityError("the overlap lasts too long", code="bad_rotation",
                             hint=f"It lasts at most {OVERLAP_S_MAX // 86_400} days.")  # fmt: skip
    signers = signers_of(fields, ROTATION, order.document(), people)
    check_others(signers, (), VOUCHERS, SIGNERS_MAX)
    proofs = Fields("rotation", fields.member("proofs"), frozenset(("old", "new")))
    verify(order.old, ROTATION, order.document(), proofs.member("old"))
    verify(order.new, ROTATION, order.document(), proofs.member("new"))
    return order
