"""Awkward times of runs, recorded by the engine and verified: what comes late, what takes long, what is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flow_rig import ADD, document, job, pay, run_it, step
from rig import bodies
from test_workflow_engine import Held
from test_workflow_verified import Stage, waits

from countermark.model.digest import WORKFLOW, digest_of


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path)
    yield found
    if not found.closed:
        found.handle.close()


class Slow:
    """Workers whose code takes so many seconds of the gate's clock."""

    def __init__(self, inner: Any, stage: Stage, seconds: float) -> None:
        self.inner, self.stage, self.seconds = inner, stage, seconds

    def submit(self, code: str, inputs: Any) -> Future[Any]:
        self.stage.clock.advance(self.seconds)
        return self.inner.submit(code, inputs)  # type: ignore[no-any-return]

    def close(self) -> None:
        self.inner.close()


def engine_of(stage: Stage) -> Any:
    workflows, loop = stage.handle._end._workflows, stage.handle.gate.loop  # type: ignore[union-attr]
    return asyncio.run_coroutine_threadsafe(workflows.engine(), loop).result()


def slowly(stage: Stage, seconds: float) -> None:
    engine = engine_of(stage)
    engine._planner._workers = Slow(engine._planner._workers, stage, seconds)


def compute(name: str, **more: Any) -> dict[str, Any]:
    return step("pure", name, code=ADD, with_={"amount": 1}, outputs={"amount": "int"}, **more)


def test_an_event_that_came_too_late_for_one_wait_ends_the_next(stage: Stage) -> None:
    """What ended no wait is there for the wait that begins after it."""
    run = run_it(stage.handle, document(job("main", waits("a", timeout_s=600, continue_on_error=True), waits("b"))))[
        "run"
    ]
    stage.clock.advance(700)
    stage.event("K", "e1")
    stage.drive(run)
    stage.event("K", "e2")
    assert stage.over(run) == "success"
    assert [body["event"] for body in bodies(stage.root, "step.resumed")] == [None, 8]
    assert stage.findings() == []


def test_slow_code_before_a_wait(stage: Stage) -> None:
    """What waits does so from when that is recorded, however long the code before it took."""
    slowly(stage, 4.0)
    flow = document(job("main", compute("a"), compute("b"), compute("c"), waits("w", timeout_s=60)))
    run = run_it(stage.handle, flow)["run"]
    stage.event("K", "e1")
    assert stage.over(run) == "success"
    assert stage.findings() == []


def test_slow_code_over_the_time_of_a_job(stage: Stage) -> None:
    """A step whose turn comes after slow code is judged by the time of that code's record."""
    slowly(stage, 5.0)
    wait = step("wait", "w", for_={"kind": "time", "seconds": 50})
    flow = document(job("main", wait, compute("a"), compute("b"), pay(), timeout_s=60))
    run = run_it(stage.handle, flow)["run"]
    stage.clock.advance(51)
    stage.over(run)
    assert stage.findings() == []


def test_a_child_that_computes_while_its_parent_is_cancelled(stage: Stage) -> None:
    """What a called run planned before it was cancelled with its parent does not begin after it."""
    inner = document(
        job("main", step("wait", "w", for_={"kind": "time", "seconds": 5}), compute("a"), pay()), name="inner"
    )
    stage.handle.call("workflow.define", {"document": inner})
    call = step("call", "sub", workflow=digest_of(WORKFLOW, inner))
    run = run_it(stage.handle, document(job("main", call), name="outer"))["run"]
    (child,) = [one["for"]["run"] for one in bodies(stage.root, "step.waiting") if one["for"]["kind"] == "call"]
    stage.drive(child)
    engine = engine_of(stage)
    held = Held(engine._planner._workers)
    held.calls = 1
    engine._planner._workers = held
    stage.clock.advance(6)
    with ThreadPoolExecutor(2) as pool:
        going = pool.submit(stage.drive, child)
        while held.calls < 2:
            time.sleep(0.01)
        cancelling = pool.submit(stage.cancel, run)
        while not engine.roster.live[child].lock._waiters:
            time.sleep(0.01)
        stage.clock.advance(3)
        held.go.set()
        cancelling.result()
        assert stage.over(run) == "cancelled"
        going.result()
    stage.over(child)
    assert stage.provider.effects == []
    assert stage.findings() == []


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_jumped(stage: Stage, seconds: int) -> None:
    """While the gate is closed for its clock, and after people said that the clock is right, waits end in time."""
    run = run_it(
        stage.handle, document(job("main", waits("a", timeout_s=600, continue_on_error=True), waits("b", timeout_s=60)))
    )["run"]
    stage.clock.step(seconds)
    stage.drive(run)
    stage.event("K", "e1")
    stage.drive(run)
    stage.drive(run)
    assert [body["code"] for body in bodies(stage.root, "step.resumed")] == ["event"]
    assert stage.findings() == []


def late(stage: Stage, seconds: float) -> None:
    """What is planned stands so much later in the records."""
    engine = engine_of(stage)
    advance = engine._desk.advance

    async def later(*given: Any) -> Any:
        stage.clock.advance(seconds)
        return await advance(*given)

    engine._desk.advance = later


@pytest.mark.parametrize("failing", [False, True])
def test_a_step_planned_just_before_the_time_of_its_job(stage: Stage, failing: bool) -> None:
    """It begins where the records say that it was in time, and nowhere else: a restart finds the same."""
    retry = {"attempts": 2, "delay_s": 20, "factor": 1}
    wait = step("wait", "w", for_={"kind": "time", "seconds": 39 if failing else 58})
    bad = step("pure", "a", code="def main():\n    fail('no')\n", outputs={}, retry=retry)
    flow = document(job("main", wait, *([bad] if failing else []), pay(), timeout_s=60))
    run = run_it(stage.handle, flow)["run"]
    late(stage, 2)
    stage.clock.advance(39.5 if failing else 58.5)
    stage.drive(run)
    stage.clock.advance(30)
    assert stage.over(run) == "failure"
    assert stage.provider.effects == []
    assert stage.findings() == []


@pytest.mark.parametrize("called", [False, True])
def test_rows_made_anew_know_what_came_meanwhile(stage: Stage, called: bool) -> None:
    """The rows are gone, and with them that an event, or the end of a called run, was recorded and not yet taken."""
    inner = document(job("main", waits("a", timeout_s=600)), name="inner")
    stage.handle.call("workflow.define", {"document": inner})
    call = step("call", "sub", workflow=digest_of(WORKFLOW, inner), timeout_s=600)
    run = run_it(stage.handle, document(job("main", call), name="outer") if called else inner)["run"]
    roster = engine_of(stage).roster
    if called:
        (child,) = [one["for"]["run"] for one in bodies(stage.root, "step.waiting") if one["for"]["kind"] == "call"]
        stage.drive(child)
        roster._wake = lambda run, record: (
            None if record.kind == "run.ended" else type(roster)._wake(roster, run, record)
        )
        stage.event("K")
        stage.over(child)
    else:
        roster.take = lambda records, seen: None
        stage.event("K")
    stage.handle.close()
    for name in ("runs.db", "runs.db-wal", "runs.db-shm"):
        (stage.root / "data" / name).unlink(missing_ok=True)
    stage.clock.advance(700)
    stage.handle = stage.opened()
    assert stage.over(run) == "success"
    assert stage.findings() == []
