"""What a run wants next, gathered as the parts of one commit: pure steps are run here, nothing is recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from countermark.compute import code_digest, input_digest
from countermark.model.clock import US
from countermark.model.crash import crash_point
from countermark.model.digest import VALUE, digest_of
from countermark.model.driving import Desk, Note, Start, new_run
from countermark.model.errors import ArgumentError
from countermark.model.random import RandomPool
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
from countermark.workflow.ending import Ending
from countermark.workflow.errors import ExpressionError
from countermark.workflow.inputs import start_of
from countermark.workflow.live import Live, Planned
from countermark.workflow.roster import Roster

TURNS_MAX = 1_000  # of planning without a pause, which no definition needs
SLOW_US = 1 * US  # code that took longer is recorded before anything is planned from the time
HOLDS_US = 8 * US  # a wait is recorded so soon after the time that it counts from, or planned anew

log = logging.getLogger("countermark.workflow")


class Planner:
    """Used on the gate's loop, with the lock of the run. ``language`` and ``limits`` are what pure steps run by."""

    def __init__(
        self, desk: Desk, loop: asyncio.AbstractEventLoop, roster: Roster, workers: Workers, language: str,
        limits: Mapping[str, int], sources: Collection[str], ending: Ending,
    ) -> None:  # fmt: skip
        self._desk = desk
        self._roster = roster
        self._ending = ending
        self._workers = workers
        self._arrivals = Arrivals(loop)
        self._language = language
        self._limits = dict(limits)
        self._sources = sources
        self._random = RandomPool()

    def close(self) -> None:
        """Let go of the workers. From any thread."""
        self._workers.close()

    async def plan(self, live: Live) -> list[Planned]:
        """What its machine wants now, as parts of one commit; pure steps run meanwhile."""
        if live.broken:
            self._roster.hear()
            self._roster.folder.fold_anew(live, live.seqs)
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
            elif any(isinstance(one, Cancel | Withdraw) for one in commands):
                break  # what people have answered by then is left out: nothing may be planned behind it
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
            await self._ending.cancel(live, command.reason, "", now, command)
        elif isinstance(command, Withdraw):
            self._ending.withdraw(live, command, now)
        elif isinstance(command, Resume):
            if command.code in ("timeout", "cancelled") and not await self._ending.child(live, command, now):
                return False
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
            self._roster.folder.look(live, command.place)

    def _child_of(self, live: Live, run: str, command: Call) -> Start:
        """The run that a call begins. Raises ``ArgumentError``, ``ExpressionError``: it can be none."""
        called = self._roster.registry.definition(command.definition)
        parent = {"run": live.run, "place": command.place}
        trigger = {"kind": "call", "event": "", "record": None}
        start = start_of(called, run, live.agent, None, command.inputs, trigger, parent)
        self._roster.registry.group_of(called, (start.workflow or {})["inputs"])
        return start
