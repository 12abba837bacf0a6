"""What takes longer than a page may: a process of its own, of which the page shows the result when it is there.

One of a name at a time, each bounded in time, memory, processor time and output, at low priority: the lane decides in
this process, and neither a page nor an auditor's zip file may take its time.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from countermark.model.errors import ArgumentError, GateBusyError, GateHaltedError
from countermark.model.ports import Clock

AT_ONCE_MAX = 2
OUTPUT_BYTES_MAX = 16 << 20
ERROR_BYTES_MAX = 4_096
MEMORY_BYTES_MAX = 4 << 30
CLI, VERIFIER = "countermark.cli", "countermark_verify"
_KEPT = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "TMPDIR", "TZ")

# The process bounds itself before it loads anything: afterwards nothing it reads can lift that.
_BOUNDED = (
    "import os, resource, runpy, sys\n"
    "memory, seconds, file = (int(one) for one in sys.argv[2:5])\n"
    "for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, file), "
    "(resource.RLIMIT_CORE, 0)):\n    resource.setrlimit(what, (most, most))\n"
    "os.nice(10)\n"
    "module = sys.argv[1]\n"
    "sys.argv = [module, *sys.argv[5:]]\n"
    "runpy.run_module(module, run_name='__main__', alter_sys=True)\n"
)


@dataclass(slots=True)
class Job:
    """A process, or what came of it. Times are microseconds; ``code`` is None while it runs, and -1 past its time."""

    name: str
    person: str
    began: int
    ended: int | None = None
    code: int | None = None
    out: bytes = b""
    err: str = ""
    path: Path | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return self.ended is None

    @property
    def late(self) -> bool:
        return self.code == -1

    def document(self) -> Mapping[str, Any] | None:
        """What it printed, as the one JSON document that it is; None when it is none."""
        with suppress(ValueError):
            found = json.loads(self.out)
            if isinstance(found, dict):
                return found
        return None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds of time, seconds of processor, bytes of any file it writes, bytes of its memory."""

    time_s: int
    cpu_s: int
    file_bytes: int = OUTPUT_BYTES_MAX
    memory_bytes: int = MEMORY_BYTES_MAX


def plain_environment() -> dict[str, str]:
    """The server's environment without what it holds beside: a provider's key is none of a job's business."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


class Jobs:
    """The console's processes; their results are kept in memory until the next of the name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._threads = ThreadPoolExecutor(AT_ONCE_MAX, thread_name_prefix="countermark-job")
        self._jobs: dict[str, Job] = {}
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def get(self, name: str) -> Job | None:
        """The newest job of a name."""
        return self._jobs.get(name)

    def start(
        self, name: str, person: str, module: str, arguments: Sequence[str], bounds: Bounds, *,
        path: Path | None = None, told: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None,
    ) -> Job:  # fmt: skip
        """Begin. ``path`` is a file of the job's, for whoever shows it; it is deleted when the next job begins.

        ``environment`` is all that it is given, ``plain_environment()`` without one.

        Raises:
            GateBusyError: as many run as may, or this one does already.
        """
        before = self._jobs.get(name)
        if before is not None and before.running:
            raise GateBusyError("this is under way already; nothing was begun", hint="Wait for its result.")
        if self._closed or sum(job.running for job in self._jobs.values()) >= AT_ONCE_MAX:
            raise GateBusyError("too much is under way; nothing was begun", hint="Try again in a minute.")
        if before is not None and before.path is not None and before.path != path:
            before.path.unlink(missing_ok=True)
        job = self._jobs[name] = Job(name, person, self._clock.now_us(), path=path, told=told or {})
        # -P: the directory in which somebody started the server is no place to load a module from.
        command = [sys.executable, "-P", "-c", _BOUNDED, module, str(bounds.memory_bytes), str(bounds.cpu_s),
                   str(bounds.file_bytes), *arguments]  # fmt: skip
        given = plain_environment() if environment is None else environment
        try:
            self._threads.submit(self._run, job, command, bounds, given)
        except RuntimeError:
            raise GateHaltedError("the server is stopping") from None
        return job

    async def finished(self, job: Job, wait_s: int) -> None:
        """Wait for a short one."""
        for _ in range(wait_s * 20):
            if not job.running:
                return
            await asyncio.sleep(0.05)

    def _run(self, job: Job, command: Sequence[str], bounds: Bounds, environment: Mapping[str, str]) -> None:
        code, out, err = -2, b"", b"it could not be begun"
        try:
            with TemporaryFile() as output, TemporaryFile() as errors:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment,
                    start_new_session=True,
                )  # fmt: skip
                self._processes.add(process)
                code = self._waited(process, bounds.time_s)
                output.seek(0)
                errors.seek(0)
                out, err = output.read(OUTPUT_BYTES_MAX), errors.read(ERROR_BYTES_MAX)
        except OSError as error:
            err = str(error.strerror).encode()
        finally:
            job.out, job.err, job.code = out, err.decode("utf-8", "replace"), code
            job.ended = self._clock.now_us()

    def _waited(self, process: subprocess.Popen[bytes], time_s: int) -> int:
        try:
            return process.wait(time_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return -1
        finally:
            self._processes.discard(process)

    def close(self) -> None:
        """End what runs, and delete its files."""
        self._closed = True
        for process in list(self._processes):
            process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for job in self._jobs.values():
            if job.path is not None:
                job.path.unlink(missing_ok=True)


def known(job: Job | None) -> Job:
    """A job that there is. Raises ``ArgumentError``."""
    if job is None:
        raise ArgumentError("nothing of this name was begun here", field="id", code="unknown_action")
    return job
