"""Changes of payment intents: whose they are, and what their state says about a change whose answer was lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from countermark.connectors.http_send import NotSentError
from countermark.model.values import Request

# verb -> statuses that show that the change took place, and statuses that show that it did not
_SHOWN: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "confirm": (
        frozenset(("requires_action", "requires_capture", "processing", "succeeded")),
        frozenset(("requires_confirmation", "requires_payment_method")),
    ),
    "capture": (
        frozenset(("succeeded",)),
        frozenset(
            ("canceled", "processing", "requires_action", "requires_capture", "requires_confirmation",
             "requires_payment_method")
        ),
    ),
    "cancel": (
        frozenset(("canceled",)),
        frozenset(
            ("processing", "requires_action", "requires_capture", "requires_confirmation", "requires_payment_method",
             "succeeded")
        ),
    ),
}  # fmt: skip


def object_url(request: Request) -> str:
    """The object that a change is about: its URL without the verb."""
    return request.url.rpartition("/")[0]


def check_own(request: Request, intent: Mapping[str, Any] | None) -> None:
    """Refuse a change of a payment intent that the gate did not make, or a capture of more than was asked for it.

    Whatever was made elsewhere counted against no limit here.

    Raises:
        NotSentError: with the reason ``foreign_object`` or ``over_capture``.
    """
    metadata = intent.get("metadata") if intent is not None and intent.get("object") == "payment_intent" else None
    if intent is None or type(metadata) is not dict or not str(metadata.get("countermark_key", "")).startswith("cm_"):
        raise NotSentError("the gate did not make this payment intent", "foreign_object")
    asked = dict(parse_qsl(request.body.decode("ascii", "replace"))).get("amount_to_capture", "0")
    amount = intent.get("amount")
    if type(amount) is not int or not asked.isdigit() or int(asked) > amount:
        raise NotSentError("more would be captured than was asked for", "over_capture")


def took_place(request: Request, intent: Mapping[str, Any]) -> bool | None:
    """Whether the intent's state shows the change; ``None`` when it shows neither that it did nor that it did not."""
    done, not_done = _SHOWN.get(request.url.rpartition("/")[2], (frozenset(), frozenset()))
    status = intent.get("status")
    return True if status in done else False if status in not_done else None
