"""A real gate under random runs, restarts, hands and hours: whatever it recorded, the verifier finds nothing in it."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from flow_rig import ADD, AGENT, TOOL, an_input, document, job, pay, ref, step
from rig import bodies, signed_answer, waiting
from test_workflow_verified import Stage

from countermark.model.digest import WORKFLOW, digest_of
from countermark.model.errors import CountermarkError

STORMS = 6
PATIENCE = 200  # quarters of a second
SLOW_STORMS = 2_000 if os.environ.get("COUNTERMARK_CASES") == "all" else 28
TURNS, TURNS_MAX = 30, 60
FAULTS = ("", "", "", "refused", "limited", "not_sent", "lost_after", "lost_before")
CONDITIONS = (None, None, None, None, "always()", "failure()", "cancelled()", "inputs.n > 2", "!cancelled()")
SECONDS = (0, 0, 1, 5, 9, 25, 59, 60, 61, 130)
AWAY = (*SECONDS, 3_700)  # an hour goes by while the gate is closed: open, it would stand between plan and record


class Slow:
    """Workers for whose code the clock goes on now and then."""

    def __init__(self, inner: Any, stage: Stage, random: Random) -> None:
        self.inner, self.stage, self.random = inner, stage, random

    def submit(self, code: str, inputs: Any) -> Future[Any]:
        self.stage.clock.advance(self.random.choice((0, 0, 0, 0.5, 4, 30)))
        return self.inner.submit(code, inputs)  # type: ignore[no-any-return]

    def close(self) -> None:
        self.inner.close()


class Storm:
    """One deployment, and what happens to it; all from a seed, but for the order of threads."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = Random(seed)
        folder.mkdir(exist_ok=True)
        self.stage = Stage(folder)
        self.count = 0
        self.runs: list[str] = []
        self.callable = [self.define(self.flow("inner", []))]
        self.callable.append(self.define(self.flow("middle", self.callable)))
        self.flows = [self.flow(f"outer-{number}", self.callable) for number in range(3)]
        self.hinder()

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def patient(self, op: str, body: dict[str, Any]) -> dict[str, Any]:
        """While somebody waits, time goes on: what the engine tries again a little later comes to its turn."""
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.stage.handle.call, op, body)
            for _ in range(PATIENCE):
                if wait([asked], timeout=0.25).done:
                    break
                self.stage.clock.advance(1)
            found: dict[str, Any] = asked.result(timeout=1)
            return found

    def define(self, flow: dict[str, Any]) -> str:
        self.stage.handle.call("workflow.define", {"document": flow})
        return digest_of(WORKFLOW, flow)

    def flow(self, name: str, callable_: list[str]) -> dict[str, Any]:
        jobs: list[dict[str, Any]] = []
        for number in range(self.random.randint(1, 3)):
            needs = [one["id"] for one in jobs if self.chance(50)]
            matrix = [["m", [1, 2, 3][: self.random.randint(1, 3)]]] if self.chance(30) else None
            steps = [self.step(f"s{place}", callable_, bool(matrix)) for place in range(self.random.randint(1, 4))]
            jobs.append(job(
                f"j{number}", *steps, needs=needs, matrix=matrix, fail_fast=self.chance(50),
                parallel=self.random.randint(1, 3), continue_on_error=self.chance(15),
                timeout_s=self.random.choice((None, None, 60, 120)),
                **{"if": self.random.choice(CONDITIONS) if self.chance(30) else None},
            ))  # fmt: skip
        group = {"group": ref("inputs.word"), "cancel": self.chance(50)} if self.chance(40) else None
        return document(
            *jobs, name=name, inputs={"n": an_input(), "word": an_input("string")}, concurrency=group,
            timeout_s=self.random.choice((None, None, 60, 600)),
        )  # fmt: skip

    def step(self, name: str, callable_: list[str], matrix: bool) -> dict[str, Any]:
        common: dict[str, Any] = {"continue_on_error": self.chance(20)}
        common["if"] = self.random.choice(CONDITIONS) if self.chance(30) else None
        late = self.random.choice((None, None, 60, 120))
        kind = self.random.choice(("pay", "pay", "pure", "pure", "event", "event", "time", "call", "agent", "ask"))
        if kind in ("pay", "pure") and self.chance(50):
            common["retry"] = {"attempts": self.random.randint(2, 4), "delay_s": self.random.choice((1, 20, 55)),
                               "factor": self.random.randint(1, 2)}  # fmt: skip
        if kind == "pay":
            self.count += 1
            part = "matrix.m" if matrix else "'x'"
            invoice = ref(f"format('{self.count}-{{0}}-{{1}}', run.id, {part})")
            undo = {
                "tool": TOOL,
                "with": pay(invoice=ref(f"format('U{self.count}-{{0}}-{{1}}', run.id, {part})"))["with"],
            }
            return pay(name, invoice, undo=undo if self.chance(50) else None, **common)
        if kind == "pure":
            code = ADD if self.chance(70) else "def main(amount):\n    fail('no')\n"
            return step("pure", name, code=code, with_={"amount": ref("inputs.n")}, outputs={"amount": "int"}, **common)
        if kind == "ask":
            return step("effect", name, tool="workflow.approve", with_={"question": "well?"}, **common)
        if kind == "call" and callable_:
            given = {"n": ref("inputs.n"), "word": "w"} if self.chance(85) else {"n": "no"}
            return step("call", name, workflow=self.random.choice(callable_), with_=given, timeout_s=late, **common)
        if kind == "agent":
            return step("agent", name, agent=AGENT, goal="pay", tools=[TOOL], calls=2, budget=[["eur", 1500]], sees=[],
                        where=[], outputs={"paid": "int"}, timeout_s=late or 600, **common)  # fmt: skip
        if kind == "time":
            for_ = {"kind": "time", "seconds": self.random.choice((0, 30, 59, 60, 100))}
        else:
            for_ = {"kind": "event", "source": "bank", "key": self.random.choice(("K", "L"))}
        return step("wait", name, for_=for_, timeout_s=late, **common)

    def hinder(self) -> None:
        """Code and commits take their time."""
        workflows, loop = self.stage.handle._end._workflows, self.stage.handle.gate.loop  # type: ignore[union-attr]
        engine = asyncio.run_coroutine_threadsafe(workflows.engine(), loop).result()
        advance = engine._desk.advance

        async def later(*given: Any) -> Any:
            self.stage.clock.advance(self.random.choice((0, 0, 0, 0, 0.3, 2)))
            return await advance(*given)

        engine._desk.advance, engine._planner._workers = later, Slow(engine._planner._workers, self.stage, self.random)

    def turn(self) -> None:
        what = self.random.choice(("start", "start", "event", "event", "time", "time", "time", "drive", "drive",
                                   "cancel", "again", "answer"))  # fmt: skip
        getattr(self, what)()

    def start(self) -> None:
        if len(self.runs) < 8:
            self.stage.provider.script.append(self.random.choice(FAULTS))
            body = {"document": self.random.choice(self.flows), "agent": AGENT, "wait": self.chance(50),
                    "inputs": {"n": self.random.randrange(5), "word": self.random.choice(("a", "b"))}}  # fmt: skip
            self.runs.append(self.patient("workflow.start", body)["run"])

    def event(self) -> None:
        self.count += 1
        self.stage.event(self.random.choice(("K", "L")), f"e{self.count}")

    def time(self) -> None:
        self.stage.clock.advance(self.random.choice(SECONDS))

    def drive(self) -> None:
        rows = self.stage.handle.call("workflow.list", {})["open"]
        if rows:
            self.patient("workflow.drive", {"run": self.random.choice(rows)["run"]})

    def cancel(self) -> None:
        if self.chance(30) and self.runs:
            with suppress(CountermarkError):  # it may be over
                self.stage.cancel(self.random.choice(self.runs))

    def again(self) -> None:
        if self.chance(40):
            self.stage.handle.close()
            self.stage.clock.advance(self.random.choice(AWAY))
            self.stage.handle = self.stage.opened()
            self.hinder()

    def answer(self) -> None:
        for one in waiting(self.stage.handle)[:2]:
            verdict = self.random.choice(("approve", "approve", "refuse"))
            with suppress(CountermarkError):  # its run may be cancelled, or its time over
                self.stage.handle.call("answer", signed_answer(self.stage.made, one, verdict))

    def calm(self) -> None:
        """Until every run is over, but those of which nobody knows whether money moved when the gate was closed."""
        for _ in range(TURNS_MAX):
            rows = self.stage.handle.call("workflow.list", {})["open"]
            if not rows:
                return
            for key in ("K", "L"):
                self.count += 1
                self.stage.event(key, f"e{self.count}")
            self.answer()
            for row in rows:
                self.patient("workflow.drive", {"run": row["run"]})
            self.stage.clock.advance(self.random.choice((10, 61)))
        unknown = {body["run"] for body in bodies(self.stage.root, "action.settled") if body["outcome"] == "unknown"}
        for _ in rows:  # whoever called them waits with them, and whoever is behind them in their group
            groups = {(row["name"], row["group"]) for row in rows if row["run"] in unknown and row["group"] is not None}
            unknown |= {row["run"] for row in rows if (row["name"], row["group"]) in groups}
            unknown |= {body["workflow"]["parent"]["run"] for body in bodies(self.stage.root, "run.started")
                        if body["run"] in unknown and body.get("workflow", {}).get("parent")}  # fmt: skip
        assert {row["run"] for row in rows} <= unknown, f"runs do not end: {rows}"


def _weather(folder: Path, seed: int) -> None:
    storm = Storm(folder, seed)
    try:
        for _ in range(TURNS):
            storm.turn()
        storm.calm()
        assert storm.stage.findings() == [], f"seed {seed}"
    finally:
        if not storm.stage.closed:
            storm.stage.handle.close()


@pytest.mark.parametrize("seed", range(STORMS))
def test_what_a_gate_recorded_in_a_storm_is_verified(tmp_path: Path, seed: int) -> None:
    """Time-outs, retries, groups, matrices, calls, undos, questions, slow code, late commits and restarts."""
    _weather(tmp_path, seed)


@pytest.mark.slow
def test_what_a_gate_recorded_in_many_storms_is_verified(tmp_path: Path) -> None:
    """The same of many more seeds."""
    for seed in range(STORMS, SLOW_STORMS):
        _weather(tmp_path / str(seed), seed)
