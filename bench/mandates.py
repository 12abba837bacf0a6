"""What a chain of mandates costs: ``python bench/mandates.py [--json]``. About ten seconds; writes to the current disk.

Rounds under a chain of one and a chain of five take turns, and the medians of their ratios are reported: the judgement
alone on the lane's own thread, and whole governed actions, 64 in flight. Every mandate has two limits of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from countermark.authority import grant, load_private
from countermark.gate import Writer
from countermark.model.clock import SystemClock
from countermark.policy import judge
from countermark.wiring.bench import AGENT, Rig
from countermark.wiring.init import mandate_document

CHAINS = (1, 5)
ROUNDS = 9
JUDGED, ACTED = 2_000, 400  # in a round
IN_FLIGHT = 64
DAY_US = 86_400_000_000
LIMITS = [
    {"currency": "eur", "amount": 10**12, "over_us": 0}, {"currency": "eur", "amount": 10**15, "over_us": DAY_US},
]  # fmt: skip
CLOCK = SystemClock()


def chained(rig: Rig, length: int) -> str:
    """A run under a chain of so many mandates."""
    key, parent, begin = load_private(rig.folder / "people" / "treasurer.pem"), None, CLOCK.now_us() - 1_000_000
    for _ in range(length):
        document = mandate_document(
            "bench", "treasurer", AGENT, parent=parent, limits=LIMITS, not_before=begin, not_after=begin + DAY_US
        )
        parent = rig.handle.call("mandate.grant", grant(document, key))
    return rig.handle.start_run(mandate=parent)


def judged(rig: Rig, asks: list[Any], run: str, number: Any) -> float:
    """Microseconds of one judgement."""

    def measure(writer: Writer) -> float:
        begin = CLOCK.steady_us()
        for _ in range(JUDGED):
            turn = next(number)
            ask = asks[turn % len(asks)][0]._replace(run=run, obligation=f"sha256:{turn:064x}")
            if judge(writer.state, ask, writer.at).disposition not in ("allow", "flag"):
                raise SystemExit("a payment of this benchmark was not allowed")
        return (CLOCK.steady_us() - begin) / JUDGED

    return float(rig.gate.wait(rig.gate.lane.ask(measure)))


def acted(rig: Rig, run: str) -> float:
    """Microseconds of one governed action, of 64 in flight."""
    rig._run = run
    level = rig.level(IN_FLIGHT, 0, ACTED)
    return 1_000_000 / level.per_s


def measure(folder: Path) -> dict[str, Any]:
    rig, number = Rig(folder / "d"), count()
    try:
        rig.level(1, 0, 20)
        _, asks = rig.asks()
        runs = {length: chained(rig, length) for length in CHAINS}
        judgements: dict[int, list[float]] = {length: [] for length in CHAINS}
        actions: dict[int, list[float]] = {length: [] for length in CHAINS}
        for _ in range(ROUNDS):
            for length in CHAINS:
                judgements[length].append(judged(rig, asks, runs[length], number))
                actions[length].append(acted(rig, runs[length]))
    finally:
        rig.close()
    found: dict[str, Any] = {}
    for name, rows in (("judgement", judgements), ("action", actions)):
        pairs = zip(rows[CHAINS[0]], rows[CHAINS[1]], strict=True)
        found[name] = {
            **{f"chain_{length}_us": round(median(rows[length]), 1) for length in CHAINS},
            "ratio": round(median(long / short for short, long in pairs), 3),
        }
    return found


def main() -> None:
    with tempfile.TemporaryDirectory(prefix=".countermark-bench-", dir=Path.cwd()) as folder:
        found = measure(Path(folder))
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    for name, row in found.items():
        one, five = (row[f"chain_{length}_us"] for length in CHAINS)
        print(f"{name:10} one mandate {one:8.1f} us   five {five:8.1f} us   {row['ratio']:.2f}x")


if __name__ == "__main__":
    main()
