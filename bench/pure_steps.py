"""What pure steps cost: ``python bench/pure_steps.py [--calls 20000] [--json]``.

Small steps through a pool of two workers, with 1, 16, 64 and 256 in flight, and the same again by the independent
verifier. Processor time is that of this process and of the workers, apart; rates hang on the neighbours, so the bare
cost of a ``Future`` and of a pipe's round trip, taken in between, stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from countermark.compute import ENGINE, Pool
from countermark_verify.recompute import Call, Recomputer

SMALL = """\
RATE = 98

def due(total):
    return total * RATE // 100

def main(amount, fee, lines):
    open = [line["sku"] for line in lines if line["received"] < line["ordered"]]
    return {"net": due(amount) - fee, "open": open, "ok": not open and amount > fee}
"""


def inputs(n: int) -> dict[str, Any]:
    lines = [{"sku": f"A-{k}", "ordered": 5, "received": 5 - (n + k) % 2} for k in range(3)]
    return {"amount": 10_000 + n, "fee": n % 7, "lines": lines}


def worker_time(pool: Pool) -> float:
    """Seconds of processor time of the pool's workers."""
    ticks = 0
    for worker in pool._workers:
        with Path(f"/proc/{worker.pid}/stat").open() as file:
            ticks += sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def run(pool: Pool, calls: int, in_flight: int) -> dict[str, float]:
    waiting: deque[Future[Any]] = deque()
    work = [inputs(n) for n in range(calls)]
    began, own, theirs = time.perf_counter(), time.process_time(), worker_time(pool)
    for one in work:
        if len(waiting) == in_flight:
            waiting.popleft().result()
        waiting.append(pool.submit(SMALL, one))
    for future in waiting:
        if future.result().status != "ok":
            raise SystemExit(future.result())
    took = time.perf_counter() - began
    return {
        "calls_s": calls / took,
        "parent_us": (time.process_time() - own) / calls * 1e6,
        "worker_us": (worker_time(pool) - theirs) / calls * 1e6,
    }


def bare(calls: int) -> dict[str, float]:
    """A future made, completed and read; a byte through a pipe and back in one thread."""
    began = time.process_time()
    for _ in range(calls):
        future: Future[int] = Future()
        future.set_running_or_notify_cancel()
        future.set_result(1)
        future.result()
    futures = time.process_time() - began
    ours, theirs = os.pipe()
    began = time.process_time()
    for _ in range(calls):
        os.write(theirs, b"x")
        os.read(ours, 1)
    return {"future_us": futures / calls * 1e6, "pipe_us": (time.process_time() - began) / calls * 1e6}


def again(calls: int) -> dict[str, float]:
    """The verifier's rate, start and end of its processes included."""
    work = [Call(SMALL, json.dumps(inputs(n), sort_keys=True, separators=(",", ":"))) for n in range(calls)]
    began, own = time.perf_counter(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with Recomputer(ENGINE, 2) as verifier:
        if any(outcome.status != "ok" for outcome in verifier.run(work)):
            raise SystemExit("a step did not come out")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = time.perf_counter() - began
    theirs = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "calls_s": calls / took,
        "parent_us": (time.process_time() - own) / calls * 1e6,
        "worker_us": theirs / calls * 1e6,
        "day_of_400000_s": 400_000 * took / calls,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--calls", type=int, default=20_000)
    arguments.add_argument("--json", action="store_true")
    asked = arguments.parse_args()
    found: dict[str, dict[str, float]] = {}
    with Pool(2) as pool:
        run(pool, 1_000, 64)
        for in_flight in (1, 16, 64, 256):
            found[f"pool, {in_flight} in flight"] = run(
                pool, asked.calls if in_flight > 1 else asked.calls // 10, in_flight
            )
    found["bare"] = bare(asked.calls)
    found["verifier"] = again(asked.calls)
    found["load"] = {"1 min": os.getloadavg()[0]}
    if asked.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(f"{name:22}", "  ".join(f"{key} {value:,.1f}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
