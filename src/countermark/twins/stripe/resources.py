"""What the simulated API does: one function a route, over the ledger. Checks come before the first write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.twins.stripe.books import Ledger
from countermark.twins.stripe.params import (
    AMOUNT,
    CURRENCY,
    EXPAND,
    FLAG,
    LIST_LIMIT_MAX,
    LIST_PARAMS,
    METADATA,
    TEXT,
    Param,
    Refusal,
)

OWN_ACCOUNT = "acct_simulator"
PAYOUT_DELAY_S = 2 * 86_400
SOURCE_TYPE = Param(enum=("bank_account", "card", "fpx"))
NOT_ENOUGH = (
    "You have insufficient available funds in your Stripe account. (This is a simulator: seed a balance or create a"
    " charge to add funds.)"
)


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request. ``now`` is the simulator's clock in seconds; ``ids`` are its path parameters."""

    ledger: Ledger
    now: int
    seed: int
    key: str
    request_id: str
    id: str
    params: Mapping[str, Any]

    def new_id(self, prefix: str) -> str:
        raw = hashlib.sha256(f"{self.seed}|{prefix}|{self.ledger.next_ordinal()}".encode()).hexdigest()
        return f"{prefix}_sim{raw[:24]}"

    def text(self, name: str) -> str | None:
        value = self.params.get(name)
        return None if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Route:
    """A handler, its parameters and the permission it needs (``transfers:write``)."""

    name: str
    scope: str
    handler: Callable[[Call], dict[str, Any]]
    params: Mapping[str, Param]


def missing(kind: str, id_: str, param: str = "id", *, status: int = 404) -> Refusal:
    return Refusal(status, f"No such {kind}: '{id_[:80]}'", code="resource_missing", param=param, stored=True)


def announce(call: Call, type_: str, obj: Mapping[str, Any]) -> None:
    """Write an event, to be delivered to whoever listens."""
    event = {
        "id": call.new_id("evt"), "object": "event", "api_version": None, "created": call.now,
        "data": {"object": dict(obj)}, "livemode": False, "pending_webhooks": 0,
        "request": {"id": call.request_id, "idempotency_key": call.key or None}, "type": type_,
    }  # fmt: skip
    call.ledger.add("event", event)


def book(call: Call, type_: str, category: str, net: int, currency: str, source: str, note: str | None) -> str:
    """Write one balance transaction and move the balance by the same amount. Returns its id."""
    txn = {
        "id": call.new_id("txn"), "object": "balance_transaction", "amount": net, "available_on": call.now,
        "balance_type": "payments", "created": call.now, "currency": currency, "description": note,
        "exchange_rate": None, "fee": 0, "fee_details": [], "net": net, "reporting_category": category,
        "source": source, "status": "available", "type": type_,
    }  # fmt: skip
    call.ledger.add("balance_transaction", txn)
    call.ledger.add_to_balance(currency, net)
    return str(txn["id"])


def need_funds(call: Call, currency: str, amount: int) -> None:
    if call.ledger.available(currency) < amount:
        raise Refusal(400, NOT_ENOUGH, code="balance_insufficient", stored=True)


def find(call: Call, kind: str, id_: str, param: str = "id", *, status: int = 404) -> dict[str, Any]:
    found = call.ledger.get(kind, id_)
    if found is None:
        raise missing(kind, id_, param, status=status)
    return found


def create_transfer(call: Call) -> dict[str, Any]:
    amount, currency, destination = call.params["amount"], call.params["currency"], call.params["destination"]
    find(call, "account", destination, "destination", status=400)
    charge = call.text("source_transaction")
    if charge is not None:
        source = find(call, "charge", charge, "source_transaction", status=400)
        if source["currency"] != currency:
            raise Refusal(400, "The charge has another currency.", param="currency", stored=True)
        if call.ledger.sum_of("transfer", "charge", charge) + amount > source["amount"]:
            raise Refusal(
                400, "Transfers of a charge may not exceed it.", code="transfer_source_balance_parameters_mismatch",
                param="amount", stored=True,
            )  # fmt: skip
    need_funds(call, currency, amount)
    id_ = call.new_id("tr")
    txn = book(call, "transfer", "transfer", -amount, currency, id_, call.text("description"))
    transfer = {
        "id": id_, "object": "transfer", "amount": amount, "amount_reversed": 0, "balance_transaction": txn,
        "created": call.now, "currency": currency, "description": call.text("description"),
        "destination": destination, "destination_payment": "py_" + id_[3:], "livemode": False,
        "metadata": dict(call.params.get("metadata", {})),
        "reversals": {
            "object": "list", "data": [], "has_more": False, "total_count": 0, "url": f"/v1/transfers/{id_}/reversals",
        },
        "reversed": False, "source_transaction": charge, "source_type": call.text("source_type") or "card",
        "transfer_group": call.text("transfer_group"),
    }  # fmt: skip
    call.ledger.add("transfer", transfer, call.key, charge=charge)
    announce(call, "transfer.created", transfer)
    return transfer


