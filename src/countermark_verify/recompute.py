"""Pure steps, run again from their records (docs/spec/workflow.md, "Running code").

Code in a pack is hostile: it runs in processes without any right (`recompute_worker.py`), or not at all. Without the
interpreter, in the recorded version, nothing is re-executed; that is no failure and no pass.
"""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from countermark_verify.canon import parse_loose, render
from countermark_verify.errors import Malformed

ENGINES = {"starlark-pyo3/2026.1.3": "2026.1.3"}  # what a record calls it: the version installed

BATCH_CALLS, BATCH_BYTES = 100, 1 << 20
ANSWER_BYTES_MAX = 200_000  # 16,000 bytes of output, escaped
OUTPUT_BYTES_MAX = 16_000
MESSAGE_CHARS_MAX = 500
WALL_FACTOR, WALL_MORE_S = 10, 30  # by the wall, when the worker's own timer fails
_WORKER = "countermark_verify.recompute_worker"  # never imported: it is a program
_PROGRAM = str(Path(__file__).with_name(_WORKER.rpartition(".")[2] + ".py"))
_FAILED = re.compile(r"(?:^|\n)error: (?:fail: )?(.*?)(?:\n *--> |$)", re.DOTALL)
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)


class NotRecomputed(Exception):
    """Nothing can be re-executed here; the message says why."""


@dataclass(frozen=True)
class Call:
    """A recorded call: code, inputs as canonical JSON ("": the code is only parsed), limits."""

    code: str
    inputs: str
    ticks: int = 10_000_000
    memory_mb: int = 256
    seconds: int = 5


@dataclass(frozen=True)
class Outcome:
    """`status` is `ok`, `error` or `limit`; `which` of a limit is `ticks`, `memory`, `time`, `size` or `died`.

    `output` are canonical bytes of what `main` returned. `ticks` and `size` come out alike everywhere, and so do `ok`
    and `error`; `memory`, `time` and `died` say something about this machine too. Code that was to be parsed alone is
    `ok`, or an `error` with `which` `syntax`. `spent_us` is processor time.
    """

    status: str
    which: str
    output: bytes | None
    message: str
    ticks: int
    spent_us: int = field(default=0, compare=False)


Answer = tuple[str, str, int, int]  # status, text, ticks, microseconds


def interpreter(engine: str) -> str:
    """The file of the interpreter that a record names. Raises `NotRecomputed`."""
    if engine not in ENGINES:
        raise NotRecomputed(f"the engine {engine[:60]} is not known here")
    # Slow to load, and of use only where a step is executed.
    from importlib.metadata import PackageNotFoundError, version

    spec = find_spec("starlark")
    found = sorted(Path(spec.origin).parent.glob("starlark.*.so")) if spec is not None and spec.origin else []
    try:
        installed = version("starlark-pyo3")
    except PackageNotFoundError:
        installed = "none"
    if len(found) != 1 or installed != ENGINES[engine]:
        raise NotRecomputed(f"{engine} is needed, {installed} is installed (uv add 'countermark[workflow]')")
    return str(found[0])


class _Worker:
    """One confined process, which answers batches. `used` says that it has run something."""

    def __init__(self, path: str) -> None:
        self._socket, theirs = socket.socketpair()
        self.used = False
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", _PROGRAM, path, str(os.getpid())],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                env={}, cwd="/", close_fds=True, start_new_session=True,
            )  # fmt: skip
        self._socket.settimeout(WALL_MORE_S)
        answer = self._hear()
        if answer is None or answer[0] != "ready":
            self.end()
            raise NotRecomputed(f"no confined process can be started: {answer[1] if answer else 'it ended'}"[:300])

    def ask(self, calls: Sequence[Call]) -> Iterator[Answer | None]:
        """The answer to each call in turn, until one is None: the worker died of that call."""
        codes = {code: number for number, code in enumerate(dict.fromkeys(call.code for call in calls))}
        asked = [[codes[c.code], c.inputs, c.ticks, c.seconds * 1_000, c.memory_mb] for c in calls]
        raw = json.dumps([list(codes), asked]).encode()
        try:
            self._socket.sendall(struct.pack("<I", len(raw)) + raw)
        except OSError:  # it is dead, which hearing shows
            pass
        for call in calls:
            self._socket.settimeout(call.seconds * WALL_FACTOR + WALL_MORE_S)
            answer = self._hear()
            yield answer
            if answer is None:
                return
            self.used = True

    def _hear(self) -> Answer | None:
        try:
            length = struct.unpack("<I", self._exactly(4))[0]
            if length > ANSWER_BYTES_MAX:
                return None
            answer = json.loads(self._exactly(length))
            status, text, ticks, spent = answer
        except (OSError, ValueError, TypeError, RecursionError, struct.error):
            return None
        if (type(status), type(text), type(ticks), type(spent)) != (str, str, int, int):
            return None
        return status, text, ticks, spent

    def _exactly(self, length: int) -> bytes:
        raw = b""
        while len(raw) < length:
            more = self._socket.recv(length - len(raw))
            if not more:
                raise ConnectionError("the worker hung up")
            raw += more
        return raw

    def died_of(self) -> str:
        """`time`, `memory` or `died`, of a worker that answers no more."""
        self._process.kill()
        code = self._process.wait()
        words = b""
        if self._process.stderr is not None:
            os.set_blocking(self._process.stderr.fileno(), False)
            words = self._process.stderr.read(1 << 16) or b""
        if code == -signal.SIGPROF:
            return "time"
        said = (b"out of memory", b"memory allocation of", b"capacity overflow", b"MemoryError")
        return "memory" if -code in _FAULTS or any(word in words for word in said) else "died"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._socket.close()


