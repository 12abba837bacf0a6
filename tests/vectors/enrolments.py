"""Passkeys, keys enrolled and removed, and absences, on paper (docs/spec/record.md, docs/spec/digests.md)."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from bundle import DAY_US, asking_bundle, person_key
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, derive_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hindsight import four_eyes
from scribe import Alter, Story

from build import DEPLOYMENT, Json, Key, canonical, seeded

PAGE = "http://localhost:8383"


def url64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


@dataclass(frozen=True)
class Passkey:
    """A passkey derived from its label; it signs as an authenticator does, the same way on every machine."""

    label: str
    page: str = PAGE
    flags: int = 0x05  # user present, user verified

    @property
    def private(self) -> EllipticCurvePrivateKey:
        return derive_private_key(int.from_bytes(seeded(f"passkey/{self.label}", 31), "big") + 1, SECP256R1())

    @property
    def text(self) -> str:
        point = self.private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return f"webauthn:es256:{url64(seeded('credential/' + self.label))}:{url64(point)}:{self.page}"

    def sign_doc(self, domain: str, doc: Json) -> dict[str, str]:
        challenge = hashlib.sha256(f"countermark/v1/{domain}".encode() + b"\x00" + canonical(doc)).digest()
        said = {"type": "webauthn.get", "challenge": url64(challenge), "origin": self.page, "crossOrigin": False}
        client = json.dumps(said, separators=(",", ":")).encode()
        host = self.page.split("://")[1].split(":")[0]
        data = hashlib.sha256(host.encode()).digest() + bytes([self.flags]) + bytes(4)
        raw = self.private.sign(data + hashlib.sha256(client).digest(), ECDSA(SHA256(), deterministic_signing=True))
        return {"authenticator_data": url64(data), "client_data": url64(client), "signature": url64(raw)}


PHONE = Passkey("treasurer's phone")
SECOND = Key("treasurer/second")


def peopled(note: str = "peopled", test: bool = False, **more: Any) -> dict[str, Any]:
    """The asking bundle, in which the activator also operates, so that there are two who may vouch for others."""
    bundle = asking_bundle(note, **more)
    for row in bundle["compiled"]["people"]:
        if row["id"] == "activator":
            row["roles"] = ["activator", "operator"]
    if test:
        bundle["compiled"]["test"] = True
    return bundle


def enrol(
    story: Story,
    key: Key | Passkey,
    person: str = "treasurer",
    by: tuple[str, ...] | None = None,
    keys: dict[str, Any] | None = None,
    sign: Alter | None = None,
    alter: Alter | None = None,
    lasts_us: int = DAY_US,
) -> int:
    """A key becomes a person's; `sign` falsifies what is signed, `alter` the record. By the person unless `by` says."""
    doc = {
        "v": 1,
        "deployment": DEPLOYMENT,
        "person": person,
        "key": key.text,
        "label": "a phone" if isinstance(key, Passkey) else "a file",
        "nonce": seeded(f"enrolment/{story.label}/{len(story.log.leaves)}").hex(),
        "not_after": story.now + lasts_us,
    }
    if sign is not None:
        sign(doc)
    proof = key.sign_doc("enrolment-proof", doc) if isinstance(key, Passkey) else None
    signed = four_eyes("enrolment", doc, (person,) if by is None else by, keys or {})
    body = {"enrolment": doc, "signed": signed, "proof": proof}
    if alter is not None:
        alter(body)
    return story.add("key.enrolled", "gate", [], body)


def remove(
    story: Story, key: str, person: str = "treasurer", by: str = "treasurer", signer: Any = None,
    sign: Alter | None = None,
) -> int:  # fmt: skip
    """A key signs nothing any more."""
    doc = {"v": 1, "deployment": DEPLOYMENT, "person": person, "key": key, "by": by, "reason": "lost on a train"}
    if sign is not None:
        sign(doc)
    signer = signer or person_key(by)
    body = {"removal": doc, "key": signer.text, "sig": signer.sign_doc("removal", doc)}
    return story.add("key.removed", f"person:{doc['by']}", [], body)


def away(
    story: Story, person: str = "treasurer", stands_in: str = "controller", by: tuple[str, ...] | None = None,
    sign: Alter | None = None, keys: dict[str, Any] | None = None,
) -> int:  # fmt: skip
    """Somebody answers for a person, for a fortnight."""
    doc = {"v": 1, "deployment": DEPLOYMENT, "person": person, "stands_in": stands_in, "from": story.now,
           "until": story.now + 14 * DAY_US}  # fmt: skip
    if sign is not None:
        sign(doc)
    signed = four_eyes("absence", doc, (person,) if by is None else by, keys or {})
    return story.add("absence.set", "gate", [], {"absence": doc, "signed": signed})
