"""Runs of definitions in a real gate over a provider in memory: what stands in the records, and in how many commits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flow_rig import (
    ACME,
    AGENT,
    TOOL,
    an_input,
    document,
    job,
    pay,
    ref,
    run_it,
    step,
    three_steps,
    with_approvals,
)
from rig import Provider, args_for, bodies, edited, hold, kinds, make, signed_answer, unsound, waiting, with_bank

import countermark
from countermark.connectors import ApproveConnector
from countermark.model.clock import FakeClock
from countermark.model.digest import WORKFLOW, digest_of
from countermark.model.errors import CountermarkError
from countermark.model.records import Record


@pytest.fixture
def provider() -> Provider:
    return Provider()


def test_a_run_of_three_steps_is_six_records_in_two_commits(tmp_path: Path, provider: Provider) -> None:
    """Pure, effect, pure: what needs nothing from outside stands in the commit before."""
    clock = FakeClock()
    root = make(tmp_path / "d", provider, clock=clock).root
    with hold(root, provider, clock) as handle:
        commits: list[int] = []
        handle.gate.desk.follow(lambda records: commits.append(len(records)))
        found = run_it(handle, three_steps(), amount=41, invoice="INV-7")
        assert found["status"] == "success", found
        assert found["outputs"]["amount"] == 43
        assert commits == [4, 3]
    assert kinds(root)[-8:-1] == [
        "workflow.defined", "run.started", "compute.executed", "action.decided", "action.settled", "compute.executed",
        "run.ended",
    ]  # fmt: skip
    assert len(provider.effects) == 1
    assert unsound(root) == []
    assert (root / "data" / "runs.db").exists()


class Stage:
    """A deployment over a provider in memory, with approve steps, held by this process."""

    def __init__(self, root: Path, *, clock: FakeClock | None = None) -> None:
        self.provider = Provider()
        self.clock = clock
        self.made = make(root, self.provider, clock=clock, edit=with_approvals(edited()))
        self.root = root
        with_bank(root)
        self.handle = self.opened()

    def opened(self) -> countermark.Deployment:
        connectors = {"stripe": self.provider, "workflow": ApproveConnector()}
        return countermark.open(self.root, agent=AGENT, connectors=connectors, clock=self.clock)

    def start(self, definition: Mapping[str, Any], **inputs: Any) -> dict[str, Any]:
        return run_it(self.handle, definition, **inputs)

    def drive(self, run: str) -> dict[str, Any]:
        """Wait until the run waits or is over."""
        found: dict[str, Any] = self.handle.call("workflow.drive", {"run": run})
        return found

    def over(self, run: str) -> dict[str, Any]:
        """Wait until the run is over; it goes on by itself."""
        while (found := self.drive(run))["status"] in ("running", "waiting"):
            pass
        return found

    def again(self) -> None:
        """Close and open."""
        self.handle.close()
        self.handle = self.opened()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path / "d")
    yield found
    found.handle.close()
    assert unsound(found.root) == []


def test_a_run_waits_for_people_and_goes_on_when_they_have_answered(stage: Stage) -> None:
    """An approve step is an action that the policy leaves to people; the answer alone makes the run go on."""
    flow = document(job("main", step("effect", "ask", tool="workflow.approve", with_={"question": "pay?"}), pay()))
    found = stage.start(flow)
    assert found["status"] == "waiting"
    assert stage.provider.effects == []
    stage.again()
    (parked,) = waiting(stage.handle)
    stage.handle.call("answer", signed_answer(stage.made, parked))
    assert stage.over(found["run"])["status"] == "success"
    assert len(stage.provider.effects) == 1


def test_a_refusal_by_people_fails_the_run(stage: Stage) -> None:
    """Refused is failed: what comes after the step is not run."""
    flow = document(job("main", step("effect", "ask", tool="workflow.approve", with_={"question": "pay?"}), pay()))
    found = stage.start(flow)
    (parked,) = waiting(stage.handle)
    stage.handle.call("answer", signed_answer(stage.made, parked, "refuse"))
    assert stage.over(found["run"])["status"] == "failure"
    assert stage.provider.effects == []


def test_a_denied_effect_fails_the_run_and_undoes_what_was_done(stage: Stage) -> None:
    """The compensation of an earlier effect is run when a later one is denied, and the record says so."""
    undo = {"tool": TOOL, "with": [["amount", 5], ["currency", "eur"], ["destination", ACME],
                                   ["metadata[invoice]", "BACK-1"]]}  # fmt: skip
    flow = document(job("main", pay("one", invoice="A-1", undo=undo), pay("two", invoice="A-1")))
    found = stage.start(flow)
    assert found["status"] == "failure"
    assert len(stage.provider.effects) == 2
    assert bodies(stage.root, "run.ended")[-1]["workflow"]["undone"] == ["main.one"]


def test_an_event_ends_a_wait_whether_it_came_before_or_after(stage: Stage) -> None:
    """An event counts once it happened after the run began; a second delivery changes nothing."""
    wait = step("wait", "paid", for_={"kind": "event", "source": "bank", "key": ref("inputs.invoice")})
    flow = document(job("main", wait, pay()), inputs={"invoice": an_input("string")})
    found = stage.start(flow, invoice="INV-9")
    assert found["status"] == "waiting"
    event = {"source": "bank", "event": "e1", "key": "INV-9", "payload": {"amount": 7}, "digest": "sha256:" + "0" * 64,
             "scheme": "test", "evidence": None}  # fmt: skip
    assert stage.handle.call("event.received", event)["fresh"]
    assert not stage.handle.call("event.received", event)["fresh"]
    assert stage.over(found["run"])["status"] == "success"
    assert bodies(stage.root, "step.resumed")[-1]["outputs"] == {"payload": {"amount": 7}, "event": "e1"}


def test_a_called_definition_is_a_run_of_its_own(stage: Stage) -> None:
    """The caller waits for it, and reads its outputs."""
    inner = three_steps()
    assert stage.start(inner, amount=1, invoice="I-0")["status"] == "success"
    outer = document(
        job("main", step("call", "sub", workflow=digest_of(WORKFLOW, inner), with_={"amount": 4, "invoice": "I-1"}),
            outputs=[["amount", ref("steps.sub.outputs.amount")]]),
        name="outer", outputs=[["amount", ref("needs.main.outputs.amount")]],
    )  # fmt: skip
    found = stage.start(outer)
    assert stage.over(found["run"]) | {"fresh": True} == {
        "run": found["run"], "status": "success", "until": None, "outputs": {"amount": 6}, "fresh": True,
        "undone": [], "left": [],
    }  # fmt: skip


def agent_step(**more: Any) -> dict[str, Any]:
    return step(
        "agent", "chase", agent=AGENT, goal="pay what is due", tools=[TOOL], calls=2, budget=[["eur", 1500]],
        sees_=[["limit", 7]], where=[], outputs={"paid": "int"}, timeout_s=3600, **more,
    )  # fmt: skip


def test_an_agent_may_do_in_its_step_what_the_boundary_says_and_nothing_else(stage: Stage) -> None:
    """Another tool, too much money, and one call too many are denied by the gate; its outputs end the step."""
    found = stage.start(document(job("main", agent_step()), outputs=[]))
    assert found["status"] == "waiting"
    run = bodies(stage.root, "step.waiting")[-1]["for"]["run"]
    act = stage.handle.act
    assert act(TOOL, args_for("1", 1000), run=run, call_id="a").code == "ok"
    assert act(TOOL, args_for("2", 1000), run=run, call_id="b").code == "boundary_budget"
    assert act(TOOL, args_for("3", 10), run=run, call_id="c").code == "boundary_calls"
    stage.handle.call("run.end", {"run": run, "reason": "done", "outputs": {"paid": 1}})
    assert stage.over(found["run"])["status"] == "success"


def test_nobody_else_may_ask_for_anything_in_a_driven_run(stage: Stage) -> None:
    """A call_id of the definition, or any other: the answer is that a definition drives the run."""
    found = stage.start(document(job("main", step("wait", "w", for_={"kind": "time", "seconds": 3600}), pay())))
    for call_id in ("main.pay:1", "own"):
        with pytest.raises(CountermarkError) as caught:
            stage.handle.act(TOOL, args_for("1"), run=found["run"], call_id=call_id)
        assert caught.value.code == "driven_run"
    with pytest.raises(CountermarkError):
        stage.handle.call("run.end", {"run": found["run"], "reason": "mine"})
    assert stage.provider.effects == []


def test_a_cancelled_run_ends_cancelled(stage: Stage) -> None:
    """What waits is not waited for any more."""
    found = stage.start(document(job("main", step("wait", "w", for_={"kind": "time", "seconds": 3600}), pay())))
    stage.handle.call("workflow.cancel", {"run": found["run"], "reason": "wrong invoice", "person": "treasurer"})
    assert stage.over(found["run"])["status"] == "cancelled"


def test_a_called_run_is_cancelled_with_the_one_that_called_it(stage: Stage) -> None:
    """Nothing goes on below a run that was cancelled."""
    wait = step("wait", "w", for_={"kind": "time", "seconds": 3600})
    inner = document(job("main", wait, pay()), name="inner")
    stage.handle.call("workflow.define", {"document": inner})
    call = step("call", "sub", workflow=digest_of(WORKFLOW, inner))
    found = stage.start(document(job("main", call), name="outer"))
    child = bodies(stage.root, "step.waiting")[0]["for"]["run"]
    stage.drive(child)
    stage.handle.call("workflow.cancel", {"run": found["run"], "reason": "wrong", "person": "treasurer"})
    assert stage.over(found["run"])["status"] == "cancelled"
    assert stage.over(child)["status"] == "cancelled"
    assert stage.provider.effects == []


def test_one_event_starts_one_run(stage: Stage) -> None:
    """Asked again, the answer is the run that there is."""
    body = {"document": three_steps(), "inputs": {"amount": 1, "invoice": "T-1"}, "agent": AGENT, "wait": True,
            "trigger": {"kind": "manual", "event": "INV-7 of November", "record": None}}  # fmt: skip
    first, second = stage.handle.call("workflow.start", body), stage.handle.call("workflow.start", body)
    assert (first["fresh"], second["fresh"]) == (True, False)
    assert first["run"] == second["run"]
    assert len(stage.provider.effects) == 1


def test_runs_of_one_group_go_one_after_the_other(stage: Stage) -> None:
    """The second begins when the first is over."""
    wait = step("wait", "w", for_={"kind": "event", "source": "bank", "key": ref("inputs.key")})
    flow = document(job("main", wait), inputs={"key": an_input("string")}, concurrency={"group": "g", "cancel": False})
    one, two = stage.start(flow, key="one"), stage.start(flow, key="two")
    assert len(bodies(stage.root, "step.waiting")) == 1
    stage.handle.call("event.received", {"source": "bank", "event": "e", "key": "one", "payload": None,
                                         "digest": "sha256:" + "0" * 64, "scheme": "t", "evidence": None})  # fmt: skip
    assert stage.over(one["run"])["status"] == "success"
    stage.drive(two["run"])
    assert [body["run"] for body in bodies(stage.root, "step.waiting")] == [one["run"], two["run"]]
    stage.handle.call("workflow.cancel", {"run": two["run"], "reason": "x", "person": "treasurer"})
    stage.over(two["run"])


class Held:
    """Workers whose answers for calls from the second on wait until ``go`` is set."""

    def __init__(self, pool: Any) -> None:
        self.pool, self.go = pool, threading.Event()
        self.calls = 0

    def submit(self, code: str, inputs: Mapping[str, Any]) -> Future[Any]:
        self.calls += 1
        answer: Future[Any] = self.pool.submit(code, inputs)
        if self.calls == 1:
            return answer
        held: Future[Any] = Future()

        def release() -> None:
            self.go.wait(60)
            held.set_result(answer.result())

        threading.Thread(target=release, daemon=True).start()
        return held

    def close(self) -> None:
        self.pool.close()


def test_an_outcome_is_durable_while_a_slow_step_runs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happened outside does not wait for what follows from it: it is recorded alone, and the run goes on."""
    monkeypatch.setattr("countermark.workflow.driving.FOLLOW_S", 0.01)
    workflows, loop = stage.handle._end._workflows, stage.handle.gate.loop  # type: ignore[union-attr]
    engine = asyncio.run_coroutine_threadsafe(workflows.engine(), loop).result()
    engine._planner._workers = held = Held(engine._planner._workers)
    settled = threading.Event()

    def heard(records: Sequence[Record]) -> None:
        if any(record.kind == "action.settled" for record in records):
            settled.set()

    stage.handle.gate.desk.follow(heard)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(stage.start, three_steps(), amount=41, invoice="INV-7")
        assert settled.wait(60)
        assert not run.done()
        held.go.set()
        found = run.result(60)
    assert (found["status"], found["outputs"]["amount"]) == ("success", 43)
    assert len(stage.provider.effects) == 1
    assert held.calls > 2  # what was cut short was asked for again
    ran = [(body["place"], body["status"]) for body in bodies(stage.root, "compute.executed")]
    assert ran == [("main.first", "ok"), ("main.last", "ok")]


