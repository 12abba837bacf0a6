"""SD-JWTs (RFC 9901) as AP2 chains them: strict reading, signatures under keys that are known beforehand.

Only what AP2's payment mandates need: ES256 and EdDSA, SHA-256, and disclosures of array elements. Header members that
could name or bring a key (``jwk``, ``x5c``, ``jku``) or change what is signed (``crit``, ``b64``) are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from countermark.authority.keys import PREFIX, PublicKey
from countermark.authority.passkeys import decode64, encode64
from countermark.model.canon import read_json
from countermark.model.errors import AuthorityError, EncodingError, SignatureError

ES256 = "es256:"
SEGMENT_CHARS_MAX = 24_000
DISCLOSURES_MAX = 64
POINT_BYTES = 65
SIGNATURE_BYTES = 64

_HEADER = frozenset(("alg", "typ", "kid"))
_HIDDEN = "..."


@dataclass(frozen=True, slots=True)
class JoseKey:
    """A key that signs JWTs: ``es256:`` + base64url of an uncompressed point of P-256, or ``ed25519:BASE64``.

    Building one raises ``SignatureError`` (``bad_key``) for a key that fits nothing.
    """

    alg: str
    raw: bytes

    @classmethod
    def parse(cls, text: object) -> JoseKey:
        """Read the text form, in its one form."""
        if type(text) is str and text.startswith(PREFIX):
            return cls("EdDSA", PublicKey.parse(text).raw)
        if type(text) is not str or not text.startswith(ES256):
            raise _bad_key("an AP2 key is written es256: and the base64url of a point, or ed25519: and base64")
        return cls._point(decode64(text[len(ES256) :], POINT_BYTES))

    @classmethod
    def of_jwk(cls, jwk: object) -> JoseKey:
        """The key of a JWK (RFC 7517): P-256 or Ed25519, its coordinates in their one form."""
        if not isinstance(jwk, Mapping) or "d" in jwk:
            raise _bad_key("a JWK is an object, without a private part")
        kind = (jwk.get("kty"), jwk.get("crv"))
        if kind == ("OKP", "Ed25519"):
            return cls("EdDSA", PublicKey(decode64(jwk.get("x"), 32)).raw)
        if kind != ("EC", "P-256"):
            raise _bad_key("a JWK is neither a public key of P-256 nor one of Ed25519")
        return cls._point(b"\4" + decode64(jwk.get("x"), 32) + decode64(jwk.get("y"), 32))

    @classmethod
    def _point(cls, raw: bytes) -> JoseKey:
        try:
            if len(raw) != POINT_BYTES or raw[0] != 4:
                raise ValueError
            EllipticCurvePublicKey.from_encoded_point(SECP256R1(), raw)
        except ValueError:
            raise _bad_key("the key is not an uncompressed point of P-256") from None
        return cls("ES256", raw)

    def __str__(self) -> str:
        return ES256 + encode64(self.raw) if self.alg == "ES256" else str(PublicKey(self.raw))

    def check(self, message: bytes, signature: bytes) -> None:
        """Raise ``SignatureError`` unless the signature (RFC 7518 section 3.4, RFC 8037) verifies."""
        if len(signature) != SIGNATURE_BYTES:
            raise SignatureError("a JWT's signature has 64 bytes")
        try:
            if self.alg == "EdDSA":
                Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
                return
            r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
            key = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), self.raw)
            key.verify(encode_dss_signature(r, s), message, ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
            raise SignatureError("the signature of the AP2 document does not verify") from None


def _bad_key(message: str) -> SignatureError:
    return SignatureError(message, code="bad_key")


def bad(message: str) -> AuthorityError:
    """The AP2 document is not in the form that is read here."""
    return AuthorityError(f"the AP2 document {message}", code="bad_ap2")


@dataclass(frozen=True, slots=True)
class Token:
    """One SD-JWT: ``text`` as it stands (``JWT~disclosure~...~``), what its key signed, and its parts."""

    text: str
    signed: str
    signature: bytes
    header: Mapping[str, Any]
    payload: Mapping[str, Any]
    disclosures: tuple[str, ...]

    def verify(self, key: JoseKey) -> None:
        """The algorithm is the key's own, whatever the header would like. Raises ``SignatureError``."""
        if self.header["alg"] != key.alg:
            raise SignatureError("the AP2 document is signed with another algorithm than its key's")
        key.check(self.signed.encode("ascii"), self.signature)

    @property
    def issuer_jwt(self) -> str:
        return self.text.partition("~")[0]


