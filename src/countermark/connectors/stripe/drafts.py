"""Drafts of Stripe's tools. Endpoints are paths; the bundle joins the origin and declares the business key.

Source of the parameters: Stripe's API reference for the pinned version. Every argument of a money tool has a class.
"""

from __future__ import annotations

from collections.abc import Mapping

from countermark.connectors.stripe.references import RESOLVABLE
from countermark.model.tool import ArgClass, ArgSpec, ToolSpec, alias_of

STRIPE_VERSION = "2026-10-28.endive"
KEY_TTL_S = 23 * 3600  # Stripe may forget a key after 24 hours; an hour is left for clocks and slow requests
HEADERS = (("Stripe-Version", STRIPE_VERSION),)
EFFECTS: Mapping[
    str, tuple[str, tuple[str, ...]]
] = {  # path -> what a create answers with, and which of its parameters its list can be filtered by
    "/v1/transfers": ("transfer", ("destination", "transfer_group")),
    "/v1/refunds": ("refund", ("charge", "payment_intent")),
    "/v1/payouts": ("payout", ("destination",)),
    "/v1/payment_intents": ("payment_intent", ("customer",)),
}
OBJECTS = {"tr": "/v1/transfers", "re": "/v1/refunds", "po": "/v1/payouts", "pi": "/v1/payment_intents"}

_ACCOUNT = r"acct_[A-Za-z0-9]{1,64}"
_CHARGE = r"(ch|py)_[A-Za-z0-9]{1,64}"
_OUTPUTS = (("id", "string"), ("amount", "integer"), ("currency", "string"))
_INTENT_OUTPUTS = (
    ("id", "string"), ("amount", "integer"), ("amount_received", "integer"), ("currency", "string"),
    ("status", "string"),
)  # fmt: skip


def _text(
    name: str, class_: ArgClass, *, alias: str = "", required: bool = False, pattern: str = "",
    enum: tuple[str, ...] = (), chars_max: int = 255,
) -> ArgSpec:  # fmt: skip
    return ArgSpec(
        name, "string", class_, alias or alias_of(name), required=required, pattern=pattern, enum=enum,
        chars_max=chars_max,
    )  # fmt: skip


def _flag(name: str) -> ArgSpec:
    return ArgSpec(name, "boolean", "inert", alias_of(name), required=False)


_AMOUNT = ArgSpec("amount", "integer", "amount", "amount")
_CURRENCY = _text("currency", "currency", required=True, pattern="[a-z]{3}", chars_max=3)
_DESCRIPTION = _text("description", "inert", chars_max=500)
_INVOICE = _text("metadata[invoice]", "reference", alias="invoice", chars_max=200)
_PART = _text("metadata[part]", "reference", alias="part", chars_max=200)
_SOURCE_TYPE = _text("source_type", "inert", enum=("bank_account", "card", "fpx"))
_INTENT = _text("intent", "reference", required=True, pattern=r"pi_[A-Za-z0-9]{1,64}")
_METHOD = _text("payment_method", "reference", pattern=r"[A-Za-z0-9_]{1,80}")
_OFF_SESSION = _flag("off_session")
_LIMIT = ArgSpec("limit", "integer", "inert", "limit", required=False, minimum=1, maximum=100)
_SINCE = ArgSpec("created[gte]", "integer", "inert", "created_gte", required=False, minimum=0)


def _money(
    name: str, path: str, *args: ArgSpec, outputs: tuple[tuple[str, str], ...] = _OUTPUTS,
    resolvable: tuple[str, ...] = (),
) -> ToolSpec:  # fmt: skip
    return ToolSpec(
        name=f"stripe.{name}", connector="stripe", class_="money", args=args, recovery="idempotent",
        encoding="form-v1", key_ttl_s=KEY_TTL_S, endpoint=f"POST {path}", headers=HEADERS, outputs=outputs,
        resolvable=resolvable,
    )  # fmt: skip


def _intent(verb: str, *args: ArgSpec) -> ToolSpec:
    """A change of a payment intent that the gate made; its amount has counted since it was made."""
    return ToolSpec(
        name=f"stripe.payment_intents.{verb}", connector="stripe", class_="change", args=(_INTENT, *args),
        recovery="idempotent", once_per=("intent",), encoding="form-bare-v1", key_ttl_s=KEY_TTL_S,
        endpoint=f"POST /v1/payment_intents/{{intent}}/{verb}", headers=HEADERS, outputs=_INTENT_OUTPUTS,
    )  # fmt: skip