def test_a_run_says_why_its_step_waits(stage: Stage) -> None:
    """People, a retry with its reason and time, an event; and what keeps a whole run from going on."""
    retry = {"attempts": 2, "delay_s": 3600, "factor": 1}
    wait = step("wait", "w", for_={"kind": "event", "source": "bank", "key": "K"})
    big = job("big", pay("pay", "B", 600_000))
    stage.provider.script.extend(["no_key"])
    found = stage.start(document(job("one", pay("pay", "A", retry=retry)), big, job("two", wait)))
    shown = stage.handle.call("workflow.show", {"run": found["run"]})
    rows = {row["place"]: (row["waits"], row["code"], row["message"], row["due"] is None) for row in shown["steps"]}
    assert rows == {
        "one.pay": ("retry", "not_sent", "missing_secret", False), "big.pay": ("people", "", "", True),
        "two.w": ("event", "", "", True),
    }  # fmt: skip
    assert (shown["fault"], shown["stand"]) == ("", [])


def test_a_failed_run_says_what_stands_and_what_is_left(stage: Stage) -> None:
    """Payments that were made and not undone, and those whose undo failed."""
    undo = {"tool": TOOL, "with": pay("again", "1")["with"]}  # an obligation that is paid already: denied
    first = {**pay("first", "1"), "undo": undo}
    bad = step("pure", "bad", code="def main():\n    fail('no')\n", outputs={})
    found = stage.start(document(job("main", first, pay("second", "2"), bad)))
    shown = stage.handle.call("workflow.show", {"run": stage.over(found["run"])["run"]})
    assert [(one["place"], one["amount"], one["currency"]) for one in shown["stand"]] == [
        ("main.first", 1000, "eur"), ("main.second", 1000, "eur"),
    ]  # fmt: skip
    assert (shown["undone"], shown["left"]) == ([], ["main.first"])


