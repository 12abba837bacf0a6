"""Connected accounts of the simulated API, and the bank accounts behind them, which their owners may change.

Source of names and shapes: Stripe's public API reference (External bank accounts). An account that is seeded has one
bank account; a bank account or card that is seeded is the platform's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from countermark.twins.stripe.books import Ledger
from countermark.twins.stripe.params import EXPAND, FLAG, LIST_LIMIT_MAX, METADATA, TEXT, Param, Refusal
from countermark.twins.stripe.resources import OWN_ACCOUNT, Call, Route, announce, find, missing, own_account

EXTERNAL_MAX = 100
KIND = "external_account"


def bank_account(id_: str, account: str, number: str, now: int, **more: Any) -> dict[str, Any]:
    """A bank account, or a card by its id. ``number`` is known by its last four digits and a fingerprint only."""
    kind = "card" if id_.startswith("card_") else "bank_account"
    return {
        "id": id_, "object": kind, "account": account, "account_holder_name": None, "account_holder_type": "company",
        "available_payout_methods": ["standard"], "bank_name": "SIMULATED BANK", "country": "DE", "created": now,
        "currency": "eur", "default_for_currency": True,
        "fingerprint": hashlib.sha256(f"account number {number}".encode()).hexdigest()[:16], "last4": number[-4:],
        "metadata": {}, "routing_number": "110000000", "status": "new", **more,
    }  # fmt: skip


def seeded(id_: str, account: str, now: int) -> dict[str, Any]:
    """The bank account that the simulator makes up: always the same one for the same id."""
    number = str(int(hashlib.sha256(f"simulated number {id_}".encode()).hexdigest()[:12], 16)).zfill(12)[-12:]
    return bank_account(id_, account, number, now)


def behind(account: str) -> str:
    """The id of the bank account that a seeded account has."""
    return "ba_" + hashlib.sha256(f"simulated behind {account}".encode()).hexdigest()[:24]


def add(ledger: Ledger, doc: dict[str, Any], key: str = "") -> None:
    ledger.add(KIND, doc, key, source=doc["account"])


def _owned(call: Call, account: str) -> list[dict[str, Any]]:
    """The account's bank accounts, newest first. Raises ``Refusal`` for an account that is not there."""
    if account != OWN_ACCOUNT:
        find(call, "account", account)
    listed = call.ledger.select(KIND, {"source": account}, {}, limit=EXTERNAL_MAX)
    return [doc for doc in listed if doc["status"] != "deleted"]


def _one(call: Call) -> dict[str, Any]:
    account, _, id_ = call.id.partition("/")
    for doc in _owned(call, account):
        if doc["id"] == id_:
            return doc
    raise missing(KIND, id_)


def _shown(doc: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in doc.items() if name != "created"}


def list_external(call: Call) -> dict[str, Any]:
    limit = call.params.get("limit", 10)
    if not 1 <= limit <= LIST_LIMIT_MAX:
        raise Refusal(400, f"Invalid limit: must be 1 to {LIST_LIMIT_MAX}", param="limit")
    found = [doc for doc in _owned(call, call.id) if call.text("object") in (None, doc["object"])]
    return {
        "object": "list", "data": [_shown(doc) for doc in found[:limit]], "has_more": len(found) > limit,
        "url": f"/v1/accounts/{call.id}/external_accounts",
    }  # fmt: skip


def create_external(call: Call) -> dict[str, Any]:
    given = call.params.get(KIND)
    owned = _owned(call, call.id)
    if not given or given.get("object") != "bank_account" or not given.get("account_number", "").isdigit():
        raise Refusal(400, "The simulator takes external_account[object]=bank_account and an account_number.",
                      param=KIND)  # fmt: skip
    if len(owned) >= EXTERNAL_MAX:
        raise Refusal(400, "The account has too many external accounts.", stored=True)
    more = {name: given[name] for name in ("country", "currency", "routing_number", "account_holder_name")
            if name in given}  # fmt: skip
    doc = bank_account(call.new_id("ba"), call.id, given["account_number"], call.now, **more)
    first = not any(other["currency"] == doc["currency"] for other in owned)
    doc["default_for_currency"] = first or bool(call.params.get("default_for_currency"))
    add(call.ledger, doc, call.key)
    _default(call, doc, owned)
    announce(call, "account.external_account.created", _shown(doc))
    return _shown(doc)


def update_external(call: Call) -> dict[str, Any]:
    doc = _one(call)
    if call.text("account_holder_name") is not None:
        doc["account_holder_name"] = call.text("account_holder_name")
    doc["metadata"] = {**doc["metadata"], **call.params.get("metadata", {})}
    if call.params.get("default_for_currency"):
        doc["default_for_currency"] = True
    call.ledger.change(doc)
    _default(call, doc, _owned(call, doc["account"]))
    announce(call, "account.external_account.updated", _shown(doc))
    return _shown(doc)


def delete_external(call: Call) -> dict[str, Any]:
    doc = _one(call)
    if doc["default_for_currency"]:
        raise Refusal(400, "You cannot delete the default external account for your default currency.", stored=True)
    call.ledger.change({**doc, "status": "deleted"})
    announce(call, "account.external_account.deleted", _shown(doc))
    return {"id": doc["id"], "object": doc["object"], "deleted": True, "account": doc["account"]}


def _default(call: Call, doc: dict[str, Any], others: list[dict[str, Any]]) -> None:
    """One default for each currency."""
    for other in others:
        same = other["currency"] == doc["currency"] and other["id"] != doc["id"]
        if doc["default_for_currency"] and same and other["default_for_currency"]:
            call.ledger.change({**other, "default_for_currency": False})


def retrieve_external(call: Call) -> dict[str, Any]:
    return _shown(_one(call))


def _retrieve_account(call: Call) -> dict[str, Any]:
    return own_account(call) if call.id == OWN_ACCOUNT else find(call, "account", call.id)


_PATH = "/v1/accounts/{id}/external_accounts"
_READ: dict[str, Param] = {"expand": EXPAND}
_LIST = {"limit": Param("integer"), "object": Param(enum=("bank_account", "card")), **_READ}
_CREATE = {KIND: METADATA, "default_for_currency": FLAG, "metadata": METADATA, "expand": EXPAND}
_UPDATE = {"account_holder_name": TEXT, "default_for_currency": FLAG, "metadata": METADATA, "expand": EXPAND}
_ROWS: list[tuple[str, str, str, Callable[[Call], dict[str, Any]], dict[str, Param]]] = [
    ("GET", "/v1/accounts/{id}", "accounts.retrieve", _retrieve_account, _READ),
    ("GET", _PATH, "external_accounts.list", list_external, _LIST),
    ("POST", _PATH, "external_accounts.create", create_external, _CREATE),
    ("GET", _PATH + "/{id}", "external_accounts.retrieve", retrieve_external, _READ),
    ("POST", _PATH + "/{id}", "external_accounts.update", update_external, _UPDATE),
    ("DELETE", _PATH + "/{id}", "external_accounts.delete", delete_external, {}),
]
ACCOUNTS: dict[tuple[str, str], Route] = {
    (method, path): Route(name, "accounts:read" if method == "GET" else "accounts:write", handler, params)
    for method, path, name, handler, params in _ROWS
}
