"""What a hostile definition, agent or sender of events tries against the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flow_rig import AGENT, TOOL, an_input, args_for, bodies, document, job, pay, ref, step
from rig import grant_to, signed_answer, unsound, waiting
from test_workflow_engine import Stage

from countermark.model.clock import SystemClock
from countermark.model.digest import WORKFLOW, digest_of
from countermark.model.errors import CountermarkError
from countermark.wiring.workflow_settings import WorkflowSettings
from countermark.workflow import Known
from countermark.workflow.live import Live
from countermark.workflow.projection import Projection


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path / "d")
    yield found
    found.handle.close()
    assert unsound(found.root) == []


def event(name: str, key: str) -> dict[str, Any]:
    return {"source": "bank", "event": name, "key": key, "payload": None, "digest": "sha256:" + "0" * 64,
            "scheme": "test", "evidence": None}  # fmt: skip


def test_an_event_from_before_the_run_wakes_nobody(stage: Stage) -> None:
    """A wait that stands first in a run is not over by an event older than the run."""
    stage.handle.call("event.received", event("old", "INV-9"))
    wait = step("wait", "paid", for_={"kind": "event", "source": "bank", "key": "INV-9"})
    found = stage.start(document(job("main", wait, pay())))
    assert found["status"] == "waiting"
    assert stage.provider.effects == []
    stage.handle.call("event.received", event("new", "INV-9"))
    assert stage.over(found["run"])["status"] == "success"


def test_a_second_wait_takes_the_second_event_also_when_that_came_before_it(stage: Stage) -> None:
    """Each event ends one wait after another; one that came between two waits for it is not lost."""
    one, other, two = (
        step("wait", name, for_={"kind": "event", "source": "bank", "key": key})
        for name, key in (("one", "K"), ("other", "L"), ("two", "K"))
    )
    found = stage.start(document(job("main", one, other, two)))
    for name, key in (("e1", "K"), ("e2", "K"), ("e3", "L")):
        stage.handle.call("event.received", event(name, key))
    assert stage.over(found["run"])["status"] == "success"
    assert [body["outputs"]["event"] for body in bodies(stage.root, "step.resumed")] == ["e1", "e3", "e2"]


def test_a_call_that_does_not_fit_holds_up_nothing_else(stage: Stage) -> None:
    """The outcome of the effect before it is recorded, another job goes on, and the step has failed, with a code."""
    inner = document(job("main", pay()), name="inner", inputs={"amount": an_input()})
    stage.handle.call("workflow.define", {"document": inner})
    call = step("call", "sub", workflow=digest_of(WORKFLOW, inner), with_={"amount": "many"})
    other = job("other", step("wait", "w", for_={"kind": "time", "seconds": 0}), pay("second", "2"))
    found = stage.start(document(job("main", pay("first", "0"), call), other, name="outer"))
    assert stage.over(found["run"])["status"] == "failure"
    assert [body["outcome"] for body in bodies(stage.root, "action.settled")] == ["confirmed"] * 2
    (refused,) = [body for body in bodies(stage.root, "step.resumed") if body["place"] == "main.sub"]
    assert (refused["status"], refused["code"]) == ("failure", "unfit")


def test_a_called_group_that_cannot_be_told_starts_nothing(stage: Stage) -> None:
    """Data chooses the group; text that is no JSON neither halts the engine nor keeps it from starting again."""
    inner = document(job("main", pay()), name="inner", inputs={"text": an_input("string")},
                     concurrency={"group": ref("fromJSON(inputs.text)"), "cancel": False})  # fmt: skip
    stage.handle.call("workflow.define", {"document": inner})
    call = step("call", "sub", workflow=digest_of(WORKFLOW, inner), with_={"text": "{"})
    after = job("after", pay("late", "7"), needs=["main"], **{"if": "needs.main.outputs.code == 'failure'"})
    main = job("main", {**call, "continue_on_error": True}, outputs=[["code", ref("steps.sub.outcome")]])
    found = stage.start(document(main, after, name="outer"))
    assert stage.over(found["run"])["status"] == "success"
    assert len(bodies(stage.root, "run.started")) == 1
    assert len(stage.provider.effects) == 1
    with pytest.raises(CountermarkError):
        stage.start(inner, text="{")
    stage.again()
    assert stage.over(found["run"])["status"] == "success"
    assert stage.start(inner, text="1")["status"] == "success"


def test_nobody_starts_a_run_in_the_name_of_a_time_or_an_event(stage: Stage) -> None:
    """Neither one that was recorded nor one that was not: those start runs by themselves, and others are by hand."""
    recorded = stage.handle.call("event.received", event("e1", "INV-9"))["record"]
    claims: list[tuple[Any, Any, Any]] = [
        ("webhook", "bank e1", recorded), ("webhook", "bank e1", 10_000), ("webhook", "bank e1", 0),
        ("chain", "bank e1", recorded), ("schedule", "1790000000 UTC 0 9 * * *", None), ("manual", "", recorded),
        ("call", "", None), ("webhook", "bank e1", "1"), ([], "", None),
    ]  # fmt: skip
    for kind, name, record in claims:
        body = {"document": document(job("main", pay())), "agent": AGENT}
        with pytest.raises(CountermarkError, match="by hand") as caught:
            stage.handle.call("workflow.start", {**body, "trigger": {"kind": kind, "event": name, "record": record}})
        assert caught.value.code == "bad_argument"
    assert bodies(stage.root, "run.started") == []


def nest(stage: Stage, called: dict[str, Any], many: int, name: str) -> dict[str, Any]:
    """A definition that calls one that is recorded, in so many combinations."""
    stage.handle.call("workflow.define", {"document": called})
    matrix = [["n", list(range(many))]]
    return document(job("main", step("call", "sub", workflow=digest_of(WORKFLOW, called)), matrix=matrix), name=name)


def test_calls_in_matrices_do_not_multiply_without_bound(stage: Stage) -> None:
    """A definition of which one run may start more than 1,000 others is refused before anything of it happens."""
    inner = document(job("main", pay()), name="inner")
    middle = nest(stage, inner, 64, "middle")
    outer = nest(stage, middle, 16, "outer")
    for op in ("workflow.define", "workflow.start"):
        with pytest.raises(CountermarkError, match="may start 1,040 others, but at most 1,000") as caught:
            stage.handle.call(op, {"document": outer, **({"agent": AGENT} if op == "workflow.start" else {})})
        assert caught.value.code == "bad_definition"
    assert len(bodies(stage.root, "workflow.defined")) == 2
    assert bodies(stage.root, "run.started") == []
    stage.handle.call("workflow.define", {"document": nest(stage, middle, 15, "fewer")})


def test_calls_stand_in_one_another_eight_deep_at_most(stage: Stage) -> None:
    """The ninth is refused, and so is a call of what was not recorded."""
    found = document(job("main", pay()), name="deep-0")
    for number in range(1, 9):
        found = nest(stage, found, 1, f"deep-{number}")
    with pytest.raises(CountermarkError, match="calls 9 deep, but at most 8"):
        stage.handle.call("workflow.define", {"document": nest(stage, found, 1, "deep-9")})
    unknown = document(job("main", step("call", "sub", workflow="sha256:" + "0" * 64)), name="outer")
    with pytest.raises(CountermarkError) as caught:
        stage.start(unknown)
    assert caught.value.code == "unknown_definition"
    assert bodies(stage.root, "run.started") == []


class Broken(Exception):
    """A fault of the program itself."""


def test_a_fault_holds_up_one_run_only_and_passes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw leaves no run behind: it is folded anew and goes on."""
    faults = iter([True])
    wanted = Live.wanted

    def once(live: Live) -> list[Any]:
        if live.machine.progress()[0].conclusion == "success" and next(faults, False):
            raise Broken
        return wanted(live)

    monkeypatch.setattr(Live, "wanted", once)
    found = stage.start(document(job("main", pay("one", "1"), pay("two", "2"))))
    assert stage.over(found["run"])["status"] == "success"
    assert [body["outcome"] for body in bodies(stage.root, "action.settled")] == ["confirmed"] * 2
    assert len(stage.provider.effects) == 2


