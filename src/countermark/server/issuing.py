"""Real-time authorisation of card payments: the same policy, the same limits, an answer in time or a no.

It holds even when an agent goes around the gate: a card payment cannot happen without this answer, if the account's
default is to decline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from countermark.connectors import IssuingConnector
from countermark.connectors.stripe import APPROVE
from countermark.gate import Caller
from countermark.model.errors import CountermarkError
from countermark.server.stripe_events import at
from countermark.server.stripe_runs import Runs
from countermark.server.surroundings import Surroundings

ANSWER_MS_MAX = 1_200  # Stripe waits 2 s, and the way there and back is part of that
RUNS_FILE = "issuing-runs.json"

log = logging.getLogger("countermark.server")


class Issuing:
    """Answers ``issuing_authorization.request``."""

    def __init__(self, surroundings: Surroundings, connector: IssuingConnector) -> None:
        self._all = surroundings
        self._connector = connector
        file = surroundings.config.journal.parent / RUNS_FILE
        self._runs = Runs(surroundings.gate, file, "card payments that Stripe asks about")
        self._going: set[asyncio.Task[str]] = set()

    async def answer(self, event: Mapping[str, Any]) -> dict[str, bool]:
        """Stripe's form of a yes or a no. Never raises: whatever is not expected is a no."""
        args = arguments(at(event, "data", "object"))
        agent = None if args is None else self._agent(args)
        if args is None or agent is None:
            return {"approved": False}
        if not self._connector.expect(args):
            return {"approved": False}
        task = asyncio.get_running_loop().create_task(self._ask(agent, args))
        self._going.add(task)
        task.add_done_callback(self._going.discard)
        done, _ = await asyncio.wait((task,), timeout=ANSWER_MS_MAX / 1000)
        # From here on nothing is approved any more; what was approved before is recorded, however long its end takes.
        unanswered = self._connector.withdraw(args)
        if not done:
            return {"approved": not unanswered}
        return {"approved": task.result() == "confirmed"}

    def _agent(self, args: Mapping[str, Any]) -> str | None:
        cards = self._all.config.stripe.cards
        return cards.get(args["card"]) or cards.get(args.get("cardholder", ""))

    async def _ask(self, agent: str, args: dict[str, Any]) -> str:
        """Decide and record like any payment. Returns the action's status."""
        caller = Caller(agent, self._all.settings.tier)
        call_id = f"{args['authorization']}:{args['request_number']}"
        try:
            run = await self._runs.of(caller)
            body = {"run": run, "call_id": call_id, "tool": APPROVE, "args": args}
            result = await self._all.gate.call("act", body, caller)
        except CountermarkError as error:
            log.warning("a card payment is declined: %s", error)
            return error.code
        if result["code"] == "mandate_not_in_force":
            self._runs.forget(caller, run)
        return str(result["status"])


def arguments(asked: Any) -> dict[str, Any] | None:
    """The action that Stripe asks about; None for what has no amount to decide. Values are checked by the tool."""
    pending, card = at(asked, "pending_request"), at(asked, "card")
    earlier = at(asked, "request_history")
    amount, currency = at(pending, "amount"), at(pending, "currency")
    identity, card_id = at(asked, "id"), at(card, "id")
    if at(asked, "object") != "issuing.authorization" or type(amount) is not int or type(earlier) is not list:
        return None
    if type(identity) is not str or type(card_id) is not str or type(currency) is not str:
        return None
    holder = at(card, "cardholder", "id") or at(asked, "cardholder")
    merchant = at(asked, "merchant_data")
    optional = {
        "cardholder": holder, "merchant": at(merchant, "network_id"), "merchant_category": at(merchant, "category"),
        "merchant_country": at(merchant, "country"),
    }  # fmt: skip
    return {
        "authorization": identity, "request_number": len(earlier), "amount": amount, "currency": currency,
        "card": card_id, **{name: value for name, value in optional.items() if type(value) is str},
    }  # fmt: skip
