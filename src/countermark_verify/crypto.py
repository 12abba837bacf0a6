"""Keys and signatures: Ed25519, and people's passkeys (docs/spec/digests.md, RFC 8032, WebAuthn section 7.2)."""

import base64
import binascii
import hashlib
import json
import re
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from countermark_verify.errors import Malformed

_P = 2**255 - 19
# The y coordinates of the eight points of small order (orders 1, 2, 4 and, twice, 8).
_ORDER_8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})

PASSKEY_CHARS_MAX = 768
_CREDENTIAL_BYTES_MAX = 255
_ORIGIN_CHARS_MAX = 255
_POINT_BYTES = 65
_UNCOMPRESSED = 4
_DATA_BYTES = 37  # of an authenticator, without extensions
_LABEL = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_ORIGIN = rf"(?:https://(?P<host>{_LABEL}(?:\.{_LABEL})*)|http://localhost)(?::[1-9][0-9]{{0,4}})?"
PASSKEY = re.compile(
    r"webauthn:es256:(?P<credential>[A-Za-z0-9_-]{2,340}):(?P<point>[A-Za-z0-9_-]{87}):" rf"(?P<origin>{_ORIGIN})"
)


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


def signed_text(key: str, signature: Any, message: bytes) -> bool:
    """The same over the textual forms of key and signature, of either kind; ill-formed text does not verify."""
    try:
        if key.startswith("webauthn:"):
            return type(signature) is dict and _asserted(key, signature, hashlib.sha256(message).digest())
        return type(signature) is str and signed(parse_key(key), decode64(signature), message)
    except Malformed:
        return False


def is_origin(text: str) -> bool:
    """Can the text be the origin of a page where a passkey works?"""
    return len(text) <= _ORIGIN_CHARS_MAX and re.fullmatch(_ORIGIN, text) is not None


def parse_passkey(text: str) -> tuple[bytes, str, str]:
    """`webauthn:es256:CREDENTIAL:POINT:ORIGIN` -> the point, the origin and its host; raises `Malformed`."""
    match = PASSKEY.fullmatch(text)
    if match is None or len(text) > PASSKEY_CHARS_MAX:
        raise Malformed("is not written webauthn:es256:CREDENTIAL:POINT:ORIGIN")
    point = _decode_url(match["point"])
    if len(_decode_url(match["credential"])) > _CREDENTIAL_BYTES_MAX or len(match["origin"]) > _ORIGIN_CHARS_MAX:
        raise Malformed("has a credential or an origin that is too long")
    try:
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
    except ValueError as error:
        raise Malformed("is not a point of P-256") from error
    if len(point) != _POINT_BYTES or point[0] != _UNCOMPRESSED:
        raise Malformed("is not an uncompressed point of P-256")
    return point, match["origin"], match["host"] or "localhost"


def parse_any(text: str) -> str:
    """A person's key of either kind, as it is written; raises `Malformed`."""
    (parse_passkey if text.startswith("webauthn:") else parse_key)(text)
    return text


def _decode_url(text: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("is not base64url") from error
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
        raise Malformed("is not the canonical base64url of its bytes")
    return raw


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _asserted(key: str, assertion: dict[str, str], challenge: bytes) -> bool:
    """Did the passkey, with its person present and verified, sign this challenge on the page it belongs to?"""
    point, origin, host = parse_passkey(key)
    data, client = _decode_url(assertion["authenticator_data"]), _decode_url(assertion["client_data"])
    signature = _decode_url(assertion["signature"])
    try:
        said = json.loads(client.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    if type(said) is not dict or said.get("type") != "webauthn.get" or said.get("origin") != origin:
        return False
    expected = base64.urlsafe_b64encode(challenge).rstrip(b"=").decode()
    if said.get("challenge") != expected or said.get("crossOrigin", False) is not False or "topOrigin" in said:
        return False
    if len(data) < _DATA_BYTES or data[:32] != hashlib.sha256(host.encode()).digest():
        return False
    flags = data[32]
    if flags & 0x05 != 0x05 or flags & 0x40 or (len(data) > _DATA_BYTES) != bool(flags & 0x80):
        return False
    try:
        public = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
        public.verify(signature, data + hashlib.sha256(client).digest(), ECDSA(SHA256()))
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True
