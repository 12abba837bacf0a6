"""What published heads cost the lane: ``python bench/publishing.py [--rounds N] [--seconds S] [--json]``.

Two deployments of the template in this process, and a witness (`countermark witness serve`) as another process. One of
the two shows its head to the witness once a second, records each quorum and brings the log's plain files up to it; the
other publishes nothing. They take turns, each round with the raw fsync rate measured just before it; the medians, over
the turns, of the ratio of their rates and of this process's processor time for an action are what it prints.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from countermark.gate import Writer
from countermark.journal import LogView, SqliteStore
from countermark.model.clock import SystemClock
from countermark.publish import Witness, make_witness, publish_static
from countermark.wiring.bench import Rig, rig
from countermark.wiring.process import own_the_process

IN_FLIGHT = 64
ROUNDS, SECONDS = 9, 4.0
WARM_ACTIONS = 2_000
START_S_MAX = 60
STATIC_EVERY_S = 1.0


class Files:
    """Keeps the log's plain files at its newest head, from a thread of its own, as `publish static` by a timer does."""

    def __init__(self, made: Rig, folder: Path) -> None:
        self._made, self._folder, self._end = made, folder, threading.Event()
        self._on = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While this lasts they are brought up to date."""
        self._on.set()
        try:
            yield
        finally:
            self._on.clear()

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        store = SqliteStore(self._made.folder / "data" / "journal.db", readonly=True)
        view = LogView(store)
        while not self._end.wait(STATIC_EVERY_S):
            newest = store.head() if self._on.is_set() else None
            if newest is not None:
                publish_static(self._folder, view, newest[1], (self._made.log_key,))
        store.close()


def witnessed(made: Rig) -> int:
    """How many records the witnesses have seen."""

    def look(writer: Writer) -> int:
        seen = writer.state.witnessed
        return 0 if seen is None else seen.size

    return int(made.gate.wait(made.gate.lane.ask(look)))


def round_of(made: Rig, seconds: float) -> dict[str, float]:
    """One round: rate, processor time of an action in microseconds, raw fsync rate."""
    raw = made.beside_fsync(1, 0, 1)
    begin = time.process_time()
    rate = made.level(IN_FLIGHT, seconds)
    used = time.process_time() - begin
    return {"per_s": rate.per_s, "cpu_us": used / rate.actions * 1e6, "fsync_per_s": raw.fsync_per_s}


def measure(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    key = make_witness(folder / "witness", "bank.example/w")
    serve = [sys.executable, "-m", "countermark.cli", "witness", "serve", str(folder / "witness"), "--port", "0"]
    child = subprocess.Popen([*serve, "--json"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    url = json.loads(child.stdout.readline())["url"]
    with ExitStack() as ends:
        ends.callback(child.wait)
        ends.callback(child.terminate)
        quiet = ends.enter_context(rig(folder / "quiet"))
        loud = ends.enter_context(rig(folder / "loud", witnesses=f"witness bank/one {key} {url}\nquorum bank/one\n"))
        files = ends.enter_context(closing(Files(loud, folder / "static")))
        Witness(folder / "witness", SystemClock()).add_log(loud.log_key)
        for one in (quiet, loud):
            one.level(IN_FLIGHT, 0, WARM_ACTIONS)
        last = time.monotonic() + START_S_MAX
        while not witnessed(loud):  # the first question came before the witness knew the log
            if time.monotonic() > last:
                raise SystemExit("the witness does not cosign")
            rig.level(1, 0.2)
        seen, rows = [witnessed(loud)], []
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
            order = (quiet, loud) if turn % 2 else (loud, quiet)
            found = {}
            for one in order:
                if one is quiet:
                    found["quiet"] = round_of(quiet, seconds)
                    continue
                with files.kept():
                    found["published"] = round_of(loud, seconds)
                seen.append(witnessed(loud))
            rows.append(found)
    if len(set(seen)) < rounds:
        raise SystemExit("there were rounds in which the witness saw nothing")

    def middle(of: str, name: str) -> float:
        return round(median(row[of][name] for row in rows), 1)

    def ratio(name: str) -> float:
        return round(median(row["published"][name] / row["quiet"][name] for row in rows), 3)

    return {
        "rounds": rounds, "seconds": seconds, "rate_ratio": ratio("per_s"), "cpu_ratio": ratio("cpu_us"),
        **{f"{of}_{name}": middle(of, name) for of in ("quiet", "published") for name in rows[0]["quiet"]},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    own_the_process()
    with tempfile.TemporaryDirectory(prefix=".countermark-bench-", dir=Path.cwd()) as folder:
        found = measure(Path(folder), options.rounds, options.seconds)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'':24}{'actions/s':>12}{'µs each':>10}{'raw fsync/s':>13}")
    for name in ("quiet", "published"):
        row = [found[f"{name}_{one}"] for one in ("per_s", "cpu_us", "fsync_per_s")]
        print(f"{name:24}{row[0]:>12,.0f}{row[1]:>10,.0f}{row[2]:>13,.0f}")
    print(f"{'published against quiet':24}{found['rate_ratio']:>12.3f}{found['cpu_ratio']:>10.3f}")


if __name__ == "__main__":
    main()
