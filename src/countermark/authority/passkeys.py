"""Passkeys: public keys that live in a person's phone, laptop or security key, and what they sign (WebAuthn level 3).

A passkey signs a document by answering a challenge that is the document's digest. What is checked is what section 7.2
of the W3C recommendation asks of an assertion; a signature counter is not: passkeys that are synchronised have none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from countermark.model.errors import SignatureError

PASSKEY = "webauthn:es256:"
CREDENTIAL_BYTES_MAX = 255
POINT_BYTES = 65
PASSKEY_CHARS_MAX = 768
CLIENT_DATA_BYTES_MAX = 4_096
AUTHENTICATOR_BYTES_MAX = 1_024
SIGNATURE_BYTES_MAX = 128

_PRESENT, _VERIFIED, _ATTESTED, _EXTENDED = 0x01, 0x04, 0x40, 0x80
_UNCOMPRESSED = 4
_AUTHENTICATOR_BYTES = 37  # hash of the rp id, flags, counter; more only with extensions
_MEMBERS = frozenset(("authenticator_data", "client_data", "signature"))
_ORIGIN = re.compile(
    r"(?:https://(?P<host>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)|http://localhost)"
    r"(?::[1-9][0-9]{0,4})?"
)
_HINT = "Enrol the passkey again, from the console's page."


def is_origin(text: str) -> bool:
    """Whether a page of this origin may use passkeys: https with a host's name, or localhost over http."""
    return len(text) <= 255 and _ORIGIN.fullmatch(text) is not None


def encode64(raw: bytes) -> str:
    """base64url without padding, as WebAuthn writes bytes."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode64(text: object, most: int) -> bytes:
    """At most ``most`` bytes from base64url without padding, in its one form. Raises ``SignatureError``."""
    if type(text) is not str or not text.isascii() or len(text) > most * 4 // 3 + 2:
        raise SignatureError("not base64url of a fitting length")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise SignatureError("not base64url") from None
    if encode64(raw) != text or not 0 < len(raw) <= most:
        raise SignatureError("base64url is not in its one form, or is empty")
    return raw


@dataclass(frozen=True, slots=True)
class Passkey:
    """A passkey that may be enrolled: building one raises ``SignatureError`` (``bad_key``) for one that fits nothing.

    ``point`` is an uncompressed point of P-256 (65 bytes); ``credential`` the authenticator's name for it; ``origin``
    the one page that may use it.
    """

    credential: bytes
    point: bytes
    origin: str

    def __post_init__(self) -> None:
        if not is_origin(self.origin):
            raise _bad_key("a passkey's origin is https://HOST or http://localhost, with a port or without")
        if not 0 < len(self.credential) <= CREDENTIAL_BYTES_MAX:
            raise _bad_key(f"a credential has at most {CREDENTIAL_BYTES_MAX} bytes")
        if len(self.point) != POINT_BYTES or self.point[0] != _UNCOMPRESSED:
            raise _bad_key(f"a passkey is an uncompressed point of P-256, {POINT_BYTES} bytes")
        try:
            EllipticCurvePublicKey.from_encoded_point(SECP256R1(), self.point)
        except ValueError:
            raise _bad_key("the passkey is not a point of its curve") from None

    @classmethod
    def parse(cls, text: object) -> Passkey:
        """Read ``webauthn:es256:CREDENTIAL:KEY:ORIGIN``, in its one form."""
        parts: list[str] = []
        if type(text) is str and len(text) <= PASSKEY_CHARS_MAX and text.startswith(PASSKEY):
            parts = text[len(PASSKEY) :].split(":", 2)
        if len(parts) != 3:
            raise _bad_key("a passkey is not written webauthn:es256:CREDENTIAL:KEY:ORIGIN")
        try:
            credential, point = decode64(parts[0], CREDENTIAL_BYTES_MAX), decode64(parts[1], POINT_BYTES)
        except SignatureError as error:
            raise _bad_key(f"a passkey's credential or key is {error.message}") from None
        return cls(credential, point, parts[2])

    def __str__(self) -> str:
        return f"{PASSKEY}{encode64(self.credential)}:{encode64(self.point)}:{self.origin}"

    @property
    def rp_id(self) -> str:
        """The relying party's id, which the authenticator signs the hash of: the origin's host."""
        return self.origin.split("://", 1)[1].split(":", 1)[0]

    def check(self, challenge: bytes, sig: object) -> None:
        """Check an assertion ``{"authenticator_data", "client_data", "signature"}`` over ``challenge`` (32 bytes).

        Raises:
            SignatureError: it is malformed, is for another challenge or page, was given by nobody present and
                verified, or does not verify.
        """
        if type(sig) is not dict or sig.keys() != _MEMBERS:
            raise SignatureError("a passkey's signature has authenticator_data, client_data and signature")
        data = decode64(sig["authenticator_data"], AUTHENTICATOR_BYTES_MAX)
        client = decode64(sig["client_data"], CLIENT_DATA_BYTES_MAX)
        _check_client(client, challenge, self.origin)
        _check_authenticator(data, self.rp_id)
        signature, message = decode64(sig["signature"], SIGNATURE_BYTES_MAX), data + hashlib.sha256(client).digest()
        try:
            key = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), self.point)
            key.verify(signature, message, ECDSA(SHA256()))
        except InvalidSignature:
            raise SignatureError("the passkey's signature does not verify") from None


def _bad_key(message: str) -> SignatureError:
    return SignatureError(message, code="bad_key", hint=_HINT)


def _check_client(raw: bytes, challenge: bytes, origin: str) -> None:
    try:
        client: Any = orjson.loads(raw)
    except ValueError:
        client = None
    if type(client) is not dict or client.get("type") != "webauthn.get":
        raise SignatureError("the passkey did not answer a challenge")
    if client.get("challenge") != encode64(challenge):
        raise SignatureError("the passkey signed something else")
    if client.get("origin") != origin or client.get("crossOrigin", False) is not False or "topOrigin" in client:
        raise SignatureError("the passkey signed on another page")


def _check_authenticator(data: bytes, rp_id: str) -> None:
    flags = data[32] if len(data) >= _AUTHENTICATOR_BYTES else 0
    if data[:32] != hashlib.sha256(rp_id.encode("ascii")).digest():
        raise SignatureError("the passkey signed for another site")
    if not flags & _PRESENT or not flags & _VERIFIED:
        raise SignatureError("the passkey did not verify who was there", hint="Use fingerprint, face or PIN.")
    if flags & _ATTESTED or (len(data) > _AUTHENTICATOR_BYTES) != bool(flags & _EXTENDED):
        raise SignatureError("the authenticator's data does not have the form of an assertion")
