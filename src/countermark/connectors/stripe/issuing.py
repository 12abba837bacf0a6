"""Stripe Issuing: a card payment that waits for our yes or no. The effect is the answer to Stripe's question.

Stripe asks by webhook and takes the answer from its response, within two seconds. So nothing is sent here: whoever was
asked gives the answer, and ``execute`` says whether it may be yes. What nobody waits for any more is not approved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from countermark.connectors.stripe.drafts import HEADERS
from countermark.model.request import prepare
from countermark.model.tool import ArgSpec, ToolSpec, Value
from countermark.model.values import Outcome, Request

APPROVE = "stripe.issuing.authorizations.approve"
WAITING_MAX = 4_096

_PATH = re.compile(r".*/v1/issuing/authorizations/([A-Za-z0-9_]+)/approve")


def _text(name: str, pattern: str, *, required: bool = False) -> ArgSpec:
    return ArgSpec(name, "string", "reference", name, required=required, pattern=pattern, chars_max=128)


ISSUING_DRAFTS = (
    ToolSpec(
        name=APPROVE, connector="stripe_issuing", class_="money", recovery="escalate",
        args=(
            ArgSpec("amount", "integer", "amount", "amount"),
            _text("authorization", r"iauth_[A-Za-z0-9]{1,64}", required=True),
            _text("card", r"ic_[A-Za-z0-9]{1,64}", required=True),
            _text("cardholder", r"ich_[A-Za-z0-9]{1,64}"),
            ArgSpec("currency", "string", "currency", "currency", pattern="[a-z]{3}", chars_max=3),
            _text("merchant", r"[A-Za-z0-9 ._-]{1,64}"),
            _text("merchant_category", r"[a-z0-9_]{1,100}"),
            _text("merchant_country", r"[A-Z]{2}"),
            ArgSpec("request_number", "integer", "reference", "request_number", minimum=0, maximum=1_000),
        ),
        once_per=("authorization", "request_number"), encoding="form-bare-v1", dispatch_within_s=2, timeout_ms=2_000,
        endpoint="POST https://api.stripe.com/v1/issuing/authorizations/{authorization}/approve", headers=HEADERS,
    ),
)  # fmt: skip


def _identity(asked: Mapping[str, Value]) -> tuple[str, str]:
    return str(asked.get("authorization")), str(asked.get("request_number"))


def _terms(asked: Mapping[str, Value]) -> tuple[str, ...]:
    return tuple(str(asked.get(name)) for name in ("amount", "currency", "card"))


class IssuingConnector:
    """A ``Connector`` that sends nothing. ``expect`` and ``withdraw`` belong to whoever holds Stripe's question."""

    name = "stripe_issuing"
    blocking = False

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], tuple[str, ...]] = {}  # what is asked for

    def expect(self, asked: Mapping[str, Value]) -> bool:
        """A question, by the tool's arguments, waits for its answer from now on.

        False when too many do, or this one does already: what was approved for the one is no answer to the other.
        """
        identity = _identity(asked)
        if len(self._waiting) >= WAITING_MAX or identity in self._waiting:
            return False
        self._waiting[identity] = _terms(asked)
        return True

    def withdraw(self, asked: Mapping[str, Value]) -> bool:
        """Nobody waits any more. Returns whether somebody still did, that is, whether nothing was approved."""
        return self._waiting.pop(_identity(asked), None) is not None

    def tools(self) -> Sequence[ToolSpec]:
        return ISSUING_DRAFTS

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        return prepare(tool, args, key)

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        """Approve what is waited for, and nothing else under its name, once."""
        match = _PATH.fullmatch(request.url)
        asked = dict(parse_qsl(request.body.decode("ascii", "replace")))
        found = {**asked, "authorization": "" if match is None else match[1]}
        if self._waiting.get(_identity(found)) != _terms(found) or not self.withdraw(found):
            return Outcome("failed", "not_sent", request_id="nobody_waits", attempts=0)
        ref, amount = found["authorization"], int(asked["amount"])
        return Outcome("confirmed", "ok", ref=ref, amount=amount, currency=asked["currency"])

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        """What was answered before a crash, nobody here can tell."""
        return Outcome("unknown", "needs_resolution", attempts=0)

    def close(self) -> None:
        """Nothing is held open."""
