"""Starts the runs that time and events ask for, each once, in the process that owns the gate.

A run begins with a record that takes its event's name, so whoever asks twice finds the run that there is: after a stop
at any place, what was not started is asked for again. What cannot be started now is tried again until it can be.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from countermark.model.clock import US
from countermark.model.crash import crash_point
from countermark.model.errors import ArgumentError, CountermarkError, StoreError
from countermark.model.ports import Clock, Store
from countermark.model.records import Record
from countermark.workflow.definition import Definition
from countermark.workflow.errors import ExpressionError
from countermark.workflow.inputs import check_inputs
from countermark.workflow.standing import Since, Standing
from countermark.workflow.triggers import (
    Planned,
    Schedule,
    Start,
    Unstarted,
    read_schedule_event,
    schedules_of,
    starts_of,
)

TICK_S = 1.0
RETRY_US, RETRY_US_MAX = 1 * US, 60 * US
PENDING_MAX = 10_000  # runs that wait to be started; beyond, events wait in the journal
BEGUN_MAX = 64  # runs that begin at once
SAVE_US = 5 * US
_MARK = b'"event.received"'

log = logging.getLogger("countermark.workflow")


class Begins(Protocol):
    """The engine, as far as it is needed here."""

    async def begin(
        self, definition: Definition, agent: str, inputs: Mapping[str, Any], trigger: Mapping[str, Any],
        mandate: str | None = None,
    ) -> tuple[str, bool]: ...  # fmt: skip


@dataclass(frozen=True, slots=True)
class Moment:
    """The gate's own time, and the agents that may not act now; ``closed``: nobody may."""

    now_us: int
    closed: bool
    stopped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Runs:
    """A definition whose triggers start runs, and the agent in whose name."""

    definition: Definition
    agent: str


@dataclass(slots=True)
class _Job:
    """A run to start, when ``retry_at`` has come; ``runs`` as whom and by which definition."""

    start: Start
    runs: Runs
    retry_at: int = 0
    wait_us: int = RETRY_US
    fault: str = ""


@dataclass(slots=True)
class _Timed:
    """A schedule of a definition in force: the runs that are due, and up to when it is handled after them."""

    schedule: Schedule
    runs: Runs
    since: Since
    jobs: list[_Job] = field(default_factory=list)
    upto: int | None = None
    retry_at: int = 0
    wait_us: int = RETRY_US

    @property
    def after(self) -> int:
        """Nominal times up to this one are handled."""
        return max(self.since.handled, self.since.at)

    def handled(self, upto: int) -> None:
        self.since.handled = max(self.since.handled, upto)


