"""Payment intents of the simulated API: create, confirm, capture (in part), cancel."""

from __future__ import annotations

from typing import Any

from countermark.twins.stripe.params import (
    AMOUNT,
    CURRENCY,
    EXPAND,
    FLAG,
    METADATA,
    TEXT,
    Param,
    Refusal,
)
from countermark.twins.stripe.resources import Call, Route, announce, book, charge_of, find, resource

UNPAID = ("requires_payment_method", "requires_confirmation", "requires_action")


def create_intent(call: Call) -> dict[str, Any]:
    id_ = call.new_id("pi")
    intent = {
        "id": id_, "object": "payment_intent", "amount": call.params["amount"],
        "amount_capturable": 0, "amount_received": 0, "canceled_at": None, "cancellation_reason": None,
        "capture_method": call.text("capture_method") or "automatic", "client_secret": f"{id_}_secret_simulator",
        "created": call.now, "currency": call.params["currency"], "customer": call.text("customer"),
        "description": call.text("description"), "last_payment_error": None, "latest_charge": None, "livemode": False,
        "metadata": dict(call.params.get("metadata", {})), "payment_method": call.text("payment_method"),
        "status": "requires_confirmation", "transfer_group": call.text("transfer_group"),
    }  # fmt: skip
    call.ledger.add("payment_intent", intent, call.key, source=intent["customer"])
    announce(call, "payment_intent.created", intent)
    return _pay(call, intent) if call.params.get("confirm") else intent


def confirm_intent(call: Call) -> dict[str, Any]:
    intent = find(call, "payment_intent", call.id)
    _expect(intent, UNPAID, "confirm")
    intent["payment_method"] = call.text("payment_method") or intent["payment_method"]
    return _pay(call, intent)


def capture_intent(call: Call) -> dict[str, Any]:
    intent = find(call, "payment_intent", call.id)
    _expect(intent, ("requires_capture",), "capture")
    amount = call.params.get("amount_to_capture", intent["amount_capturable"])
    if amount > intent["amount_capturable"]:
        raise Refusal(
            400, f"The amount to capture ({amount}) is greater than the amount that can be captured.",
            code="amount_too_large", param="amount_to_capture", stored=True,
        )  # fmt: skip
    charge = find(call, "charge", intent["latest_charge"])
    txn = book(call, "charge", "charge", amount, charge["currency"], charge["id"], charge["description"])
    charge.update(captured=True, amount_captured=amount, balance_transaction=txn)
    call.ledger.change(charge)
    announce(call, "charge.captured", charge)
    intent.update(status="succeeded", amount_received=amount, amount_capturable=0)
    return _changed(call, intent, "payment_intent.succeeded")


def cancel_intent(call: Call) -> dict[str, Any]:
    intent = find(call, "payment_intent", call.id)
    _expect(intent, (*UNPAID, "requires_capture"), "cancel")
    reason = call.text("cancellation_reason")
    intent.update(status="canceled", amount_capturable=0, canceled_at=call.now, cancellation_reason=reason)
    return _changed(call, intent, "payment_intent.canceled")


def _expect(intent: dict[str, Any], statuses: tuple[str, ...], verb: str) -> None:
    if intent["status"] not in statuses:
        raise Refusal(
            400, f"You cannot {verb} this PaymentIntent because it has a status of {intent['status']}.",
            code="payment_intent_unexpected_state", stored=True, extra={"payment_intent": intent},
        )  # fmt: skip


def _changed(call: Call, intent: dict[str, Any], type_: str) -> dict[str, Any]:
    call.ledger.change(intent)
    announce(call, type_, intent)
    return intent


def _pay(call: Call, intent: dict[str, Any]) -> dict[str, Any]:
    """Charge, or only authorise for a manual capture. A declined card leaves the intent, to be confirmed again."""
    params = {name: intent[name] for name in ("amount", "currency", "customer", "metadata") if intent[name]}
    inner = Call(call.ledger, call.now, call.seed, call.key, call.request_id, intent["id"], params)
    method, manual = intent["payment_method"] or "pm_card_visa", intent["capture_method"] == "manual"
    try:
        charge = charge_of(inner, intent["id"], method, captured=not manual)
    except Refusal as refusal:
        intent.update(status="requires_payment_method", payment_method=None, last_payment_error=refusal.error)
        _changed(call, intent, "payment_intent.payment_failed")
        return {"error": {**refusal.error, "payment_intent": intent}}
    intent["latest_charge"] = charge["id"]
    if manual:
        intent.update(status="requires_capture", amount_capturable=intent["amount"])
        return _changed(call, intent, "payment_intent.amount_capturable_updated")
    intent.update(status="succeeded", amount_received=intent["amount"])
    return _changed(call, intent, "payment_intent.succeeded")


_CREATE = {
    "amount": AMOUNT, "currency": CURRENCY, "confirm": FLAG, "customer": TEXT, "payment_method": TEXT,
    "transfer_group": TEXT, "capture_method": Param(enum=("automatic", "automatic_async", "manual")),
    "off_session": FLAG, "description": TEXT, "metadata": METADATA, "expand": EXPAND,
}  # fmt: skip
_CONFIRM = {"payment_method": TEXT, "off_session": FLAG, "expand": EXPAND}
_CAPTURE = {"amount_to_capture": Param("amount"), "metadata": METADATA, "expand": EXPAND}
_CANCEL = {
    "cancellation_reason": Param(enum=("abandoned", "duplicate", "fraudulent", "requested_by_customer")),
    "expand": EXPAND,
}  # fmt: skip
_URL, _NAME, _WRITE = "/v1/payment_intents", "payment_intents", "payment_intents:write"
INTENTS: dict[tuple[str, str], Route] = {
    ("POST", _URL): Route(f"{_NAME}.create", _WRITE, create_intent, _CREATE),
    ("POST", _URL + "/{id}/confirm"): Route(f"{_NAME}.confirm", _WRITE, confirm_intent, _CONFIRM),
    ("POST", _URL + "/{id}/capture"): Route(f"{_NAME}.capture", _WRITE, capture_intent, _CAPTURE),
    ("POST", _URL + "/{id}/cancel"): Route(f"{_NAME}.cancel", _WRITE, cancel_intent, _CANCEL),
    **{
        (method, path): route
        for method, path, route in resource(_NAME, "payment_intent", "customer", columns={"customer": "source"})
    },
}
