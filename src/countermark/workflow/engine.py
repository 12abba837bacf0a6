"""Drives runs of definitions in the process that owns the gate.

Whoever plans for a run gathers what its machine wants, pure steps included, and hands it to the lane as one commit; the
outcome of an effect and what follows from it are one commit too. A run that waits is a row (``roster.py``). What is in
memory is only what the records say: when something was recorded otherwise than expected, the run is folded anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from countermark.compute import code_digest, input_digest
from countermark.model.clock import US
from countermark.model.crash import crash_point
from countermark.model.digest import VALUE, digest_of
from countermark.model.driving import RUN_MARK, Asked, Desk, Following, Note, Reply, Start, new_run
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.ports import Store
from countermark.model.random import RandomPool
from countermark.model.records import Record
from countermark.workflow.arrivals import Arrivals, Workers
from countermark.workflow.commands import (
    Act,
    Call,
    Cancel,
    Compute,
    Delegate,
    End,
    Resume,
    Sleep,
    Wait,
    Withdraw,
    unfit,
)
from countermark.workflow.definition import Definition
from countermark.workflow.errors import ExpressionError
from countermark.workflow.inputs import start_of
from countermark.workflow.live import RETRY_US, RETRY_US_MAX, Live, Planned
from countermark.workflow.plan import plan_of
from countermark.workflow.projection import Projection
from countermark.workflow.roster import ELSEWHERE, LIVE_MAX, Roster, concerns
from countermark.workflow.sealing import Seals

TURNS_MAX = 1_000  # of planning without a pause, which no definition needs
TICK_S = 0.25
SLOW_US = 1 * US  # code that took longer is recorded before anything is planned from the time
HOLDS_US = 8 * US  # a wait is recorded so soon after the time that it counts from, or planned anew
FOLLOW_S = 1.0  # an outcome waits no longer to be recorded together with what follows from it

log = logging.getLogger("countermark.workflow")


class Engine:
    """One for each gate that drives workflows. All methods run on the gate's loop unless they say otherwise."""

    def __init__(
        self, desk: Desk, loop: asyncio.AbstractEventLoop, store: Store, rows: Projection, workers: Workers,
        language: str, limits: Mapping[str, int], seals: Seals, sources: Collection[str],
    ) -> None:  # fmt: skip
        self._desk = desk
        self._loop = loop
        self._workers = workers
        self._arrivals = Arrivals(loop)
        self._language = language
        self._limits = dict(limits)
        self._sources = sources
        self._random = RandomPool()
        self.roster = Roster(store, rows, self._go_on, seals)

    # --- life

    async def start(self) -> None:
        """Catch up with the journal, then go on with every run that is open."""
        self.roster.catch_up()
        self._desk.follow(self._heard)  # what is recorded between the two is missed, and so read
        self._desk.spawn(self._tick())
        self.roster.pump()

    def close(self) -> None:
        """Let go of rows and workers when the gate's loop has ended. From any thread."""
        self._workers.close()
        self.roster.rows.close()
        self.roster.store.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.roster.hear()
                self.roster.due(self._desk.now_us())
                self.roster.flush()
            except Exception as error:  # the next turn may find it mended; without turns no time would ever come
                log.warning("workflows: %s", error, exc_info=not isinstance(error, CountermarkError))

    def _heard(self, records: Sequence[Record]) -> None:
        """On the lane's thread: pick what concerns runs of definitions, and hand it to the loop."""
        mine = [record for record in records if concerns(record)]
        try:
            self._loop.call_soon_threadsafe(self.roster.take, mine, records[0].seq, records[-1].seq + 1)
        except (RuntimeError, IndexError):  # the loop has closed: the next start reads them
            log.debug("%d records were not heard", len(records))

    def _go_on(self, live: Live) -> None:
        self._desk.spawn(self._turn(live))

    # --- beginning and ending

    async def begin(
        self, definition: Definition, agent: str, inputs: Mapping[str, Any], trigger: Mapping[str, Any],
        mandate: str | None = None,
    ) -> tuple[str, bool]:  # fmt: skip
        """Start a run, or find the one that this trigger's event started; its ID, and whether it is new.

        What the definition does first stands in the same commit, unless many runs are in memory or others of its group
        come first. Raises what the gate refuses the run for.
        """
        run = new_run(self._random)
        roster = self.roster
        roster.reach(definition)
        start = start_of(definition, run, agent, mandate, inputs, trigger, None)
        roster.keep(definition)
        workflow = start.workflow or {}
        live = Live(run, agent, definition, roster.group_of(definition, workflow["inputs"]))
        body = {"run": run, "agent": agent, "mandate": "", "purpose": start.purpose,
                "workflow": {**workflow, "bundle": ""}}  # fmt: skip
        live.begin(definition, body, self._desk.now_us(), roster.event_of(trigger["record"]))
        alone = live.group is not None or len(roster.live) >= LIVE_MAX
        async with live.lock:
            parts = [] if alone else await self._plan(live)
            if not alone:
                roster.live[run] = live
            recorded = False
            try:
                edge = live.machine.edge if parts else None
                replies = await self._desk.advance(run, [start, *(part for _, part in parts)], edge)
                if replies[0].stale:
                    parts, live.broken = [], True
                    replies = await self._desk.advance(run, [start])
                if replies[0].error is not None:
                    raise replies[0].error
                recorded = replies[0].fresh
            finally:
                if live.started >= 0 and not recorded:  # nobody was told of it, but it stands there
                    self._again(live, None)
                elif not recorded:
                    roster.live.pop(run, None)
            first = replies[0]
            if not first.fresh or first.record is None:
                roster.hear()
                return first.run, False
            if alone:
                more = False
            else:
                live.fold(first.record)
                more = self._took(live, parts, replies[1:])
        if more:
            self._go_on(live)
        await self._supersede(live, first.record.seq)
        return run, True

    async def _supersede(self, live: Live, started: int) -> None:
        """A newer run of a group may put an end to those before it."""
        concurrency = live.definition.concurrency
        if live.group is None or concurrency is None or not concurrency.cancel:
            return
        for other in self.roster.rows.ahead(live.name, live.group, started):
            try:
                await self.cancel(other, "superseded", "")
            except CountermarkError as error:  # it is over by now; whatever it is, the newer one has begun
                log.warning("the run %s is not superseded: %s", other, error)

    async def cancel(self, run: str, reason: str, person: str) -> None:
        """From here on nothing begins in it but what is meant for that. Raises ``CountermarkError``: it is over."""
        live, row = self.roster.live.get(run), self.roster.rows.row(run)
        if live is None and row is None:
            what = "no such run of a definition" if self.roster.rows.over(run) is None else "the run is over"
            raise ArgumentError(what, field="run", code="unknown_run", hint=ELSEWHERE)
        agent = live.agent if live is not None else row.agent if row is not None else ""
        body = {"run": run, "agent": agent, "reason": reason, "person": person}
        release = await self.roster.hold(run)
        try:
            replies = await self._desk.advance(run, [Note("run.cancelled", body)])
        finally:
            release()
        if replies[0].error is not None:
            raise replies[0].error

    async def migrate(self, run: str, to: str, order: Mapping[str, Any]) -> None:
        """Go on by another definition, as a person's ``order`` says: ``from, reason, person, key, sig``.

        What the run did must be what the other definition would have had it do. Raises ``ArgumentError``
        (``cannot_migrate``, ``unknown_definition``, ``unknown_run``), and what the gate refuses the order for.
        """
        roster = self.roster
        live, parked = roster.held(run)
        try:
            async with live.lock:
                if roster.live.get(run) is not live:
                    raise ArgumentError("the run is over", field="run", code="unknown_run")
                new = roster.definition(to)
                why = roster.unfit(live, new, order)
                if why is not None:
                    raise ArgumentError(
                        f"the run cannot go on by this definition: {why}", field="to", code="cannot_migrate",
                        hint="Let it end as it is, or cancel it and start another one.",
                    )  # fmt: skip
                body = {"run": run, "agent": live.agent, "to": to, **order}
                replies = await self._desk.advance(run, [Note("run.migrated", body, f"person:{order['person']}")])
                if replies[0].error is not None or replies[0].record is None:
                    raise replies[0].error or ArgumentError("the run is over", field="run", code="unknown_run")
                roster.fold_anew(live, sorted({*live.seqs, replies[0].record.seq}))
        finally:
            if parked and roster.live.get(run) is live and not live.machine.ended:
                roster.park(live, 0)
                roster.enqueue(run)
                self._loop.call_soon(roster.pump)
            else:
                self._go_on(live)

    async def settled(self, run: str) -> dict[str, Any]:
        """Wait until the run waits or is over: ``{"run","status","until","outputs"}``."""
        roster = self.roster
        row = None if run in roster.live else roster.rows.row(run)
        if row is not None and row.due is not None and row.due <= self._desk.now_us():
            roster.enqueue(run)
            roster.pump()
        live = roster.live.get(run)
        if live is None:
            return roster.shown(run)
        waiter: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        live.waiters.append(waiter)
        return await waiter

    async def define(self, definition: Definition) -> bool:
        """Record a definition before its first run, so that others may call it; whether it is new here.

        Raises ``CountermarkError``: it calls one that was not recorded, or its calls reach too far.
        """
        self.roster.reach(definition)
        note = Note("workflow.defined", {"digest": definition.digest, "document": dict(definition.document)})
        replies = await self._desk.advance("", [note])
        if replies[0].error is not None:
            raise replies[0].error
        self.roster.keep(definition)
        return replies[0].fresh

    # --- driving

    async def _turn(self, live: Live) -> None:
        """Plan and record until nothing more follows; then leave the run to its effects, or to its row."""
        try:
            async with live.lock:
                for _ in range(TURNS_MAX):
                    if self.roster.live.get(live.run) is not live or live.retry_at:
                        return
                    live.machine.plan_anew()
                    parts = await self._plan(live)
                    if not parts:
                        break
                    plan = [part for _, part in parts]
                    self._took(live, parts, await self._desk.advance(live.run, plan, live.machine.edge))
                    if live.broken:  # whoever waits to cancel the run comes first
                        self._go_on(live)
                        return
                live.patience_us, live.fault = RETRY_US, ""
                self._rest(live)
        except Exception as error:
            self._failed(live, error)

    def _failed(self, live: Live, error: Exception) -> None:
        """A run cannot go on now; others do. A fault that is no refusal is one of this program's: it is shown whole."""
        live.let_go()
        trace = None if isinstance(error, CountermarkError) else error
        log.warning("the run %s waits: %s", live.run, error, exc_info=trace)
        self._again(live, error)

    def _again(self, live: Live, error: Exception | None) -> None:
        """Something went otherwise than planned: look at the records, a little later."""
        live.fault = "" if error is None else str(error)
        live.broken, live.retry_at = True, self._desk.now_us() + live.patience_us
        live.patience_us = min(2 * live.patience_us, RETRY_US_MAX)

    async def _plan(self, live: Live) -> list[Planned]:
        """What its machine wants now, as parts of one commit; pure steps run meanwhile."""
        if live.broken:
            self.roster.hear()
            self.roster.fold_anew(live, live.seqs)
            live.machine.plan_anew()
        live.parts, live.due = [], 0
        now = self._desk.now_us()
        for _ in range(TURNS_MAX):
            live.machine.time(now)
            commands = live.wanted()
            computes = [one for one in commands if isinstance(one, Compute)]
            if computes:
                if any(isinstance(one, Wait | Call | Delegate) for one, _ in live.parts):
                    break  # their times count from now: they do not wait for code
                await self._compute(live, computes, now)
                if self._desk.now_us() - now > SLOW_US:
                    live.broken = True  # what follows is planned from the time that the records will have
                    break
            elif not [more for one in commands if (more := await self._command(live, one, now))] or live.holds:
                break
        crash_point("workflow.planned")
        parts, live.parts = live.parts, []
        return parts

    async def _compute(self, live: Live, commands: Sequence[Compute], now: int) -> None:
        futures = [self._arrivals.of(self._workers.submit(one.code, one.inputs)) for one in commands]
        for command, future in zip(commands, futures, strict=True):
            ran = await future
            ok = ran.status == "ok"
            body = {
                "run": live.run, "agent": live.agent, "place": command.place, "attempt": command.attempt,
                "engine": self._language, "code": code_digest(command.code),
                "input": input_digest(command.inputs), "status": ran.status,
                "output": ran.output if ok else None, "result": digest_of(VALUE, ran.output) if ok else None,
                "message": ran.message, "ticks": ran.ticks, "limits": self._limits,
            }  # fmt: skip
            live.note(command, "compute.executed", body, now)

    async def _command(self, live: Live, command: Any, now: int) -> bool:
        """Plan one command; whether the machine has more to say after it."""
        of = {"run": live.run, "agent": live.agent}
        if isinstance(command, Act):
            live.issued.add(command.call_id)
            asked = await self._desk.asked(
                live.agent, live.run, command.call_id, command.tool, command.args, command.because
            )
            live.parts.append((command, asked))
            return False
        if isinstance(command, Sleep):
            live.due = command.until
            return False
        if isinstance(command, End):
            outcome = {"name": live.name, "status": command.status, "outputs": dict(command.outputs),
                       "undone": list(command.undone), "left": list(command.left)}  # fmt: skip
            live.note(command, "run.ended", {**of, "reason": "", "workflow": outcome}, now, f"agent:{live.agent}")
            return False
        if isinstance(command, Cancel):
            live.note(command, "run.cancelled", {**of, "reason": command.reason, "person": ""}, now)
        elif isinstance(command, Withdraw):
            live.note(command, "escalation.expired", self.roster.withdrawn(live, command.action), now)
        elif isinstance(command, Resume):
            if any(isinstance(one, Start) and live.children.get(one.run) == command.place for _, one in live.parts):
                return False  # what begins in this commit is ended in another one
            await self._end_child(live, command)
            live.note(command, "step.resumed", live.resumed(command), now)
        else:
            try:
                self._wait(live, command, now)
            except (ArgumentError, ExpressionError) as error:
                if error.code == "unknown_definition":
                    raise
                log.warning("the run %s begins nothing at %s: %s", live.run, command.place, error)
                return await self._command(live, unfit(command.place), now)
        return True

    def _wait(self, live: Live, command: Wait | Call | Delegate, now: int) -> None:
        """A step begins to wait; the run that it waits for begins in the same commit."""
        until = None if command.timeout_s is None else now + command.timeout_s * US
        run = new_run(self._random)
        if isinstance(command, Wait):
            what = dict(command.for_)
            if what["kind"] == "event" and what["source"] not in self._sources:
                raise ArgumentError("no such source of events", field="source", code="unknown_source")
        elif isinstance(command, Call):
            what = {"kind": "call", "run": run}
            live.parts.append((command, self._child_of(live, run, command)))
        else:
            run = "run_0" + run[5:]  # an agent's own run, though inside this one
            what = {"kind": "agent", "run": run}
            boundary = {**command.boundary, "parent": live.run, "place": command.place, "until": until}
            nobody = Note("step.resumed", live.resumed(unfit(command.place)))
            live.parts.append((command, Start(run, command.agent, boundary=boundary, nobody=nobody)))
        body = {"run": live.run, "agent": live.agent, "place": command.place, "for": what, "until": until}
        live.note(command, "step.waiting", body, now)
        live.machine.only_before(now + HOLDS_US)
        if what["kind"] == "event" and live.started >= 0:  # else nothing happened since it began
            self.roster.look(live, command.place)

    def _child_of(self, live: Live, run: str, command: Call) -> Start:
        """The run that a call begins. Raises ``ArgumentError``, ``ExpressionError``: it can be none."""
        called, parent = self.roster.definition(command.definition), {"run": live.run, "place": command.place}
        trigger = {"kind": "call", "event": "", "record": None}
        start = start_of(called, run, live.agent, None, command.inputs, trigger, parent)
        self.roster.group_of(called, (start.workflow or {})["inputs"])
        return start

    async def _end_child(self, live: Live, command: Resume) -> None:
        """What a step waited for does nothing more, once it is not waited for any more."""
        if command.code not in ("timeout", "cancelled"):
            return
        for child, place in list(live.children.items()):  # more may come meanwhile
            if place != command.place:
                continue
            if child.startswith(RUN_MARK):
                live.holds.append(await self.roster.hold(child))
                body = {"run": child, "agent": live.agent, "reason": "parent", "person": ""}
                live.parts.append((None, Note("run.cancelled", body)))
            else:
                agent = str(self.roster.agent_of(live, place))
                reason = "time" if command.code == "timeout" else "cancelled"
                note = Note("run.ended", {"run": child, "agent": agent, "reason": reason}, f"agent:{agent}")
                live.parts.append((None, note))

    def _took(self, live: Live, parts: Sequence[Planned], replies: Sequence[Reply]) -> bool:
        """What the lane made of a plan; whether something may follow before anything else is recorded."""
        held = live.let_go()
        live.broken = live.broken or plan_of(live.definition).timed  # times of jobs count from when they are recorded
        for (command, part), reply in zip(parts, replies, strict=False):
            if isinstance(part, Asked):
                self._asked(live, command, reply)
            elif reply.stale:
                live.broken = True
            elif reply.error is not None:
                log.warning("a record of the run %s was refused: %s", live.run, reply.error)
                self._again(live, reply.error)
            elif not reply.fresh and isinstance(part, Start) and part.boundary is not None and reply.record is not None:
                live.fold(reply.record)  # nobody begins: the plan ends here, and is made anew
        for command, part in parts[len(replies) :]:
            if isinstance(part, Asked):
                live.issued.discard(command.call_id)
            else:
                live.broken = True
        begun = all(reply.intent is not None for (_, part), reply in zip(parts, replies, strict=False)
                    if isinstance(part, Asked))  # fmt: skip
        complete = len(parts) == len(replies) and begun and not live.broken
        return held or not (complete and (live.tasks or live.machine.ended))

    def _asked(self, live: Live, command: Act, reply: Reply) -> None:
        if reply.stale or reply.error is not None:
            live.issued.discard(command.call_id)
            if reply.error is not None:
                live.retry_at, live.fault = self._desk.now_us() + RETRY_US, str(reply.error)
            return
        if reply.record is not None:
            live.fold(reply.record)
        if reply.intent is not None:
            live.tasks += 1
            self._desk.spawn(self._perform(live, reply))

    async def _perform(self, live: Live, reply: Reply) -> None:
        """Execute an effect; what follows from its outcome stands in the same commit, if it is planned soon enough."""
        planned: list[Planned] = []
        following: Following | None = None
        more = True

        async def then(body: Mapping[str, Any]) -> Following | None:
            nonlocal planned, following
            try:
                async with asyncio.timeout(FOLLOW_S):
                    await live.lock.acquire()
                    following = Following(live.run)
                    live.machine.plan_anew()
                    live.expect("action.settled", body, self._desk.now_us())
                    planned = await self._plan(live)
            except TimeoutError:
                if following is None:  # whoever plans for the run now goes on, with what it holds
                    return None
                live.let_go()
                live.broken = True
            except Exception as error:  # what happened is recorded, whether what follows can be planned or not
                self._failed(live, error)
            if following is None:
                return None
            following.parts, following.edge = [part for _, part in planned], live.machine.edge
            crash_point("workflow.following")
            return following

        try:
            record = await self._desk.perform(reply, then)
            if record is not None:
                live.fold(record)
        except Exception as error:
            self._failed(live, error)
        finally:
            live.tasks -= 1
            if following is not None:
                if following.replies is None:
                    live.broken = True
                else:
                    more = self._took(live, planned, following.replies)
                live.lock.release()
        if more:
            await self._turn(live)

    def _rest(self, live: Live) -> None:
        """With nothing under way and nothing to do, a run becomes a row."""
        if live.tasks or live.retry_at or live.broken or live.machine.ended or live.started < 0:
            return
        self.roster.park(live, live.due or None)
        self._loop.call_soon(self.roster.pump)
