"""What the engine really records passes the verifier: packs of runs that went another way than straight on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flow_rig import AGENT, TOOL, an_input, document, job, pay, ref, run_it, step, with_approvals
from rig import Provider, bodies, edited, make, signed_answer, waiting, with_bank

import countermark
from countermark.audit import explain, export_pack
from countermark.authority import load_private, public_of
from countermark.connectors import ApproveConnector
from countermark.journal import SqliteStore
from countermark.log import LogSigner
from countermark.model.clock import FakeClock
from countermark.model.digest import WORKFLOW, digest_of
from countermark.model.errors import CountermarkError
from countermark.wiring.workflow_settings import WorkflowSettings
from countermark.workflow import Known
from countermark_verify import parse_trust, verify


class Stage:
    """A deployment that is held, and what an auditor says of its pack."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "d"
        self.clock = FakeClock()
        self.provider = Provider()
        self.made = make(self.root, self.provider, clock=self.clock, edit=with_approvals(edited()))
        with_bank(self.root)
        self.handle = self.opened()
        self.closed = False

    def opened(self) -> countermark.Deployment:
        connectors = {"stripe": self.provider, "workflow": ApproveConnector()}
        return countermark.open(self.root, agent=AGENT, connectors=connectors, clock=self.clock)

    def again(self) -> None:
        self.handle.close()
        self.handle = self.opened()

    def event(self, key: str, event: str = "e1") -> None:
        body = {"source": "bank", "event": event, "key": key, "payload": {"n": event}, "digest": "sha256:" + "0" * 64,
                "scheme": "test", "evidence": None}  # fmt: skip
        self.handle.call("event.received", body)

    def drive(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.handle.call("workflow.drive", {"run": run})
        return found

    def over(self, run: str) -> str:
        for _ in range(200):
            if (found := self.drive(run))["status"] not in ("running", "waiting"):
                return str(found["status"])
        raise AssertionError(found)

    def cancel(self, run: str) -> None:
        self.handle.call("workflow.cancel", {"run": run, "reason": "wrong", "person": "treasurer"})

    def findings(self) -> list[tuple[str, int | None, str]]:
        """What the verifier says of the workflows in this deployment's pack."""
        self.handle.close()
        self.closed = True
        signer = LogSigner("countermark/test/l0", load_private(self.root / "keys" / "log.pem"))
        store = SqliteStore(self.root / "data" / "journal.db", readonly=True)
        try:
            made = export_pack(self.folder / "pack.zip", store, signer, deployment="test")
        finally:
            store.close()
        people = {path.stem: str(public_of(load_private(path))) for path in (self.root / "people").glob("*.pem")}
        trust = {"v": 1, "log": {"origin": "countermark/test/l0", "keys": [signer.vkey]}, "people": people,
                 "heads": [{"size": made.size, "root": made.root, "source": "kept"}]}  # fmt: skip
        report = verify(self.folder / "pack.zip", parse_trust(json.dumps(trust).encode()))
        return [(one.code, one.seq, one.message) for step in report.steps for one in step.findings]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path)
    yield found
    if not found.closed:
        found.handle.close()


def waits(name: str, **more: Any) -> dict[str, Any]:
    return step("wait", name, for_={"kind": "event", "source": "bank", "key": "K"}, **more)


@pytest.mark.parametrize("late", [False, True])
def test_a_called_run_is_cancelled_with_its_parent(stage: Stage, late: bool) -> None:
    """By a person, and by the time of the step; both parents call the same definition."""
    inner = document(job("main", step("wait", "w", for_={"kind": "time", "seconds": 36_000}), pay()), name="inner")
    stage.handle.call("workflow.define", {"document": inner})
    call = step("call", "sub", workflow=digest_of(WORKFLOW, inner), timeout_s=3600)
    outer = document(job("main", call), name="outer")
    runs = [run_it(stage.handle, outer)["run"] for _ in range(2)]
    children = [one["for"]["run"] for one in bodies(stage.root, "step.waiting") if one["for"]["kind"] == "call"]
    for child in children:
        stage.drive(child)
    if late:
        stage.clock.advance(3601)
    else:
        for run in runs:
            stage.cancel(run)
    assert [stage.over(run) for run in runs] == (["failure"] * 2 if late else ["cancelled"] * 2)
    assert [stage.over(child) for child in children] == ["cancelled"] * 2
    assert stage.findings() == []


