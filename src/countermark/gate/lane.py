"""The lane: one thread decides and commits. It owns order, state, budgets and the write connection; no locks.

A cycle: drain the inbox (what queued during the last fsync), handle message by message without a yield, commit once,
then answer everybody. Stops come first, then people's orders, then the rest. A message that fails before it added
anything fails alone; a commit failure or an exception after a record was added halts the lane: every waiting caller
gets ``gate_halted``, memory is discarded, and the journal on disk says what is true.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Any

from countermark.gate.dispatch import Dispatch
from countermark.gate.writer import Writer
from countermark.model.crash import crash_point
from countermark.model.errors import CountermarkError, GateBusyError, GateHaltedError, StoreError
from countermark.model.ports import Clock, Head
from countermark.model.records import Record
from countermark.policy import is_stale

INBOX_MESSAGES_MAX = 4_096
BATCH_MESSAGES_MAX = 256
BATCH_ORDERS_MAX = 32  # whoever floods the gate with orders must not keep outcomes from being recorded
BATCH_BYTES_MAX = 1 << 20
BATCH_US_MAX = 20_000
CLOCK_DRIFT_US_MAX = 2_000_000
CLOCK_SLEW_PARTS = 2_000  # 500 parts per million: the most that an NTP daemon slews, which is no jump

log = logging.getLogger("countermark.lane")

Handler = Callable[[Writer], Any]
Message = tuple[Handler, asyncio.Future[Any], Sequence[str]]


class Rank(IntEnum):
    """Who is heard first: a stop, what people order, everybody else. Each has a queue, and its bound, of its own."""

    STOP = 0
    ORDER = 1
    REST = 2


@dataclass(slots=True)
class AfterCommit:
    """A reply that is computed only once the batch is durable and published."""

    make: Callable[[list[dict[str, Any]]], Any]


class Lane:
    """Runs a ``Writer`` on its own thread. ``open_writer`` builds one from disk, at start and after a halt."""

    def __init__(
        self,
        open_writer: Callable[[], Writer],
        clock: Clock,
        dispatch: Dispatch,
        loop: asyncio.AbstractEventLoop,
        on_head: Callable[[Head, Sequence[Record]], None],
    ) -> None:
        self._open_writer = open_writer
        self._clock = clock
        self._dispatch = dispatch
        self._loop = loop
        self._on_head = on_head
        self._stops: deque[Message] = deque()
        self._orders: deque[Message] = deque()
        self._inbox: deque[Message] = deque()
        self._ranked = (self._stops, self._orders, self._inbox)
        self._wake = threading.Event()
        self._stopping = False
        self.on_batch: Callable[[Sequence[Record], int], None] | None = None  # told of what is durable; must not raise
        self._writer: Writer | None = None
        self._reference: tuple[int, int] | None = None  # wall and steady clock when they last were believed
        self._alarm = ""  # the stop that a jump of the clock set
        self._thread = threading.Thread(target=self._run, name="countermark-lane", daemon=True)

    def start(self) -> None:
        """Open the journal and start the thread. Raises what opening raises."""
        self._reopen()
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, then end the thread and close the journal."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        if self._writer is not None:
            self._close(self._writer)

    @property
    def records(self) -> int:
        """Records so far, for whoever watches; 0 while the journal is not open."""
        writer = self._writer
        return 0 if writer is None else writer.state.size

    def now_us(self) -> int:
        """About the time that the next record will have, for whoever plans one: never that of a clock that jumped."""
        now, steady = self._clock.now_us(), self._clock.steady_us()
        believed, since = self._reference or (now, steady)
        passed, writer = steady - since, self._writer
        if self._alarm or _jumped(now - believed, passed):
            now = believed + passed
        return now if writer is None else max(now, writer.state.at)

    def unwitnessed(self, now_us: int) -> str:
        """Why no money moves for want of witnesses, for whoever watches; empty when they have answered lately."""
        writer = self._writer
        bundle = None if writer is None else writer.state.bundle
        rule = None if bundle is None else bundle.compiled.witness
        if writer is None or rule is None or not is_stale(rule, writer.state.witnessed, now_us):
            return ""
        return "witness_stale"

    @property
    def depth(self) -> int:
        """Messages that wait."""
        return sum(len(queue) for queue in self._ranked)

    async def ask(
        self, handler: Handler, keys: Sequence[str] = (), *, always: bool = False, rank: Rank = Rank.REST
    ) -> Any:
        """Queue a message and wait for its durable answer. Raises ``GateBusyError`` when the inbox is full.

        ``keys`` are those that the handler will look up, so that one query serves a whole batch. ``always`` is for
        what must never be turned away, however full the inbox: an outcome, and the order to stop.
        """
        queue = self._ranked[rank]
        if len(queue) >= INBOX_MESSAGES_MAX and not always:
            raise GateBusyError("the gate is busy; nothing was recorded", hint="Ask the same again, later.")
        if self._stopping:
            raise GateHaltedError("the gate is closed", hint="Open the deployment again.")
        future = self._loop.create_future()
        queue.append((handler, future, keys))
        if not self._wake.is_set():  # when it is, the lane has not yet looked: it will find this message too
            self._wake.set()
        return await future

    def _reopen(self) -> None:
        writer = self._open_writer()
        try:
            writer.rebuild()
        except BaseException:
            self._close(writer)
            raise
        now = self._clock.now_us()
        behind = writer.state.size and now < writer.state.at - CLOCK_DRIFT_US_MAX
        if behind and not any(scope["kind"] == "deployment" for scope in writer.state.kills.values()):
            self._alarm = self._kill_for_clock(writer)
            writer.commit()
        if self._reference is None:  # after a halt, what was believed before it still is
            self._reference = (now, self._clock.steady_us())
        self._dispatch.publish(writer.state)
        self._writer = writer

    @staticmethod
    def _close(writer: Writer) -> None:
        for resource in (writer.store, writer.vault):
            try:
                resource.close()
            except CountermarkError as error:
                log.warning("closing: %s", error)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while any(self._ranked):
                self._cycle()
            if self._stopping:
                return

    def _cycle(self) -> None:
        waiting: list[tuple[asyncio.Future[Any], Any]] = []
        try:
            if self._writer is None:
                self._reopen()
                log.warning("the lane reopened its journal after a halt")
            self._handle_batch(waiting)
        except BaseException as error:  # also a panic of an extension: memory may be ahead of the disk, discard it
            self._halt(waiting, error)
        self._answer(waiting)
        if self._writer is not None:
            self._cache(self._writer)

    @staticmethod
    def _cache(writer: Writer) -> None:
        """After the answers, and in no way needed for them: whatever goes wrong here halts nothing."""
        try:
            writer.cache()
        except Exception as error:
            log.warning("the next start reads more records: %s", error)

    def _handle_batch(self, waiting: list[tuple[asyncio.Future[Any], Any]]) -> None:
        writer = self._writer
        if writer is None:
            raise GateHaltedError("the lane is not open")
        begin = self._tick(writer)
        coming = list(islice(self._inbox, BATCH_MESSAGES_MAX))
        writer.keys.fetch({key for message in coming for key in message[2]})
        for handler, future, _ in self._messages(len(coming)):
            before = len(writer.batch.records)
            waiting.append((future, None))
            try:
                reply = handler(writer)
            except Exception as error:
                if len(writer.batch.records) != before:
                    raise  # failed after sealing: the plan is half applied
                reply = _refusal(error)
            waiting[-1] = (future, reply)
            if writer.batch.size > BATCH_BYTES_MAX or self._clock.steady_us() - begin > BATCH_US_MAX:
                break
        crash_point("lane.planned")
        in_flight: list[dict[str, Any]] = []
        if writer.batch.records:
            in_flight = self._commit(writer)
        crash_point("lane.committed")
        for place, (future, reply) in enumerate(waiting):
            if type(reply) is AfterCommit:
                waiting[place] = (future, reply.make(in_flight))

    def _messages(self, rest: int) -> Iterator[Message]:
        """What a batch takes, one by one: stops and orders, also those that come in meanwhile, then ``rest`` others."""
        for number in range(BATCH_MESSAGES_MAX):
            urgent = self._stops or self._orders
            if urgent and number < BATCH_ORDERS_MAX:
                yield urgent.popleft()
            elif rest:
                rest -= 1
                yield self._inbox.popleft()
            else:
                return

    def _commit(self, writer: Writer) -> list[dict[str, Any]]:
        told, records, begin = self.on_batch, writer.batch.records, 0
        if told is not None:
            begin = self._clock.steady_us()
        head = writer.commit()
        if told is not None:
            told(records, self._clock.steady_us() - begin)
        self._on_head(head, records)
        if writer.authority_changed:
            writer.authority_changed = False
            return self._dispatch.publish(writer.state)
        return []

    def _tick(self, writer: Writer) -> int:
        """Read the clocks once for this batch; a jump of one against the other stops all until people clear it.

        Until they do, time goes on by the steady clock: no deadline passes, and no record gets a time, by a clock that
        nobody has looked at.
        """
        now, steady = self._clock.now_us(), self._clock.steady_us()
        believed, since = self._reference or (now, steady)
        passed = steady - since
        if self._alarm and self._alarm not in writer.state.kills:  # people say that the clock is right
            self._alarm, believed, since, passed = "", now, steady, 0
        if not self._alarm and _jumped(now - believed, passed):
            self._alarm = self._kill_for_clock(writer)
        self._reference = (believed, since)
        writer.now = believed + passed if self._alarm else now
        return steady

    @staticmethod
    def _kill_for_clock(writer: Writer) -> str:
        kill = "kill_" + writer.state.prev[7:23]
        scope = {"kind": "deployment", "value": writer.state.deployment}
        writer.add("kill.set", {"scope": scope, "reason": "clock_jump", "kill": kill})
        return kill

    def _halt(self, waiting: list[tuple[asyncio.Future[Any], Any]], error: BaseException) -> None:
        log.error("the lane halted: %s", error, exc_info=not isinstance(error, CountermarkError))
        self._dispatch.halt()
        if self._writer is not None:
            self._close(self._writer)
            self._writer = None
        hint = "Ask again with the same run and call_id: the journal says what happened."
        why = error.message if isinstance(error, StoreError) else "the lane stopped"
        first = next((queue for queue in self._ranked if queue), None)
        if not waiting and first is not None:
            waiting.append((first.popleft()[1], None))
        for place, (future, _) in enumerate(waiting):
            waiting[place] = (future, GateHaltedError(f"nothing was decided: {why}", hint=hint))

    def _answer(self, waiting: list[tuple[asyncio.Future[Any], Any]]) -> None:
        if not waiting:
            return
        try:
            self._loop.call_soon_threadsafe(_resolve, waiting)
        except RuntimeError:  # the loop has closed: nobody waits any more
            log.warning("%d answers had no reader", len(waiting))
        crash_point("lane.answered")


def _jumped(moved: int, passed: int) -> bool:
    """Whether the wall clock moved by something else than the time that passed by the steady one."""
    return abs(moved - passed) > CLOCK_DRIFT_US_MAX + passed // CLOCK_SLEW_PARTS


def _refusal(error: Exception) -> CountermarkError:
    """The answer to a message that failed before it added anything: a fault in it is nobody else's."""
    if isinstance(error, CountermarkError):
        return error
    log.error("a message failed: %s", type(error).__name__, exc_info=error)
    return CountermarkError("the gate could not handle this; nothing was recorded", code="internal_error")


def _resolve(waiting: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, reply in waiting:
        if future.done():
            continue
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)
