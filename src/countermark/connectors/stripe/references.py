"""What stands behind a destination at Stripe: the bank account or card to which its money goes.

Source: Stripe's API reference, "External bank accounts". A connected account's owner may change them at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from countermark.model.digest import REFERENCE, digest_of
from countermark.model.errors import EncodingError
from countermark.model.tool import Value
from countermark.model.values import Reference

RESOLVABLE = "destination"
EXTERNAL_MAX = 100

# What says where the money goes; status, names and metadata may change without it going elsewhere.
_FIELDS = ("id", "object", "account", "country", "currency", "fingerprint", "last4", "routing_number")
_KINDS = ("bank_account", "card")

Look = Callable[[str], Mapping[str, Any] | None]
"""Reads the object at a path; None when it cannot be read."""


def read(look: Look, args: Mapping[str, Value]) -> Reference | None:
    """The bank accounts behind the destination of a transfer or a payout, as they are now."""
    destination, currency = str(args.get(RESOLVABLE, "")), str(args.get("currency", ""))
    found = _of_account(look, destination) if destination.startswith("acct_") else _own(look, destination)
    if found is None:
        return None
    rows = sorted((_row(doc) for doc in found), key=lambda row: str(row["id"]))
    try:
        digest = digest_of(REFERENCE, rows)
    except EncodingError:  # a value that no record could hold
        return None
    fitting = [row for row in rows if row["currency"] == currency] or rows
    last4 = fitting[0]["last4"] if len(fitting) == 1 else ""
    return Reference(digest, last4 if type(last4) is str and len(last4) <= 4 and last4.isalnum() else "")


def _of_account(look: Look, account: str) -> list[Mapping[str, Any]] | None:
    """The default bank accounts of a connected account: one for each currency that it has."""
    answer = look(f"/v1/accounts/{account}/external_accounts?limit={EXTERNAL_MAX}")
    listed = answer.get("data") if answer is not None and answer.get("object") == "list" else None
    if answer is None or answer.get("has_more") is not False or type(listed) is not list:
        return None
    if not all(type(doc) is dict and doc.get("object") in _KINDS for doc in listed):
        return None
    return [doc for doc in listed if doc.get("default_for_currency") is not False]


def _own(look: Look, destination: str) -> list[Mapping[str, Any]] | None:
    """One of our own bank accounts, by its id."""
    own = look("/v1/account")
    account = own.get("id") if own is not None and own.get("object") == "account" else None
    if type(account) is not str or not account.replace("_", "").isalnum():
        return None
    doc = look(f"/v1/accounts/{account}/external_accounts/{destination}")
    return [doc] if doc is not None and doc.get("object") in _KINDS and doc.get("id") == destination else None


def _row(doc: Mapping[str, Any]) -> dict[str, Any]:
    return {name: doc.get(name) for name in _FIELDS}