@pytest.mark.parametrize("grouped", [False, True])
def test_a_call_that_cannot_begin_is_followed(stage: Stage, grouped: bool) -> None:
    """Its step has failed, and the verifier finds for itself that inputs or group do not fit."""
    group = {"group": ref("fromJSON(inputs.text)"), "cancel": False} if grouped else None
    inner = document(job("main", pay()), name="inner", inputs={"text": an_input("string")}, concurrency=group)
    stage.handle.call("workflow.define", {"document": inner})
    call = step("call", "sub", workflow=digest_of(WORKFLOW, inner), with_={"text" if grouped else "other": "{"})
    found = run_it(stage.handle, document(job("main", pay("first", "1"), call), name="outer"))
    assert stage.over(found["run"]) == "failure"
    assert [body["code"] for body in bodies(stage.root, "step.resumed")] == ["unfit"]
    assert stage.findings() == []


def test_names_with_a_hyphen_are_followed(stage: Stage) -> None:
    """From an input through code, a matrix and a call to the outputs."""
    code = "def main(n, part):\n    return {'the-sum': n + part}\n"
    pure = step("pure", "s", code=code, with_={"n": ref("inputs.a-b"), "part": ref("matrix.part-no")},
                outputs={"the-sum": "int"})  # fmt: skip
    inner = document(
        job("main", pure, matrix=[["part-no", [1, 2]]], outputs=[["all-of-it", ref("steps.s.outputs.the-sum")]]),
        name="inner", inputs={"a-b": an_input()}, outputs=[["in-all", ref("needs.main.outputs.all-of-it")]],
    )  # fmt: skip
    stage.handle.call("workflow.define", {"document": inner})
    call = step("call", "sub", workflow=digest_of(WORKFLOW, inner), with_={"a-b": 40})
    main = job("main", call, outputs=[["in-all", ref("steps.sub.outputs.in-all")]])
    outer = document(main, name="outer", outputs=[["in-all", ref("needs.main.outputs.in-all")]])
    run = run_it(stage.handle, outer)["run"]
    stage.drive(bodies(stage.root, "step.waiting")[-1]["for"]["run"])
    assert stage.over(run) == "success"
    assert bodies(stage.root, "run.ended")[-1]["workflow"]["outputs"] == {"in-all": 42}
    assert stage.findings() == []


def asks(name: str, **more: Any) -> dict[str, Any]:
    return step("effect", name, tool="workflow.approve", with_={"question": f"{name}?"}, **more)


def test_questions_of_a_cancelled_run_are_withdrawn(stage: Stage) -> None:
    """Nobody is asked any more, an answer is refused, and the run ends; what is meant for it is still asked."""
    late = asks("late", if_="always()")
    found = run_it(stage.handle, document(job("main", asks("ask"), pay()), job("other", late)))
    asked = {one["values"]["question"]: one for one in waiting(stage.handle)}
    stage.cancel(found["run"])
    stage.drive(found["run"])
    assert [one["values"]["question"] for one in waiting(stage.handle)] == ["late?"]
    with pytest.raises(CountermarkError) as caught:
        stage.handle.call("answer", signed_answer(stage.made, asked["ask?"]))
    assert caught.value.code == "approval_void"
    store = SqliteStore(stage.root / "data" / "journal.db", readonly=True)
    assert "Not approved: the run was cancelled before an answer for" in explain(store, asked["ask?"]["id"]).text
    store.close()
    stage.handle.call("answer", signed_answer(stage.made, asked["late?"]))
    assert stage.over(found["run"]) == "cancelled"
    assert stage.provider.effects == []
    (step_,) = [one for one in stage.handle.call("workflow.show", {"run": found["run"]})["steps"] if one["code"]]
    assert (step_["place"], step_["code"]) == ("main.ask", "cancelled")
    assert stage.findings() == []


def test_a_question_that_was_parked_is_withdrawn_after_a_restart(stage: Stage) -> None:
    """The run is a row, and the gate was closed in between."""
    found = run_it(stage.handle, document(job("main", asks("ask"), pay())))
    stage.again()
    stage.cancel(found["run"])
    assert stage.over(found["run"]) == "cancelled"
    assert waiting(stage.handle) == []
    assert stage.findings() == []


def ended(stage: Stage) -> list[tuple[str, str]]:
    """Which event ended which wait."""
    return [(body["place"], body["outputs"]["event"]) for body in bodies(stage.root, "step.resumed")]


def test_two_waits_of_one_key_one_after_the_other(stage: Stage) -> None:
    """What ended the first does not end the second."""
    run = run_it(stage.handle, document(job("main", waits("a"), waits("b"), pay())))["run"]
    stage.event("K", "e1")
    stage.drive(run)
    stage.event("K", "e2")
    assert stage.over(run) == "success"
    assert ended(stage) == [("main.a", "e1"), ("main.b", "e2")]
    assert stage.findings() == []


