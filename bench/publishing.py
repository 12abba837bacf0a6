"""What published heads cost the lane: ``python bench/publishing.py [--rounds N] [--seconds S] [--json]``.

Two deployments of the template in this process, and a witness (`countermark witness serve`) as another process. One
of the two shows its head to the witness once a second and records each quorum, and once a round `countermark log
publish` brings the log's plain files to its newest head; the other publishes nothing. They take turns, each round
with the raw fsync rate measured just before it; the medians, over the turns, of the ratio of their rates and of this
process's processor time for an action are what it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from countermark.gate import Writer
from countermark.model.clock import SystemClock
from countermark.publish import Witness, make_witness
from countermark.wiring.bench import Rig, rig
from countermark.wiring.process import own_the_process

IN_FLIGHT = 64
ROUNDS, SECONDS = 9, 4.0
WARM_ACTIONS = 2_000
START_S_MAX = 60


@contextmanager
def files_kept(made: Rig, folder: Path) -> Iterator[None]:
    """Meanwhile a process of its own brings the log's plain files to the newest head, as a timer has it do."""
    words = [sys.executable, "-m", "countermark.cli", "-C", str(made.folder), "log", "publish", "--newest", str(folder)]
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # as installed
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, env=compiled) as child:
        yield
        if child.wait():
            raise SystemExit("the log's files were not published")


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
        Witness(folder / "witness", SystemClock()).add_log(loud.log_key)
        last = time.monotonic() + START_S_MAX
        while not witnessed(loud):  # the first question came before the witness knew the log
            if time.monotonic() > last:
                raise SystemExit("the witness does not cosign")
            time.sleep(0.2)
        for one in (quiet, loud):
            one.level(IN_FLIGHT, 0, WARM_ACTIONS)
        seen, rows = [witnessed(loud)], []
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
            order = (quiet, loud) if turn % 2 else (loud, quiet)
            found = {}
            for one in order:
                if one is quiet:
                    found["quiet"] = round_of(quiet, seconds)
                    continue
                with files_kept(loud, folder / "static"):
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
