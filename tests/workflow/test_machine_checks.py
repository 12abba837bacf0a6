"""What gate and auditors ask of the interpreter: whether a record may be; and what a driver commits ahead."""

from __future__ import annotations

from typing import Any

import pytest
from run_fixtures import (
    AGENT,
    RUN,
    US,
    Drive,
    call,
    computed,
    decided,
    define,
    effect,
    ended,
    job,
    pause,
    pure,
    var,
    waiting,
)

from countermark.workflow.check import refusal
from countermark.workflow.commands import Act, Compute, End
from countermark.workflow.machine import Machine

RETRY = {"attempts": 3, "delay_s": 60, "factor": 1}


def _run() -> Drive:
    return Drive(define(job(
        "a", pure("s", {"x": 1}, {"y": "int"}), effect("pay", {"amount": var("steps.s.outputs.y")}, retry=RETRY),
        pause("w", {"kind": "time", "seconds": 60}, timeout_s=120),
    )))  # fmt: skip


def _why(run: Drive, kind: str, body: dict[str, Any]) -> str | None:
    return refusal(run.machine, kind, {"run": RUN, "agent": AGENT, **body}, run.at)


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": 2},
        {"code": "sha256:x"},
        {"input": "sha256:x"},
        {"result": "sha256:x"},
        {"place": "a.pay"},
        {"output": {"y": 3}},
    ],
)
def test_a_computation_is_of_the_declared_code_on_the_evaluated_input(change: dict[str, Any]) -> None:
    """Another attempt, text, input, result or place may not be recorded."""
    run = _run()
    command = run.command("a.s")
    assert isinstance(command, Compute)
    body = computed(command, {"y": 2})
    assert _why(run, "compute.executed", body) is None
    assert _why(run, "compute.executed", {**body, **change}) is not None


def test_an_action_is_declared_only_as_it_is_asked_for() -> None:
    """Each way to differ has its reason; a sealed argument may be anything but must be there."""
    run = _run()
    run.computed("a.s", {"y": 2})
    machine = run.machine
    assert machine.declared("a.pay:1", "noop.do", {"amount": 2}) is None
    assert machine.declared("a.pay:1", "noop.do", {"amount": {"$sd": "sha256:x"}}) is None
    assert machine.declared("a.pay:1", "noop.do") is None
    for call_id, tool, args, why in (
        ("a.pay:2", "noop.do", {"amount": 2}, "the next attempt"),
        ("a.pay:1", "noop.other", {"amount": 2}, "is a call of noop.do"),
        ("a.pay:1", "noop.do", {"amount": 3}, "another amount"),
        ("a.pay:1", "noop.do", {"amount": True}, "another amount"),
        ("a.pay:1", "noop.do", {}, "another amount"),
        ("a.pay:1", "noop.do", {"amount": 2, "memo": "x"}, "another memo"),
        ("a.s:1", "noop.do", {}, "not the turn"),
        ("a.pay.undo:1", "noop.do", {}, "not the turn"),
        ("b.pay:1", "noop.do", {}, "no such step"),
        ("", "noop.do", {}, "no such step"),
    ):
        assert why in (machine.declared(call_id, tool, args) or ""), call_id
    action = run.decided("a.pay")
    assert "in flight" in (machine.declared("a.pay:1", "noop.do", {"amount": 2}) or "")
    run.settled(action, "failed", "provider_error")
    assert "before" in (machine.declared("a.pay:2", "noop.do", {"amount": 2}) or "")
    run.wait(60)
    assert machine.declared("a.pay:2", "noop.do", {"amount": 2}) is None


def test_an_action_rests_on_what_was_read() -> None:
    """`because` is part of what the definition says."""
    run = _run()
    run.computed("a.s", {"y": 2})
    command = run.command("a.pay")
    assert isinstance(command, Act)
    body = decided(command)
    assert _why(run, "action.decided", body) is None
    assert "rests" in (_why(run, "action.decided", {**body, "claimed": {"because": ["act_" + "0" * 32]}}) or "")
    assert _why(run, "action.settled", {"id": body["id"]}) == "it is about no action in flight"


