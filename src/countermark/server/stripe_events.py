"""Stripe's signed events: verified over the exact bytes before anything in them is read.

Source: Stripe's reference, "Verify webhook signatures": ``t=SECONDS,v1=HEX[,v1=HEX]``, HMAC-SHA256 over
``SECONDS.BODY``; several ``v1`` while a secret is being replaced. An HMAC corroborates; it proves nothing to a third.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from countermark.model.errors import SignatureError

HEADER_CHARS_MAX = 4_096
SIGNATURES_MAX = 16
DEPTH_MAX = 32

_TIME = re.compile(r"[1-9][0-9]{0,11}")
_HEX = re.compile(r"[0-9a-f]{64}")


def check_event(body: bytes, header: str, secrets: Sequence[str], now_s: int, tolerance_s: int) -> dict[str, Any]:
    """The event in a signed body.

    Raises:
        SignatureError: ``bad_webhook``: nothing says that Stripe sent these bytes, or not at this time.
    """
    check_signature(body, header, secrets, now_s, tolerance_s)
    return _event(body)


def check_signature(body: bytes, header: str, secrets: Sequence[str], now_s: int, tolerance_s: int) -> int:
    """When these bytes were signed, in seconds since 1970. Every secret is tried against every signature.

    Raises ``SignatureError`` as ``check_event`` does.
    """
    time, signatures = _read(header)
    signed = str(time).encode() + b"." + body
    fits = False
    for secret in secrets:
        mac = hmac.new(secret.encode("utf-8"), signed, hashlib.sha256).hexdigest()
        for signature in signatures:
            fits |= hmac.compare_digest(mac, signature)
    if not fits:
        raise _bad("the signature is not that of any webhook secret")
    if abs(now_s - time) > tolerance_s:
        raise _bad("the signature is not of now", "Check this machine's clock; Stripe signs each delivery anew.")
    return time


def _bad(message: str, hint: str = "") -> SignatureError:
    return SignatureError(message, code="bad_webhook", hint=hint)


def _read(header: str) -> tuple[int, list[str]]:
    """Time and ``v1`` signatures; other schemes are passed over, as Stripe's reference asks."""
    times: list[str] = []
    signatures: list[str] = []
    for part in header[: HEADER_CHARS_MAX + 1].split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            times.append(value)
        elif name == "v1" and _HEX.fullmatch(value) is not None:
            signatures.append(value)
    fits = len(header) <= HEADER_CHARS_MAX and len(times) == 1 and _TIME.fullmatch(times[0]) is not None
    if not fits or not signatures or len(signatures) > SIGNATURES_MAX:
        raise _bad("Stripe-Signature does not have its form")
    return int(times[0]), signatures


def _event(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body.decode("utf-8"), parse_float=str, parse_constant=str, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        raise _bad("the event is not JSON") from None
    if type(event) is not dict or event.get("object") != "event" or type(event.get("type")) is not str:
        raise _bad("this is no event of Stripe's")
    return event


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found


def at(value: Any, *names: str) -> Any:
    """A member deep inside; None where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
