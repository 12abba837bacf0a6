"""``POST /hooks/{source}``: what starts or wakes runs of workflows from outside.

Before a signature is checked a delivery is bytes, and leaves no record: only a number. What it answers says nothing
about runs: whoever delivers learns that the event is durable, whether this was its first delivery or not.
"""

from __future__ import annotations

import logging

from starlette.types import Receive, Scope, Send

from countermark.gate import Caller
from countermark.model.clock import US
from countermark.model.errors import CountermarkError, SignatureError
from countermark.server.actions import answer, query_of
from countermark.server.bodies import check_json, read_body
from countermark.server.hook_schemes import bad, check_delivery
from countermark.server.problems import HttpError, plain
from countermark.server.surroundings import Surroundings
from countermark.wiring import resolve_secret, secrets_of
from countermark.workflow import received

log = logging.getLogger("countermark.server")


class Hooks:
    """The handler of the route."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._all = surroundings
        self._gate = surroundings.gate

    async def deliver(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /hooks/{source}``: verify, then record once. Raises ``CountermarkError``."""
        query_of(scope, ())
        check_json(scope["headers"])
        body = await read_body(scope, receive, self._all.settings.limits.body_bytes_max)
        source = self._all.config.workflows.webhooks.get(scope["path_params"]["source"])
        if source is None:
            raise plain(404, "there is no such source of events")
        try:
            secrets = secrets_of(source, lambda reference: resolve_secret(reference, self._all.config.root), _skipped)
            if not secrets:
                raise bad("no secret of the source can be read")
            signed = check_delivery(source, scope["headers"], body, secrets, self._all.clock.now_us() // US)
        except SignatureError as error:
            self._count("refused")
            raise HttpError(401, error.message, code=error.code, hint=error.hint) from None
        try:
            event = received(source, body, signed.identity, signed.at_s)
        except SignatureError as error:  # signed, and still nothing that can be recorded: somebody has to look
            self._count("unfit")
            log.warning("a delivery to the source %s: %s", source.name, error.message)
            raise HttpError(400, error.message, code=error.code, hint=error.hint) from None
        try:
            found = await self._gate.call("event.received", event, Caller("", self._all.settings.tier))
        except CountermarkError as error:
            self._count("conflict" if error.code == "identity_conflict" else "failed")
            raise
        self._count("recorded" if found["fresh"] else "repeated")
        await answer(send, 200, {"event": event["event"], "record": found["record"]})

    def _count(self, what: str) -> None:
        self._all.counters.add("hooks", what)


def _skipped(why: str) -> None:
    log.warning("a secret of a source of events: %s", why)