def test_events_before_two_waits_of_one_key(stage: Stage) -> None:
    """Each takes the first that is left."""
    first = step("wait", "t", for_={"kind": "event", "source": "bank", "key": "other"})
    run = run_it(stage.handle, document(job("main", first, waits("a"), waits("b"), pay())))["run"]
    for key, event in (("K", "e1"), ("K", "e2"), ("other", "e3")):
        stage.event(key, event)
    assert stage.over(run) == "success"
    assert ended(stage) == [("main.t", "e3"), ("main.a", "e1"), ("main.b", "e2")]
    assert stage.findings() == []


def test_two_waits_of_one_key_at_once(stage: Stage) -> None:
    """One event ends both."""
    run = run_it(stage.handle, document(job("x", waits("a")), job("y", waits("b"))))["run"]
    stage.event("K", "e1")
    assert stage.over(run) == "success"
    assert ended(stage) == [("x.a", "e1"), ("y.b", "e1")]
    assert stage.findings() == []


def test_what_others_ask_for_in_a_run_is_none_of_its_attempts(stage: Stage) -> None:
    """A request of its agent's that is no action, under the name of the next attempt, changes nothing."""
    stage.provider.script.extend(["refused"])
    flow = document(job("main", pay(retry={"attempts": 2, "delay_s": 5, "factor": 1})))
    run = run_it(stage.handle, flow)["run"]
    with pytest.raises(CountermarkError):
        stage.handle.act(TOOL, {"amount": "many"}, run=run, call_id="main.pay:2")
    assert [body["call_id"] for body in bodies(stage.root, "action.refused")] == [""]
    stage.clock.advance(6)
    assert stage.over(run) == "success"
    assert len(stage.provider.effects) == 1
    assert stage.findings() == []


def test_a_matrix_that_restarts_between(stage: Stage) -> None:
    """Two combinations at once, a third after them, and a gate that is opened twice more; what is over is known."""
    inner = job("m", pay("one", invoice=ref("format('M-{0}', matrix.n)")), waits("w"), matrix=[["n", [1, 2, 3]]],
                parallel=2, fail_fast=False)  # fmt: skip
    run = run_it(stage.handle, document(inner, job("after", pay(invoice="Z-1"), needs=["m"])))["run"]
    for event in ("e1", "e2", "e3"):
        stage.again()
        stage.event("K", event)
        stage.drive(run)
    assert stage.over(run) == "success"
    assert ended(stage) == [("m.0.w", "e1"), ("m.1.w", "e1"), ("m.2.w", "e2")]
    assert stage.findings() == []


def test_an_agent_whose_time_is_over(stage: Stage) -> None:
    """One by its own time, one when the gate was away."""
    agent = step("agent", "chase", agent=AGENT, goal="pay", tools=[TOOL], calls=2, budget=[["eur", 1500]],
                 sees=[], where=[], outputs={"paid": "int"}, timeout_s=3600)  # fmt: skip
    run = run_it(stage.handle, document(job("main", agent), job("short", agent, timeout_s=600)))["run"]
    stage.clock.advance(601)
    stage.drive(run)
    stage.handle.close()
    stage.clock.advance(3000)
    stage.handle = stage.opened()
    assert stage.over(run) == "failure"
    assert stage.findings() == []


def test_an_attempt_that_is_no_action(stage: Stage) -> None:
    """What the gate refuses of a definition, for each reason that it has, follows from the pack."""
    wrong: dict[str, dict[str, Any]] = {
        "type": pay(amount=ref("fromJSON('true')")), "missing": pay(amount=ref("event.nothing")),
        "control": pay(invoice=ref('fromJSON(\'"a\\u0007"\')')), "bounds": pay(amount=ref("fromJSON('0')")),
    }  # fmt: skip
    for name, one in wrong.items():
        assert run_it(stage.handle, document(job("main", one), name=name))["status"] == "failure", name
    assert [(body["call_id"], body["code"], body["field"]) for body in bodies(stage.root, "action.refused")] == [
        ("main.pay:1", "bad_argument", "amount"), ("main.pay:1", "missing_argument", "amount"),
        ("main.pay:1", "bad_argument", "metadata[invoice]"), ("main.pay:1", "bad_argument", "amount"),
    ]  # fmt: skip
    assert stage.findings() == []