def hashed(text: str) -> str:
    """base64url of SHA-256, as disclosures and ``sd_hash`` are named."""
    return encode64(hashlib.sha256(text.encode("ascii")).digest())


def read_token(text: str) -> Token:
    """Read an SD-JWT without a key binding of its own. Raises ``AuthorityError`` (``bad_ap2``, ``ap2_unsupported``)."""
    if not text.isascii() or len(text) > SEGMENT_CHARS_MAX:
        raise bad(f"is longer than {SEGMENT_CHARS_MAX} characters, or not ASCII")
    jwt, *disclosures = text.split("~")
    if not disclosures or disclosures.pop() != "":
        raise AuthorityError("an SD-JWT that ends in a key binding of its own is not read", code="ap2_unsupported",
                             hint="A user's credential in a wallet makes those: see docs/mandates.md.")  # fmt: skip
    parts = jwt.split(".")
    if len(parts) != 3 or len(disclosures) > DISCLOSURES_MAX or "" in disclosures:
        raise bad(f"is not a JWT with at most {DISCLOSURES_MAX} disclosures")
    header, payload = (_object(part) for part in parts[:2])
    if not {"alg"} <= header.keys() <= _HEADER or any(type(value) is not str for value in header.values()):
        raise bad("has a header with other members than alg, typ and kid")
    if payload.get("_sd_alg", "sha-256") != "sha-256":
        raise AuthorityError("the AP2 document hashes with something else than SHA-256", code="ap2_unsupported")
    return Token(text, ".".join(parts[:2]), _bytes(parts[2]), header, payload, tuple(disclosures))


def _bytes(part: str) -> bytes:
    try:
        return decode64(part, SEGMENT_CHARS_MAX)
    except SignatureError as error:
        raise bad(f"has a part that is {error.message}") from None


def _json(part: str) -> Any:
    try:
        return read_json(_bytes(part), bytes_max=SEGMENT_CHARS_MAX)
    except EncodingError as error:
        raise bad(f"has a part that is not strict JSON: {error.message}") from None


def _object(part: str) -> Mapping[str, Any]:
    value = _json(part)
    if type(value) is not dict:
        raise bad("has a part that is no JSON object")
    return value


def opened(token: Token, may_hide: frozenset[str]) -> Mapping[str, Any]:
    """The payload with every disclosed array element in its place (RFC 9901 section 7.1).

    An element that was not disclosed is left out, which is refused in any array but those under the names
    ``may_hide``: what is hidden could be a limit. Every disclosure belongs somewhere, once.
    """
    values: dict[str, Any] = {}
    for disclosure in token.disclosures:
        value = _json(disclosure)
        if type(value) is not list or len(value) != 2 or type(value[0]) is not str:
            raise AuthorityError("only array elements may be disclosed in an AP2 document", code="ap2_unsupported")
        values[hashed(disclosure)] = value[1]
    if len(values) != len(token.disclosures):
        raise bad("discloses something twice")
    found = {name: _place(value, name, values, may_hide) for name, value in token.payload.items() if name != "_sd_alg"}
    if values:
        raise bad("discloses something that it does not contain")
    return found


def _place(value: Any, name: str, values: dict[str, Any], may_hide: frozenset[str]) -> Any:
    if type(value) is dict:
        if "_sd" in value or _HIDDEN in value:
            raise AuthorityError("only array elements may be hidden in an AP2 document", code="ap2_unsupported")
        return {key: _place(item, key, values, may_hide) for key, item in value.items()}
    if type(value) is not list:
        return value
    kept: list[Any] = []
    for item in value:
        if type(item) is not dict or _HIDDEN not in item:
            kept.append(_place(item, name, values, may_hide))
            continue
        digest = item[_HIDDEN]
        if item.keys() != {_HIDDEN} or type(digest) is not str:
            raise bad("has an array element of no known form")
        if digest in values:
            kept.append(_place(values.pop(digest), name, values, may_hide))
        elif name not in may_hide:
            raise AuthorityError(f"the AP2 document hides an element of {name[:40]!r}", code="ap2_unsupported")
    return kept
