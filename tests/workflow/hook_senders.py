"""What sources of events send, signed by hand, apart from the code that checks it; and a gate that can be closed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from countermark.gate import Caller, Gate

STRIPE, GITHUB, OWN = "whsec_of_stripe", "github-secret", "own-secret"
STANDARD = "whsec_" + base64.b64encode(bytes(range(32))).decode()
CONFIG = """
[workflows.sources.stripe]
kind = "webhook"
scheme = "stripe"
secret = ["env:TEST_HOOK_MISSING", "env:TEST_HOOK_STRIPE"]
key = "/data/object/metadata/order"
keep = { invoice = "/data/object/id", amount = "/data/object/amount_paid" }

[workflows.sources.standard]
kind = "webhook"
scheme = "standard"
secret = "env:TEST_HOOK_STANDARD"

[workflows.sources.github]
kind = "webhook"
scheme = "github"
secret = "env:TEST_HOOK_GITHUB"
keep = { ref = "/ref" }

[workflows.sources.bank]
kind = "webhook"
scheme = "hmac"
secret = "env:TEST_HOOK_OWN"
header = "X-Bank-Signature"
prefix = "v1="
encoding = "base64"
time_header = "X-Bank-Time"
event = "/number"
key = "/account"
keep = { cents = "/cents", rate = "/rate", deep = "/deep" }
"""
SECRETS = {
    "TEST_HOOK_STRIPE": STRIPE, "TEST_HOOK_STANDARD": STANDARD, "TEST_HOOK_GITHUB": GITHUB, "TEST_HOOK_OWN": OWN,
}  # fmt: skip


def mac(secret: str | bytes, signed: bytes) -> bytes:
    key = secret if isinstance(secret, bytes) else secret.encode()
    return hmac.new(key, signed, hashlib.sha256).digest()


def stripe_event(number: int = 1, *, pending: int = 1, **changes: Any) -> bytes:
    event = {
        "id": f"evt_{number}", "object": "event", "type": "invoice.paid", "pending_webhooks": pending,
        "data": {"object": {"id": f"in_{number}", "amount_paid": 1_200, "customer_email": "ann@example.org",
                            "metadata": {"order": f"o-{number}"}}},
    }  # fmt: skip
    return json.dumps({**event, **changes}).encode()


def sent(source: str, body: bytes, at_s: int, secret: str = "", identity: str = "msg_1") -> dict[str, str]:
    """The headers with which a source sends a body at a time."""
    if source == "stripe":
        return {"Stripe-Signature": f"t={at_s},v1={mac(secret or STRIPE, b'%d.' % at_s + body).hex()}"}
    if source == "standard":
        raw = base64.b64decode((secret or STANDARD).removeprefix("whsec_"))
        signed = f"{identity}.{at_s}.".encode() + body
        return {
            "webhook-id": identity, "webhook-timestamp": str(at_s),
            "webhook-signature": "v1," + base64.b64encode(mac(raw, signed)).decode(),
        }  # fmt: skip
    if source == "github":
        signature = "sha256=" + mac(secret or GITHUB, body).hex()
        return {"X-Hub-Signature-256": signature, "X-GitHub-Delivery": "not-signed", "X-GitHub-Event": "push"}
    shown = base64.b64encode(mac(secret or OWN, b"%d." % at_s + body)).decode()
    return {"X-Bank-Signature": "v1=" + shown, "X-Bank-Time": str(at_s)}


class Closing:
    """A gate that can be told to be closed for events."""

    def __init__(self, gate: Gate) -> None:
        self._call = gate.call
        gate.call = self.call  # type: ignore[method-assign]
        self.error: Exception | None = None

    async def call(self, op: str, body: Mapping[str, Any], caller: Caller, *, wait: str = "outcome") -> Any:
        if op == "event.received" and self.error is not None:
            raise self.error
        return await self._call(op, body, caller, wait=wait)
