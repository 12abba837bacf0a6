"""``POST /webhooks/stripe``: what Stripe tells, and what it asks.

What it tells is never taken over: it makes the gate ask again about its own intent, so an event that is forged by
whoever has the secret, repeated, out of order or late settles nothing that Stripe's own answer does not. What it asks
(``issuing_authorization.request``) is decided like any payment, and answered in time or declined.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from countermark.connectors import IssuingConnector
from countermark.gate import open_about
from countermark.model.clock import US, SystemClock
from countermark.model.errors import ConfigError, CountermarkError
from countermark.server.actions import answer
from countermark.server.bodies import header, read_body
from countermark.server.issuing import Issuing
from countermark.server.problems import HttpError
from countermark.server.stripe_events import at, check_event
from countermark.server.surroundings import Surroundings
from countermark.wiring import resolve_secret

PATH = "/webhooks/stripe"
ASKED = "issuing_authorization.request"
SEEN_MAX = 4_096
LOOKING_MAX = 32

_KEY = re.compile(r"cm_[0-9a-f]{48}")
_OBJECT = re.compile(r"[a-z]{2,8}_[A-Za-z0-9]{1,64}")

log = logging.getLogger("countermark.server")


def webhook_routes(surroundings: Surroundings) -> list[BaseRoute]:
    """The route; none when ``[stripe]`` names no webhook secret."""
    if not surroundings.config.stripe.webhook_secrets:
        return []
    return [Route(PATH, Webhooks(surroundings), methods=["POST"])]


class Webhooks:
    """An ASGI app for Stripe's events."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._all = surroundings
        self._gate = surroundings.gate
        self._clock = SystemClock()
        self._seen: OrderedDict[str, None] = OrderedDict()  # events that were heard to their end
        self._looking: set[asyncio.Task[None]] = set()
        connector = self._gate.connectors.get(IssuingConnector.name)
        self._issuing = Issuing(surroundings, connector) if isinstance(connector, IssuingConnector) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Verify an event, then act on it. Raises ``CountermarkError``."""
        scope["countermark.route"] = PATH
        body = await read_body(scope, receive, self._all.settings.limits.body_bytes_max)
        signed = header(scope["headers"], b"stripe-signature").decode("latin-1")
        settings = self._all.config.stripe
        try:
            event = check_event(body, signed, self._secrets(), self._clock.now_us() // US, settings.tolerance_s)
        except CountermarkError as error:
            self._all.counters.add("webhooks", "refused")
            raise HttpError(400, error.message, code=error.code, hint=error.hint) from None
        if event["type"] == ASKED:
            said = {"approved": False} if self._issuing is None else await self._issuing.answer(event)
            self._all.counters.add("webhooks", "approved" if said["approved"] else "declined")
            await answer(send, 200, said, more={"stripe-version": str(event.get("api_version") or "")})
            return
        self._hear(event)
        self._all.counters.add("webhooks", "heard")
        await answer(send, 200, {"received": True})

    def _secrets(self) -> list[str]:
        """Read each time, so that one can replace another without a restart. One that cannot be read is passed over."""
        found = []
        for reference in self._all.config.stripe.webhook_secrets:
            try:
                found.append(resolve_secret(reference, self._all.config.root))
            except ConfigError as error:
                log.warning("a webhook secret: %s", error.message)
        return found

    def _hear(self, event: Mapping[str, Any]) -> None:
        """Look again at the intents that an event is about, once for each event. Raises ``HttpError`` when too many."""
        identity = str(event.get("id"))
        key, ref = at(event, "data", "object", "metadata", "countermark_key"), at(event, "data", "object", "id")
        key = key if type(key) is str and _KEY.fullmatch(key) is not None else ""
        ref = ref if type(ref) is str and _OBJECT.fullmatch(ref) is not None else ""
        if identity in self._seen or not (key or ref):
            return
        if len(self._looking) >= LOOKING_MAX:
            raise HttpError(503, "too many events at once", code="gate_busy", hint="Send it again.", retryable=True)
        task = asyncio.get_running_loop().create_task(self._look(identity, key, ref))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self, event: str, key: str, ref: str) -> None:
        try:
            left = await self._gate.lane.ask(lambda writer: open_about(writer, key, ref))
            if left:
                self._all.counters.add("webhooks", "settling")
                await self._gate.recover(left)
        except CountermarkError as error:  # the background goes on asking
            log.warning("after an event of Stripe's: %s", error)
            return
        self._seen[event] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
