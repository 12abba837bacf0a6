"""Drives runs of definitions in the process that owns the gate.

Whoever plans for a run gathers what its machine wants, pure steps included, and hands it to the lane as one commit; the
outcome of an effect and what follows from it are one commit too. A run that waits is a row (``roster.py``). What is in
memory is only what the records say: when something was recorded otherwise than expected, the run is folded anew.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from countermark.model.driving import Desk, Note, Part, Start, new_run
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.ports import Store
from countermark.model.random import RandomPool
from countermark.model.records import Record
from countermark.workflow.arrivals import Workers
from countermark.workflow.definition import Definition
from countermark.workflow.driving import Driving
from countermark.workflow.ending import SUPERSEDED, Ending
from countermark.workflow.inputs import start_of
from countermark.workflow.live import Live
from countermark.workflow.planning import Planner
from countermark.workflow.projection import Projection
from countermark.workflow.roster import LIVE_MAX, Roster, concerns
from countermark.workflow.sealing import Seals

TICK_S = 0.25

log = logging.getLogger("countermark.workflow")


class Engine:
    """One for each gate that drives workflows. All methods run on the gate's loop unless they say otherwise."""

    def __init__(
        self, desk: Desk, loop: asyncio.AbstractEventLoop, store: Store, rows: Projection, workers: Workers,
        language: str, limits: Mapping[str, int], seals: Seals, sources: Collection[str],
    ) -> None:  # fmt: skip
        self._desk = desk
        self._loop = loop
        self._random = RandomPool()
        self._groups: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self.roster = Roster(store, rows, lambda live: self._driving.go_on(live), seals)
        self._ending = Ending(self.roster)
        self._planner = Planner(desk, loop, self.roster, workers, language, limits, sources, self._ending)
        self._driving = Driving(desk, loop, self.roster, self._planner)

    # --- life

    async def start(self) -> None:
        """Catch up with the journal, then go on with every run that is open."""
        self.roster.catch_up()
        self._desk.follow(self._heard)  # what is recorded between the two is missed, and so read
        self._desk.spawn(self._tick())
        self.roster.pump()

    def close(self) -> None:
        """Let go of rows and workers when the gate's loop has ended. From any thread."""
        self._planner.close()
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
        roster.registry.reach(definition)
        start = start_of(definition, run, agent, mandate, inputs, trigger, None)
        roster.registry.keep(definition)
        workflow = start.workflow or {}
        live = Live(run, agent, definition, roster.registry.group_of(definition, workflow["inputs"]))
        body = {"run": run, "agent": agent, "mandate": "", "purpose": start.purpose,
                "workflow": {**workflow, "bundle": ""}}  # fmt: skip
        live.begin(definition, body, self._desk.now_us(), roster.folder.event_of(trigger["record"]))
        if live.group is not None or len(roster.live) >= LIVE_MAX:
            return await self._begin_row(live, start)
        async with live.lock:
            parts = await self._planner.plan(live)
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
                    self._driving.again(live, None)
                elif not recorded:
                    roster.live.pop(run, None)
            first = replies[0]
            if not first.fresh or first.record is None:
                roster.hear()
                return first.run, False
            live.fold(first.record)
            more = self._driving.took(live, parts, replies[1:])
        if more:
            self._driving.go_on(live)
        return run, True

    async def _begin_row(self, live: Live, start: Start) -> tuple[str, bool]:
        """Start a run that is driven when its turn comes; those before it that it supersedes end in the same commit."""
        async with self._superseding(live) as ended:
            replies = await self._desk.advance(live.run, [start, *ended])
        if replies[0].error is not None:
            raise replies[0].error
        for reply in replies[1:]:
            if reply.error is not None:  # it is over by now; whatever it is, the newer one has begun
                log.warning("the run %s does not supersede all before it: %s", live.run, reply.error)
        if not replies[0].fresh:
            self.roster.hear()
        return replies[0].run, replies[0].fresh

    @asynccontextmanager
    async def _superseding(self, live: Live) -> AsyncIterator[list[Part]]:
        """The parts that end the runs of its group; meanwhile nobody plans for them, or begins another one."""
        concurrency = live.definition.concurrency
        if live.group is None or concurrency is None or not concurrency.cancel:
            yield []
            return
        lock = self._groups.setdefault((live.name, live.group), asyncio.Lock())
        async with lock, AsyncExitStack() as held:
            self.roster.hear()
            parts: list[Part] = []
            for run in self.roster.rows.ahead(live.name, live.group, sys.maxsize):
                try:
                    ended, release = await self._ending.of(run, SUPERSEDED, "", self._desk.now_us())
                except ArgumentError:  # it is over by now
                    continue
                held.callback(release)
                parts += ended
            yield parts

    async def cancel(self, run: str, reason: str, person: str) -> None:
        """From here on nothing begins in it but what is meant for that. Raises ``CountermarkError``: it is over."""
        parts, release = await self._ending.of(run, reason, person, self._desk.now_us())
        try:
            replies = await self._desk.advance(run, parts)
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
                new = roster.registry.definition(to)
                why = roster.folder.unfit(live, new, order)
                if why is not None:
                    raise ArgumentError(
                        f"the run cannot go on by this definition: {why}", field="to", code="cannot_migrate",
                        hint="Let it end as it is, or cancel it and start another one.",
                    )  # fmt: skip
                body = {"run": run, "agent": live.agent, "to": to, **order}
                replies = await self._desk.advance(run, [Note("run.migrated", body, f"person:{order['person']}")])
                if replies[0].error is not None or replies[0].record is None:
                    raise replies[0].error or ArgumentError("the run is over", field="run", code="unknown_run")
                roster.folder.fold_anew(live, sorted({*live.seqs, replies[0].record.seq}))
        finally:
            if parked and roster.live.get(run) is live and not live.machine.ended:
                roster.park(live, 0)
                roster.enqueue(run)
                self._loop.call_soon(roster.pump)
            else:
                self._driving.go_on(live)

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
        self.roster.registry.reach(definition)
        note = Note("workflow.defined", {"digest": definition.digest, "document": dict(definition.document)})
        replies = await self._desk.advance("", [note])
        if replies[0].error is not None:
            raise replies[0].error
        self.roster.registry.keep(definition)
        return replies[0].fresh
