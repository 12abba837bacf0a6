"""A pool of workers, driven by one thread: calls go out in frames, many under way at once, answers come back in order.

Life of a call: ``submit`` checks and queues it; the thread hands it to the worker with the fewest; the worker runs
it; the thread holds the answer to the profile and completes the future. A worker that dies answers nothing more: the
first call without an answer is the one it died of, the others go back to the head of the queue.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from countermark.compute.code import checked
from countermark.compute.errors import ComputeBusyError, ComputeClosedError, UnconfinedError
from countermark.compute.process import Call, Worker, interpreter_path
from countermark.compute.values import Limits, Ran, input_bytes
from countermark.model.clock import SystemClock
from countermark.model.errors import ArgumentError, CountermarkError

WORKERS_MAX = 64
QUEUE_MAX = 4_096
LOOK_S = 1.0  # how often running calls are looked at, when nothing else happens
STALLED_US = 20_000  # a worker that has not answered for so long gets nothing more to do meanwhile
STILLBORN_MAX = 3  # workers in a row that died before they were ready
AGAIN_US = 10_000_000  # where workers cannot be confined, the next one is tried so much later
_DEFAULT = Limits()


class Pool:
    """``workers`` processes that run pure steps; they start when there is something to run. Thread-safe."""

    def __init__(self, workers: int = 2, *, queue_max: int = QUEUE_MAX) -> None:
        """Raises ``ConfigError`` when the extra ``workflow`` is not installed, ``ArgumentError``."""
        if not 1 <= workers <= WORKERS_MAX:
            raise ArgumentError(f"workers is not between 1 and {WORKERS_MAX}", field="workers")
        self._interpreter = interpreter_path()
        self._workers_max, self._queue_max = workers, queue_max
        self._lock = threading.Lock()
        self._queue: deque[Call] = deque()
        self._asleep = self._closed = False
        self._failed: CountermarkError | None = None
        self._again_us = 0  # when a worker may be tried again after that; by the steady clock
        self._stillborn = 0
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._workers: list[Worker] = []
        self._clock = SystemClock()
        self._thread: threading.Thread | None = None

    def submit(self, code: str, inputs: Mapping[str, Any], limits: Limits = _DEFAULT) -> Future[Ran]:
        """Run ``main`` of ``code`` with ``inputs`` by name. The future completes in the pool's own thread.

        Raises:
            ArgumentError, EncodingError: code that may not be run (``check_code``), inputs outside the profile.
            ComputeBusyError: the queue is full.
            ComputeClosedError: the pool is closed.
            UnconfinedError: workers cannot be confined here, as of some seconds ago; a future may fail with it too.
        """
        text, digest, _ = checked(code)
        call = Call(digest, text, input_bytes(inputs), limits, Future())
        with self._lock:
            if self._failed is not None and (self._closed or self._clock.steady_us() < self._again_us):
                raise type(self._failed)(self._failed.message, hint=self._failed.hint)
            if self._closed:
                raise ComputeClosedError("the pool is closed")
            if len(self._queue) >= self._queue_max:
                raise ComputeBusyError(f"{self._queue_max} steps are waiting to be run")
            self._queue.append(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="countermark-compute", daemon=True)
                self._thread.start()
            elif self._asleep:
                self._asleep = False
                os.eventfd_write(self._wake, 1)
        return call.future

    def close(self) -> None:
        """End the workers. What has not run fails with ``ComputeClosedError``."""
        with self._lock:
            already, self._closed = self._closed, True
            thread = self._thread
            if not already:
                os.eventfd_write(self._wake, 1)
        if thread is not None:
            thread.join()
        elif not already:
            self._end(ComputeClosedError("the pool was closed"))

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # From here on: the pool's thread alone.

    def _run(self) -> None:
        why: CountermarkError = ComputeClosedError("the pool's thread ended")
        try:
            while not self._closed:
                try:
                    self._turn()
                except UnconfinedError as error:
                    self._pause(error)
            why = ComputeClosedError("the pool was closed")
        finally:
            self._end(why)

    def _end(self, why: CountermarkError) -> None:
        with self._lock:
            self._closed, self._failed = True, why
        self._end_workers()
        self._selector.close()
        os.close(self._wake)
        self._refuse(why)

    def _pause(self, why: UnconfinedError) -> None:
        """Nothing is run for a while; then what the host lacked may be there."""
        with self._lock:
            self._failed, self._again_us = why, self._clock.steady_us() + AGAIN_US
        self._end_workers()
        self._refuse(why)

    def _end_workers(self) -> None:
        for worker in self._workers:
            self._selector.unregister(worker.socket)
            self._queue.extend(worker.end())
        self._workers = []

    def _refuse(self, why: CountermarkError) -> None:
        """Fail what waits; what comes later may be tried again."""
        with self._lock:
            left, self._queue = self._queue, deque()
        for call in left:
            if call.begin():
                call.future.set_exception(why)

    def _turn(self) -> None:
        """Hand out what waits, sleep until something happens, read what came."""
        waiting = self._hand_out()
        with self._lock:
            self._asleep = not self._closed and len(self._queue) == waiting
            wait_s = LOOK_S if self._asleep else 0
        for key, events in self._selector.select(wait_s):
            if key.data is None:
                os.eventfd_read(self._wake)
                continue
            worker: Worker = key.data
            if events & selectors.EVENT_WRITE:
                self._flush(worker)
            if events & selectors.EVENT_READ:
                self._read(worker)
        with self._lock:
            self._asleep = False
        self._watch()

    def _hand_out(self) -> int:
        """Give workers what they take; how many calls still wait."""
        touched: set[Worker] = set()
        now = self._clock.steady_us()
        while self._queue and (worker := self._idle(now)) is not None:
            touched.add(worker)
            for _ in range(worker.room(len(self._queue) // len(self._workers))):
                call = self._queue.popleft()
                if call.begin():
                    worker.give(call, now)
        waiting = len(self._queue)
        for worker in touched:
            self._flush(worker)
        return waiting

    def _flush(self, worker: Worker) -> None:
        """Send what the worker's socket takes, and hear of it when it takes more."""
        events = selectors.EVENT_READ if worker.flush() else selectors.EVENT_READ | selectors.EVENT_WRITE
        if self._selector.get_key(worker.socket).events != events:
            self._selector.modify(worker.socket, events, worker)

    def _idle(self, now_us: int) -> Worker | None:
        """The worker to give the next call to; a new one while all are busy and there may be more."""
        free = min(self._workers, key=lambda worker: len(worker.calls), default=None)
        if free is None or (free.calls and len(self._workers) < self._workers_max):
            free = self._start() or free
        return free if free is not None and free.takes_more(now_us - STALLED_US) else None

    def _start(self) -> Worker | None:
        try:
            worker = Worker(self._interpreter)
        except OSError as error:
            if not self._workers:
                self._refuse(UnconfinedError(f"a worker cannot be started: {error.strerror}", retryable=True))
            return None
        self._workers.append(worker)
        self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        return worker

    def _read(self, worker: Worker) -> None:
        """Complete what was answered; bury the worker if it is dead."""
        answers, alive = worker.read(self._clock.steady_us())
        for call, ran in answers:
            call.future.set_result(ran)
        if worker.ready:
            self._stillborn = 0
        if not alive:
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        """Complete the call that a worker died of; the others run on another."""
        self._workers.remove(worker)
        self._selector.unregister(worker.socket)
        verdict = worker.verdict()
        first = worker.running()
        fresh = worker.answered == 0 and worker.first is first
        left = worker.end()
        with self._lock:
            self._queue.extendleft(reversed(left))
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn == STILLBORN_MAX:
                self._stillborn = 0
                self._refuse(UnconfinedError(f"workers end before they begin: {verdict.message}", retryable=True))
        if first is None:
            return
        # What other code left in memory may be why there was too little: only what a new worker says counts.
        again = self._start() if not fresh and verdict.message.startswith("memory:") else None
        if again is None:
            first.future.set_result(verdict)
        else:
            again.give(first, self._clock.steady_us())
            self._flush(again)

    def _watch(self) -> None:
        """End what is over its time by the wall: its own timer should have, so the worker cannot be trusted with it."""
        now = self._clock.steady_us()
        for worker in self._workers:
            if worker.overdue(now):
                worker.kill()
