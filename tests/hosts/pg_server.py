"""A PostgreSQL server for tests, as an unprivileged user, on a Unix socket in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root
START_S = 30


def binaries() -> Path | None:
    """Where Debian keeps PostgreSQL 15 or a later one; None when it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Server:
    """Its databases have names of the tests' choice; nobody but this machine's users reaches it."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self.process: subprocess.Popen[bytes] | None = None

    def _command(self, program: str, *args: str) -> list[str]:
        command = [str(self._programs / program), *args]
        return (
            ["setpriv", f"--reuid={UNPRIVILEGED}", "--clear-groups", "--", *command] if os.geteuid() == 0 else command
        )

    def _run(self, program: str, *args: str) -> None:
        subprocess.run(self._command(program, *args), check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        """Initialise and start; returns when it answers."""
        data = str(self._folder / "data")
        if os.geteuid() == 0:
            shutil.chown(self._folder, UNPRIVILEGED)
        self._run("initdb", "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8", "--no-locale")
        options = ["-D", data, "-k", str(self._folder), "-c", "listen_addresses="]
        self.process = subprocess.Popen(
            self._command("postgres", *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        for _ in range(START_S * 10):
            done = subprocess.run(
                self._command("pg_isready", "-h", str(self._folder)), check=False, capture_output=True, cwd="/"
            )
            if done.returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError("the server did not start")

    def database(self, name: str) -> str:
        """Make an empty database; its URL for SQLAlchemy."""
        self._run("createdb", "-h", str(self._folder), "-U", "tests", name)
        return f"postgresql+psycopg://tests@/{name}?host={self._folder}"

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # fast shutdown
            self.process.wait(30)


@contextmanager
def server(programs: Path) -> Iterator[Server]:
    """A server in a short path: a Unix socket's name has little room."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    found = Server(folder, programs)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)