class Scheduler:
    """Used on the gate's loop, but for ``heard``."""

    def __init__(
        self, engine: Begins, store: Store, standing: Standing, clock: Clock, loop: asyncio.AbstractEventLoop,
        moment: Callable[[], Awaitable[Moment]], count: Callable[[str], None] = lambda what: None,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._store = store
        self._standing = standing
        self._clock = clock
        self._loop = loop
        self._moment = moment
        self._count = count
        self._runs: dict[str, Runs] = {}
        self._timed: list[_Timed] = []
        self._next_us: int | None = None  # when a schedule is due next
        self._events: deque[tuple[int, Mapping[str, Any]]] = deque()
        self._jobs: dict[tuple[int, str], _Job] = {}  # of events, by seq and name
        self._busy: set[int] = set()  # ids of jobs that begin now
        self._tasks: set[asyncio.Task[None]] = set()
        self._more = asyncio.Event()
        self._past = 0  # what the records before it ask for is started, or among the jobs
        self._told = 0  # on the lane's thread: all records before it were told
        self._looked = 0  # records before it were read, told or not
        self._saved_at = 0

    # --- life

    def load(self, runs: Iterable[Runs]) -> None:
        """These definitions' triggers are in force from now on. Raises ``StoreError``."""
        self._runs = {one.definition.name: one for one in runs}
        size = self._told = self._store.size()
        self._standing.load(size)
        self._standing.put((one.definition.document for one in self._runs.values()), size, self._clock.now_us())
        self._standing.save()
        self._timed = [
            _Timed(schedule, one, self._standing.force[schedule.name][schedule.what])
            for one in self._runs.values()
            for schedule in schedules_of(one.definition.document)
        ]
        self._plan_next()
        self._past = self._standing.heard
        self._read(self._past, size)

    def _read(self, start: int, stop: int) -> None:
        for seq, raw in self._store.raw(start, stop):
            if _MARK in raw and (record := self._store.record(seq)).kind == "event.received":
                self._events.append((seq, record.body))

    async def run(self) -> None:
        """Start what is due, again and again."""
        while True:
            try:
                await self.turn()
            except Exception as error:  # the next turn may find it mended; without turns nothing would ever start
                log.warning("triggers: %s", error, exc_info=not isinstance(error, CountermarkError))
            try:
                await asyncio.wait_for(self._more.wait(), TICK_S)
            except TimeoutError:
                pass
            self._more.clear()

    def heard(self, records: Sequence[Record]) -> None:
        """Durable records, in their order, on the lane's thread. After a halt some may have gone by unheard."""
        missed, self._told = self._told, records[-1].seq + 1
        found = [(one.seq, one.body) for one in records if one.kind == "event.received"]
        if found or missed < records[0].seq:
            try:
                self._loop.call_soon_threadsafe(self._take, missed, records[0].seq, found)
            except RuntimeError:  # the loop has closed: the next start reads them
                log.debug("%d events were not heard", len(found))

    def close(self) -> None:
        """When the loop has ended: remember how far it is."""
        self._save(0)

    def _take(self, missed: int, first: int, found: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        if missed < first:
            self._read(missed, first)
        self._events.extend(one for one in found if one[0] >= missed)
        self._more.set()

    def _save(self, told: int) -> None:
        """Remember how far it is; what was told before ``told`` has come by here."""
        if not self._events:
            self._past = max(self._past, told)
        self._standing.heard = min((seq for seq, _ in self._jobs), default=self._past)
        try:
            self._standing.save()
        except StoreError as error:
            log.warning("triggers: %s", error)

    # --- what is to be started

    async def turn(self) -> None:
        """Look at events and schedules once, and let begin what may."""
        now, size, told = self._clock.now_us(), self._store.size(), max(self._told, self._looked)
        if told < size:  # not told yet, or, after a halt, perhaps never
            self._read(told, size)
            self._looked = size
        waits = self._events or self._jobs or any(one.jobs for one in self._timed)
        if waits or (self._next_us is not None and self._next_us <= now):
            moment = await self._moment()
            self._of_events()
            for one in self._timed:
                self._of_schedule(one, moment)
            self._plan_next()
            for place, job in list(self._jobs.items()):
                self._try(job, moment, lambda place=place: self._jobs.pop(place))  # type: ignore[misc]
        if not 0 <= now - self._saved_at < SAVE_US:
            self._saved_at = now
            self._loop.call_soon(self._save, self._told)  # behind everything that was told before

    async def settle(self) -> None:
        """Turn until nothing is left that can begin now."""
        await self.turn()
        while self._tasks:
            await asyncio.gather(*self._tasks)
            await self.turn()

    def _of_events(self) -> None:
        while self._events and len(self._jobs) < PENDING_MAX:
            seq, body = self._events.popleft()
            force = [one.definition.document for name, one in self._runs.items() if self._in_force(name, seq, body)]
            for found in starts_of(force, seq, body):
                if isinstance(found, Unstarted):
                    self._unstarted(found)
                else:
                    self._jobs[(seq, found.name)] = _Job(found, self._runs[found.name])
            self._past = seq + 1

    def _in_force(self, name: str, seq: int, body: Mapping[str, Any]) -> bool:
        since = self._standing.force[name].get((body["source"], ""))
        return since is not None and since.records <= seq

    def _of_schedule(self, timed: _Timed, moment: Moment) -> None:
        """Plan a schedule that is due, and begin with the first of what was planned."""
        if any(id(job) in self._busy for job in timed.jobs):
            return
        if moment.closed or timed.runs.agent in moment.stopped or _waits(timed.retry_at, self._clock.now_us()):
            timed.jobs = []  # planned anew when it may begin: what is too late by then is passed over
            return
        if not timed.jobs:
            planned = timed.schedule.plan(timed.after, moment.now_us)
            if planned.upto is None:
                return
            timed.upto = planned.upto
            timed.jobs = [_Job(one, timed.runs) for one in self._good(planned)]
            if planned.left:
                self._count("left")
                log.warning("%s: %d nominal times were passed over", timed.schedule.name, planned.left)
        if timed.jobs:
            self._try(timed.jobs[0], moment, lambda: self._next_of(timed))
        elif timed.upto is not None:
            timed.handled(timed.upto)

    def _next_of(self, timed: _Timed) -> None:
        job = timed.jobs.pop(0)
        found = read_schedule_event(job.start.event)
        if found is not None:
            timed.handled(found[0])
        timed.wait_us = RETRY_US
        if not timed.jobs and timed.upto is not None:
            timed.handled(timed.upto)
        self._plan_next()

    def _good(self, planned: Planned) -> list[Start]:
        for one in planned.starts:
            if isinstance(one, Unstarted):
                self._unstarted(one)
        return [one for one in planned.starts if isinstance(one, Start)]

    def _plan_next(self) -> None:
        times = [one.schedule.next_us(one.after) for one in self._timed]
        self._next_us = min((time for time in times if time is not None), default=None)

    def _unstarted(self, one: Unstarted) -> None:
        self._count("unstarted")
        log.warning("%s is not started by %s %s: %s", one.name, one.kind, one.event, one.message)

    # --- starting

    def _try(self, job: _Job, moment: Moment, done: Callable[[], Any]) -> None:
        now = self._clock.now_us()
        stopped = moment.closed or job.runs.agent in moment.stopped
        if stopped or id(job) in self._busy or len(self._busy) >= BEGUN_MAX or _waits(job.retry_at, now):
            return
        job.retry_at = now + job.wait_us
        self._busy.add(id(job))
        task = self._loop.create_task(self._started(job, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _started(self, job: _Job, done: Callable[[], Any]) -> None:
        start, definition = job.start, job.runs.definition
        trigger = {"kind": start.kind, "event": start.event, "record": start.record}
        crash_point("trigger.starting")
        try:
            check_inputs(definition, start.given)
        except ArgumentError as error:
            self._never(job, error, done)
            return
        try:
            _, fresh = await self._engine.begin(definition, job.runs.agent, start.given, trigger)
            crash_point("trigger.started")
            self._count("started" if fresh else "found")
            done()
        except ExpressionError as error:  # its group cannot be told
            self._never(job, error, done)
        except CountermarkError as error:
            if error.code != job.fault:
                log.warning("%s cannot be started by %s %s now: %s", start.name, start.kind, start.event, error)
            self._count("failed")
            job.fault, job.wait_us = error.code, min(2 * job.wait_us, RETRY_US_MAX)
            self._delay(job)
        finally:
            self._busy.discard(id(job))
            self._more.set()

    def _never(self, job: _Job, error: CountermarkError, done: Callable[[], Any]) -> None:
        """It does not fit what the definition takes, and never will."""
        start = job.start
        self._unstarted(Unstarted(start.name, start.kind, start.event, start.record, error.code, error.message))
        self._busy.discard(id(job))
        done()

    def _delay(self, job: _Job) -> None:
        """A schedule's run could not begin: the schedule is planned anew, later."""
        for timed in self._timed:
            if any(one is job for one in timed.jobs):
                timed.jobs, timed.retry_at = [], self._clock.now_us() + timed.wait_us
                timed.wait_us = min(2 * timed.wait_us, RETRY_US_MAX)


def _waits(until: int, now: int) -> bool:
    """Whether a time is still to come; one that lies too far ahead is of a clock that was set back."""
    return now < until <= now + RETRY_US_MAX
