"""A PostgreSQL server with its default settings on the disk that is measured, for the time of a comparison."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root


class Unavailable(Exception):
    """A peer that cannot be had on this machine; says why."""


class Postgres:
    """Listens on a Unix socket in its own folder only. ``fsync`` and ``synchronous_commit`` are on, as shipped."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._data, self._bin, self._databases = folder, binaries, 0
        self._server: subprocess.Popen[bytes] | None = None

    def _as_user(self, program: str, *args: str) -> list[str]:
        command = [str(self._bin / program), *args]
        if os.geteuid() != 0:
            return command
        if shutil.which("setpriv") is None:
            raise Unavailable("PostgreSQL refuses root, and setpriv is not installed")
        return ["setpriv", f"--reuid={UNPRIVILEGED}", "--clear-groups", "--", *command]

    def start(self) -> None:
        """Initialise and start. Raises ``Unavailable``."""
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self._data, UNPRIVILEGED)
        self._run("initdb", "-D", str(self._data), "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-locale")
        command = self._as_user("postgres", "-D", str(self._data), "-k", str(self._data), "-c", "listen_addresses=")
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            ready = subprocess.run(
                [str(self._bin / "pg_ctl"), "status", "-D", str(self._data)], capture_output=True, check=False
            )
            if ready.returncode == 0 and (self._data / ".s.PGSQL.5432").exists():
                break
            if self._server.poll() is not None:
                raise Unavailable("the server did not start")
            _pause()
        self._psql("select 1")

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(self._as_user(program, *args), capture_output=True, text=True, check=False, cwd="/")
        if done.returncode:
            raise Unavailable(f"{program}: {(done.stderr or done.stdout).strip()[-300:]}")

    def _psql(self, sql: str) -> None:
        for tries_left in range(50, -1, -1):
            try:
                self._run("psql", "-h", str(self._data), "-U", "bench", "-d", "postgres", "-qc", sql)
                return
            except Unavailable:
                if not tries_left:
                    raise
                _pause()

    def new_database(self) -> str:
        """Create an empty database; returns its SQLAlchemy URL."""
        self._databases += 1
        name = f"bench{self._databases}"
        self._psql(f"create database {name}")
        return f"postgresql+psycopg://bench@/{name}?host={self._data}"

    def processes(self) -> list[int]:
        """The server and its background processes."""
        if self._server is None:
            return []
        pid = self._server.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def stop(self) -> None:
        """Fast shutdown of this server alone."""
        if self._server is None:
            return
        self._server.send_signal(2)  # SIGINT: fast shutdown
        try:
            self._server.wait(30)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()


def _pause() -> None:
    subprocess.run(["sleep", "0.1"], check=False)
