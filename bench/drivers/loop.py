"""What every driver shares: a line of JSON in, a measured round, a line of JSON out. Standard library only."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Unit = Callable[[int], None]


class Round:
    """Workers that each repeat one unit, one at a time, until the time is over or the count is reached."""

    def __init__(self, unit: Unit, in_flight: int, seconds: float, units: int | None) -> None:
        self._unit = unit
        self._workers = in_flight
        self._seconds = seconds
        self._left = units
        self._lock = threading.Lock()
        self._next = 0
        self._took: list[float] = []
        self._failed: list[BaseException] = []

    def _number(self) -> int | None:
        with self._lock:
            if self._failed or (self._left is not None and self._next >= self._left):
                return None
            self._next += 1
            return self._next

    def _work(self, end: float) -> None:
        took: list[float] = []
        try:
            while self._left is not None or time.perf_counter() < end:
                number = self._number()
                if number is None:
                    break
                begin = time.perf_counter()
                self._unit(number)
                took.append(time.perf_counter() - begin)
        except BaseException as error:
            self._failed.append(error)
        with self._lock:
            self._took.extend(took)

    def run(self) -> dict[str, Any]:
        """Units done and the seconds they took; the first failure of a unit is raised."""
        begin = time.perf_counter()
        workers = [threading.Thread(target=self._work, args=(begin + self._seconds,)) for _ in range(self._workers)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self._failed:
            raise self._failed[0]
        return summary(self._took, time.perf_counter() - begin)


def summary(took: list[float], seconds: float) -> dict[str, Any]:
    """Units, seconds, and the 50th and 99th percentile of a unit's milliseconds."""
    ordered = sorted(took)
    at = [ordered[min(len(ordered) - 1, len(ordered) * p // 100)] * 1000 if ordered else 0.0 for p in (50, 99)]
    return {"units": len(took), "seconds": seconds, "p50_ms": at[0], "p99_ms": at[1]}


def serve(modes: dict[str, Callable[[dict[str, Any]], dict[str, Any]]], ready: dict[str, Any]) -> None:
    """Answer rounds until standard input ends. A round names its mode, in_flight, seconds and perhaps units."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what a peer prints must not mix with the answers
    print(json.dumps({"ready": ready}), file=out, flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            answer = modes[ask["mode"]](ask)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=out, flush=True)


def rounds(unit: Unit) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A mode that repeats ``unit``."""
    return lambda ask: Round(unit, ask["in_flight"], ask["seconds"], ask.get("units")).run()
