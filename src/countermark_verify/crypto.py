"""Ed25519 keys and signatures (docs/spec/digests.md, RFC 8032)."""

import base64
import binascii

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from countermark_verify.errors import Malformed

_P = 2**255 - 19
# The y coordinates of the eight points of small order (orders 1, 2, 4 and, twice, 8).
_ORDER_8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})


def decode64(text: str) -> bytes:
    """Strict base64: the padded standard alphabet, and only the one encoding of its bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise Malformed("is not the canonical base64 of its bytes")
    return data


def check_key(raw: bytes) -> bytes:
    """The 32 bytes of a usable public key; refuses small order and coordinates that are not reduced."""
    if len(raw) != 32:
        raise Malformed("is not a key of 32 bytes")
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _P:
        raise Malformed("is not a canonical point")
    if y in _SMALL_ORDER_Y:
        raise Malformed("is a key of small order")
    return raw


def parse_key(text: str) -> bytes:
    """`ed25519:BASE64` -> 32 bytes."""
    if not text.startswith("ed25519:"):
        raise Malformed("is not written ed25519:BASE64")
    return check_key(decode64(text[len("ed25519:") :]))


def signed(key: bytes, signature: bytes, message: bytes) -> bool:
    """Does the Ed25519 signature verify? False for anything that the library refuses as well."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def signed_text(key: str, signature: str, message: bytes) -> bool:
    """The same over the textual forms of key and signature; ill-formed text does not verify."""
    try:
        return signed(parse_key(key), decode64(signature), message)
    except Malformed:
        return False
