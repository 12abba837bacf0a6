"""Keys of people, agents and principals: Ed25519, written ``ed25519:`` + base64 of 32 bytes; people may have passkeys.

A key is checked before it becomes a ``PublicKey`` (``model/curve.py``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from countermark.authority.passkeys import PASSKEY, Passkey
from countermark.model.curve import bad_key, check_point
from countermark.model.digest import signing_bytes
from countermark.model.errors import SignatureError

PREFIX = "ed25519:"
KEY_CHARS = len(PREFIX) + 44
SIGNATURE_BYTES = 64
SIGNATURE_CHARS = 88


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that may be enrolled: building one raises ``SignatureError`` for a weak or malformed key."""

    raw: bytes

    def __post_init__(self) -> None:
        check_point(self.raw)

    @classmethod
    def parse(cls, text: object) -> PublicKey:
        """Read ``ed25519:BASE64``, in its one form."""
        if type(text) is not str or len(text) != KEY_CHARS or not text.startswith(PREFIX):
            raise bad_key("a key is not written as ed25519: and the base64 of 32 bytes")
        return cls(_decode(text[len(PREFIX) :]))

    def __str__(self) -> str:
        return PREFIX + base64.b64encode(self.raw).decode("ascii")


Key = PublicKey | Passkey


def parse_key(text: object) -> Key:
    """Read a person's key, of either kind, in its one form. Raises ``SignatureError`` (``bad_key``)."""
    return Passkey.parse(text) if type(text) is str and text.startswith(PASSKEY) else PublicKey.parse(text)


def _decode(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SignatureError("not base64") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise SignatureError("base64 is not in its one form")
    return raw


def generate() -> Ed25519PrivateKey:
    """A new private key from the system's random source."""
    return Ed25519PrivateKey.generate()


def public_of(private: Ed25519PrivateKey) -> PublicKey:
    """The public half of a private key."""
    return PublicKey(private.public_key().public_bytes_raw())


def sign(private: Ed25519PrivateKey, domain: str, document: Any) -> str:
    """Sign domain || 0x00 || canonical document; base64 of 64 bytes. Raises ``EncodingError`` outside the profile."""
    return base64.b64encode(private.sign(signing_bytes(domain, document))).decode("ascii")


def challenge_of(domain: str, document: Any) -> bytes:
    """What a passkey is asked to sign for a document: the 32 bytes of SHA-256(domain || 0x00 || canonical document)."""
    return hashlib.sha256(signing_bytes(domain, document)).digest()


def verify(public: Key, domain: str, document: Any, sig: object) -> None:
    """Check a signature over a document: base64 for an Ed25519 key, an assertion for a passkey.

    Raises:
        SignatureError: it is malformed or does not verify.
        EncodingError: the document is outside the record profile.
    """
    if isinstance(public, Passkey):
        public.check(challenge_of(domain, document), sig)
        return
    if type(sig) is not str or len(sig) != SIGNATURE_CHARS:
        raise SignatureError(f"a signature is not the base64 of {SIGNATURE_BYTES} bytes")
    try:
        Ed25519PublicKey.from_public_bytes(public.raw).verify(_decode(sig), signing_bytes(domain, document))
    except InvalidSignature:
        raise SignatureError("the signature does not verify") from None
