"""One worker process, as its caller sees it: what was handed to it, what it answered, what it died of."""

from __future__ import annotations

import mmap
import os
import re
import signal
import socket
import subprocess
import sys
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from countermark.compute.errors import UnconfinedError
from countermark.compute.values import (
    ENGINE,
    MESSAGE_CHARS_MAX,
    OUTPUT_BYTES_MAX,
    STARLARK_VERSION,
    Limits,
    Ran,
    limit,
    read_output,
)
from countermark.compute.worker import ANSWER, ASK, OUT_OF_MEMORY, PAGE_BYTES, SLOTS
from countermark.model.errors import ConfigError

PROGRAM = str(Path(__file__).with_name("worker.py"))
CALLS_MAX = 32  # under way in one worker
BYTES_MAX = 1 << 20  # waiting to be sent to one worker
READ_BYTES = 1 << 18
DEATHS_MAX = 3
WORDS_BYTES_MAX = 1 << 16
# By the wall, ten times the processor time and half a minute: the worker's own timer counts processor time.
WALL_FACTOR, WALL_MORE_US = 10_000_000, 30_000_000
_NO_MEMORY = (b"out of memory", b"memory allocation of", b"capacity overflow", b"MemoryError")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # what a message says must not move a reader's cursor
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)


@dataclass(eq=False)
class Call:
    """One call on its way."""

    digest: str
    code: bytes
    inputs: bytes
    limits: Limits
    future: Future[Ran]
    begun: bool = False
    deaths: int = 0  # of workers that had it and began nothing

    def begin(self) -> bool:
        """Whether it is still wanted; from then on it cannot be cancelled."""
        self.begun = self.begun or self.future.set_running_or_notify_cancel()
        return self.begun


def interpreter_path() -> str:
    """The interpreter's file. Raises ``ConfigError``: it is not installed, or is another version."""
    from importlib.metadata import PackageNotFoundError, version  # late: most deployments run no pure steps

    spec = find_spec("starlark")
    found = sorted(Path(spec.origin).parent.glob("starlark.*.so")) if spec is not None and spec.origin else []
    try:
        installed = version("starlark-pyo3")
    except PackageNotFoundError:
        installed = ""
    if len(found) != 1 or installed != STARLARK_VERSION:
        what = f"{installed or 'none'} is installed"
        raise ConfigError(f"pure steps need {ENGINE}; {what}", hint="Install it: uv add 'countermark[workflow]'.")
    return str(found[0])


