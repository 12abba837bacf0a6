"""``StripeTwin``: start the simulator as a process in a session of its own, talk to its controls, read its books."""

from __future__ import annotations

import http.client
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from countermark.model.clock import US, SystemClock
from countermark.model.errors import StoreError
from countermark.twins.stripe.api import START_S
from countermark.twins.stripe.books import Books

START_S_MAX = 30
STOP_S_MAX = 10
LINE_BYTES_MAX = 4_096


class StripeTwin:
    """A running simulator. ``url`` is its origin, ``key`` its secret key, ``pid`` its process.

    Use it as a context manager. It runs in its own session, so a signal to the caller's process group does not reach
    it; it stops when the caller's process ends, because the caller holds its standard input.
    """

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], url: str, key: str) -> None:
        self.directory = directory
        self.url = url
        self.key = key
        self.pid = process.pid
        self._process = process

    @classmethod
    def start(
        cls, directory: Path | str, *, seed: int = 0, port: int = 0, now_s: int = START_S, running: bool = False,
        faults: Mapping[str, Any] | None = None, accounts: Sequence[str] = (),
        balances: Mapping[str, int] | None = None,
    ) -> StripeTwin:  # fmt: skip
        """Start over new books, or continue those in ``directory`` (its clock, seed and schedule go on).

        ``accounts`` are destination ids to know; ``balances`` are added to what is there. Raises ``StoreError`` when
        the simulator does not come up within ``START_S_MAX`` seconds.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "countermark.twins.stripe.__main__", "--dir", str(directory), "--port", str(port),
            "--seed", str(seed), "--now", str(now_s), "--faults", json.dumps(faults) if faults else "", "--tethered",
        ]  # fmt: skip
        with (directory / "simulator.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--running"] if running else command,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        line = _first_line(process)
        if not line:
            _end(process, signal.SIGKILL)
            raise StoreError("the simulator did not start", hint="See simulator.log in its directory.")
        told = json.loads(line)
        twin = cls(directory, process, told["url"], told["key"])
        if accounts or balances:
            twin.seed(accounts=accounts, balances=balances or {})
        return twin

    def __enter__(self) -> StripeTwin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def control(self, name: str, doc: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call ``/_sim/NAME``; with ``doc`` as POST. Raises ``StoreError`` when it is refused."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            body = None if doc is None else json.dumps(doc)
            headers = {"Authorization": f"Bearer {self.key}"}
            connection.request("GET" if doc is None else "POST", f"/_sim/{name}", body, headers)
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        told: dict[str, Any] = json.loads(raw)
        if answer.status != 200:
            raise StoreError(f"the simulator refused {name}: {told['error']['message']}")
        return told

    def seed(self, *, accounts: Sequence[str] = (), balances: Mapping[str, int] | None = None) -> None:
        self.control("seed", {"accounts": list(accounts), "balances": dict(balances or {})})

    def advance(self, seconds: int) -> int:
        """Move its clock forward; returns its new time in seconds."""
        return int(self.control("clock", {"advance_s": seconds})["now"])

    def faults(self, doc: Mapping[str, Any]) -> None:
        """Set the schedule: ``{"rates": {fault: chance per million}}`` or ``{"script": {kind or "*": [faults]}}``."""
        self.control("faults", doc)

    def restricted_key(self, name: str, scopes: Sequence[str]) -> str:
        """Register and return ``rk_test_NAME`` with permissions such as ``transfers:write``."""
        return str(self.control("keys", {"key": f"rk_test_{name}", "scopes": list(scopes)})["key"])

    def release(self) -> None:
        """Let go of every request that the ``slow`` fault holds."""
        self.control("release", {})

    def wait_held(self, count: int = 1) -> None:
        """Return when ``count`` requests are held by the ``slow`` fault. Raises ``StoreError`` after 10 s."""
        clock = SystemClock()
        end = clock.steady_us() + STOP_S_MAX * US
        while self.counters().get("held", 0) < count:
            if clock.steady_us() > end:
                raise StoreError("no request is held")

    def counters(self) -> dict[str, int]:
        """How often each route, status and fault came up since the process started."""
        return dict(self.control("counters")["counters"])

    def books(self) -> Books:
        return Books(self.directory)

    def stop(self) -> None:
        """End the process in order; again is harmless."""
        _end(self._process, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: no flush, no goodbye. Its books must survive that."""
        _end(self._process, signal.SIGKILL)


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """The first line of standard output, or nothing when it does not come in time."""
    if process.stdout is None:
        return b""
    clock = SystemClock()
    end = clock.steady_us() + START_S_MAX * US
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n") and len(line) < LINE_BYTES_MAX:
            left_s = (end - clock.steady_us()) / US
            if left_s <= 0 or not selector.select(left_s):
                return b""
            part = os.read(process.stdout.fileno(), LINE_BYTES_MAX)
            if not part:
                return b""
            line += part
    return line


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
