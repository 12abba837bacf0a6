"""Drives a run: plans, has the plan recorded as one commit, performs its effects, until the run waits or is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from countermark.model.crash import crash_point
from countermark.model.driving import Asked, Desk, Following, Note, Reply, Start
from countermark.model.errors import CountermarkError
from countermark.workflow.commands import Act
from countermark.workflow.live import RETRY_US, RETRY_US_MAX, Live, Planned
from countermark.workflow.plan import plan_of
from countermark.workflow.planning import TURNS_MAX, Planner
from countermark.workflow.roster import Roster

FOLLOW_S = 1.0  # an outcome waits no longer to be recorded together with what follows from it

log = logging.getLogger("countermark.workflow")


class Driving:
    """Used on the gate's loop. Whoever plans for a run holds its lock until the lane has answered."""

    def __init__(self, desk: Desk, loop: asyncio.AbstractEventLoop, roster: Roster, planner: Planner) -> None:
        self._desk = desk
        self._loop = loop
        self._roster = roster
        self._planner = planner

    def go_on(self, live: Live) -> None:
        """Something happened to a run in memory: plan for it, as soon as nobody else does."""
        self._desk.spawn(self._turn(live))

    async def _turn(self, live: Live) -> None:
        """Plan and record until nothing more follows; then leave the run to its effects, or to its row."""
        try:
            async with live.lock:
                for _ in range(TURNS_MAX):
                    if self._roster.live.get(live.run) is not live or live.retry_at:
                        return
                    live.machine.plan_anew()
                    parts = await self._planner.plan(live)
                    if not parts:
                        break
                    plan = [part for _, part in parts]
                    self.took(live, parts, await self._desk.advance(live.run, plan, live.machine.edge))
                    if live.broken:  # whoever waits to cancel the run comes first
                        self.go_on(live)
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
        self.again(live, error)

    def again(self, live: Live, error: Exception | None) -> None:
        """Something went otherwise than planned: look at the records, a little later."""
        live.fault = "" if error is None else str(error)
        live.broken, live.retry_at = True, self._desk.now_us() + live.patience_us
        live.patience_us = min(2 * live.patience_us, RETRY_US_MAX)

    def took(self, live: Live, parts: Sequence[Planned], replies: Sequence[Reply]) -> bool:
        """What the lane made of a plan; whether something may follow before anything else is recorded."""
        held = live.let_go()
        live.broken = live.broken or plan_of(live.definition).timed  # times of jobs count from when they are recorded
        for (command, part), reply in zip(parts, replies, strict=False):
            if isinstance(part, Asked):
                self._asked(live, command, reply)
            elif reply.stale or (reply.error is not None and isinstance(part, Note) and part.optional):
                live.broken = True
            elif reply.error is not None:
                log.warning("a record of the run %s was refused: %s", live.run, reply.error)
                self.again(live, reply.error)
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
                    planned = await self._planner.plan(live)
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
                    more = self.took(live, planned, following.replies)
                live.lock.release()
        if more:
            await self._turn(live)

    def _rest(self, live: Live) -> None:
        """With nothing under way and nothing to do, a run becomes a row."""
        if live.tasks or live.retry_at or live.broken or live.machine.ended or live.started < 0:
            return
        self._roster.park(live, live.due or None)
        self._loop.call_soon(self._roster.pump)
