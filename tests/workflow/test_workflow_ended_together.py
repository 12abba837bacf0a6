"""A cancellation is one commit: an answer by people that comes after it finds nothing that waits."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from flow_rig import AGENT, TOOL, document, job, run_it, step
from rig import bodies, signed_answer, waiting
from test_workflow_verified import Stage, asks, stage, waits

from countermark.journal import SqliteStore
from countermark.model.digest import WORKFLOW, digest_of
from countermark.model.driving import Note
from countermark.model.errors import CountermarkError

__all__ = ["stage"]
HERE = Path(__file__).resolve().parent


def kinds(root: Path) -> list[str]:
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    found = [record.kind for record in store.records(0, store.size())]
    store.close()
    return found


def answered_at_once(stage: Stage, questions: Sequence[str]) -> list[str]:
    """People approve these directly after the commit in which a run is cancelled; what they are told."""
    asked = {one["values"]["question"]: one for one in waiting(stage.handle)}
    answers = [signed_answer(stage.made, asked[name]) for name in questions]
    engine = engine_of(stage)
    advance, told = engine._desk.advance, []

    async def then(run: str, parts: Sequence[Any], *rest: Any) -> Any:
        replies = await advance(run, parts, *rest)
        if any(isinstance(part, Note) and part.kind == "run.cancelled" for part in parts):
            while answers:
                try:
                    told.append((await stage.handle.gate.answer(answers.pop(0)))["state"])
                except CountermarkError as error:
                    told.append(error.code)
        return replies

    engine._desk.advance = then
    return told


def engine_of(stage: Stage) -> Any:
    workflows, loop = stage.handle._end._workflows, stage.handle.gate.loop  # type: ignore[union-attr]
    return asyncio.run_coroutine_threadsafe(workflows.engine(), loop).result()


def test_nobody_approves_what_a_cancelled_run_asked(stage: Stage) -> None:
    """Both questions of a run in memory or a row are withdrawn in the commit that cancels it."""
    run = run_it(stage.handle, document(job("a", asks("one")), job("b", asks("two"))))["run"]
    told = answered_at_once(stage, ["one?", "two?"])
    stage.cancel(run)
    assert stage.over(run) == "cancelled"
    assert told == ["approval_void"] * 2
    assert stage.findings() == []


def test_nobody_approves_what_a_run_below_a_cancelled_one_asked(stage: Stage) -> None:
    """A called run, and one that it called, and an agent's: all of them end in the commit that cancels the first."""
    last = document(job("main", asks("deep")), name="last")
    stage.handle.call("workflow.define", {"document": last})
    inner = document(job("main", step("call", "sub", workflow=digest_of(WORKFLOW, last))), job("b", asks("mid")),
                     job("c", agent()), name="inner")  # fmt: skip
    stage.handle.call("workflow.define", {"document": inner})
    outer = document(job("main", step("call", "sub", workflow=digest_of(WORKFLOW, inner))), job("b", asks("top")),
                     name="outer")  # fmt: skip
    run = run_it(stage.handle, outer)["run"]
    for _ in range(2):  # the run below, then the one below that
        for body in bodies(stage.root, "step.waiting"):
            if body["for"]["kind"] == "call":
                stage.drive(body["for"]["run"])
    told = answered_at_once(stage, ["deep?", "mid?", "top?"])
    size = len(kinds(stage.root))
    stage.cancel(run)
    assert kinds(stage.root)[size:][:10] == [
        "run.cancelled", "escalation.expired",  # outer
        "run.cancelled", "escalation.expired",  # inner
        "run.cancelled", "escalation.expired", "step.resumed",  # last
        "run.ended", "step.resumed",  # the agent's
        "step.resumed",
    ]  # fmt: skip
    assert stage.over(run) == "cancelled"
    assert told == ["approval_void"] * 3
    assert waiting(stage.handle) == []
    assert stage.findings() == []


def agent() -> dict[str, Any]:
    return step(
        "agent", "chase", agent=AGENT, goal="pay what is due", tools=[TOOL], calls=2, budget=[["eur", 1500]],
        sees=[], where=[], outputs={"paid": "int"}, timeout_s=3600,
    )  # fmt: skip


def test_nobody_approves_what_a_superseded_run_asked(stage: Stage) -> None:
    """The newer run of the group begins, and the one before it and its questions end, in one commit."""
    flow = document(job("main", asks("one"), waits("a")), concurrency={"group": "g", "cancel": True})
    first = run_it(stage.handle, flow)["run"]
    told = answered_at_once(stage, ["one?"])
    size = len(kinds(stage.root))
    second = run_it(stage.handle, flow)["run"]
    assert kinds(stage.root)[size:][:3] == ["run.started", "run.cancelled", "escalation.expired"]
    assert told == ["approval_void"]
    assert stage.over(first) == "cancelled"
    assert stage.drive(second)["status"] == "waiting"
    assert stage.findings() == []


def test_an_answer_that_came_first_counts(stage: Stage) -> None:
    """What people approved before the commit is done; their other question is withdrawn all the same."""
    run = run_it(stage.handle, document(job("a", asks("one")), job("b", asks("two"))))["run"]
    asked = {one["values"]["question"]: one for one in waiting(stage.handle)}
    answer, engine = signed_answer(stage.made, asked["one?"]), engine_of(stage)
    advance = engine._desk.advance

    async def first(run: str, parts: Sequence[Any], *rest: Any) -> Any:
        if any(isinstance(part, Note) and part.kind == "run.cancelled" for part in parts):
            engine._desk.advance = advance
            await stage.handle.gate.answer(answer)
        return await advance(run, parts, *rest)

    engine._desk.advance = first
    stage.cancel(run)
    assert waiting(stage.handle) == []
    assert stage.over(run) == "cancelled"
    assert [body["id"] for body in bodies(stage.root, "escalation.expired")] == [asked["two?"]["id"]]
    assert [body["id"] for body in bodies(stage.root, "action.settled")] == [asked["one?"]["id"]]
    assert stage.findings() == []


@pytest.mark.parametrize("point", ["workflow.cancelling", "lane.in_transaction", "lane.committed"])
def test_killed_while_a_run_is_cancelled(stage: Stage, point: str) -> None:
    """Either it is cancelled and nobody is asked any more, or nothing of that is recorded and people may say yes."""
    inner = document(job("main", asks("below")), name="inner")
    stage.handle.call("workflow.define", {"document": inner})
    call = step("call", "sub", workflow=digest_of(WORKFLOW, inner))
    run = run_it(stage.handle, document(job("main", call), job("b", asks("one"))))["run"]
    (below,) = [body["for"]["run"] for body in bodies(stage.root, "step.waiting")]
    stage.drive(below)
    asked = waiting(stage.handle)
    answers = [signed_answer(stage.made, one) for one in asked]
    stage.handle.close()
    child = subprocess.run([sys.executable, str(HERE / "cancel_child.py"), str(stage.root), run, point], check=False,
                           capture_output=True, timeout=120)  # fmt: skip
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-2_000:]
    durable = point == "lane.committed"
    assert kinds(stage.root).count("run.cancelled") == kinds(stage.root).count("escalation.expired") == 2 * durable
    stage.handle = stage.opened()
    assert len(waiting(stage.handle)) == 2 * (not durable)
    for answer in answers:
        if durable:
            with pytest.raises(CountermarkError) as caught:
                stage.handle.call("answer", answer)
            assert caught.value.code == "approval_void"
        else:
            stage.handle.call("answer", answer)
    assert stage.over(run) == ("cancelled" if durable else "success")
    assert stage.findings() == []