def create_refund(call: Call) -> dict[str, Any]:
    for flag in ("reverse_transfer", "refund_application_fee"):
        if call.params.get(flag):
            raise Refusal(400, f"The simulator does not do {flag}.", param=flag)
    charge_id, intent_id = call.text("charge"), call.text("payment_intent")
    if (charge_id is None) == (intent_id is None):
        raise Refusal(400, "Give one of charge and payment_intent.", code="parameter_missing", param="charge")
    if charge_id is None:
        intent = find(call, "payment_intent", intent_id or "", "payment_intent")
        charge_id = intent["latest_charge"]
        if charge_id is None:
            raise Refusal(400, "This PaymentIntent has no successful charge to refund.", stored=True)
    charge = find(call, "charge", charge_id, "charge")
    left = charge["amount_captured"] - charge["amount_refunded"]
    if not charge["captured"]:
        raise Refusal(400, f"Charge {charge_id} has not been captured.", code="charge_not_captured", stored=True)
    if left == 0:
        raise Refusal(
            400, f"Charge {charge_id} has already been refunded.", code="charge_already_refunded", stored=True
        )
    amount = call.params.get("amount", left)
    if amount > left:
        raise Refusal(
            400, f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
            code="amount_too_large", param="amount", stored=True,
        )  # fmt: skip
    need_funds(call, charge["currency"], amount)
    id_ = call.new_id("re")
    refund = {
        "id": id_, "object": "refund", "amount": amount,
        "balance_transaction": book(call, "refund", "refund", -amount, charge["currency"], id_, None),
        "charge": charge_id, "created": call.now, "currency": charge["currency"], "destination_details": None,
        "metadata": dict(call.params.get("metadata", {})), "payment_intent": charge["payment_intent"],
        "reason": call.text("reason"), "receipt_number": None, "source_transfer_reversal": None,
        "status": "succeeded", "transfer_reversal": None,
    }  # fmt: skip
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    call.ledger.change(charge)
    call.ledger.add("refund", refund, call.key)
    announce(call, "refund.created", refund)
    announce(call, "charge.refunded", charge)
    return refund


def create_payout(call: Call) -> dict[str, Any]:
    amount, currency = call.params["amount"], call.params["currency"]
    destination = call.text("destination") or "ba_simulator"
    if destination != "ba_simulator":
        find(call, "external_account", destination, "destination", status=400)
    need_funds(call, currency, amount)
    id_ = call.new_id("po")
    method = call.text("method") or "standard"
    payout = {
        "id": id_, "object": "payout", "amount": amount, "application_fee": None, "application_fee_amount": None,
        "arrival_date": call.now + (PAYOUT_DELAY_S if method == "standard" else 1800), "automatic": False,
        "balance_transaction": book(call, "payout", "payout", -amount, currency, id_, call.text("description")),
        "created": call.now, "currency": currency, "description": call.text("description"),
        "destination": destination, "failure_balance_transaction": None, "failure_code": None,
        "failure_message": None, "livemode": False, "metadata": dict(call.params.get("metadata", {})),
        "method": method, "original_payout": None, "payout_method": None,
        "reconciliation_status": "not_applicable", "reversed_by": None,
        "source_type": call.text("source_type") or "card", "statement_descriptor": call.text("statement_descriptor"),
        "status": "pending", "trace_id": None, "type": "card" if destination.startswith("card_") else "bank_account",
    }  # fmt: skip
    call.ledger.add("payout", payout, call.key)
    announce(call, "payout.created", payout)
    return payout


