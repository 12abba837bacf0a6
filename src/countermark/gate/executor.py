"""Effects: the barrier, the exact bytes, bounded retries under one key, and recovery of intents without an outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from countermark.gate.actions import Decided, by_name, recorded, settle, settled_body
from countermark.gate.dispatch import Dispatch, Intent
from countermark.gate.lane import Lane
from countermark.gate.prepare import Prepared
from countermark.gate.waiting import NOT_WITNESSED, Waiting
from countermark.gate.writer import Writer
from countermark.model.clock import US
from countermark.model.crash import crash_point
from countermark.model.digest import FIELD, digest_of
from countermark.model.errors import CountermarkError, StoreError
from countermark.model.ports import Clock, Connector, Patient, Resolving
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Outcome, Reference, Request

ATTEMPTS_MAX = 3
BACKOFF_MS = 50
WORKERS_MAX = 32
LOOKUP_MARGIN_US = 3_600 * US  # a provider's clock may differ from ours

Follow = Callable[[Writer, Decided], None]
After = Callable[[Mapping[str, Any]], Awaitable[Follow | None]]

log = logging.getLogger("countermark.executor")


class Effect(NamedTuple):
    """An intent with the request that its digest covers; ``args`` are the plain values by the provider's names."""

    intent: Intent
    tool: ToolSpec
    request: Request
    salt: str
    args: Mapping[str, Value]

    @property
    def key(self) -> str:
        return str(self.intent.body["key"])

    def intact(self) -> bool:
        """What will be sent is what was decided (G5)."""
        return bool(self.request.digest(self.salt) == self.intent.body["request"])


