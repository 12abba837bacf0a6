"""Who signed a delivery: the schemes of ``POST /hooks/{source}``, each checked over the exact bytes of the body.

Every secret is tried against every signature, whatever was found before, so that the time it takes says nothing. A
header that a scheme does not sign is not read as more than where a signature stands.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import NamedTuple

from countermark.model.errors import ConfigError, SignatureError
from countermark.notify import symmetric_secret
from countermark.server.bodies import header
from countermark.server.stripe_events import check_signature
from countermark.server.surroundings import Headers
from countermark.workflow import BASE64, GITHUB, STANDARD, STRIPE, WebhookSource

HEADER_CHARS_MAX = 4_096
SIGNATURES_MAX = 16

_TIME = re.compile(r"[1-9][0-9]{0,11}")
_IDENTITY = re.compile(r"[!-~]{1,200}")


class Signed(NamedTuple):
    """What a scheme vouches for besides the body: the event's identity and the time of signing, if it signs them."""

    identity: str | None
    at_s: int | None


def check_delivery(
    source: WebhookSource, headers: Headers, body: bytes, secrets: Sequence[str], now_s: int
) -> Signed:  # fmt: skip
    """Raises ``SignatureError`` (``bad_webhook``): nothing says that the source sent these bytes, or not now."""
    if source.scheme == STRIPE:
        shown = _header(headers, "stripe-signature")
        return Signed(None, check_signature(body, shown, secrets, now_s, source.tolerance_s))
    if source.scheme == STANDARD:
        return _standard(source, headers, body, secrets, now_s)
    if source.scheme == GITHUB:
        macs = [hmac.digest(secret.encode("utf-8"), body, hashlib.sha256) for secret in secrets]
        _fits(macs, [_decoded(_header(headers, "x-hub-signature-256"), "sha256=", "hex")])
        return Signed(None, None)
    return _own(source, headers, body, secrets, now_s)


def _standard(
    source: WebhookSource, headers: Headers, body: bytes, secrets: Sequence[str], now_s: int
) -> Signed:  # fmt: skip
    """Standard Webhooks 1.0.0, "Webhook Signatures": ``v1,BASE64``, several with a space between them."""
    identity, shown = _header(headers, "webhook-id"), _header(headers, "webhook-signature")
    at_s = _time(_header(headers, "webhook-timestamp"))
    if _IDENTITY.fullmatch(identity) is None:
        raise bad("webhook-id does not have its form")
    parts = shown.split(" ")
    if len(parts) > SIGNATURES_MAX:
        raise bad("webhook-signature holds too many signatures")
    signed = f"{identity}.{at_s}.".encode("ascii") + body
    macs = [hmac.digest(_standard_secret(secret), signed, hashlib.sha256) for secret in secrets]
    _fits(macs, [_decoded(part, "v1,", BASE64) for part in parts if part.startswith("v1,")])
    _of_now(at_s, now_s, source.tolerance_s)
    return Signed(identity, at_s)


def _own(
    source: WebhookSource, headers: Headers, body: bytes, secrets: Sequence[str], now_s: int
) -> Signed:  # fmt: skip
    at_s = _time(_header(headers, source.time_header)) if source.time_header else None
    signed = body if at_s is None else b"%d." % at_s + body
    macs = [hmac.digest(secret.encode("utf-8"), signed, hashlib.sha256) for secret in secrets]
    _fits(macs, [_decoded(_header(headers, source.header), source.prefix, source.encoding)])
    if at_s is not None:
        _of_now(at_s, now_s, source.tolerance_s)
    return Signed(None, at_s)


def _standard_secret(text: str) -> bytes:
    try:
        return symmetric_secret(text)
    except ConfigError as error:
        raise bad(f"a secret of the source does not have its form: {error.message}") from None


def _header(headers: Headers, name: str) -> str:
    text = header(headers, name.lower().encode("ascii")).decode("latin-1")
    if not text or len(text) > HEADER_CHARS_MAX:
        raise bad(f"the header {name} is missing or too long")
    return text


def _time(text: str) -> int:
    if _TIME.fullmatch(text) is None:
        raise bad("the time of signing does not have its form")
    return int(text)


def _decoded(text: str, prefix: str, encoding: str) -> bytes:
    shown = text.removeprefix(prefix)
    if not text.startswith(prefix):
        raise bad("the signature does not have its form")
    try:
        return base64.b64decode(shown, validate=True) if encoding == BASE64 else bytes.fromhex(_hex(shown))
    except (ValueError, binascii.Error):
        raise bad("the signature does not have its form") from None


def _hex(text: str) -> str:
    """``bytes.fromhex`` passes over white space; a signature has none."""
    if not text.isascii() or not text.isalnum():
        raise ValueError
    return text


def _fits(macs: Sequence[bytes], shown: Sequence[bytes]) -> None:
    fits = False
    for mac in macs:
        for signature in shown:
            fits |= hmac.compare_digest(mac, signature)
    if not fits:
        raise bad("the signature is not that of any secret of the source")


def _of_now(at_s: int, now_s: int, tolerance_s: int) -> None:
    if abs(now_s - at_s) > tolerance_s:
        raise bad("the signature is not of now", "Check this machine's clock.")


def bad(message: str, hint: str = "") -> SignatureError:
    """The refusal of a delivery that nobody vouches for."""
    return SignatureError(message, code="bad_webhook", hint=hint)
