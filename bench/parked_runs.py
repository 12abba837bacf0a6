"""What runs that wait cost: python bench/parked_runs.py [--runs N] [--dir DIR] [--json]

Each run waits for an event of its own that does not come. They are started 256 at a time through the embedded engine;
the process's resident memory and the bytes on disk are read on the way. Then the deployment is closed and opened again
by another process, which tells its memory and how long it took; a share of the runs is then woken and runs to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from countermark.gate import Caller, Gate
from countermark.wiring import own_the_process
from countermark.wiring.bench import AGENT, rig
from countermark.wiring.deployment import open_deployment

IN_FLIGHT = 256
LOOKS = 10
WOKEN = 500
BANK = """
[workflows.sources.bank]
kind = "webhook"
scheme = "standard"
secret = "env:BANK_SECRET"
key = "/key"
"""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def flow() -> dict[str, Any]:
    """One step: it waits for the event that the run's input names."""
    wait = {
        "id": "wait", "kind": "wait", "name": "", "if": None, "continue_on_error": False, "timeout_s": None,
        "retry": None, "for": {"kind": "event", "source": "bank", "key": {"$": "inputs.key"}},
    }  # fmt: skip
    job = {"id": "main", "needs": [], "if": None, "matrix": None, "fail_fast": True, "parallel": 1,
           "continue_on_error": False, "timeout_s": None, "outputs": [], "steps": [wait]}  # fmt: skip
    text = {"type": "string", "required": True, "default": None, "choices": []}
    return {"v": 1, "name": "parked", "triggers": [], "inputs": {"key": text}, "outputs": [], "concurrency": None,
            "timeout_s": None, "jobs": [job]}  # fmt: skip


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 2**20


def disk_mb(folder: Path) -> dict[str, float]:
    return {path.name: round(path.stat().st_size / 2**20, 1) for path in sorted((folder / "data").glob("*.db"))}


def park(gate: Gate, numbers: Any, many: int) -> list[tuple[int, str]]:
    """Start so many runs, and come back when each of them waits: the number of its key, and its ID."""
    caller = Caller(AGENT, "embedded")
    left, parked = iter(range(many)), []

    async def worker() -> None:
        for _ in left:
            number = next(numbers)
            body = {"document": flow(), "inputs": {"key": f"K-{number}"}, "wait": True}
            found = await gate.call("workflow.start", body, caller)
            if found["status"] != "waiting":
                raise RuntimeError(f"a run that should wait is {found['status']}")
            parked.append((number, found["run"]))

    async def all_of_them() -> None:
        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))

    gate.wait(all_of_them())
    return parked


def wake(gate: Gate, parked: list[tuple[int, str]]) -> None:
    """Let the events of these runs come, and wait until the runs are over."""
    caller = Caller(AGENT, "embedded")

    async def all_of_them() -> None:
        for number, run in parked:
            event = {"source": "bank", "event": f"E-{number}", "key": f"K-{number}", "payload": {}, "scheme": "test",
                     "digest": "sha256:" + f"{number:064x}", "evidence": {}}  # fmt: skip
            await gate.call("event.received", event, caller)
            status = ""
            while status not in ("success", "failure", "cancelled"):
                status = (await gate.call("workflow.drive", {"run": run}, caller))["status"]
            if status != "success":
                raise RuntimeError(f"a run that was woken is {status}")

    gate.wait(all_of_them())


def again(folder: Path, parked: list[tuple[int, str]]) -> dict[str, Any]:
    """In another process: open what the first one left, and wake some."""
    begin = time.perf_counter()
    made = open_deployment(folder)
    try:
        opened = time.perf_counter() - begin
        before = resident_mb()
        begin = time.perf_counter()
        wake(made.gate, parked)
        took = time.perf_counter() - begin
        return {"open_s": round(opened, 2), "resident_mb": round(before, 1), "woken": len(parked),
                "wake_s": round(took, 2), "resident_after_mb": round(resident_mb(), 1)}  # fmt: skip
    finally:
        made.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--dir", type=Path, default=Path())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--again", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    own_the_process()
    if options.again is not None:
        print(json.dumps(again(options.again, json.load(sys.stdin))))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.dir.resolve()) as name:
        folder = Path(name) / "deployment"
        rows: list[dict[str, Any]] = []
        numbers, begin = count(1), time.perf_counter()
        woken: list[tuple[int, str]] = []
        with rig(folder, BANK) as made:
            for _ in range(LOOKS):
                parked = park(made.gate, numbers, options.runs // LOOKS)
                woken = woken or parked[:WOKEN]
                took = round(time.perf_counter() - begin, 1)
                many = (len(rows) + 1) * (options.runs // LOOKS)
                rows.append({"parked": many, "resident_mb": round(resident_mb(), 1), "seconds": took,
                             "disk_mb": disk_mb(folder)})  # fmt: skip
                print(json.dumps(rows[-1]), file=sys.stderr)
        command = [sys.executable, __file__, "--again", str(folder)]
        second = subprocess.run(command, check=True, stdout=subprocess.PIPE, input=json.dumps(woken), text=True)
        found = {"rows": rows, "again": json.loads(second.stdout)}
    print(json.dumps(found) if options.json else "\n".join(map(str, [*rows, found["again"]])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
