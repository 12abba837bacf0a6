"""The confinement, tried from inside: Python code runs in the worker where Starlark would."""

from __future__ import annotations

import os
import platform
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from compute.compute_cases import ADD, ANY, only_worker, probing

from countermark.compute import Limits, Pool, Ran, UnconfinedError, process, worker
from countermark.compute.pool import AGAIN_US
from countermark.model.errors import ConfigError


@pytest.fixture(name="probe")
def _probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_live_secret")
    with probing(tmp_path, monkeypatch) as pool:

        def ask(text: str) -> Any:
            ran = pool.submit(ANY, {"probe": text}).result()
            assert ran.status == "ok", ran
            assert ran.output is not None
            return ran.output["out"]

        yield ask


REFUSED = {
    "a socket": "socket.socket()",
    "a local socket": "socket.socketpair()",
    "a file to read": "os.open('/etc/passwd', os.O_RDONLY)",
    "a file to write": "os.open('/tmp/x', os.O_WRONLY | os.O_CREAT)",
    "a folder": "os.listdir('/')",
    "a file's state": "os.stat('/')",
    "a file's end": "os.unlink('/tmp/none')",
    "a new name": "os.rename('/tmp/a', '/tmp/b')",
    "a fork": "os.fork()",
    "another program": "os.execv('/bin/true', ['/bin/true'])",
    "a program beside it": "os.posix_spawn('/bin/true', ['/bin/true'], {})",
    "a signal to its caller": "os.kill(os.getppid(), 0)",
    "a signal to itself": "os.kill(1, 0)",
    "another root": "os.chroot('/')",
    "another user": "os.setuid(12345)",
    "another folder": "os.chdir('/tmp')",
    "memory outside of files": "os.memfd_create('x')",
    "a pipe": "os.pipe()",
    "another descriptor": "os.dup(0)",
    "an event descriptor": "os.eventfd(0)",
    "its priority": "os.nice(-1)",
    "the host's name": "os.uname()",
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_worker_cannot_have(probe: Any, what: str) -> None:
    """A system call that reaches beyond the process fails with EPERM."""
    assert probe(f"out = attempt(lambda: {REFUSED[what]})") == "PermissionError"


def test_no_thread_starts(probe: Any) -> None:
    """A worker cannot start a thread."""
    assert probe("out = attempt(threading.Thread(target=print).start)") == "RuntimeError"


def test_memory_is_never_executable(probe: Any) -> None:
    """No memory is made executable, neither new nor what is there."""
    assert (
        probe("out = attempt(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))") == "PermissionError"
    )
    text = """
libc = ctypes.CDLL(None, use_errno=True)
area = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(area))
out = [libc.mprotect(ctypes.c_void_p(address), 4096, 5), ctypes.get_errno()]
"""
    assert probe(text) == [-1, 1]


def test_limits_are_only_lowered(probe: Any) -> None:
    """A hard limit stays, and another process's limits are out of reach."""
    assert probe("out = attempt(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9)))") in (
        "ValueError",
        "PermissionError",
    )
    assert probe("out = attempt(lambda: resource.prlimit(1, resource.RLIMIT_NOFILE))") == "PermissionError"
    names = "NOFILE", "CORE", "FSIZE", "NPROC"
    text = f"out = [resource.getrlimit(getattr(resource, 'RLIMIT_' + name))[1] for name in {names!r}]"
    assert probe(text) == [3, 0, 0, 0]


def test_nothing_is_inherited(probe: Any) -> None:
    """The environment holds no name of the caller's, no descriptor but the caller's two is open."""
    with socket.socket() as other:
        other.set_inheritable(True)
        names = probe("out = sorted(os.environ)")
        assert set(names) <= {"LC_CTYPE"}  # the interpreter sets it for itself
        text = """
def is_open(n):
    for use in (lambda: os.read(n, 0), lambda: os.write(n, b'')):
        try:
            use()
            return True
        except OSError as error:
            if error.errno != errno.EBADF:
                return True
    return False
out = [n for n in range(256) if is_open(n)]
"""
        assert probe(text) == [0, 2]
    assert probe("out = [name for name in sys.modules if name.startswith('countermark')]") == []
    assert probe("out = sys.path") == [path for path in probe("out = sys.path") if "site-packages" not in path]


def test_it_is_a_session_of_its_own_without_rights(probe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel shows it: filter on, no new privileges, no capability, one thread, a session of its own."""
    monkeypatch.undo()
    with Pool(1) as pool:
        assert pool.submit(ADD, {"a": 1, "b": 2}).result().status == "ok"
        folder = Path("/proc") / str(only_worker(pool).pid)
        status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
        assert (status["Seccomp"], status["NoNewPrivs"], status["Threads"]) == ("2", "1", "1")
        assert {status[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}
        fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        assert int(fields[3]) == only_worker(pool).pid  # its session


def test_no_way_back_to_its_caller(probe: Any) -> None:
    """The filter cannot be taken off, nor the death signal."""
    text = "libc = ctypes.CDLL(None); out = [libc.prctl(number, 0, 0, 0, 0) for number in (1, 22, 38)]"
    assert probe(text) == [-1, -1, -1]


@pytest.mark.parametrize(
    "more",
    [
        "worker.ARCHES = {}",
        "worker.PR_SET_SECCOMP = 9999",
        "worker.CAPSET = (9999, 9999)",
        "worker.PR_SET_NO_NEW_PRIVS = 9999",
    ],
)
def test_without_confinement_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    """Where a part of the confinement cannot be had, calls fail with a clear error, until the host has it again."""
    real = process.PROGRAM
    with probing(tmp_path, monkeypatch, more) as pool:
        first: Future[Ran] = pool.submit(ANY, {"probe": "out = 1"})
        with pytest.raises(UnconfinedError, match="cannot be confined here"):
            first.result()
        with pytest.raises(UnconfinedError, match="cannot be confined here"):
            pool.submit(ANY, {"probe": "out = 1"})
        monkeypatch.setattr(process, "PROGRAM", real)
        now = pool._clock.steady_us()
        monkeypatch.setattr(pool._clock, "steady_us", lambda: now + AGAIN_US)
        assert pool.submit(ADD, {"a": 1, "b": 2}).result().output == {"sum": 3}


def test_a_worker_that_never_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When workers end before they are ready, calls fail instead of trying for ever, and later ones may try again."""
    program = tmp_path / "none.py"
    program.write_text("raise SystemExit(1)")
    real = process.PROGRAM
    monkeypatch.setattr(process, "PROGRAM", str(program))
    with Pool(1) as pool:
        with pytest.raises(UnconfinedError, match="before they begin"):
            pool.submit(ADD, {"a": 1, "b": 2}).result()
        monkeypatch.setattr(process, "PROGRAM", real)
        assert pool.submit(ADD, {"a": 1, "b": 2}).result().output == {"sum": 3}


def test_the_filter_names_numbers_of_both_machines() -> None:
    """The program is well formed for x86_64 and aarch64: jumps stay inside, every path ends; others have none."""
    for machine in ("x86_64", "aarch64"):
        lines = worker.program(machine)
        for at, (code, yes, no, _) in enumerate(lines):
            assert code == worker.RETURN or at + 1 + max(yes, no) < len(lines)
        assert lines[-1] == (worker.RETURN, 0, 0, worker.REFUSE)
    with pytest.raises(worker.Unconfined):
        worker.program("riscv64")
    assert platform.machine() in worker.ARCHES


def test_without_the_interpreter_the_pool_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, or with another version, making a pool is a configuration error."""
    monkeypatch.setattr(process, "STARLARK_VERSION", "1999.1")
    with pytest.raises(ConfigError, match=r"2026\.1\.3 is installed") as caught:
        Pool(1)
    assert "countermark[workflow]" in caught.value.hint
    monkeypatch.setattr(process, "find_spec", lambda name: None)
    with pytest.raises(ConfigError):
        Pool(1)


def test_a_caller_that_dies_takes_its_workers_along(tmp_path: Path) -> None:
    """After kill -9 of the caller in the middle of an endless step no worker is left."""
    script = (
        "import sys\nfrom countermark.compute import Pool, Limits\n"
        "from compute.compute_cases import FOREVER, ADD, until\n"
        "pool = Pool(1)\npool.submit(ADD, {'a': 1, 'b': 2}).result()\n"
        "pool.submit(FOREVER, {}, Limits(ticks=10**10, seconds=60))\nworker = pool._workers[0]\n"
        "until(lambda: worker.begun == 2)\nprint(worker.pid, flush=True)\nsys.stdin.read()\n"
    )
    tests = str(Path(__file__).parent.parent)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": tests},
    ) as caller:  # fmt: skip
        assert caller.stdout is not None
        pid = int(caller.stdout.readline())
        watched = os.pidfd_open(pid)
        caller.send_signal(signal.SIGKILL)
        assert select.select([watched], [], [], 30)[0] == [watched]
        os.close(watched)


def test_limits_have_bounds() -> None:
    """A limit outside its bounds, or no integer, is refused."""
    for wrong in ({"ticks": 0}, {"memory_mb": 1}, {"seconds": 0}, {"seconds": True}, {"ticks": 10**11}):
        with pytest.raises(Exception, match="is not between"):
            Limits(**wrong)
