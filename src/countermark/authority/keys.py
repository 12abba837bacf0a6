"""Keys of people, agents and principals: Ed25519, written ``ed25519:`` + base64 of 32 bytes; people may have passkeys.

The library accepts public keys under which a signature proves nothing, so a key is checked before it becomes a
``PublicKey``: canonical, on the curve, not of small order.
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
from countermark.model.digest import signing_bytes
from countermark.model.errors import SignatureError

PREFIX = "ed25519:"
KEY_BYTES = 32
KEY_CHARS = len(PREFIX) + 44
SIGNATURE_BYTES = 64
SIGNATURE_CHARS = 88

_P = 2**255 - 19  # RFC 8032 section 5.1: the field and the curve's constant d = -121665/121666
_D = -121665 * pow(121666, -1, _P) % _P

# The eight points whose order divides the cofactor. Under such a key one signature fits many messages.
SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "0100000000000000000000000000000000000000000000000000000000000000",  # order 1
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # order 2
        "0000000000000000000000000000000000000000000000000000000000000000",  # order 4
        "0000000000000000000000000000000000000000000000000000000000000080",  # order 4
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",  # order 8
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",  # order 8
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",  # order 8
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",  # order 8
    )
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that may be enrolled: building one raises ``SignatureError`` for a weak or malformed key."""

    raw: bytes

    def __post_init__(self) -> None:
        if type(self.raw) is not bytes or len(self.raw) != KEY_BYTES:
            raise _bad_key(f"an Ed25519 public key has {KEY_BYTES} bytes")
        if self.raw in SMALL_ORDER:
            raise _bad_key("the key is a point of small order: anybody can make signatures that fit it")
        _check_on_curve(self.raw)

    @classmethod
    def parse(cls, text: object) -> PublicKey:
        """Read ``ed25519:BASE64``, in its one form."""
        if type(text) is not str or len(text) != KEY_CHARS or not text.startswith(PREFIX):
            raise _bad_key("a key is not written as ed25519: and the base64 of 32 bytes")
        return cls(_decode(text[len(PREFIX) :]))

    def __str__(self) -> str:
        return PREFIX + base64.b64encode(self.raw).decode("ascii")


Key = PublicKey | Passkey


def parse_key(text: object) -> Key:
    """Read a person's key, of either kind, in its one form. Raises ``SignatureError`` (``bad_key``)."""
    return Passkey.parse(text) if type(text) is str and text.startswith(PASSKEY) else PublicKey.parse(text)


def _bad_key(message: str) -> SignatureError:
    return SignatureError(message, code="bad_key", hint="Make a new key and enrol that one.")


def _check_on_curve(raw: bytes) -> None:
    """Decompress as RFC 8032 section 5.1.3 says, and refuse what has another encoding or none."""
    value = int.from_bytes(raw, "little")
    sign, y = value >> 255, value & (1 << 255) - 1
    if y >= _P:
        raise _bad_key("the key is not canonically encoded")
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if square == 0:
        if sign:
            raise _bad_key("the key is not canonically encoded")
    elif pow(square, (_P - 1) // 2, _P) != 1:  # Euler's criterion: x^2 has no root, so there is no such point
        raise _bad_key("the key is not a point of the curve")


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