def test_a_refusal_is_of_the_policy_in_force(stage: Stage) -> None:
    """One that was found by another policy is not recorded: it is asked again."""
    run = run_it(stage.handle, document(job("main", waits("a"))))["run"]
    gate = stage.handle.gate
    part = gate.wait(gate.desk.asked(AGENT, run, "main.x:1", TOOL, {"more": 1}, []))
    assert (part.error.code, bool(part.bundle)) == ("unknown_argument", True)
    (reply,) = gate.wait(gate.desk.advance(run, [replace(part, bundle="sha256:" + "0" * 64)]))
    assert reply.stale
    assert bodies(stage.root, "action.refused") == []


@pytest.mark.parametrize("late", [False, True])
def test_runs_of_a_group_come_one_after_the_other(stage: Stage, late: bool) -> None:
    """Nothing of a run stands before the end of those ahead, whatever became of it meanwhile; also after a restart."""
    always = waits("b", **{"if": "always()"}, timeout_s=60)
    flow = document(job("main", waits("a"), always), concurrency={"group": "one", "cancel": False}, timeout_s=7200)
    runs = [run_it(stage.handle, flow)["run"] for _ in range(4)]
    stage.cancel(runs[1])
    stage.clock.advance(9000 if late else 3600)
    stage.again()
    for number in range(2 * len(runs)):
        stage.event("K", f"e{number}")
    assert [stage.over(run) for run in runs] == ["success" if not late else "cancelled", "cancelled"] + [
        "cancelled" if late else "success"
    ] * 2
    assert stage.findings() == []


def test_the_newest_of_a_group_ends_those_before_it(stage: Stage) -> None:
    """What waits is ended, and what comes after it begins then."""
    flow = document(job("main", waits("a")), concurrency={"group": "one", "cancel": True})
    runs = [run_it(stage.handle, flow)["run"] for _ in range(3)]
    assert [stage.over(run) for run in runs[:2]] == ["cancelled"] * 2
    stage.event("K", "e1")
    assert stage.over(runs[2]) == "success"
    assert stage.findings() == []


def test_nothing_begins_when_the_time_of_a_run_was_over(stage: Stage) -> None:
    """A gate that comes back after it, with an attempt due, cancels the run and pays nothing."""
    stage.provider.script.extend(["refused"])
    flow = document(job("main", pay(retry={"attempts": 2, "delay_s": 5, "factor": 1})), timeout_s=3600)
    run = run_it(stage.handle, flow)["run"]
    stage.clock.advance(9000)
    stage.again()
    assert stage.over(run) == "cancelled"
    assert stage.provider.effects == []
    assert stage.findings() == []


@pytest.mark.parametrize("late", [False, True])
def test_what_comes_when_a_wait_was_over_does_not_end_it(stage: Stage, late: bool) -> None:
    """A gate that was away when a wait timed out does not take the event that came since."""
    run = run_it(stage.handle, document(job("main", waits("a", timeout_s=600))))["run"]
    stage.clock.advance(700 if late else 500)
    stage.again()
    stage.event("K", "e1")
    assert stage.over(run) == ("failure" if late else "success")
    assert [body["code"] for body in bodies(stage.root, "step.resumed")] == ["timeout" if late else "event"]
    assert stage.findings() == []


def test_what_is_not_here_any_more_when_its_turn_comes_has_failed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that the policy does not name, and a source that the deployment does not have: a recorded reason, and
    the run goes on.
    """
    monkeypatch.setattr(WorkflowSettings, "known", lambda self, bundle: Known())
    agent = step("agent", "chase", agent="nobody", goal="pay", tools=[TOOL], calls=2, budget=[], sees=[], where=[],
                 outputs={}, timeout_s=3600, continue_on_error=True)  # fmt: skip
    none = step("wait", "gone", for_={"kind": "event", "source": "gone", "key": "K"}, continue_on_error=True)
    run = run_it(stage.handle, document(job("one", agent, pay("a", "1")), job("two", none, pay("b", "2"))))["run"]
    assert stage.over(run) == "success"
    ended = sorted((body["place"], body["code"], body["status"]) for body in bodies(stage.root, "step.resumed"))
    assert ended == [("one.chase", "unfit", "failure"), ("two.gone", "unfit", "failure")]
    assert bodies(stage.root, "step.waiting") == []
    shown = {row["place"]: row["message"] for row in stage.handle.call("workflow.show", {"run": run})["steps"]}
    assert shown["one.chase"] == "the policy has no agent nobody"
    assert shown["two.gone"] == "there is no source of events gone"
    assert stage.findings() == []