def cancel_payout(call: Call) -> dict[str, Any]:
    payout = find(call, "payout", call.id)
    if payout["status"] != "pending":
        raise Refusal(
            400, f"Payout {call.id} cannot be canceled: its status is {payout['status']}.",
            code="payout_not_cancelable", stored=True,
        )  # fmt: skip
    book(call, "payout_cancel", "payout_reversal", payout["amount"], payout["currency"], call.id, None)
    payout["status"] = "canceled"
    call.ledger.change(payout)
    announce(call, "payout.canceled", payout)
    return payout


def charge_of(call: Call, intent: str | None, method: str, *, captured: bool = True) -> dict[str, Any]:
    """A charge; without ``captured`` it is only authorised, and the balance does not change yet."""
    if "Declined" in method or "declined" in method:
        raise Refusal(
            402, "Your card was declined.", type_="card_error", code="card_declined", stored=True,
            extra={"decline_code": "generic_decline"},
        )  # fmt: skip
    amount, currency, id_ = call.params["amount"], call.params["currency"], call.new_id("ch")
    txn = book(call, "charge", "charge", amount, currency, id_, call.text("description")) if captured else None
    charge = {
        "id": id_, "object": "charge", "amount": amount, "amount_captured": amount if captured else 0,
        "amount_refunded": 0, "balance_transaction": txn,
        "billing_details": {"address": None, "email": None, "name": None, "phone": None}, "captured": captured,
        "created": call.now, "currency": currency, "customer": call.text("customer"),
        "description": call.text("description"), "disputed": False, "failure_code": None, "failure_message": None,
        "fraud_details": {}, "livemode": False, "metadata": dict(call.params.get("metadata", {})), "outcome": None,
        "paid": True, "payment_intent": intent, "payment_method": method, "receipt_email": None, "refunded": False,
        "status": "succeeded", "transfer_group": call.text("transfer_group"),
    }  # fmt: skip
    call.ledger.add("charge", charge, call.key)
    announce(call, "charge.succeeded", charge)
    return charge


def create_charge(call: Call) -> dict[str, Any]:
    return charge_of(call, None, call.text("source") or "tok_visa")


def balance(call: Call) -> dict[str, Any]:
    funds = [
        {"amount": amount, "currency": currency, "source_types": {"card": amount}}
        for currency, amount in call.ledger.balances().items()
    ]
    pending = [{"amount": 0, "currency": item["currency"], "source_types": {"card": 0}} for item in funds]
    return {"object": "balance", "available": funds, "livemode": False, "pending": pending}


def account(id_: str, created: int) -> dict[str, Any]:
    """A connected account as the simulator knows it."""
    return {
        "id": id_, "object": "account", "business_type": None, "capabilities": {"transfers": "active"},
        "charges_enabled": True, "country": "US", "created": created, "default_currency": "usd",
        "details_submitted": True, "email": None, "metadata": {}, "payouts_enabled": True, "type": "custom",
    }  # fmt: skip


def own_account(call: Call) -> dict[str, Any]:
    return account(OWN_ACCOUNT, call.now)


def mature(ledger: Ledger, now: int, seed: int) -> None:
    """Pay the pending payouts whose arrival date has come."""
    for payout in ledger.select("payout", {"status": "pending"}, {}, limit=1_000_000):
        if payout["arrival_date"] <= now:
            payout["status"] = "paid"
            ledger.change(payout)
            announce(Call(ledger, now, seed, "", "", payout["id"], {}), "payout.paid", payout)


def fund(call: Call, currency: str, amount: int) -> None:
    """Seed a balance, booked as a top-up so that the ledger still adds up."""
    book(call, "topup", "topup", amount, currency, call.new_id("tu"), "seeded by the simulator")


def getter(kind: str) -> Callable[[Call], dict[str, Any]]:
    return lambda call: find(call, kind, call.id)


