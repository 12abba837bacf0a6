"""Published heads: each destination is asked by a thread of its own, and what comes back is recorded by the lane.

A head is offered once it stands in the high-water file. A destination that fails is tried again, less and less often;
one that hangs holds up neither the others nor the end of the gate.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from countermark.gate.lane import Lane
from countermark.gate.writer import Writer
from countermark.model.crash import crash_point
from countermark.model.errors import CountermarkError, EncodingError, GateHaltedError
from countermark.model.ports import Awaited, Clock, Destination, Head
from countermark.model.records import PUBLICATIONS, Record
from countermark.policy import check_witnessed

PUBLISH_S = 1.0
PAUSE_S_MAX = 16  # between two tries of a destination that fails
LANE_WAIT_S = 30  # for the lane to write one record
CLOSE_WAIT_S = 2.0  # for all destinations together, when the gate ends
NOBODY = -1

log = logging.getLogger("countermark.publishing")


def is_busy(records: Sequence[Record]) -> bool:
    """Whether a batch holds anything but publications: their own records must not keep heads from coming to rest."""
    return any(record.kind not in PUBLICATIONS for record in records)


def record_publication(writer: Writer, kind: str, body: Mapping[str, Any]) -> Record:
    """A lane message: write what a destination gave for a head of this log.

    Raises:
        EncodingError: no such kind of record, or its ``size`` and ``root`` are not those of a head of this log.
        PolicyError, SignatureError: not what witnesses of the policy in force said, or not lately.
    """
    size, root = body.get("size"), body.get("root")
    if kind not in PUBLICATIONS or type(size) is not int or type(root) is not str:
        raise EncodingError(f"a destination returned {kind!r}, which is no publication")
    note = writer.store.head_at(size)
    lines = b"" if note is None else note.split(b"\n", 3)[2]
    if not lines or base64.b64decode(lines).hex() != root:
        raise EncodingError("a destination returned the head of another log")
    if kind == "head.witnessed":
        state, bundle = writer.state, writer.state.bundle
        check_witnessed(
            None if bundle is None else bundle.compiled.witness, body, log_keys=writer.state.log_keys,
            deployment=state.deployment, at=writer.at, before=state.witnessed,
        )  # fmt: skip
    elif type(body.get("answered")) is int and body["answered"] > writer.at:
        raise EncodingError("the clock went back while a destination was asked")
    return writer.add(kind, dict(body))


def started(writer: Writer, body: Mapping[str, Any]) -> tuple[int, bool]:
    """A lane message: record the start. How much witnesses have seen, and whether the policy in force names any."""
    writer.add("gate.started", {**body, **writer.opening()})
    bundle, seen = writer.state.bundle, writer.state.witnessed
    return 0 if seen is None else seen.size, bundle is not None and bundle.compiled.witness is not None


class Publishing:
    """The destinations of one gate. ``offer`` is called by the thread that keeps the high-water file."""

    def __init__(
        self, destinations: Sequence[Destination], lane: Callable[[], Lane], loop: asyncio.AbstractEventLoop,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._destinations = tuple(destinations)
        self._errands = [_Errand(one, self) for one in destinations]
        self._lane = lane
        self._loop = loop
        self.clock = clock
        self.head: Head | None = None
        self.busy_size = 0  # the newest head whose batch held something else than publications
        self.awaited = NOBODY  # seq of the newest intent that waits for a witness
        self.on_recorded: Callable[[str, Mapping[str, Any]], None] | None = None  # told of what is durable

    @property
    def asks_witnesses(self) -> bool:
        """Whether there is a destination that effects may wait for."""
        return any(isinstance(one, Awaited) and one.effects_wait for one in self._destinations)

    @property
    def active(self) -> bool:
        """Whether anything was published, or tried: else no destination is asked for, and the end is no occasion."""
        return any(errand.active for errand in self._errands)

    def check(self) -> None:
        """Ask every destination whether this gate may open. Raises ``CountermarkError`` when one says no."""
        for destination in self._destinations:
            destination.check()

    def start(self) -> None:
        """Begin publishing."""
        for errand in self._errands:
            errand.thread.start()

    def offer(self, head: Head, busy_size: int) -> None:
        """A head that is durable, and in the high-water file."""
        self.head, self.busy_size = head, busy_size
        for errand in self._errands:
            errand.wake.set()

    def finish(self) -> None:
        """Publish what is due once more, and end. What hangs is left behind after ``CLOSE_WAIT_S``."""
        for errand in self._errands:
            errand.stop()
        left = CLOSE_WAIT_S
        for errand in self._errands:
            if not errand.join(left):
                left = 0  # the others had as long

    def write(self, kind: str, body: Mapping[str, Any]) -> None:
        """Through the lane, from a destination's thread. Raises ``CountermarkError``."""
        work = self._lane().ask(lambda writer: record_publication(writer, kind, body), always=True)
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise GateHaltedError("the gate is closed") from None
        try:
            future.result(LANE_WAIT_S)
        except (CancelledError, FutureTimeoutError):
            raise GateHaltedError("the lane did not record a publication") from None
        if self.on_recorded is not None:
            self.on_recorded(kind, body)


class _Errand:
    """One destination and its thread."""

    def __init__(self, destination: Destination, all_: Publishing) -> None:
        self._to = destination
        self._all = all_
        self._every_s = PUBLISH_S
        self._done = 0  # size of the last head that went there
        self._failures = 0
        self.active = False
        self._end = threading.Event()
        self.wake = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"countermark-{destination.name}", daemon=True)

    def stop(self) -> None:
        self._end.set()
        self.wake.set()

    def join(self, seconds: float) -> bool:
        if self.thread.ident is None:  # the gate never opened
            self._close()
        elif self.thread.is_alive():
            self.thread.join(seconds)
        if self.thread.is_alive():
            log.warning("%s did not answer before the gate ended", self._to.name)
        return not self.thread.is_alive()

    def _run(self) -> None:
        while not self._end.wait(self._turn()):  # between two askings, whoever else wakes
            self.wake.wait(self._every_s)
            self.wake.clear()
        if not self._failures:
            self._turn()  # once more at the end
        self._close()

    def _close(self) -> None:
        try:
            self._to.close()
        except CountermarkError as error:
            log.warning("closing %s: %s", self._to.name, error)

    def _turn(self) -> float:
        """Publish the newest head if it is due; returns how long not to ask again (seconds)."""
        head = self._all.head
        if head is None or head.size <= self._done:
            return 0
        try:
            if not self._due(head):
                return 0
            self.active = True
            answer, size = self._to.publish(head), head.size
            crash_point("publication.answered")
            if answer is not None:
                self._all.write(*answer)
                size = answer[1]["size"]  # an anchor that was under way is that of an older head
        except Exception as error:
            self._failures += 1
            known = isinstance(error, CountermarkError)
            log.warning("%s: %s", self._to.name, error, exc_info=None if known else error)
            return min(self._every_s * (1 << min(self._failures - 1, 10)), PAUSE_S_MAX)
        self._failures, self._done = 0, max(self._done, size)
        return self._every_s

    def _due(self, head: Head) -> bool:
        if self._all.awaited >= self._done and isinstance(self._to, Awaited) and self._to.effects_wait:
            return True
        return self._to.due(head, self._all.busy_size > self._done, self._all.clock.now_us())
