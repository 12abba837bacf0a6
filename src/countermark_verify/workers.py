"""Processes that look at bundles ahead of the one that follows the log (`--jobs`).

A worker is a fresh interpreter that is given bytes over a pipe and answers with bytes: a certificate, or that it gives
none. It opens no file and knows nothing of the trust file. What it certifies is all that is ever taken from it; a
worker that ends before its time is an error, and never a verdict.
"""

import contextlib
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from countermark_verify.certificate import Certificate, Look, certify, unpack
from countermark_verify.errors import WorkerError

# First seq, width and bytes of a bundle.
Bundle = tuple[int, int, memoryview]
# The deployment that the records are thought to be of, and the policies; None: nothing is asked but their order.
About = tuple[str, dict[str, bytes]] | None

JOBS_MAX = 64
# How many bundles one message holds, and how many messages a worker is given ahead: with at most 256 records of 65,537
# bytes each this bounds what is under way, whatever the records hold.
_BUNDLES = 4
_AHEAD = 3
_PIPE_BYTES = 1024**2
_SMALL_BYTES = 16 * 1024**2
_SIZE = struct.Struct(">I")
_BUNDLE = struct.Struct(">QII")
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from countermark_verify.workers import serve; serve()"
)  # fmt: skip


def usable() -> int:
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def examiners(jobs: int | None, pack: str | Path) -> "AbstractContextManager[Examiner | None]":
    """Who looks ahead: nobody with one job, and with a pack that is read before a process has started."""
    if jobs == 1 or (jobs is None and not _large(pack)):
        return contextlib.nullcontext()
    if jobs is None and usable() == 1:
        return contextlib.nullcontext(Inline())
    return Workers(jobs or usable())


def _large(pack: str | Path) -> bool:
    try:
        return Path(pack).stat().st_size > _SMALL_BYTES
    except (OSError, ValueError):
        return False  # the container says what is wrong


class Examiner(Protocol):
    """Gives certificates, in the order of the bundles."""

    def examine(self, bundles: Iterable[Bundle], about: About = None) -> Iterator[Certificate | None]: ...


class Inline:
    """The same looks in this process, for where there is one processor only."""

    def examine(self, bundles: Iterable[Bundle], about: About = None) -> Iterator[Certificate | None]:
        look = _look(about)
        for first, width, data in bundles:
            yield certify(first, width, bytes(data), look)


def _look(about: About) -> Look | None:
    if about is None:
        return None
    # Cedar and all that a decision needs: a process that only follows the log starts without them.
    from countermark_verify.aside import Aside

    return Aside(*about).look


