"""Compare workflows of three steps: governed ones through the embedded engine, and DBOS alone running three no-op ones.

    python bench/workflows.py [--rounds N] [--seconds S] [--dir DIR] [--day N] [--json]

Ours are a pure step, an effect on a provider that does nothing, and a pure step: decided, recorded before and after,
signed, every pure step run in its worker. DBOS's are three steps that return their argument. Both in this environment,
in turns on one disk, with the raw fsync rate measured just before each round; medians, and the median of the rounds'
ratios. With ``--day N`` the embedded engine then runs N workflows at the highest concurrency; minutes and memory are
printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from peers import DRIVERS, FSYNC_S, Driver, say
from postgres import Postgres, Unavailable

from countermark.wiring.bench import fsync_rate

LEVELS = (1, 16, 64)
OURS = "embedded"
DBOS_MODES = ("sqlite", "sqlite-wal", "postgres")
DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Figure:
    """One round: workflows per second, percentiles of one, commits per workflow (ours), the raw fsync rate."""

    mode: str
    in_flight: int
    turn: int
    per_s: float
    p50_ms: float
    p99_ms: float
    commits: float | None
    fsync_per_s: float


class Field:
    """The drivers that are up, and PostgreSQL if there is one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._postgres: Postgres | None = None
        self.drivers: dict[str, Driver] = {}

    def start(self) -> None:
        """Start whatever can be had here; the rest is skipped, loudly."""
        for mode in (OURS, *DBOS_MODES):
            home = self._folder / mode
            home.mkdir()
            script = "workflow_driver.py" if mode == OURS else "dbos_driver.py"
            command = [sys.executable, str(DRIVERS / script), str(home), mode]
            try:
                self.drivers[mode] = Driver([*command, self._database()] if mode == "postgres" else command)
            except Unavailable as error:
                say(f"SKIPPED {mode}: {error}")

    def _database(self) -> str:
        found = sorted(DEBIAN.glob("*/bin/postgres"))
        if not found:
            raise Unavailable("no PostgreSQL is installed")
        self._postgres = Postgres(self._folder / "postgres-data", found[-1].parent)
        self._postgres.start()
        return self._postgres.new_database()

    def round(self, mode: str, in_flight: int, turn: int, seconds: float) -> Figure:
        """One measured round."""
        raw = fsync_rate(self._folder, FSYNC_S)
        one = self.drivers[mode].round(mode, in_flight, seconds)
        done = max(1, one["units"])
        commits = one["commits"] / done if "commits" in one else None
        return Figure(mode, in_flight, turn, one["units"] / one["seconds"], one["p50_ms"], one["p99_ms"], commits, raw)

    def close(self) -> None:
        for driver in self.drivers.values():
            driver.close()
        if self._postgres is not None:
            self._postgres.stop()


def report(found: list[Figure]) -> list[dict[str, Any]]:
    """Medians; a ratio is the median over the rounds of ours to theirs in the same round."""
    ours = {(f.in_flight, f.turn): f.per_s for f in found if f.mode == OURS}
    rows = []
    for mode, n in product((OURS, *DBOS_MODES), LEVELS):
        rounds = [f for f in found if (f.mode, f.in_flight) == (mode, n)]
        if not rounds:
            continue
        ratios = [ours[n, f.turn] / f.per_s for f in rounds if f.per_s and (n, f.turn) in ours]
        commits = [f.commits for f in rounds if f.commits is not None]
        rows.append({
            "mode": mode, "in_flight": n, "per_s": round(median(f.per_s for f in rounds), 1),
            "p50_ms": round(median(f.p50_ms for f in rounds), 2), "p99_ms": round(median(f.p99_ms for f in rounds), 2),
            "commits_per_workflow": round(median(commits), 2) if commits else None,
            "fsync_per_s": round(median(f.fsync_per_s for f in rounds), 1), "rounds": len(rounds),
            "ours_to_theirs": round(median(ratios), 2) if ratios and mode != OURS else None,
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Aligned text: one line for every mode and concurrency."""
    head = f"{'':12}{'in flight':>9}{'workflows/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'commits':>9}{'raw fsync/s':>12}"
    lines = [head + f"{'ours/theirs':>12}"]
    for row in rows:
        commits = "-" if row["commits_per_workflow"] is None else f"{row['commits_per_workflow']:.2f}"
        ratio = "-" if row["ours_to_theirs"] is None else f"{row['ours_to_theirs']:.1f}"
        lines.append(
            f"{row['mode']:12}{row['in_flight']:>9}{row['per_s']:>12,.0f}{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}"
            f"{commits:>9}{row['fsync_per_s']:>12,.0f}{ratio:>12}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--dir", type=Path, default=Path())
    parser.add_argument("--day", type=int, default=0, help="then run so many workflows through the embedded engine")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.dir.resolve()) as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user
        field = Field(folder)
        try:
            field.start()
            found = []
            for turn, n in product(range(options.rounds), LEVELS):
                for mode in field.drivers:
                    one = field.round(mode, n, turn, options.seconds)
                    found.append(one)
                    where = f"round {turn + 1} of {options.rounds}, {n} in flight, {mode}"
                    say(f"{where}: {one.per_s:,.1f}/s beside {one.fsync_per_s:,.0f} fsyncs/s")
            day = field.drivers[OURS].round(OURS, LEVELS[-1], 0, options.day) if options.day else None
        finally:
            field.close()
    rows = report(found)
    if options.json:
        print(json.dumps({"rows": rows, "day": day}))
        return 0
    print(table(rows))
    if day is not None:
        print(f"{day['units']:,} workflows in {day['seconds'] / 60:.1f} minutes, {day['memory_mb']} MB at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