def test_an_outcome_lets_nothing_go_that_another_plan_holds(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody else plans for the run, an outcome is recorded alone; runs that this plan holds stay held."""
    monkeypatch.setattr("countermark.workflow.driving.FOLLOW_S", 0.01)
    stage.provider.script.append("hold")
    workflows, loop = stage.handle._end._workflows, stage.handle.gate.loop  # type: ignore[union-attr]
    engine = asyncio.run_coroutine_threadsafe(workflows.engine(), loop).result()
    settled, released = threading.Event(), []

    def heard(records: Sequence[Record]) -> None:
        if any(record.kind == "action.settled" for record in records):
            settled.set()

    stage.handle.gate.desk.follow(heard)
    body = {"document": three_steps(), "inputs": {"amount": 41, "invoice": "INV-8"}, "agent": AGENT}
    run = stage.handle.call("workflow.start", body)["run"]
    assert stage.provider.held.acquire(timeout=60)
    live = engine.roster.live[run]
    asyncio.run_coroutine_threadsafe(live.lock.acquire(), loop).result(60)
    live.holds.append(lambda: released.append(run))
    stage.provider.go.set()
    assert settled.wait(60)
    assert released == []
    loop.call_soon_threadsafe(live.lock.release)
    assert stage.over(run)["status"] == "success"
    assert len(stage.provider.effects) == 1