def _retrieve(plural: str, alias: str, prefix: str) -> ToolSpec:
    of = _text(alias, "reference", required=True, pattern=prefix + r"_[A-Za-z0-9]{1,64}")
    return _read(f"{plural}.retrieve", f"/v1/{plural}/{{{alias}}}", of)


def _read(name: str, path: str, *args: ArgSpec) -> ToolSpec:
    return ToolSpec(
        name=f"stripe.{name}", connector="stripe", class_="read", args=args, recovery="lookup", encoding="query-v1",
        endpoint=f"GET {path}", headers=HEADERS,
    )  # fmt: skip


DRAFTS = (
    _money(
        "transfers.create", "/v1/transfers", _AMOUNT, _CURRENCY,
        _text("destination", "payee", required=True, pattern=_ACCOUNT), _DESCRIPTION, _INVOICE, _PART,
        _text("source_transaction", "reference", pattern=_CHARGE), _SOURCE_TYPE,
        _text("transfer_group", "reference"), resolvable=(RESOLVABLE,),
    ),
    # A refund goes back to where its charge came from, in the charge's currency: no payee, no currency argument.
    # The bundle names the currency (``currency`` of the tool).
    _money(
        "refunds.create", "/v1/refunds", _AMOUNT, _text("charge", "reference", pattern=_CHARGE), _INVOICE, _PART,
        _text("payment_intent", "reference", pattern=r"pi_[A-Za-z0-9]{1,64}"),
        _text("reason", "inert", enum=("duplicate", "fraudulent", "requested_by_customer")),
    ),
    # Stripe has a default destination for payouts; here it is required, because a payee must be known to be checked.
    _money(
        "payouts.create", "/v1/payouts", _AMOUNT, _CURRENCY,
        _text("destination", "payee", required=True, pattern=r"(ba|card)_[A-Za-z0-9]{1,64}"), _DESCRIPTION,
        _INVOICE, _text("method", "inert", enum=("instant", "standard")), _PART, _SOURCE_TYPE,
        _text("statement_descriptor", "inert", pattern=r"[A-Za-z0-9 .,&#*/-]{1,22}", chars_max=22),
        resolvable=(RESOLVABLE,),
    ),
    # What a customer pays us. The amount counts from here on, whatever is confirmed or captured of it later: a capture
    # of less, or a cancellation, gives nothing back. More cannot be captured through the gate than was asked here.
    _money(
        "payment_intents.create", "/v1/payment_intents", _AMOUNT, _CURRENCY,
        _flag("automatic_payment_methods[enabled]"),
        _text("automatic_payment_methods[allow_redirects]", "inert", enum=("always", "never")),
        _text("capture_method", "inert", enum=("automatic", "automatic_async", "manual")), _flag("confirm"),
        _text("customer", "reference", pattern=r"cus_[A-Za-z0-9]{1,64}"), _DESCRIPTION, _INVOICE, _OFF_SESSION, _PART,
        _METHOD, _text("statement_descriptor", "inert", pattern=r"[A-Za-z0-9 .,&#*/-]{1,22}", chars_max=22),
        _text("transfer_group", "reference"), outputs=_INTENT_OUTPUTS,
    ),
    _intent("confirm", _OFF_SESSION, _METHOD),
    _intent(
        "capture",
        ArgSpec("amount_to_capture", "integer", "reference", "amount_to_capture", required=False, minimum=1),
    ),
    _intent(
        "cancel",
        _text("cancellation_reason", "inert", enum=("abandoned", "duplicate", "fraudulent", "requested_by_customer")),
    ),
    _read("balance.retrieve", "/v1/balance"),
    _retrieve("transfers", "transfer", "tr"),
    _retrieve("refunds", "refund", "re"),
    _retrieve("payouts", "payout", "po"),
    _retrieve("payment_intents", "intent", "pi"),
    _read(
        "transfers.list", "/v1/transfers", _SINCE, _text("destination", "reference", pattern=_ACCOUNT), _LIMIT,
        _text("starting_after", "inert", pattern=r"tr_[A-Za-z0-9]{1,64}"), _text("transfer_group", "reference"),
    ),
)  # fmt: skip