class Executor:
    """Runs effects on the gate's event loop; blocking connectors on worker threads."""

    def __init__(self, connectors: Mapping[str, Connector], dispatch: Dispatch, clock: Clock, waiting: Waiting) -> None:
        self._connectors = connectors
        self.waiting = waiting
        self._dispatch = dispatch
        self._clock = clock
        self._born = clock.steady_us()
        self._tried: dict[int, int] = {}  # intent -> when its last try ended, by the clock that never steps
        self._pool = ThreadPoolExecutor(WORKERS_MAX, thread_name_prefix="countermark-effect")

    def close(self) -> None:
        """Wait for effects under way, which wait no longer for what is sent already."""
        for connector in self._connectors.values():
            if isinstance(connector, Patient):
                connector.hurry()
        self._pool.shutdown(wait=True)

    async def run(self, lane: Lane, effect: Effect, after: After | None = None) -> Decided:
        """Pass the barrier, execute, settle. The answer is durable when this returns.

        ``after`` is asked what else belongs in the outcome's commit, with the body of its record.
        A tool that wants witnesses first waits for them, before it takes a place among the effects under way.
        """
        intent = effect.intent
        if intent.seq in self.waiting:
            return await lane.ask(lambda writer: recorded(writer, writer.record(intent.seq)))  # type: ignore[no-any-return]
        if effect.tool.witness and (why := await self.waiting.until_seen(intent)):
            unsent = Outcome("failed", "not_sent", request_id=why, attempts=0)
            if why == NOT_WITNESSED:
                unsent = Outcome("failed", NOT_WITNESSED, attempts=0)
            return await self._settle(lane, intent, unsent, "execute", after)
        code = self._dispatch.begin(intent, self._clock.now_us())
        if code == "already_running":
            return await lane.ask(lambda writer: recorded(writer, writer.record(intent.seq)))  # type: ignore[no-any-return]
        try:
            if code is not None:
                outcome = Outcome("failed", "not_sent", request_id=code, attempts=0)
            elif not effect.intact():
                outcome = Outcome("failed", "not_sent", request_id="request_changed", attempts=0)
            elif (moved := await self._moved(effect)) is not None:
                outcome = moved
            else:
                crash_point("dispatch.passed")
                outcome = await self._attempts(effect, doubtful=False)
                crash_point("effect.done")
            return await self._settle(lane, intent, outcome, "execute", after)
        finally:
            self._dispatch.end(intent.seq)

    async def resolve(self, tool: ToolSpec, args: Mapping[str, Value]) -> Reference | None:
        """What stands now behind the argument that the tool's ``resolve`` names; None when that cannot be told."""
        if tool.connector not in self._connectors:
            return None
        connector = self._connectors[tool.connector]
        if not isinstance(connector, Resolving):
            return None
        try:
            looking = partial(connector.resolve, tool, args)
            found = await asyncio.get_running_loop().run_in_executor(self._pool, looking)
            return found if isinstance(found, Reference) else None
        except Exception as error:  # a connector that breaks its contract: nothing is known, so nothing is sent
            log.error("connector %s raised %s", tool.connector, type(error).__name__)
            return None

    async def resolved(self, prepared: Prepared) -> Prepared:
        """With what stands behind an argument now, for a tool that wants it; None, which denies, when it is unread."""
        if not prepared.ask.tool.resolve:
            return prepared
        found = await self.resolve(prepared.ask.tool, prepared.args)
        return prepared._replace(ask=prepared.ask._replace(reference=None if found is None else found.document()))

    async def _moved(self, effect: Effect) -> Outcome | None:
        """Why the effect must not start, when what stands behind its argument is not what was decided, or is unread."""
        if not effect.tool.resolve:
            return None
        decided = effect.intent.body["reference"]
        now = await self.resolve(effect.tool, effect.args)
        if now is None:
            return Outcome("failed", "not_sent", request_id="reference_unread", attempts=0)
        if decided is None or now.digest != decided["digest"]:
            return Outcome("failed", "not_sent", request_id="reference_changed", attempts=0, reference=now)
        return None

    async def _call(self, connector: Connector, function: Any, *args: Any) -> Outcome:
        try:
            if not connector.blocking:
                result: Outcome = function(*args)
                return result
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        except Exception as error:  # a connector that breaks its contract: nobody knows what it sent
            log.error("connector %s raised %s", connector.name, type(error).__name__)
            return Outcome("unknown", "provider_error")

    async def _attempts(self, effect: Effect, *, doubtful: bool) -> Outcome:
        """At most ``ATTEMPTS_MAX`` sends, all under one provider key; then ask the provider.

        ``doubtful``: something may have been sent before, so a vague refusal of this try settles nothing.
        """
        connector = self._connectors[effect.tool.connector]
        outcome = Outcome("unknown", "provider_error")
        for attempt in range(1, ATTEMPTS_MAX + 1):
            answer = await self._call(connector, self._send, connector, effect, doubtful)
            self._tried[effect.intent.seq] = self._clock.steady_us()
            outcome = answer if attempt == 1 else replace(answer, attempts=attempt)
            doubtful = doubtful or outcome.status == "unknown"
            settled = outcome.status == "confirmed" or (
                outcome.status == "failed" and not (doubtful and _vague(outcome))
            )
            if settled or outcome.code == "booked_differently":  # another send could only book more
                return outcome
            if effect.tool.recovery != "idempotent" or attempt == ATTEMPTS_MAX or self._stopped(effect):
                break
            await asyncio.sleep(BACKOFF_MS * 2**attempt / 1000)
        if effect.tool.recovery == "escalate":
            return replace(outcome, status="unknown")
        return await self._ask_provider(effect, outcome)

    def _send(self, connector: Connector, effect: Effect, doubtful: bool) -> Outcome:
        """One send, on the worker's thread: time may have passed since the barrier, so it looks once more."""
        if self._stopped(effect):
            return Outcome("unknown" if doubtful else "failed", "not_sent", attempts=0)
        return _as_asked(effect, connector.execute(effect.tool, effect.request))

    def _stopped(self, effect: Effect) -> bool:
        return self._clock.now_us() >= effect.intent.not_after or self._dispatch.stopped(effect.intent)

    async def _ask_provider(self, effect: Effect, seen: Outcome) -> Outcome:
        """Look the effect up by our key. "Not found" counts as failed only once nothing can be on its way any more."""
        connector, intent = self._connectors[effect.tool.connector], effect.intent
        since = intent.not_after - effect.tool.dispatch_within_s * US - LOOKUP_MARGIN_US
        found = await self._call(connector, connector.lookup, effect.tool, effect.request, effect.key, since)
        crash_point("recovery.looked_up")
        if found.status == "confirmed":
            return replace(_as_asked(effect, found), attempts=seen.attempts)
        if found.status == "failed" and found.evidence is not None:  # proved, so nothing can be on its way any more
            return replace(found, attempts=seen.attempts)
        lag = effect.tool.timeout_ms * 1000 * ATTEMPTS_MAX + effect.tool.settle_lag_s * US
        passed = self._clock.steady_us() - self._tried.get(intent.seq, self._born)  # a wall clock may have jumped
        if found.code == "not_found" and self._clock.now_us() > intent.not_after + lag and passed > lag:
            return Outcome("failed", "not_found", attempts=seen.attempts)
        return replace(seen, status="unknown", output={}, amount=None, currency="")

    async def recover(self, lane: Lane, effect: Effect, *, resend: bool) -> Decided:
        """Settle an intent that has no final outcome, by its tool's recovery class."""
        intent, tool = effect.intent, effect.tool
        now = self._clock.now_us()
        decided_at = intent.not_after - tool.dispatch_within_s * US
        resend = (
            resend and tool.recovery == "idempotent" and now < min(intent.not_after, decided_at + tool.key_ttl_s * US)
        )
        via = "lookup"
        if resend and effect.intact() and self._dispatch.begin(intent, now) is None:
            via = "recovery"
            try:
                outcome = await self._again(effect)
            finally:
                self._dispatch.end(intent.seq)
        elif tool.recovery == "escalate":
            outcome = Outcome("unknown", "needs_resolution", attempts=0)
        else:
            outcome = await self._ask_provider(effect, Outcome("unknown", "interrupted", attempts=0))
        return await self._settle(lane, intent, outcome, via)

    async def _again(self, effect: Effect) -> Outcome:
        """Send once more what may have been sent; with a reference that moved since, only ask what became of it."""
        if await self._moved(effect) is not None:
            return await self._ask_provider(effect, Outcome("unknown", "interrupted", attempts=0))
        return await self._attempts(effect, doubtful=True)

    async def _settle(
        self, lane: Lane, intent: Intent, outcome: Outcome, via: str, after: After | None = None
    ) -> Decided:
        follow = None if after is None else await after(settled_body(intent, outcome, via))

        def settling(writer: Writer) -> Decided:
            decided = settle(writer, intent, outcome, via)
            if follow is not None:
                follow(writer, decided)
            return decided

        decided: Decided = await lane.ask(settling, always=True)
        if outcome.status != "unknown" or (decided.settled and decided.settled.body["outcome"] != "unknown"):
            self._tried.pop(intent.seq, None)
        return decided


