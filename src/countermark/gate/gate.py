"""The gate of one deployment: owns the lane, the credentials and the socket; ``call`` is its one entrance."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from countermark.authority import Person
from countermark.gate import callers, climbing, escalation, hindsight, observing, orders, payees
from countermark.gate.actions import Decided, recorded
from countermark.gate.answers import result_of
from countermark.gate.asking import Asking
from countermark.gate.background import Background, others
from countermark.gate.bodies import check_body, rank_of
from countermark.gate.catalogue import Catalogue, allowed, shape_of
from countermark.gate.desk import GateDesk
from countermark.gate.dispatch import Dispatch
from countermark.gate.driving import DRIVEN, Driver, receive
from countermark.gate.epochs import Epochs
from countermark.gate.executor import Effect, Executor, effect_of
from countermark.gate.highwater import Publisher
from countermark.gate.judging import in_force
from countermark.gate.lane import Lane, Rank
from countermark.gate.parts import Parts
from countermark.gate.prepare import Caller
from countermark.gate.publishing import Publishing, started
from countermark.gate.recovering import RECOVERY_S, Recovering
from countermark.gate.runs import RUNS
from countermark.gate.telemetry import WATCH, Telemetry, watched
from countermark.gate.waiting import Waiting
from countermark.gate.writer import Writer
from countermark.log import TileRoots
from countermark.model.errors import (
    ArgumentError,
    AuthorityError,
    ConfigError,
    CountermarkError,
    GateHaltedError,
)
from countermark.model.ports import Connector, Head
from countermark.model.records import Record
from countermark.model.values import ACT_ID, Result
from countermark.policy import Bundle

LADDERS_S = 0.5  # so that a rung ends within a second of its time
CLOSE_WAIT_S = 10
FIRST_HEAD_S = 3.0  # a gate that opens waits so long for its witnesses, before it denies for want of them
LEAVE_WAIT_S = 1
AGENT_CHARS_MAX = 64

log = logging.getLogger("countermark.gate")


class Gate:
    """Runs on an event loop of its own, on a thread of its own, beside the lane's thread."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._tier = str(parts.started["tier"])
        self._dispatch = Dispatch()
        self._catalogue = Catalogue(parts.connectors)
        self.loop = asyncio.new_event_loop()
        self._waiting = Waiting(self._dispatch, parts.clock, self._nudge)
        self._executor = Executor(parts.connectors, self._dispatch, parts.clock, self._waiting)
        self._publishing = Publishing(parts.destinations, lambda: self.lane, self.loop, parts.clock)
        self._publishing.on_recorded = self._published
        self._publisher = Publisher(parts.high_water, self._publishing.offer)
        self._thread = threading.Thread(target=self._serve, name="countermark-gate", daemon=True)
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="countermark-aside")
        self.background = Background(self.loop)
        self._look = asyncio.Lock()
        self._door = threading.Lock()
        self._closed = False
        self.seats = self._dispatch.seats  # who stands behind the policy in force, asked from any thread
        self.lane = Lane(parts.open_writer, parts.clock, self._dispatch, self.loop, self._committed)
        self._asking = Asking(parts, self.lane, self._executor)
        self.desk = GateDesk(self.lane, self.background, self._asking, self._executor)
        self.driver: Driver | None = None
        self.epochs = Epochs(self.lane, self.aside, parts.open_reader, parts.tiles)
        self._recovering = Recovering(
            self.lane, self._executor, self._dispatch, parts.connectors, parts.clock, self.background.go_on
        )

    def start(self) -> None:
        """Open the journal, recover open intents, then accept calls. Raises what opening raises."""
        try:
            self.lane.start()
        except CountermarkError:
            self._closed = True
            self.loop.close()
            raise
        self._thread.start()
        self._publisher.start()
        try:
            self._publishing.check()
            self._publishing.start()
            self.wait(self._open())
        except BaseException:  # a gate that did not open leaves no thread and no open journal behind
            self._end()
            raise

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the gate's loop from another thread. Raises ``GateHaltedError``: the gate is closed."""
        with self._door:
            if self._closed:
                work.close()
                raise GateHaltedError("the gate is closed", hint="Open the deployment again.")
            future = self._submit(work)
        try:
            return future.result()
        except CancelledError:
            raise GateHaltedError("the gate was closed", hint="Ask again with the same run and call_id.") from None

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    async def aside(self, work: Callable[[], Any]) -> Any:
        """Run what is pure and slow on a thread of its own: neither the lane nor the loop waits for it."""
        try:
            future = self._aside.submit(work)
        except RuntimeError:
            raise GateHaltedError("the gate is closed", hint="Open the deployment again.") from None
        return await asyncio.wrap_future(future)

    async def _open(self) -> None:
        seen, wanted = await self.lane.ask(lambda writer: started(writer, self._parts.started))
        self._waiting.seen(seen)
        self._dispatch.since = await self.lane.ask(lambda writer: writer.state.size)
        if wanted and self._publishing.asks_witnesses:
            await self._waiting.more(FIRST_HEAD_S)
        try:
            await self.lane.ask(climbing.turn)  # what became due while no gate ran; the rest follows in the background
        except CountermarkError as error:
            log.warning("ladders: %s", error)
        for job in (self._recover_due, self._lapse, self.epochs.turn):
            self.background.spawn(self.background.repeat(RECOVERY_S, job))
        self.background.spawn(self.background.repeat(LADDERS_S, self._expire))

    def _committed(self, head: Head, records: Sequence[Record]) -> None:
        self._publisher.offer(head, records)
        for follower in self.desk.followers:
            follower(records)

    def _nudge(self, seq: int) -> None:
        """An effect waits for witnesses: the newest head is due at once."""
        self._publishing.awaited = max(self._publishing.awaited, seq)
        self._publisher.nudge()

    def _published(self, kind: str, body: Mapping[str, Any]) -> None:
        if kind == "head.witnessed":
            self.loop.call_soon_threadsafe(self._waiting.seen, body["size"])

    def close(self, reason: str = "closed") -> None:
        """Stop taking work, finish what is under way, publish the last head."""
        with self._door:
            self._closed = True  # every call taken before this is a task on the loop by the time that _shut begins
        try:
            self._submit(self._shut(reason)).result()
        except GateHaltedError as error:
            log.warning("stopping a halted gate: %s", error)
        self._end()

    def _end(self) -> None:
        with self._door:
            self._closed = True
        self._executor.close()
        self._aside.submit(self.epochs.shut)
        self._aside.shutdown()
        self._publishing.finish()
        self._submit(self._leave()).result()
        self.lane.stop()
        self._publisher.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _shut(self, reason: str) -> None:
        self._waiting.end()
        await self.background.cancel()
        await others(CLOSE_WAIT_S)
        if self._publishing.active:
            await self.aside(self._last_heads)
        await self.lane.ask(lambda writer: writer.add("gate.stopped", {"reason": reason}))

    def _last_heads(self) -> None:
        self._publisher.write()
        self._publishing.finish()

    @staticmethod
    async def _leave() -> None:
        """Nobody waits for ever: what has not ended by now is told that the gate was closed."""
        for task in await others(LEAVE_WAIT_S):
            task.cancel()
        await others(LEAVE_WAIT_S)

    def observe(self, telemetry: Telemetry | None) -> None:
        """Tell a telemetry from now on what happens, or nobody."""
        self._asking.telemetry = telemetry
        self.lane.on_batch = None if telemetry is None else telemetry.committed

    async def recover(self, only: Collection[int] | None = None) -> None:
        """Settle intents (or ``only`` these) without a final outcome that nobody is executing now.

        Whoever opens a gate calls this when the socket answers, so that people can stop what recovery would send.
        """
        await self._recovering.now(only)

    @property
    def connectors(self) -> Mapping[str, Connector]:
        """By name, for faces that speak a provider's own protocol."""
        return self._parts.connectors

    async def _recover_due(self) -> None:
        await self._recovering.due()

    async def _expire(self) -> None:
        """Every step of the ladders that is due, turn by turn; what else waits for the lane comes in between."""
        while await self.lane.ask(climbing.turn) == climbing.STEPS_PER_TURN_MAX:
            pass

    async def bundle(self) -> Bundle:
        """The policy in force."""
        return await self._asking.bundle()

    @property
    def tiles(self) -> TileRoots:
        """Roots of the newest full tiles of the log, for views of it in this process."""
        return self._parts.tiles

    @property
    def tier(self) -> str:
        """How far this gate's evidence reaches."""
        return self._tier

    async def people(self) -> Mapping[str, Person]:
        """Everybody, with the keys that sign for them now; nobody before the first activation."""
        return dict(await self.lane.ask(lambda writer: writer.state.people))

    async def policy(self) -> Bundle:
        """The policy in force, as last read: for who a key belongs to, before the lane asks the same once more."""
        return await self._asking.policy()

    async def act(self, caller: Caller, body: Mapping[str, Any], *, wait: str = "outcome") -> Result:
        """Decide, record, execute once, settle. ``body``: run, call_id, tool, args, and the claim's fields.

        ``wait="decision"`` answers when the intent is durable, while the effect goes on; with very many of those under
        way it answers at the outcome all the same.
        """
        if self._asking.telemetry is not None and WATCH.get() is None:
            return await watched(
                self._asking.telemetry, self._parts.clock, caller.agent, lambda: self.act(caller, body, wait=wait)
            )
        if caller.tier != self._tier:  # how far the evidence reaches is this gate's to say, whatever the transport
            caller = replace(caller, tier=self._tier)
        prepared, decided = await self._asking.ask(caller, body, self._parts.connectors)
        intent = decided.intent
        if intent is None:
            return result_of(decided)
        effect = Effect(intent, prepared.ask.tool, prepared.request, prepared.salt, prepared.args)
        if wait == "decision" and not self.background.full:
            self.background.go_on(self._executor.run(self.lane, effect))
            return result_of(decided)
        decided = await self._executor.run(self.lane, effect)
        return result_of(decided)

    async def admit(self, caller: Caller, body: Mapping[str, Any]) -> Result:
        """Decide and record, as ``act`` does; whoever is allowed runs the tool itself and reports by ``settle``."""
        body, once = observing.once_of(body)
        _, decided = await self._asking.ask(replace(caller, tier="observing"), body, observing.CALLERS)
        return observing.answer(decided, self._dispatch, self._parts.clock, once=once)

    async def _settle(self, caller: Caller, body: Mapping[str, Any]) -> Result:
        if caller.scope is not None:
            await self.result(caller, str(body.get("id")))
        decided = await self.lane.ask(lambda writer: observing.report(writer, caller.agent, body))
        self._dispatch.end(decided.record.seq)
        return result_of(decided)

    async def _lapse(self) -> None:
        for seq in await self.lane.ask(observing.lapse):
            self._dispatch.end(seq)

    async def _drive(self, op: str, body: Mapping[str, Any], caller: Caller) -> Any:
        """Runs of definitions are ordered by whoever the operating system lets at the gate, never by an agent."""
        if caller.scope is not None or caller.behalf is not None or caller.signed is not None:
            raise AuthorityError("no agent may order runs of definitions", code="out_of_scope")
        if op == "event.received":
            return await self.lane.ask(lambda writer: receive(writer, body))
        if self.driver is None:
            raise ConfigError("this gate drives no workflows", hint="uv add 'countermark[workflow]'")
        return await self.driver.call(op, body, caller.agent)

    async def result(self, caller: Caller, action: str) -> Result:
        """The present answer of an action by its ID. One that its credential may not see is unknown."""

        def find(writer: Writer) -> Decided | None:
            seq = writer.state.newest(action)
            return None if seq is None else recorded(writer, writer.record(seq))

        found = None if ACT_ID.fullmatch(action) is None else await self.lane.ask(find)
        if found is None or not callers.may_see(caller.scope, caller.agent, found.record.body):
            raise ArgumentError("no such action of this agent", field="id", code="unknown_action")
        return result_of(found)

    async def answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take a person's signed answer; the last one needed makes the gate decide again and execute."""
        reply = await self.lane.ask(lambda writer: escalation.answer(writer, body, self._tier), rank=Rank.ORDER)
        effect: Effect | None = None
        if reply.decided is not None and reply.decided.intent is not None:
            effect = await self.lane.ask(
                lambda writer: effect_of(writer, reply.decided.record.seq, self._parts.connectors)
            )
        decided = reply.decided
        if effect is not None:
            decided = await self._executor.run(self.lane, effect)
        return {"state": reply.state, "result": None if decided is None else result_of(decided).document()}

    async def _kill(self, body: Mapping[str, Any]) -> Any:
        """Dispatch of the scope stops here and now; the record follows, ahead of everything that queues."""
        name, scope = orders.kill_of(body, self._parts.deployment)
        reason = body.get("reason", "")
        self._dispatch.hold(name, scope)
        try:
            reply = await self.lane.ask(
                lambda writer: orders.kill(writer, name, scope, reason), always=True, rank=Rank.STOP
            )
        except CountermarkError:  # not so when cancelled: the record may still come, and ends the hold itself
            self._dispatch.release(name)
            raise
        self._dispatch.release(name)
        return reply

    async def _activate(self, body: Mapping[str, Any]) -> str:
        judge = await self.lane.ask(in_force, rank=Rank.ORDER)
        ready = await self.aside(lambda: orders.read_activation(body, judge, self._parts.deployment))
        digest: str = await self.lane.ask(lambda writer: orders.activate(writer, ready), rank=Rank.ORDER)
        self._asking.forget()
        return digest

    async def _import(self, body: Mapping[str, Any]) -> Any:
        await self.bundle()  # who is known
        judge = await self.lane.ask(in_force, rank=Rank.ORDER)
        paid = await self.aside(lambda: hindsight.read_imports(body, judge, self._asking.known, self._parts.deployment))
        return await self.lane.ask(lambda writer: hindsight.import_paid(writer, paid), rank=Rank.ORDER)

    def numbers(self) -> dict[str, int]:
        """How much there is, for those who watch: read beside the lane, so at most a moment old."""
        return {"effects_in_flight": len(self._dispatch.in_flight), "log_records": self.lane.records}

    async def call(self, op: str, body: Mapping[str, Any], caller: Caller, *, wait: str = "outcome") -> Any:
        """One entrance for every transport: an operation's name and its JSON body. Raises ``CountermarkError``.

        ``wait`` is for ``act`` alone.
        """
        agent = caller.agent
        if type(op) is not str or not isinstance(body, Mapping):
            raise ConfigError("not a request")
        if type(agent) is not str or len(agent) > AGENT_CHARS_MAX:
            raise callers.no_agent(agent)
        if op == "act":
            return (await self.act(caller, body, wait=wait)).document()
        if op == "admit":
            return (await self.admit(caller, body)).document()
        if op in DRIVEN:
            return await self._drive(op, body, caller)
        check_body(op, body)
        callers.check_scope(caller.scope, op, body)
        if op == "result":
            return (await self.result(caller, body.get("id", ""))).document()
        if op == "settle":
            return (await self._settle(caller, body)).document()
        if op in RUNS:
            return await self.lane.ask(lambda writer: RUNS[op](writer, caller, body))
        if op == "tools":
            return await self._catalogue.listed(await self.lane.ask(lambda w: allowed(w, agent, caller.scope)))
        if op == "tool.shape":
            return shape_of((await self._asking.policy()).compiled.tools.get(body.get("tool", "")))
        if op == "content":
            return await self.lane.ask(lambda w: self._catalogue.answer(w, agent, body.get("id", "")))
        if op in orders.ASIDE:
            return await orders.ASIDE[op](self.lane, self.aside, body, self._parts)
        if op in orders.QUERIES:
            async with self._look:  # one look at a time: it is the dearest thing that anybody may ask for
                found = await self.lane.ask(lambda writer: orders.QUERIES[op](writer, body))
            return await self.aside(lambda: payees.with_alike(found)) if op == "escalations" else found
        if op in orders.ORDERS:
            return await self.lane.ask(lambda writer: orders.ORDERS[op](writer, body), rank=rank_of(op))
        if op == "resolve":
            return await self.lane.ask(lambda writer: hindsight.resolve(writer, body, self._dispatch), rank=Rank.ORDER)
        if op == "epoch.close":
            return await self.epochs.close()
        own = {"import": self._import, "kill.set": self._kill, "answer": self.answer, "activate": self._activate}
        if op in own:
            return await own[op](body)
        return await self.recover() if op == "recover" else None  # a ping