def test_a_record_that_cannot_be_taken_is_read_again_at_the_next_start(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows' file fails once, as on a full disk: other records are taken, and nothing is lost for good."""
    wait = step("wait", "w", for_={"kind": "event", "source": "bank", "key": "K"})
    found = stage.start(document(job("main", wait, pay())))
    with monkeypatch.context() as patched:
        patched.setattr(Projection, "event", lambda *_: 1 / 0)
        stage.handle.call("event.received", event("e1", "K"))
        assert stage.start(document(job("main", pay(invoice="2")), name="other"))["status"] == "success"
    assert stage.drive(found["run"])["status"] == "waiting"
    stage.again()
    assert stage.over(found["run"])["status"] == "success"


def agent_step(**more: Any) -> dict[str, Any]:
    given = {
        "agent": AGENT, "goal": "pay what is due", "tools": [TOOL], "calls": 2, "budget": [["eur", 10**9]],
        "sees": [], "where": [], "outputs": {"paid": "int"}, "timeout_s": 3600, **more,
    }  # fmt: skip
    found: dict[str, Any] = step("agent", "chase", **given)
    return found


def inside(stage: Stage) -> str:
    run: str = bodies(stage.root, "step.waiting")[-1]["for"]["run"]
    return run


def test_an_argument_that_is_left_out_is_not_null(stage: Stage) -> None:
    """A row of `where` whose value turns out to be null lets nothing pass, also no call without the argument."""
    missing = {"type": "string", "required": False, "default": None, "choices": []}
    where = [[TOOL, "description", [ref("inputs.missing")]]]
    stage.start(document(job("main", agent_step(where=where)), inputs={"missing": missing}))
    assert stage.handle.act(TOOL, args_for("1"), run=inside(stage), call_id="a").code == "boundary_argument"
    assert stage.provider.effects == []


def test_what_people_approved_is_not_counted_twice(stage: Stage) -> None:
    """The only call that an agent may make waits for people; their approval is not one call too many."""
    stage.start(document(job("main", agent_step(calls=1, tools=["workflow.approve"]))))
    run = inside(stage)
    assert stage.handle.act("workflow.approve", {"question": "x"}, run=run, call_id="a").code == "needs_approval"
    (parked,) = waiting(stage.handle)
    assert stage.handle.call("answer", signed_answer(stage.made, parked))["result"]["code"] == "ok"
    assert stage.handle.act("workflow.approve", {"question": "y"}, run=run, call_id="b").code == "boundary_calls"


def test_what_was_recorded_under_an_older_policy_still_runs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A definition is checked before it is recorded; afterwards the decision says what may not be."""
    old, new = document(job("main", pay())), document(job("main", pay("other", "2")))
    digest = stage.handle.call("workflow.define", {"document": old})["definition"]
    monkeypatch.setattr(WorkflowSettings, "known", lambda self, bundle: Known({}, {}, ()))
    for op in ("workflow.define", "workflow.start"):
        with pytest.raises(CountermarkError, match="there is no tool"):
            stage.handle.call(op, {"document": new})
    assert [body["digest"] for body in bodies(stage.root, "workflow.defined")] == [digest]
    assert stage.start(old)["status"] == "success"


def test_a_run_that_cannot_go_on_says_why(stage: Stage) -> None:
    """An agent step whose agent has two mandates: it is tried again, and whoever looks is told."""
    own = grant_to(stage.handle, stage.made, SystemClock().now_us())
    body = {"document": document(job("main", agent_step())), "agent": AGENT, "mandate": own}
    run = stage.handle.call("workflow.start", body)["run"]
    shown = stage.handle.call("workflow.show", {"run": run})
    assert (shown["status"], shown["steps"][0]["conclusion"]) == ("running", "pending")
    assert "[mandate_ambiguous]" in shown["fault"]