class Workers:
    """A context: so many processes, which end with it."""

    def __init__(self, jobs: int) -> None:
        self._jobs = min(max(jobs, 1), JOBS_MAX)
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        self._workers = [_Worker() for _ in range(self._jobs)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            worker.end()

    def examine(self, bundles: Iterable[Bundle], about: About = None) -> Iterator[Certificate | None]:
        """Raises `WorkerError` when a worker does not answer for what it was given."""
        waiting: deque[_Worker] = deque()
        given = 0
        for worker in self._workers:
            worker.begin(about)
        try:
            for message in _messages(bundles):
                if len(waiting) == self._jobs * _AHEAD:
                    yield from waiting.popleft().answer()
                worker = self._workers[given % self._jobs]
                worker.give(message)
                waiting.append(worker)
                given += 1
            while waiting:
                yield from waiting.popleft().answer()
        except WorkerError:
            waiting.clear()
            raise
        finally:
            # Whoever reads no further leaves answers behind, which are not those to the next questions.
            while waiting:
                waiting.popleft().answer()


def _messages(bundles: Iterable[Bundle]) -> Iterator[list[Bundle]]:
    parts: list[Bundle] = []
    for bundle in bundles:
        parts.append(bundle)
        if len(parts) == _BUNDLES:
            yield parts
            parts = []
    if parts:
        yield parts


class _Worker:
    def __init__(self) -> None:
        # The same interpreter and the same places of modules, and nothing else of this process: no file, no main
        # module. Isolated, or else a `json.py` in the working directory would be read before it has those places.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, json.dumps(sys.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        _widen(self._process.stdin)
        self._given: deque[int] = deque()

    def begin(self, about: About) -> None:
        """What all bundles from here on are of."""
        said = None if about is None else [about[0], {name: raw.decode("latin-1") for name, raw in about[1].items()}]
        text = json.dumps(said).encode()
        self._send([_SIZE.pack(0), _SIZE.pack(len(text)), text])

    def give(self, bundles: list[Bundle]) -> None:
        parts: list[bytes | memoryview] = [_SIZE.pack(len(bundles))]
        for first, width, data in bundles:
            parts += [_BUNDLE.pack(first, width, len(data)), data]
        self._send(parts)
        self._given.append(len(bundles))

    def _send(self, parts: "list[bytes | memoryview]") -> None:
        """A worker always reads, up to what it may be given ahead: so this waits for nobody who waits for us."""
        pipe = self._process.stdin
        if pipe is None:
            raise WorkerError("a worker process has no pipe")
        try:
            for part in parts:
                pipe.write(part)
            pipe.flush()
        except OSError as error:
            raise self._ended() from error

    def answer(self) -> list[Certificate | None]:
        pipe = self._process.stdout
        parts = None if pipe is None else [_read_part(pipe) for _ in range(self._given.popleft())]
        if parts is None or None in parts:
            raise self._ended()
        try:
            return [unpack(part) if part else None for part in parts]
        except (ValueError, TypeError, struct.error) as error:
            raise WorkerError("a worker process answered something that is no certificate") from error

    def _ended(self) -> WorkerError:
        self._process.kill()
        return WorkerError(f"a worker process ended before it had answered (exit code {self._process.wait()})")

    def end(self) -> None:
        """What was left for a worker, or by one, is nobody's any more."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


def _widen(pipe: IO[bytes] | None) -> None:
    """A bundle is several times what a pipe holds at first: each time it is full two processes wait for each other."""
    with contextlib.suppress(ImportError, AttributeError, OSError):  # not everywhere, and not without a limit
        import fcntl

        if pipe is not None:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _read(pipe: IO[bytes], size: int) -> bytes | None:
    data = pipe.read(size)
    return data if len(data) == size else None


def _read_part(pipe: IO[bytes]) -> bytes | None:
    """Bytes with their number before them; None when there are not so many."""
    head = _read(pipe, _SIZE.size)
    return None if head is None else _read(pipe, *_SIZE.unpack(head))


# What a worker is told: what the next bundles are of, or bundles.
_Told = About | list[tuple[int, int, bytes]] | EOFError


def serve() -> None:
    """A worker's own work: bundles from its input, certificates to its output, until nothing more comes.

    Reading and writing have threads of their own, so that neither side ever waits for the other one to read.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this one ends it
    told: queue.Queue[_Told] = queue.Queue(_AHEAD)
    made: queue.Queue[bytes] = queue.Queue()
    look: Look | None = None
    with os.fdopen(0, "rb") as source, os.fdopen(1, "wb") as target:
        threading.Thread(target=_listen, args=(source, told), daemon=True).start()
        telling = threading.Thread(target=_tell, args=(target, made))
        telling.start()
        while not isinstance(one := told.get(), EOFError):
            if not isinstance(one, list):
                look = _look(one)
                continue
            for first, width, data in one:
                certificate = certify(first, width, data, look)
                packed = b"" if certificate is None else certificate.pack()
                made.put(_SIZE.pack(len(packed)) + packed)
        made.put(b"")
        telling.join()


def _listen(pipe: IO[bytes], told: "queue.Queue[_Told]") -> None:
    try:
        while True:
            count = _number(pipe)
            told.put([_bundle(pipe) for _ in range(count)] if count else _about(pipe))
    except EOFError as end:
        told.put(end)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = _read(pipe, size)
    if data is None:
        raise EOFError
    return data


def _number(pipe: IO[bytes]) -> int:
    (number,) = _SIZE.unpack(_exactly(pipe, _SIZE.size))
    return int(number)


def _bundle(pipe: IO[bytes]) -> tuple[int, int, bytes]:
    first, width, size = _BUNDLE.unpack(_exactly(pipe, _BUNDLE.size))
    return first, width, _exactly(pipe, size)


def _about(pipe: IO[bytes]) -> About:
    said = json.loads(_exactly(pipe, _number(pipe)))
    return None if said is None else (said[0], {name: text.encode("latin-1") for name, text in said[1].items()})


def _tell(pipe: IO[bytes], made: "queue.Queue[bytes]") -> None:
    while part := made.get():
        pipe.write(part)
        pipe.flush()