def _as_asked(effect: Effect, outcome: Outcome) -> Outcome:
    """What the provider booked against what was asked (G5): another amount is recorded as what was moved and named;
    another currency is nothing that a budget can be settled with, so people must look.
    """
    terms = effect.intent.body["terms"]
    if outcome.status != "confirmed" or outcome.amount is None:
        return outcome
    if outcome.currency != terms["currency"]:
        return replace(outcome, status="unknown", code="booked_differently", amount=None, currency="", output={})
    return outcome if outcome.amount == terms["amount"] else replace(outcome, code="booked_differently")


def _vague(outcome: Outcome) -> bool:
    """A refusal that says nothing about an earlier, doubtful attempt."""
    return outcome.code in ("provider_rate_limited", "not_sent") or outcome.http_status in (401, 403, 429)


def effect_of(writer: Writer, seq: int, connectors: Mapping[str, Connector]) -> Effect | None:
    """Rebuild an intent's effect from the journal: None when its sealed values were erased or its tool is gone."""
    record = writer.record(seq)
    body = record.body
    tool = writer.bundle(body["bundle"]).compiled.tools.get(body["tool"])
    if tool is None or tool.connector not in connectors:
        return None
    try:
        plain, salt = plain_of(writer, tool, seq, body)
        if plain is None or salt is None:
            return None
        args = by_name(tool, plain)
        request = connectors[tool.connector].prepare(tool, args, body["key"])
    except CountermarkError as error:
        log.error("the effect of record %d cannot be rebuilt: %s", seq, error)
        return None
    return Effect(Intent(record), tool, request, salt, args)


def plain_of(
    writer: Writer, tool: ToolSpec, seq: int, body: Mapping[str, Any]
) -> tuple[dict[str, Value] | None, str | None]:
    """Plain arguments by alias, and the request's salt; Nones when sealed values were erased."""
    plain: dict[str, Value] = {a: v for a, v in body["args"].items() if type(v) is not dict}
    if len(plain) == len(body["args"]):
        return plain, body["salt"]
    values = writer.unseal(seq)
    if values is None:
        return None, None
    for alias, salt, value in values["fields"]:
        if body["args"].get(alias) != {"$sd": digest_of(FIELD, [salt, alias, value])}:
            raise StoreError(f"the values sealed with record {seq} are not its own", hint="Restore a backup.")
        plain[alias] = value
    return plain, values["salt"]
