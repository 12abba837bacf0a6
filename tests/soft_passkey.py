"""An authenticator in software: what a phone does when a page asks it to sign, for tests."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, derive_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ORIGIN = "http://localhost:8383"


def url64(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class SoftPasskey:
    """One credential for one page. ``number`` makes the key, so that tests repeat."""

    def __init__(self, number: int, origin: str = ORIGIN) -> None:
        self.private = derive_private_key(1_000 + number, SECP256R1())
        self.origin = origin
        self.credential = hashlib.sha256(b"credential %d" % number).digest()[:16]
        self.point = self.private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @property
    def text(self) -> str:
        """The key as people's keys are written."""
        return f"webauthn:es256:{url64(self.credential)}:{url64(self.point)}:{self.origin}"

    def data(self, flags: int = 0x05, rp_id: str | None = None) -> bytes:
        """Authenticator data: the site's hash, flags (present, verified), a counter of nought."""
        host = rp_id or self.origin.split("://")[1].split(":")[0]
        return hashlib.sha256(host.encode()).digest() + bytes([flags]) + bytes(4)

    def client(self, challenge: bytes, **changed: Any) -> bytes:
        """Client data as a browser writes it; ``changed`` members replace its own."""
        said = {"type": "webauthn.get", "challenge": url64(challenge), "origin": self.origin, "crossOrigin": False}
        return json.dumps({**said, **changed}, separators=(",", ":")).encode()

    def assertion(self, challenge: bytes, data: bytes | None = None, client: bytes | None = None) -> dict[str, str]:
        """The answer to a challenge, as the records hold it."""
        data, client = data or self.data(), client or self.client(challenge)
        signature = self.private.sign(data + hashlib.sha256(client).digest(), ECDSA(SHA256()))
        return {"authenticator_data": url64(data), "client_data": url64(client), "signature": url64(signature)}

    def sign(self, domain: str, raw: bytes) -> dict[str, str]:
        """Sign canonical bytes under a domain."""
        return self.assertion(hashlib.sha256(domain.encode() + b"\0" + raw).digest())
