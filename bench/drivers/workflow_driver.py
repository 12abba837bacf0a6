"""Countermark: one workflow (pure, effect, pure) through the embedded engine. Arguments: folder, mode."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import loop

from countermark.gate import Caller
from countermark.wiring import own_the_process
from countermark.wiring.bench import ACCOUNTS, AGENT, ALLOWED, TOOL, Rig, rig

ADD = "def main(amount):\n    return {'amount': amount + 1}\n"
MODE = "embedded"


def _step(kind: str, name: str, **more: Any) -> dict[str, Any]:
    base = {"id": name, "kind": kind, "name": "", "if": None, "continue_on_error": False, "timeout_s": None}
    return {**base, "retry": None, **more}


def flow() -> dict[str, Any]:
    """Pure, a payment, pure: each reads what the one before it gave."""
    asked = {"type": "int", "required": True, "default": None, "choices": []}
    pure = {"code": ADD, "outputs": {"amount": "int"}}
    given = [["amount", {"$": "steps.first.outputs.amount"}], ["currency", "eur"],
             ["destination", {"$": "inputs.account"}], ["metadata[invoice]", {"$": "inputs.invoice"}]]  # fmt: skip
    steps = [
        _step("pure", "first", **pure, **{"with": [["amount", {"$": "inputs.amount"}]]}),
        _step("effect", "pay", tool=TOOL, undo=None, **{"with": given}),
        _step("pure", "last", **pure, **{"with": [["amount", {"$": "steps.first.outputs.amount"}]]}),
    ]
    job = {"id": "main", "needs": [], "if": None, "matrix": None, "fail_fast": True, "parallel": 1,
           "continue_on_error": False, "timeout_s": None, "outputs": [], "steps": steps}  # fmt: skip
    text = {**asked, "type": "string"}
    return {"v": 1, "name": "bench", "triggers": [], "inputs": {"account": text, "amount": asked, "invoice": text},
            "outputs": [], "concurrency": None, "timeout_s": None, "jobs": [job]}  # fmt: skip


class Flows:
    """Starts runs on the gate's loop and waits for their ends."""

    def __init__(self, made: Rig) -> None:
        self._made, self._numbers = made, count(1)
        self._caller = Caller(AGENT, "embedded")
        first = made.gate.wait(self._run({"document": flow()}))
        started = made.gate.wait(made.gate.lane.ask(lambda writer: writer.record(_started(writer, first)).body))
        self._definition = {"definition": started["workflow"]["definition"]}
        self.commits = 0
        made.gate.desk.follow(self._count)

    def _count(self, _: object) -> None:
        self.commits += 1

    async def _run(self, definition: dict[str, Any]) -> str:
        number = next(self._numbers)
        inputs = {"account": ACCOUNTS[number % len(ACCOUNTS)], "amount": ALLOWED, "invoice": f"WF-{number}"}
        body = {**definition, "inputs": inputs, "wait": True}
        found = await self._made.gate.call("workflow.start", body, self._caller)
        if found["status"] != "success":
            raise RuntimeError(f"a benchmark's run is {found['status']}")
        return str(found["run"])

    def measure(self, ask: dict[str, Any]) -> dict[str, Any]:
        """A round of ``in_flight`` workflows at once, for some seconds or until ``units`` are done."""
        took: list[float] = []
        left = None if ask.get("units") is None else iter(range(ask["units"]))
        begin, commits = time.perf_counter(), self.commits

        async def worker() -> None:
            while time.perf_counter() - begin < ask["seconds"] if left is None else next(left, None) is not None:
                at = time.perf_counter()
                await self._run(self._definition)
                took.append(time.perf_counter() - at)

        async def all_of_them() -> None:
            await asyncio.gather(*(worker() for _ in range(ask["in_flight"])))

        self._made.gate.wait(all_of_them())
        found = loop.summary(took, time.perf_counter() - begin)
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return {**found, "commits": self.commits - commits, "memory_mb": memory_mb}


def _started(writer: Any, run: str) -> int:
    """The record that started a run, among the newest ones."""
    for seq in range(writer.state.size - 1, -1, -1):
        record = writer.record(seq)
        if record.kind == "run.started" and record.body["run"] == run:
            return seq
    raise KeyError(run)


def main(folder: Path, mode: str) -> None:
    own_the_process()
    with rig(folder / "deployment") as made:
        loop.serve({mode: Flows(made).measure}, {"countermark": version("countermark")})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