def test_a_wait_begins_and_ends_as_declared() -> None:
    """Its time, its timeout, and not before."""
    run = _run()
    run.computed("a.s", {"y": 2})
    run.done("a.pay")
    body = waiting(run.command("a.w"), "", run.at)
    assert _why(run, "step.waiting", body) is None
    for change in ({"until": None}, {"for": {"kind": "time", "at": run.at}}, {"place": "a.s"}):
        assert _why(run, "step.waiting", {**body, **change}) is not None
    run.tell("step.waiting", body)
    over = {"place": "a.w", "status": "success", "code": "time", "event": None, "outputs": {}}
    assert _why(run, "step.resumed", over) == "a.w waits still"
    run.at += 60 * US
    assert _why(run, "step.resumed", over) is None
    for change in (
        {"code": "timeout", "status": "failure"},
        {"code": "event"},
        {"code": "ended"},
        {"outputs": {"x": 1}},
    ):
        assert _why(run, "step.resumed", {**over, **change}) is not None


def test_a_question_is_withdrawn_only_from_a_cancelled_run() -> None:
    """And a call has failed only where one is to begin."""
    run = Drive(define(job("a", effect("pay")), job("b", call("c"))))
    action = run.decided("a.pay", "escalate", "needs_approval")
    withdrawn = {"id": action, "because": "cancelled"}
    unfit = {"place": "b.c", "status": "failure", "code": "unfit", "event": None, "outputs": {}}
    assert _why(run, "escalation.expired", withdrawn) == "people may still answer"
    assert _why(run, "escalation.expired", {"id": action}) is None
    assert _why(run, "step.resumed", unfit) is None
    assert _why(run, "step.resumed", {**unfit, "status": "success"}) == "b.c begins nothing that might not fit"
    run.waiting("b.c")
    assert _why(run, "step.resumed", unfit) == "b.c begins nothing that might not fit"
    run.cancel()
    assert _why(run, "escalation.expired", withdrawn) is None


def test_a_run_ends_when_and_as_it_does() -> None:
    """Not early, and with this status and these outputs."""
    run = Drive(define(job("a", pure("s")), outputs={"x": 1}))
    early = ended(End("success", {"x": 1}, (), ()))
    assert _why(run, "run.ended", early) == "it is not over"
    assert _why(run, "run.cancelled", {"reason": "timeout", "person": ""}) == "its time is not over"
    assert _why(run, "run.cancelled", {"reason": "stop", "person": "ada"}) is None
    run.computed("a.s")
    assert _why(run, "run.cancelled", {"reason": "stop", "person": "ada"}) is not None
    assert _why(run, "run.ended", early) is None
    for end in (
        End("failure", {"x": 1}, (), ()),
        End("success", {"x": True}, (), ()),
        End("success", {"x": 1}, ("a.s",), ()),
    ):
        assert _why(run, "run.ended", ended(end)) is not None


def test_what_answers_nothing_changes_nothing() -> None:
    """Records of other places, attempts and actions are strays, and the commands stay what they were."""
    run = _run()
    before = run.commands()
    run.tell("action.decided", {"id": "act_x", "call_id": "a.pay:1", "disposition": "allow", "code": "c"})
    run.tell("action.settled", {"id": "act_x", "outcome": "confirmed", "code": "ok", "ref": "", "output": {}})
    run.tell("compute.executed", {"place": "a.s", "attempt": 2, "status": "ok", "output": {"y": 1}})
    run.tell("step.resumed", {"place": "a.w", "status": "success", "code": "time", "event": None, "outputs": {}})
    run.tell("run.ended", {"workflow": {}})
    run.tell("request.signed", {"id": "act_x"})
    assert run.commands() == before
    assert len(run.machine.strays) == 5


def test_steps_that_are_committed_together() -> None:
    """What a driver is about to commit is applied without a seq, and the next commands are those of later."""
    run = _run()
    machine = run.machine
    (command,) = run.commands()
    assert isinstance(command, Compute)
    machine.apply("compute.executed", computed(command, {"y": 2}), run.at, None)
    (act,) = machine.commands()
    assert isinstance(act, Act)
    machine.apply("action.decided", decided(act), run.at, None)
    assert machine.commands() == []
    again = Machine(run.definition, RUN, AGENT, run.started, run.at)
    again.apply("compute.executed", computed(command, {"y": 2}), run.at, 41)
    again.apply("action.decided", decided(act), run.at, 42)
    assert again.commands() == machine.commands()
    assert [row.conclusion for row in again.progress()] == [row.conclusion for row in machine.progress()]
    assert [row.seqs for row in again.progress()] == [(41,), (42,), ()]
