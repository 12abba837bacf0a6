"""Issuing of the simulated API: a card payment asks the webhook for a yes, and is declined when none comes in time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from countermark.model.clock import US, SystemClock
from countermark.twins.stripe.resources import Call, announce
from countermark.twins.stripe.webhooks import Webhooks

ANSWER_S_MAX = 2  # Stripe waits no longer


async def pay_by_card(call: Call, webhooks: Webhooks, doc: Mapping[str, Any]) -> dict[str, Any]:
    """A payment by card. ``doc``: card, amount, currency; perhaps cardholder, merchant, category, country, again (the
    id of an authorization that asks for more), silent (nobody is asked).

    Returns the authorization, how it was decided and how long that took (milliseconds).
    """
    kept = call.ledger.get("issuing.authorization", str(doc.get("again", "")))
    authorization = kept or _authorization(call, doc)
    pending = {
        "amount": int(doc["amount"]), "amount_details": None, "currency": str(doc["currency"]),
        "is_amount_controllable": False, "merchant_amount": int(doc["amount"]), "merchant_currency": doc["currency"],
    }  # fmt: skip
    asked = {**authorization, "pending_request": pending}
    event = {
        "id": call.new_id("evt"), "object": "event", "api_version": None, "created": call.now,
        "data": {"object": asked}, "livemode": False, "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None}, "type": "issuing_authorization.request",
    }  # fmt: skip
    clock = SystemClock()
    begun = clock.steady_us()
    status, body = (0, b"") if doc.get("silent") else await webhooks.push(event, ANSWER_S_MAX)
    took_ms = (clock.steady_us() - begun) * 1000 // US
    approved = status == 200 and _approved(body)
    reason = "webhook_approved" if approved else "webhook_declined" if status == 200 else "webhook_timeout"
    history = [*authorization["request_history"], {**pending, "approved": approved, "reason": reason}]
    amount = authorization["amount"] + (pending["amount"] if approved else 0)
    authorization.update(amount=amount, approved=approved, request_history=history)
    with call.ledger.transaction():
        if kept is None:
            call.ledger.add("issuing.authorization", authorization)
        else:
            call.ledger.change(authorization)
        announce(call, "issuing_authorization.created", authorization)
    return {"authorization": authorization, "reason": reason, "http_status": status, "took_ms": took_ms, "event": event}


def _approved(body: bytes) -> bool:
    try:
        said = json.loads(body)
    except ValueError:
        return False
    return type(said) is dict and said.get("approved") is True


def _authorization(call: Call, doc: Mapping[str, Any]) -> dict[str, Any]:
    holder = str(doc.get("cardholder", "ich_simulator"))
    merchant = {
        "category": str(doc.get("category", "office_supplies")), "category_code": "5111", "city": "Berlin",
        "country": str(doc.get("country", "DE")), "name": "Simulated Shop",
        "network_id": str(doc.get("merchant", "1234567890")), "postal_code": "10115", "state": None,
    }  # fmt: skip
    card = {
        "id": str(doc["card"]), "object": "issuing.card",
        "cardholder": {"id": holder, "object": "issuing.cardholder"},
        "currency": str(doc["currency"]), "last4": "4242", "metadata": {}, "status": "active",
    }  # fmt: skip
    return {
        "id": call.new_id("iauth"), "object": "issuing.authorization", "amount": 0, "approved": False,
        "authorization_method": "online", "balance_transactions": [], "card": card, "cardholder": holder,
        "created": call.now, "currency": str(doc["currency"]), "livemode": False, "merchant_data": merchant,
        "metadata": {}, "request_history": [], "status": "pending", "transactions": [],
    }  # fmt: skip