def lister(kind: str, url: str, columns: Mapping[str, str] | None = None) -> Callable[[Call], dict[str, Any]]:
    """A list; ``columns`` names the ledger's column of a filter where it is called otherwise."""

    def answer(call: Call) -> dict[str, Any]:
        limit = call.params.get("limit", 10)
        if not 1 <= limit <= LIST_LIMIT_MAX:
            raise Refusal(400, f"Invalid limit: must be 1 to {LIST_LIMIT_MAX}", param="limit")
        cursors: dict[str, int | None] = {"starting_after": None, "ending_before": None}
        for name in cursors:
            if (id_ := call.text(name)) is not None:
                cursors[name] = call.ledger.ordinal(kind, id_)
                if cursors[name] is None:
                    raise missing(kind, id_, name, status=400)
        if None not in cursors.values():
            raise Refusal(400, "Give only one of starting_after and ending_before.", param="ending_before")
        where = {(columns or {}).get(k, k): v for k, v in call.params.items() if k not in LIST_PARAMS}
        found = call.ledger.select(
            kind, where, call.params.get("created", {}), after=cursors["starting_after"],
            before=cursors["ending_before"], limit=limit + 1,
        )  # fmt: skip
        more = len(found) > limit
        shown = found[1:] if more and cursors["ending_before"] is not None else found[:limit]
        return {"object": "list", "data": shown, "has_more": more, "url": url}

    return answer


_COMMON = {"description": TEXT, "metadata": METADATA, "expand": EXPAND}
_READ: dict[str, Param] = {"expand": EXPAND}
_TRANSFER = {
    "amount": AMOUNT, "currency": CURRENCY, "destination": Param(required=True), "source_transaction": TEXT,
    "source_type": SOURCE_TYPE, "transfer_group": TEXT, **_COMMON,
}  # fmt: skip
_REFUND = {
    "amount": Param("amount"), "charge": TEXT, "payment_intent": TEXT, "metadata": METADATA, "expand": EXPAND,
    "reason": Param(enum=("duplicate", "fraudulent", "requested_by_customer")), "reverse_transfer": FLAG,
    "refund_application_fee": FLAG,
}  # fmt: skip
_PAYOUT = {
    "amount": AMOUNT, "currency": CURRENCY, "destination": TEXT, "method": Param(enum=("standard", "instant")),
    "source_type": SOURCE_TYPE, "statement_descriptor": Param(chars_max=22), **_COMMON,
}  # fmt: skip
_CHARGE = {
    "amount": AMOUNT, "currency": CURRENCY, "source": TEXT, "customer": TEXT, "transfer_group": TEXT, **_COMMON,
}  # fmt: skip


def resource(
    plural: str, kind: str, *filters: str, columns: Mapping[str, str] | None = None
) -> list[tuple[str, str, Route]]:
    """The routes that list and retrieve objects of a kind."""
    listing = {**LIST_PARAMS, **dict.fromkeys(filters, TEXT)}
    url, scope = f"/v1/{plural}", f"{plural}:read"
    return [
        ("GET", url, Route(f"{plural}.list", scope, lister(kind, url, columns), listing)),
        ("GET", url + "/{id}", Route(f"{plural}.retrieve", scope, getter(kind), _READ)),
    ]


def _writes() -> list[tuple[str, str, Route]]:
    rows = [
        ("/v1/transfers", "transfers", "create", create_transfer, _TRANSFER),
        ("/v1/refunds", "refunds", "create", create_refund, _REFUND),
        ("/v1/payouts", "payouts", "create", create_payout, _PAYOUT),
        ("/v1/payouts/{id}/cancel", "payouts", "cancel", cancel_payout, _READ),
        ("/v1/charges", "charges", "create", create_charge, _CHARGE),
    ]
    return [("POST", path, Route(f"{name}.{verb}", f"{name}:write", fn, spec)) for path, name, verb, fn, spec in rows]


_ALL: list[tuple[str, str, Route]] = [
    *_writes(),
    *resource("transfers", "transfer", "destination", "transfer_group"),
    *resource("refunds", "refund", "charge", "payment_intent"),
    *resource("payouts", "payout", "destination", "status"),
    *resource("charges", "charge", "payment_intent", "transfer_group"),
    *resource("balance_transactions", "balance_transaction", "source", "type"),
    *resource("events", "event", "type"),
    ("GET", "/v1/account", Route("account.retrieve", "accounts:read", own_account, _READ)),
    ("GET", "/v1/balance", Route("balance.retrieve", "balance:read", balance, _READ)),
]  # fmt: skip
ROUTES: dict[tuple[str, str], Route] = {(method, path): route for method, path, route in _ALL}
