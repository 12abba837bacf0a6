"""The gate of one deployment: owns the lane, the credentials and the socket; ``call`` is its one entrance."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.gate import escalation, orders
from countermark.gate.actions import Decided, StaleBundle, decide, end_run, recorded, refuse, start_run
from countermark.gate.answers import result_of
from countermark.gate.dispatch import Dispatch
from countermark.gate.executor import Effect, Executor, effect_of
from countermark.gate.highwater import Publisher
from countermark.gate.lane import Lane
from countermark.gate.prepare import Caller, Prepared, Pseudonyms, prepare
from countermark.gate.writer import Writer
from countermark.model.errors import (
    ArgumentError,
    AuthorityError,
    ConfigError,
    CountermarkError,
    EncodingError,
    GateHaltedError,
)
from countermark.model.ports import Clock, Connector
from countermark.model.values import ACT_ID, Action, Claim, Result
from countermark.policy import Bundle

EXPIRY_S = 1.0
RECOVERY_S = 5.0
RECOVERING_MAX = 16  # a provider that hangs must not keep a gate from opening, one intent after the other
PREPARE_TRIES_MAX = 3

log = logging.getLogger("countermark.gate")


@dataclass(frozen=True, slots=True)
class Parts:
    """What wiring hands to a gate."""

    deployment: str
    open_writer: Callable[[], Writer]
    connectors: Mapping[str, Connector]
    pseudonym: Pseudonyms
    clock: Clock
    high_water: Path
    started: Mapping[str, Any]


class Gate:
    """Runs on an event loop of its own, on a thread of its own, beside the lane's thread."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._dispatch = Dispatch()
        self._executor = Executor(parts.connectors, self._dispatch, parts.clock)
        self._publisher = Publisher(parts.high_water)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="countermark-gate", daemon=True)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bundle: Bundle | None = None
        self.lane = Lane(parts.open_writer, parts.clock, self._dispatch, self.loop, self._publisher.offer)

    def start(self) -> None:
        """Open the journal, recover open intents, then accept calls. Raises what opening raises."""
        try:
            self.lane.start()
        except CountermarkError:
            self.loop.close()
            raise
        self._thread.start()
        self._publisher.start()
        try:
            self.wait(self._open())
        except BaseException:  # a gate that did not open leaves no thread and no open journal behind
            self._end()
            raise

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def wait(self, work: Any) -> Any:
        """Run a coroutine on the gate's loop from another thread and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    async def _open(self) -> None:
        started = self._parts.started
        await self.lane.ask(lambda writer: writer.add("gate.started", {**started, "recovered": writer.state.size}))
        await self.recover()
        for every, job in ((EXPIRY_S, self._expire), (RECOVERY_S, self.recover)):
            self._spawn(self._repeat(every, job))

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _repeat(self, every: float, job: Callable[[], Awaitable[Any]]) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await job()
            except CountermarkError as error:
                log.warning("background work: %s", error)

    def close(self, reason: str = "closed") -> None:
        """Stop taking work, finish what is under way, publish the last head."""
        try:
            self.wait(self._shut(reason))
        except GateHaltedError as error:
            log.warning("stopping a halted gate: %s", error)
        self._end()

    def _end(self) -> None:
        self._executor.close()
        self.lane.stop()
        self._publisher.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _shut(self, reason: str) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.lane.ask(lambda writer: writer.add("gate.stopped", {"reason": reason}))

    async def recover(self) -> None:
        """Settle intents without a final outcome that nobody is executing now."""
        running = set(self._dispatch.in_flight)
        left: list[int] = await self.lane.ask(lambda writer: [seq for seq in writer.state.open if seq not in running])
        room = asyncio.Semaphore(RECOVERING_MAX)

        async def one(seq: int) -> None:
            async with room:
                effect = await self._open_effect(seq)
                if effect is not None and seq not in self._dispatch.in_flight:
                    resend = not self._dispatch.stopped(effect.intent)
                    await self._executor.recover(self.lane, effect, resend=resend)

        for error in await asyncio.gather(*(one(seq) for seq in left), return_exceptions=True):
            if error is not None:
                raise error

    async def _open_effect(self, seq: int) -> Effect | None:
        """Asked anew for each: one that was settled while an earlier one was recovered must not be sent again."""
        found: Effect | None = await self.lane.ask(
            lambda writer: effect_of(writer, seq, self._parts.connectors) if seq in writer.state.open else None
        )
        return found

    async def _expire(self) -> None:
        now = self._parts.clock.now_us()
        await self.lane.ask(lambda writer: escalation.expire(writer, now))

    async def bundle(self) -> Bundle:
        """The policy in force."""
        found: Bundle | None = await self.lane.ask(lambda writer: writer.state.bundle)
        if found is None:
            raise ConfigError("no policy is active", hint="Run `countermark policy activate`.")
        self._bundle = found
        return found

    async def act(self, caller: Caller, body: Mapping[str, Any]) -> Result:
        """Decide, record, execute once, settle. ``body``: run, call_id, tool, args, and the claim's fields."""
        bundle = self._bundle or await self.bundle()
        if caller.agent not in bundle.compiled.agents:  # nobody we know: no record, or strangers could fill the disk
            raise AuthorityError("no such agent", code="unknown_agent")
        run, call_id, tool = body.get("run"), body.get("call_id"), body.get("tool")
        try:
            if not body.keys() <= _MEMBERS:
                raise ArgumentError("the request has a member that is not known", code="unknown_argument")
            claim = _claim(body)
            Action.check_names(run, call_id, tool)
            prepared, decided = await self._decide(caller, str(run), str(call_id), str(tool), body.get("args"), claim)
        except (ArgumentError, EncodingError) as error:
            why = error if isinstance(error, ArgumentError) else ArgumentError(error.message)
            names = {k: v if type(v) is str and len(v) <= 128 else "" for k, v in body.items() if k in _NAMES}
            full = {name: names.get(name, "") for name in _NAMES}
            await self.lane.ask(lambda writer: refuse(writer, caller.agent, full, why))
            raise why from None
        intent = decided.intent
        if intent is None:
            return result_of(decided)
        effect = Effect(intent, prepared.ask.tool, prepared.request, prepared.salt)
        decided = await self._executor.run(self.lane, effect)
        return result_of(decided)

    async def _decide(
        self, caller: Caller, run: str, call_id: str, tool: str, args: object, claim: Claim
    ) -> tuple[Prepared, Decided]:
        parts = self._parts
        bundle = self._bundle or await self.bundle()
        for _ in range(PREPARE_TRIES_MAX):
            prepared = prepare(
                bundle, parts.connectors, parts.pseudonym, parts.deployment, caller, run, call_id, tool, args, claim
            )
            reply = await self.lane.ask(_deciding(prepared), _keys(prepared))
            if isinstance(reply, ArgumentError):
                raise _Recorded(reply)
            if not isinstance(reply, StaleBundle):
                return prepared, reply
            bundle = await self.bundle()
        raise GateHaltedError("the policy keeps changing", hint="Ask again.")

    async def result(self, action: str) -> Result:
        """The present answer of an action by its ID."""
        if ACT_ID.fullmatch(action) is None:
            raise ArgumentError("no such action", field="id", code="unknown_action")

        def find(writer: Writer) -> Decided:
            seq = writer.state.newest(action)
            if seq is None:
                raise ArgumentError("no such action", field="id", code="unknown_action")
            return recorded(writer, writer.record(seq))

        return result_of(await self.lane.ask(find))

    async def answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take a person's signed answer; the last one needed makes the gate decide again and execute."""
        reply = await self.lane.ask(lambda writer: escalation.answer(writer, body))
        effect: Effect | None = None
        if reply.decided is not None and reply.decided.intent is not None:
            effect = await self.lane.ask(
                lambda writer: effect_of(writer, reply.decided.record.seq, self._parts.connectors)
            )
        decided = reply.decided
        if effect is not None:
            decided = await self._executor.run(self.lane, effect)
        return {"state": reply.state, "result": None if decided is None else result_of(decided).document()}

    async def call(self, op: str, body: Mapping[str, Any], caller: Caller) -> Any:
        """One entrance for every transport: an operation's name and its JSON body. Raises ``CountermarkError``."""
        if op == "act":
            return (await self.act(caller, body)).document()
        if op == "result":
            return (await self.result(str(body.get("id", "")))).document()
        if op == "answer":
            return await self.answer(body)
        if op == "run.start":
            mandate, purpose = body.get("mandate"), str(body.get("purpose", ""))[:500]
            return await self.lane.ask(lambda writer: start_run(writer, caller.agent, mandate, purpose))
        if op == "run.end":
            return await self.lane.ask(
                lambda writer: end_run(writer, caller.agent, str(body.get("run")), str(body.get("reason", ""))[:200])
            )
        if op == "recover":
            return await self.recover()
        handler = orders.ORDERS.get(op) or escalation.QUERIES.get(op)
        if handler is None:
            raise ConfigError(f"unknown operation {op!r}")
        reply = await self.lane.ask(lambda writer: handler(writer, body), always=op == "kill.set")
        if op == "activate":
            self._bundle = None  # what the new policy knows must not be refused by the old one
        return reply


def _deciding(prepared: Prepared) -> Callable[[Writer], Any]:
    return lambda writer: decide(writer, prepared)


def _keys(prepared: Prepared) -> tuple[str, ...]:
    ask = prepared.ask
    return ("id:" + ask.id,) if ask.obligation is None else ("id:" + ask.id, "ob:" + ask.obligation)


_NAMES = ("run", "call_id", "tool")
_MEMBERS = frozenset((*_NAMES, "args", "reason", "model", "trace", "because"))


class _Recorded(CountermarkError):
    """An argument error that the lane has already recorded."""

    def __init__(self, error: ArgumentError) -> None:
        super().__init__(error.message, code=error.code, hint=error.hint)


def _claim(body: Mapping[str, Any]) -> Claim:
    given = {name: value for name, value in body.items() if value is not None}
    because = given.get("because", ())
    if not isinstance(because, (list, tuple)):
        raise ArgumentError("because must be a list of action IDs", field="because")
    texts = [given.get(name, "") for name in ("reason", "model", "trace")]
    if any(type(text) is not str for text in (*texts, *because)):
        raise ArgumentError("reason, model, trace and because must be strings", field="reason")
    return Claim(texts[0], texts[1], texts[2], tuple(because))