class _Line:
    """Runs batches one after the other, on a new worker whenever one died."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._worker: _Worker | None = None

    def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """Raises `NotRecomputed`."""
        done: list[Outcome] = []
        while len(done) < len(calls):
            worker = self._worker = self._worker or _Worker(self._path)
            used = worker.used
            for answer in worker.ask(calls[len(done) :]):
                if answer is not None:
                    done.append(replace(_outcome(*answer[:3]), spent_us=answer[3]))
                    continue
                which, used = worker.died_of(), worker.used
                self.end()
                if which != "memory" or not used:  # or what ran before it may have left too little: once more, alone
                    spent = calls[len(done)].seconds * 1_000_000
                    done.append(Outcome("limit", which, None, "", 0, spent))
        return done

    def end(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class Recomputer:
    """Re-executes calls on `jobs` processes: `with Recomputer(engine, 2) as again: again.run(calls)`."""

    def __init__(self, engine: str, jobs: int = 1) -> None:
        """Raises `NotRecomputed`: the interpreter is missing or another one, or a process cannot be confined."""
        path = interpreter(engine)
        self._lines = [_Line(path) for _ in range(jobs)]
        self._pool = ThreadPoolExecutor(jobs)
        self._lines[0].run([Call("def main():\n    return {}\n", "{}")])

    def run(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """What becomes of each call, in their order. Raises `NotRecomputed`."""
        batches = _batches(calls)
        free, under_way = list(self._lines), list[tuple[_Line, Future[list[Outcome]]]]()
        while True:
            for batch in islice(batches, len(free)):
                line = free.pop()
                under_way.append((line, self._pool.submit(line.run, batch)))
            if not under_way:
                return
            line, first = under_way.pop(0)
            yield from first.result()
            free.append(line)

    def __enter__(self) -> "Recomputer":
        return self

    def __exit__(self, *_: Any) -> None:
        self._pool.shutdown(cancel_futures=True)
        for line in self._lines:
            line.end()


def execute(engine: str, call: Call) -> Outcome:
    """One call in a process of its own. Raises `NotRecomputed`."""
    line = _Line(interpreter(engine))
    try:
        return line.run([call])[0]
    finally:
        line.end()


def _batches(calls: Iterable[Call]) -> Iterator[list[Call]]:
    batch: list[Call] = []
    size = 0
    for call in calls:
        batch.append(call)
        size += len(call.code) + len(call.inputs)
        if len(batch) == BATCH_CALLS or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _outcome(status: str, text: str, ticks: int) -> Outcome:
    if status in ("ticks", "size"):
        return Outcome("limit", status, None, "", ticks)
    if status == "parsed":
        return Outcome("ok", "", None, "", ticks)
    if status != "ok":
        found = _FAILED.search(text)
        which = status if status == "syntax" else ""
        return Outcome("error", which, None, (found[1] if found else text)[:MESSAGE_CHARS_MAX], ticks)
    try:
        raw = text.encode("utf-8")
        value = parse_loose(raw, OUTPUT_BYTES_MAX)
        output = render(value)
    except (Malformed, ValueError, RecursionError) as error:
        return Outcome("error", "", None, f"the output {error}", ticks)
    if type(value) is not dict or len(output) != len(raw):
        return Outcome("error", "", None, "the output is no object in its shortest form", ticks)
    return Outcome("ok", "", output, "", ticks)
