"""Signatures of the Standard Webhooks specification 1.0.0 ("Webhook Signatures"): symmetric ``v1``, asymmetric ``v1a``.

What is signed is ``ID.TIMESTAMP.BODY``. A secret is ``whsec_`` and base64 of 24 to 64 bytes, or ``whsk_`` and base64 of
an Ed25519 key: its 32-byte seed, perhaps followed by the 32 bytes of its public half.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from countermark.model.errors import ConfigError

SYMMETRIC, ASYMMETRIC = "whsec_", "whsk_"
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
SEED_BYTES = 32


class _Secret(NamedTuple):
    symmetric: bool
    raw: bytes


def check_secret(text: str) -> str:
    """The public half (``whpk_...``) of an asymmetric secret, ``""`` for a symmetric one. Raises ``ConfigError``."""
    secret = _parsed(text)
    if secret.symmetric:
        return ""
    return "whpk_" + base64.b64encode(_public(Ed25519PrivateKey.from_private_bytes(secret.raw))).decode("ascii")


def symmetric_secret(text: str) -> bytes:
    """The bytes of a symmetric secret (``whsec_...``), for who checks signatures. Raises ``ConfigError``."""
    secret = _parsed(text)
    if not secret.symmetric:
        raise ConfigError("a webhook's secret begins with whsec_", code="bad_webhook_secret")
    return secret.raw


def signatures(secrets: Sequence[str], identity: str, at_s: int, body: bytes) -> str:
    """The value of ``webhook-signature``: one signature for each secret, so that an old and a new one can overlap.

    Raises ``ConfigError`` when a secret is not in its form.
    """
    signed = b"%s.%d.%s" % (identity.encode("ascii"), at_s, body)
    found = []
    for text in secrets:
        secret = _parsed(text)
        if secret.symmetric:
            version, raw = "v1", hmac.digest(secret.raw, signed, "sha256")
        else:
            version, raw = "v1a", Ed25519PrivateKey.from_private_bytes(secret.raw).sign(signed)
        found.append(f"{version},{base64.b64encode(raw).decode('ascii')}")
    return " ".join(found)


def _parsed(text: str) -> _Secret:
    """No error here says anything about the secret but its form."""
    prefix = next((known for known in (SYMMETRIC, ASYMMETRIC) if text.startswith(known)), None)
    if prefix is None:
        raise ConfigError(
            "a webhook's secret begins with whsec_ or whsk_", code="bad_webhook_secret",
            hint="whsec_ and base64 of 24 to 64 random bytes, or whsk_ and base64 of an Ed25519 key.",
        )  # fmt: skip
    encoded = text.removeprefix(prefix)
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("a webhook's secret is not in base64", code="bad_webhook_secret") from None
    if prefix == SYMMETRIC:
        if not SECRET_BYTES_MIN <= len(raw) <= SECRET_BYTES_MAX:
            raise ConfigError(
                f"a webhook's secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes", code="bad_webhook_secret"
            )
        return _Secret(True, raw)
    seed, public = raw[:SEED_BYTES], raw[SEED_BYTES:]
    if len(seed) != SEED_BYTES or public not in (b"", _public(Ed25519PrivateKey.from_private_bytes(seed))):
        raise ConfigError("a webhook's key is not an Ed25519 key", code="bad_webhook_secret")
    return _Secret(False, seed)


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