class Worker:
    """A process with the calls that it has not answered, in order. Not thread-safe."""

    def __init__(self, interpreter: str) -> None:
        page = os.memfd_create("calls", os.MFD_CLOEXEC)
        os.ftruncate(page, PAGE_BYTES)
        self.socket, theirs = socket.socketpair()
        with theirs, os.fdopen(page, "r+b") as shared:
            self._begun = memoryview(mmap.mmap(page, PAGE_BYTES)).cast("Q")
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", PROGRAM, interpreter, str(os.getpid())],
                stdin=theirs.fileno(), stdout=shared.fileno(), stderr=subprocess.PIPE,
                env={}, cwd="/", close_fds=True, start_new_session=True,
            )  # fmt: skip
        self.socket.setblocking(False)
        self.calls: deque[Call] = deque()
        self.answered = 0
        self.first: Call | None = None  # what it was given while nothing had been in its memory
        self.ready = self._late = False
        self._moved_us = 0  # when it last answered, or began
        self._slots: dict[str, int] = {}  # digest of code -> slot, the longest unused first
        self._out = bytearray()
        self._in = b""

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def begun(self) -> int:
        """How many calls it says that it has begun."""
        return int(self._begun[0])

    def takes_more(self, since_us: int) -> bool:
        if not self.calls:
            return True
        moves = self._moved_us >= since_us or not self.ready
        return moves and len(self.calls) < CALLS_MAX and len(self._out) < BYTES_MAX

    def room(self, share: int) -> int:
        """How many calls of its share it can be given at once, of which one at least."""
        return max(1, min(share, CALLS_MAX - len(self.calls)))

    def give(self, call: Call, now_us: int) -> None:
        """Add a call's frames to what is to be sent."""
        slot = self._slots.pop(call.digest, None)
        if slot is None:
            slot = len(self._slots) if len(self._slots) < SLOTS else self._slots.pop(next(iter(self._slots)))
            self._out += ASK.pack(b"C", slot, 0, 0, 0, len(call.code)) + call.code
        self._slots[call.digest] = slot
        limits = call.limits
        head = ASK.pack(b"R", slot, limits.ticks, limits.seconds * 1_000, limits.memory_mb, len(call.inputs))
        self._out += head + call.inputs
        if not self.calls:
            self._moved_us = now_us
        self.first = self.first or call
        self.calls.append(call)

    def flush(self) -> bool:
        """Send what the socket takes; whether that was everything."""
        while self._out:
            try:
                sent = self.socket.send(self._out)
            except BlockingIOError:
                return False
            except OSError:  # it is dead, which reading shows
                self._out.clear()
                break
            del self._out[:sent]
        return True

    def read(self, now_us: int) -> tuple[list[tuple[Call, Ran]], bool]:
        """Calls that were answered, with what became of them; and whether the worker lives."""
        try:
            more = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return [], True
        except OSError:
            return [], False
        if not more:
            return [], False
        waiting, at = self._in + more, 0
        found: list[tuple[Call, Ran]] = []
        while len(waiting) - at >= ANSWER.size:
            kind, ticks, length = ANSWER.unpack_from(waiting, at)
            start = at + ANSWER.size
            if length > OUTPUT_BYTES_MAX:
                return found, False
            if len(waiting) - start < length:
                break
            at = start + length
            if not self._accept(kind, ticks, waiting[start:at], found):
                return found, False
        self._in, self._moved_us = waiting[at:], now_us
        return found, True

    def _accept(self, kind: bytes, ticks: int, body: bytes, found: list[tuple[Call, Ran]]) -> bool:
        """One frame; False says that what sent it is no worker of ours."""
        if not self.ready:
            if kind == b"x":
                raise UnconfinedError(
                    f"a worker cannot be confined here: {body.decode('utf-8', 'replace')}",
                    hint="Pure steps need Linux with seccomp filters, on x86_64 or aarch64 (docs/compute.md).",
                )
            self.ready = kind == b"r"
            return self.ready
        if not self.calls or kind not in (b"k", b"e", b"l"):
            return False
        if kind == b"k":
            ran = read_output(body, ticks)
        else:
            message = _CONTROL.sub(" ", body.decode("utf-8", "replace"))[:MESSAGE_CHARS_MAX]
            ran = Ran("error" if kind == b"e" else "limit", None, message, ticks)
        found.append((self.calls.popleft(), ran))
        self.answered += 1
        return True

    def overdue(self, now_us: int) -> bool:
        if not self.calls:
            return False
        return now_us - self._moved_us > self.calls[0].limits.seconds * WALL_FACTOR + WALL_MORE_US

    def kill(self) -> None:
        self._late = True
        self._process.kill()

    def verdict(self) -> Ran:
        """What the call that was running died of."""
        self._process.kill()  # one that hung up without ending is no worker either
        code = self._process.wait()
        pipe = self._process.stderr
        words = b""
        if pipe is not None:
            os.set_blocking(pipe.fileno(), False)
            words = pipe.read(WORDS_BYTES_MAX) or b""
        if self._late or code == -signal.SIGPROF:
            return limit("time", "more processor time than the step may use")
        if code == OUT_OF_MEMORY or any(word in words for word in _NO_MEMORY):
            return limit("memory", "more than the step may use")
        if -code in _FAULTS:  # where the interpreter does not look whether it got memory
            return limit("memory", "more than the step may use, or a failure of the interpreter")
        return limit("died", f"the worker ended by signal {-code}" if code < 0 else "the worker ended")

    def running(self) -> Call | None:
        """The call that a dead worker died of, taken out of those it has not answered; None if it had begun none."""
        if not self.ready or not self.calls:
            return None
        at = self.begun - self.answered - 1
        if at == -1:
            self.calls[0].deaths += 1
            if self.calls[0].deaths < DEATHS_MAX:
                return None
        call = self.calls[at if 0 <= at < len(self.calls) else 0]  # the page is the worker's word, so it may be wrong
        self.calls.remove(call)
        return call

    def end(self) -> list[Call]:
        """End the process; what it has not answered."""
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self.socket.close()
        return list(self.calls)
