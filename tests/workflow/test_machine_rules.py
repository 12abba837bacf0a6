"""The interpreter, rule by rule: the numbers are those of docs/spec/workflow.md."""

from __future__ import annotations

from typing import Any

import pytest
from run_fixtures import US, Drive, agent, call, define, effect, job, pause, pure, var

from countermark.workflow.commands import Act, Call, Compute, Delegate, Wait
from countermark.workflow.expressions import Status
from countermark.workflow.plan import Condition

NOW = 1_790_000_000 * US


def test_three_steps_from_start_to_end() -> None:
    """A pure step, an effect and a pure step run one after the other, and the run ends with its outputs."""
    steps = (
        pure("before", {"x": var("inputs.amount")}, {"y": "int"}),
        effect("pay", {"amount": var("steps.before.outputs.y")}),
        pure("after", {"ref": var("steps.pay.outputs.ref")}, {"text": "string"}),
    )
    run = Drive(define(job("main", *steps, outputs={"text": var("steps.after.outputs.text")}),
                       outputs={"said": var("needs.main.outputs.text")}))  # fmt: skip
    assert run.asked() == ["Compute main.before:1"]
    run.computed("main.before", {"y": 7})
    assert run.command("main.pay") == Act("main.pay", 1, "noop.do", {"amount": 7}, ())
    action = run.decided("main.pay")
    assert run.asked() == []
    run.settled(action, ref="r1")
    assert run.command("main.after") == Compute("main.after", 1, "# after", {"ref": "r1"}, {"text": "string"})
    run.computed("main.after", {"text": "paid"})
    end = run.end()
    assert (end.status, end.outputs, end.undone, end.left) == ("success", {"said": "paid"}, (), ())
    assert (run.machine.status, run.machine.ended, run.asked()) == ("success", True, [])


# --- rule 1: jobs


def test_rule_1_a_job_begins_when_all_its_needs_are_over() -> None:
    """Jobs without needs begin together; one that needs both begins after the later one."""
    run = Drive(define(job("a", pure("s")), job("b", pure("s")), job("c", pure("s"), needs=("a", "b"))))
    assert run.asked() == ["Compute a.s:1", "Compute b.s:1"]
    run.computed("b.s")
    assert run.asked() == ["Compute a.s:1"]
    run.computed("a.s")
    assert run.asked() == ["Compute c.s:1"]


@pytest.mark.parametrize(
    ("condition", "after_success", "after_failure", "after_skipped"),
    [
        (None, True, False, False),
        ("success()", True, False, False),
        ("failure()", False, True, False),
        ("always()", True, True, True),
        ("cancelled()", False, False, False),
        ("inputs.amount == 5", True, False, False),
        ("inputs.amount == 6", False, False, False),
        ("!success()", False, True, True),
        ("needs.a.result == 'failure'", False, False, False),
        ("always() && needs.a.result == 'failure'", False, True, False),
    ],
)
def test_rule_1_the_condition_of_a_job(
    condition: Any, after_success: bool, after_failure: bool, after_skipped: bool
) -> None:
    """The four functions look at the needed jobs' results; without one of them a condition also wants success."""
    for wanted, if_, status in (
        (after_success, None, "ok"),
        (after_failure, None, "error"),
        (after_skipped, "false", ""),
    ):
        run = Drive(define(job("a", pure("s"), if_=if_), job("b", pure("s"), needs=("a",), if_=condition)))
        if status:
            run.computed("a.s", status=status)
        assert run.conclusions()["b.s"] == ("pending" if wanted else "skipped"), (condition, status)


def test_rule_1_a_skipped_job_skips_its_steps_and_those_that_need_it() -> None:
    """Skipping runs down the graph without a record, and a run with nothing else to do is a success."""
    run = Drive(define(job("a", pure("s"), effect("t"), if_="inputs.amount == 6"), job("b", pure("s"), needs=("a",))))
    assert run.asked() == ["End success"]
    assert set(run.conclusions().values()) == {"skipped"}
    assert run.machine.not_run() == ("a.s", "a.t", "b.s")
    assert [row.result for row in run.machine.jobs()] == ["skipped", "skipped"]


def test_rule_1_a_condition_that_fails_fails_its_job() -> None:
    """`inputs.text < 1` has no answer when the text is null: the job is a failure and nothing of it runs."""
    run = Drive(define(job("a", pure("s"), if_="inputs.text < 1"), job("b", pure("s"), needs=("a",), if_="failure()")))
    assert run.conclusions()["a.s"] == "skipped"
    assert run.asked() == ["Compute b.s:1"]
    run.computed("b.s")
    assert run.end().status == "failure"


def test_rule_1_combinations_run_in_their_order_and_at_most_so_many_at_once() -> None:
    """Axes are sorted, the last one goes fastest, and a place is taken as soon as one is free."""
    matrix = {"b": [1, 2], "a": ["x", "y"]}
    run = Drive(define(job("m", pure("s", {"a": var("matrix.a"), "b": var("matrix.b")}), matrix=matrix, parallel=3)))
    inputs = [command.inputs for command in run.commands() if isinstance(command, Compute)]
    assert inputs == [{"a": "x", "b": 1}, {"a": "x", "b": 2}, {"a": "y", "b": 1}]
    run.computed("m.1.s")
    assert run.asked() == ["Compute m.0.s:1", "Compute m.2.s:1", "Compute m.3.s:1"]


@pytest.mark.parametrize(
    ("fail_fast", "asked"), [(True, ["Compute m.1.s:1"]), (False, ["Compute m.1.s:1", "Compute m.2.s:1"])]
)
def test_rule_1_fail_fast(fail_fast: bool, asked: list[str]) -> None:
    """With fail_fast nothing new begins after a failure, and what runs goes on; without it the next one begins."""
    run = Drive(define(job("m", pure("s"), matrix={"a": [1, 2, 3, 4]}, parallel=2, fail_fast=fail_fast)))
    run.computed("m.0.s", status="error")
    assert run.asked() == asked
    assert run.conclusions()["m.3.s"] == ("skipped" if fail_fast else "pending")


def test_rule_1_fail_fast_minds_the_result_only() -> None:
    """A combination whose failure is taken for a success stops no other."""
    run = Drive(define(job("m", pure("s"), matrix={"a": [1, 2]}, continue_on_error=True)))
    run.computed("m.0.s", status="error")
    assert run.asked() == ["Compute m.1.s:1"]


# --- rule 2: steps


def test_rule_2_steps_see_what_the_earlier_ones_came_to() -> None:
    """After a failure only what asks for it runs; a skipped step has no outputs."""
    run = Drive(define(job(
        "a", pure("one"), pure("two"), pure("three", {"x": var("steps.two.outputs.x"), "how": var("steps.two.outcome")},
        if_="failure()"), pure("four", if_="always()"),
    )))  # fmt: skip
    run.computed("a.one", status="error")
    command = run.command("a.three")
    assert isinstance(command, Compute)
    assert command.inputs == {"x": None, "how": "skipped"}
    run.computed("a.three")
    run.computed("a.four")
    assert run.end().status == "failure"


def test_rule_2_continue_on_error_makes_a_failure_a_success() -> None:
    """The conclusion is a success, the outcome says what happened, and later steps go on."""
    run = Drive(define(job("a", pure("one", continue_on_error=True), pure("two", {"x": var("steps.one.outcome")}))))
    run.computed("a.one", status="error")
    assert (run.row("a.one").conclusion, run.row("a.one").outcome) == ("success", "failure")
    assert run.row("a.one").code == "compute_error"
    run.computed("a.two")
    assert run.end().status == "success"


def test_rule_2_a_condition_that_fails_fails_its_step() -> None:
    """An expression without an answer is a failure of the step, not of the interpreter."""
    run = Drive(define(job("a", pure("one", if_="inputs.text < 1"), pure("two", if_="failure()"))))
    row = run.row("a.one")
    assert (row.conclusion, row.code, row.attempts) == ("failure", "expression_failed", 0)
    assert run.asked() == ["Compute a.two:1"]


# --- rule 3: effects


def test_rule_3_arguments_are_evaluated_once_and_null_ones_left_out() -> None:
    """What is null is no argument."""
    run = Drive(define(job("a", effect("pay", {"amount": var("inputs.amount"), "memo": var("inputs.text")}))))
    assert run.command("a.pay") == Act("a.pay", 1, "noop.do", {"amount": 5}, ())


def test_rule_3_because_names_the_confirmed_effects_that_were_read() -> None:
    """Directly, and through the outputs of a job that came before; an effect that is not read is not named."""
    first = job("a", effect("get"), effect("other"), outputs={"due": var("steps.get.outputs.due")})
    second = job(
        "b", effect("look", {"x": 1}),
        effect("pay", {"amount": var("needs.a.outputs.due"), "ref": var("steps.look.outputs.ref")}), needs=("a",),
    )  # fmt: skip
    run = Drive(define(first, second))
    get = run.done("a.get", output={"due": 12})
    run.done("a.other")
    look = run.done("b.look", ref="r")
    command = run.command("b.pay")
    assert isinstance(command, Act)
    assert command.because == tuple(sorted((get, look)))
    assert command.args == {"amount": 12, "ref": "r"}


def test_rule_3_because_does_not_name_what_failed_or_what_is_only_asked_how_it_went() -> None:
    """A failed effect has no outputs to rest on, and `outcome` is none."""
    run = Drive(define(job(
        "a", effect("get", continue_on_error=True), effect("see"),
        effect("pay", {"x": var("steps.get.outputs.x || 3"), "y": var("steps.see.outcome")}),
    )))  # fmt: skip
    run.done("a.get", "failed", "provider_refused")
    run.done("a.see")
    assert run.command("a.pay") == Act("a.pay", 1, "noop.do", {"x": 3, "y": "success"}, ())


def test_rule_3_outputs_of_an_effect() -> None:
    """A tool's own `ref` goes before the provider's reference; `id` is always the action."""
    reads = {name: var(f"steps.pay.outputs.{name}") for name in ("ref", "id", "due")}
    for output, ref in (({"due": 1}, "prov"), ({"due": 1, "ref": "own", "id": "own"}, "own")):
        run = Drive(define(job("a", effect("pay"), pure("see", reads))))
        action = run.done("a.pay", ref="prov", output=output)
        command = run.command("a.see")
        assert isinstance(command, Compute)
        assert command.inputs == {"ref": ref, "id": action, "due": 1}


@pytest.mark.parametrize("code", ["denied_by_policy", "fact_missing", "killed"])
def test_rule_3_a_denied_action_is_a_failed_attempt_with_its_code(code: str) -> None:
    """The gate's no fails the step."""
    run = Drive(define(job("a", effect("pay"))))
    run.decided("a.pay", "deny", code)
    assert (run.row("a.pay").code, run.row("a.pay").conclusion) == (code, "failure")
    assert run.end().status == "failure"


def test_rule_3_what_is_no_action_is_a_failed_attempt() -> None:
    """`action.refused` fails the step; it has no action ID."""
    run = Drive(define(job("a", effect("pay"))))
    run.tell("action.refused", {"call_id": "a.pay:1", "tool": "noop.do", "code": "bad_argument", "field": "x"})
    row = run.row("a.pay")
    assert (row.code, row.actions, row.attempts) == ("bad_argument", (), 1)


def test_rule_3_people_are_waited_for() -> None:
    """While an escalation waits nothing is asked again; approved, the decision that follows counts."""
    run = Drive(define(job("a", effect("pay"))))
    action = run.decided("a.pay", "escalate", "needs_approval")
    assert run.asked() == []
    run.tell("escalation.answered", {"id": action, "state": "pending"})
    run.tell("escalation.climbed", {"id": action})
    assert run.asked() == []
    run.tell("escalation.answered", {"id": action, "state": "approved"})
    run.tell("action.decided", {"id": action, "call_id": "a.pay:1", "disposition": "allow", "code": "allowed"})
    assert (run.asked(), run.row("a.pay").conclusion) == ([], "running")
    run.settled(action)
    assert run.end().status == "success"


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("escalation.answered", {"state": "refused"}, "refused_by_person"),
        ("escalation.expired", {}, "expired"),
        ("action.decided", {"call_id": "a.pay:1", "disposition": "deny", "code": "approval_void"}, "approval_void"),
    ],
)
def test_rule_3_people_who_say_no_or_nothing(kind: str, body: dict[str, Any], code: str) -> None:
    """A refusal, a deadline or a void approval is a failed attempt with its own code."""
    run = Drive(define(job("a", effect("pay"))))
    action = run.decided("a.pay", "escalate", "needs_approval")
    run.tell(kind, {"id": action, **body})
    assert run.row("a.pay").code == code
    assert run.end().status == "failure"


def test_rule_3_unknown_is_neither_repeated_nor_concluded() -> None:
    """An unknown outcome leaves the step running until it is settled."""
    run = Drive(define(job("a", effect("pay", retry={"attempts": 3, "delay_s": 1, "factor": 1}))))
    action = run.done("a.pay", "unknown", "timeout")
    run.wait(10_000)
    assert (run.asked(), run.row("a.pay").conclusion) == ([], "running")
    run.settled(action, "confirmed", "found")
    assert run.end().status == "success"


# --- rule 4: pure steps


@pytest.mark.parametrize(
    ("status", "output", "code"),
    [
        ("ok", {"n": 1, "t": "x"}, ""),
        ("ok", {"n": True, "t": "x"}, "compute_error"),
        ("ok", {"n": 1}, "compute_error"),
        ("ok", {"n": 1, "t": "x", "u": 1}, "compute_error"),
        ("ok", {"n": 1, "t": None}, "compute_error"),
        ("error", None, "compute_error"),
        ("limit", None, "compute_limit"),
    ],
)
def test_rule_4_outputs_of_code(status: str, output: Any, code: str) -> None:
    """Exactly the declared outputs, each of its type; a boolean is no integer."""
    run = Drive(define(job("a", pure("s", None, {"n": "int", "t": "string"}))))
    run.computed("a.s", output, status=status)
    assert (run.row("a.s").code, run.row("a.s").outcome) == (code, "failure" if code else "success")


# --- rule 5: waits, calls, agents


def test_rule_5_a_wait_for_a_time() -> None:
    """Seconds count from the step's turn; when its time came the wait is to be resumed, once."""
    run = Drive(define(job("a", pause("w", {"kind": "time", "seconds": 90}))))
    assert run.command("a.w") == Wait("a.w", {"kind": "time", "at": run.at + 90 * US}, None)
    run.waiting("a.w")
    assert run.asked() == ["Sleep 90"]
    run.wait(89)
    assert run.asked() == ["Sleep 1"]
    run.wait(1)
    assert run.asked() == ["Resume a.w time"]
    run.resume("a.w")
    assert run.end().status == "success"


@pytest.mark.parametrize("at", [NOW + 60 * US, "2026-09-21T14:14:20Z"])
def test_rule_5_a_wait_until_a_moment(at: Any) -> None:
    """An integer of microseconds and a text in UTC are the same moment."""
    run = Drive(define(job("a", pause("w", {"kind": "until", "at": at}))))
    command = run.command("a.w")
    assert isinstance(command, Wait)
    assert command.for_ == {"kind": "time", "at": NOW + 60 * US}


@pytest.mark.parametrize(
    "for_",
    [
        {"kind": "time", "seconds": -1},
        {"kind": "time", "seconds": "60"},
        {"kind": "time", "seconds": True},
        {"kind": "until", "at": "tomorrow"},
        {"kind": "until", "at": "2026-02-30T00:00:00Z"},
        {"kind": "event", "source": "bank", "key": 7},
        {"kind": "event", "source": "bank", "key": ""},
        {"kind": "event", "source": "bank", "key": var("inputs.text")},
    ],
)
def test_rule_5_what_cannot_be_waited_for_fails(for_: dict[str, Any]) -> None:
    """A wait for nothing sensible fails at once, and nobody waits."""
    run = Drive(define(job("a", pause("w", for_))))
    assert run.row("a.w").code == "expression_failed"
    assert run.end().status == "failure"


def test_rule_5_an_event_gives_its_payload_to_later_steps() -> None:
    """What came in is what `step.resumed` says."""
    run = Drive(define(job("a", pause("w", {"kind": "event", "source": "bank", "key": "k"}),
                           pure("s", {"x": var("steps.w.outputs.payload.sum")}))))  # fmt: skip
    run.waiting("a.w")
    assert run.asked() == []
    run.resumed("a.w", outputs={"payload": {"sum": 3}, "event": "e1"})
    command = run.command("a.s")
    assert isinstance(command, Compute)
    assert command.inputs == {"x": 3}


def test_rule_5_a_wait_that_takes_too_long() -> None:
    """At `until` the step failed by `timeout`, if nothing woke it."""
    run = Drive(define(job("a", pause("w", {"kind": "event", "source": "bank", "key": "k"}, timeout_s=120))))
    run.wait(7)
    run.waiting("a.w")
    assert run.asked() == ["Sleep 120"]
    run.wait(120)
    assert run.asked() == ["Resume a.w timeout"]
    run.resume("a.w")
    assert (run.row("a.w").code, run.end().status) == ("timeout", "failure")


@pytest.mark.parametrize(("seconds", "code"), [(60, "time"), (59, "time"), (61, "timeout")])
def test_rule_5_of_a_time_and_a_timeout_the_earlier_counts(seconds: int, code: str) -> None:
    """However late anybody looks; at the same moment it is its time."""
    run = Drive(define(job("a", pause("w", {"kind": "time", "seconds": seconds}, timeout_s=60))))
    run.waiting("a.w")
    run.wait(1_000)
    assert run.asked() == [f"Resume a.w {code}"]


def test_rule_5_calls_and_agents() -> None:
    """A call is given its inputs, an agent its boundary; both are waited for, and say what the other run said."""
    run = Drive(define(job("a", call("c", {"x": var("inputs.amount")}), agent("g", {"note": "string"}),
                           pure("s", {"n": var("steps.g.outputs.note"), "c": var("steps.c.outputs.r")}))),
                {"text": "p1"})  # fmt: skip
    assert run.command("a.c") == Call("a.c", "sha256:" + "c" * 64, {"x": 5}, None)
    run.waiting("a.c")
    assert (run.asked(), run.row("a.c").other) == ([], "run_" + "9" * 32)
    run.resumed("a.c", code="ended", outputs={"r": 1})
    command = run.command("a.g")
    assert isinstance(command, Delegate)
    assert command.boundary == {
        "parent": run.machine.run, "place": "a.g", "goal": "chase", "tools": ["noop.do"], "calls": 3,
        "budget": [["EUR", 500]], "where": [["noop.do", "payee", ["p1"]]], "sees": {}, "outputs": {"note": "string"},
    }  # fmt: skip
    assert (command.agent, command.timeout_s) == ("chaser", 600)
    run.waiting("a.g")
    run.resumed("a.g", code="ended", outputs={"note": "n"})
    last = run.command("a.s")
    assert isinstance(last, Compute)
    assert last.inputs == {"n": "n", "c": 1}


def test_rule_5_a_call_that_cannot_begin_has_failed() -> None:
    """By one record, and nothing is waited for; once it waits, the same record answers nothing."""
    run = Drive(define(job("a", call("c"), call("d", if_="always()"), outputs={"c": var("steps.c.outcome")})))
    run.resumed("a.c", "failure", "unfit")
    row = run.row("a.c")
    assert (row.conclusion, row.code, row.other, row.began == row.ended) == ("failure", "unfit", "", True)
    run.waiting("a.d")
    run.resumed("a.d", "failure", "unfit")
    assert (run.row("a.d").conclusion, len(run.machine.strays)) == ("running", 1)
    run.resumed("a.d", code="ended")
    assert run.end().status == "failure"


# --- rule 6: retries


def test_rule_6_back_off_is_exact() -> None:
    """After the n-th failure the next attempt waits delay * factor^(n-1) from the failing record, to the second."""
    run = Drive(define(job("a", effect("pay", {"x": 1}, retry={"attempts": 4, "delay_s": 10, "factor": 3}))))
    for number, delay in ((1, 10), (2, 30), (3, 90)):
        assert run.asked() == [f"Act a.pay:{number}"]
        run.done("a.pay", "failed", "provider_error")
        assert run.asked() == [f"Sleep {delay}"]
        run.machine.time(run.at + delay * US - 1)
        assert len(run.commands()) == 1
        run.wait(delay)
    assert run.asked() == ["Act a.pay:4"]
    run.done("a.pay", "failed", "provider_error")
    assert (run.row("a.pay").attempts, len(set(run.row("a.pay").actions))) == (4, 4)
    assert run.end().status == "failure"


def test_rule_6_a_later_attempt_may_succeed() -> None:
    """Only the last attempt's outcome counts; its arguments are the first one's."""
    run = Drive(
        define(job("a", effect("pay", {"x": var("inputs.amount")}, retry={"attempts": 2, "delay_s": 5, "factor": 1})))
    )
    run.done("a.pay", "failed", "provider_error")
    run.wait(5)
    command = run.command("a.pay")
    assert command == Act("a.pay", 2, "noop.do", {"x": 5}, ())
    action = run.done("a.pay")
    row = run.row("a.pay")
    assert (row.conclusion, row.code, row.attempts, row.actions[-1]) == ("success", "", 2, action)


def test_rule_6_pure_steps_are_tried_again_too() -> None:
    """The second `compute.executed` has the attempt 2."""
    run = Drive(define(job("a", pure("s", retry={"attempts": 2, "delay_s": 5, "factor": 1}))))
    run.computed("a.s", status="limit")
    assert run.asked() == ["Sleep 5"]
    run.wait(5)
    run.computed("a.s")
    assert run.end().status == "success"


@pytest.mark.parametrize(
    "code",
    [
        "denied_by_policy", "not_permitted", "killed", "mandate_limit", "mandate_not_in_force", "refused_by_person",
        "duplicate_obligation", "boundary_tool", "bad_argument",
    ],
)  # fmt: skip
def test_rule_6_a_no_is_not_asked_again(code: str) -> None:
    """What somebody decided stays decided, however many attempts are left."""
    run = Drive(define(job("a", effect("pay", retry={"attempts": 9, "delay_s": 1, "factor": 1}))))
    run.decided("a.pay", "deny", code)
    assert run.end().status == "failure"


# --- rule 7: results of jobs


def test_rule_7_outputs_of_a_job() -> None:
    """They are evaluated when it is over; if they fail, so did the job."""
    for text, result in (("inputs.amount", "success"), ("inputs.amount < 'x'", "failure")):
        run = Drive(define(job("a", pure("s"), outputs={"x": var(text), "y": 1}),
                           job("b", pure("s", {"x": var("needs.a.outputs.x"), "y": var("needs.a.outputs.y")}),
                               needs=("a",), if_="always()")))  # fmt: skip
        run.computed("a.s")
        command = run.command("b.s")
        assert isinstance(command, Compute)
        assert command.inputs == {"x": 5 if result == "success" else None, "y": 1}
        assert run.machine.jobs()[0].result == result


def test_rule_7_a_failed_job_still_says_what_it_can() -> None:
    """Whoever cleans up after a failure can read what had been done."""
    run = Drive(define(
        job("a", effect("pay"), pure("book"), outputs={"ref": var("steps.pay.outputs.ref"),
            "bad": var("format('{0}', steps.book.outputs.x)")}),
        job("b", pure("s", {"r": var("needs.a.outputs.ref"), "b": var("needs.a.outputs.bad")}), needs=("a",),
            if_="failure()"),
    ))  # fmt: skip
    run.done("a.pay", ref="r1")
    run.computed("a.book", status="error")
    command = run.command("b.s")
    assert isinstance(command, Compute)
    assert command.inputs == {"r": "r1", "b": None}


def test_rule_7_continue_on_error_of_a_job() -> None:
    """The job is a success to those that need it, and to the run."""
    run = Drive(define(job("a", pure("s"), continue_on_error=True), job("b", pure("s"), needs=("a",))))
    run.computed("a.s", status="error")
    run.computed("b.s")
    assert run.end().status == "success"


def test_rule_7_a_matrix_is_what_its_worst_combination_is() -> None:
    """One failure makes the whole job one; the outputs are the last combination's."""
    run = Drive(define(
        job("m", pure("s", None, {"x": "int"}), matrix={"a": [1, 2]}, parallel=2,
            outputs={"x": var("steps.s.outputs.x")}),
        job("b", pure("s", {"x": var("needs.m.outputs.x"), "r": var("needs.m.result")}), needs=("m",), if_="always()"),
    ))  # fmt: skip
    run.computed("m.1.s", {"x": 2})
    run.computed("m.0.s", status="error")
    command = run.command("b.s")
    assert isinstance(command, Compute)
    assert command.inputs == {"x": 2, "r": "failure"}


# --- rule 8: the end, and undoing


def test_rule_8_the_newest_success_is_undone_first() -> None:
    """Undos are effects at their step's place with `.undo`, one after the other, and see the step's own outputs."""
    back = ("noop.undo", {"ref": var("steps.one.outputs.ref")})
    run = Drive(define(
        job("a", effect("one", undo=back), effect("two", undo=("noop.undo", {"x": 2})), effect("plain"), pure("bad")),
    ))  # fmt: skip
    one = run.done("a.one", ref="r1")
    run.done("a.two")
    run.done("a.plain")
    run.computed("a.bad", status="error")
    assert run.asked() == ["Act a.two.undo:1"]
    run.done("a.two.undo")
    assert run.command("a.one.undo") == Act("a.one.undo", 1, "noop.undo", {"ref": "r1"}, (one,))
    run.done("a.one.undo")
    end = run.end()
    assert (end.status, end.undone, end.left) == ("failure", ("a.two", "a.one"), ())


def test_rule_8_only_what_succeeded_is_undone() -> None:
    """A failed effect has nothing to undo, even when its failure counts as a success; nor has a run that succeeds."""
    undo = ("noop.undo", {"x": 1})
    run = Drive(define(job("a", effect("one", undo=undo, continue_on_error=True), effect("two", undo=undo))))
    run.done("a.one", "failed", "provider_error")
    run.done("a.two", "failed", "provider_error")
    assert run.end().undone == ()
    run = Drive(define(job("a", effect("one", undo=undo))))
    run.done("a.one")
    assert run.asked() == ["End success"]


def test_rule_8_an_undo_is_tried_five_times_and_then_left() -> None:
    """With 10, 20, 40 and 80 seconds between; what is left is named, and the next one is undone all the same."""
    undo = ("noop.undo", {"x": 1})
    run = Drive(define(job("a", effect("one", undo=undo), effect("two", undo=undo), pure("bad"))))
    run.done("a.one")
    run.done("a.two")
    run.computed("a.bad", status="error")
    for number, delay in ((1, 10), (2, 20), (3, 40), (4, 80), (5, 0)):
        assert run.asked() == [f"Act a.two.undo:{number}"]
        run.done("a.two.undo", "failed", "provider_error")
        if delay:
            assert run.asked() == [f"Sleep {delay}"]
            run.wait(delay)
    run.done("a.one.undo")
    end = run.end()
    assert (end.undone, end.left) == (("a.one",), ("a.two",))


def test_rule_8_an_undo_that_is_no_action_is_left_at_once() -> None:
    """Asking again would make it no more of one."""
    run = Drive(define(job("a", effect("one", undo=("noop.undo", {"x": 1})), pure("bad"))))
    run.done("a.one")
    run.computed("a.bad", status="error")
    refused = {"call_id": "a.one.undo:1", "tool": "", "code": "unknown_tool", "field": "tool"}
    run.tell("action.refused", refused)
    assert run.end().left == ("a.one",)


def test_rule_8_an_undo_that_cannot_be_asked_for_is_left() -> None:
    """Neither a refusal nor an expression that fails is tried again."""
    run = Drive(define(job("a", effect("one", undo=("noop.undo", {"x": var("steps.one.outputs.ref < 1")})),
                           effect("two", undo=("noop.undo", {"x": 1})), pure("bad"))))  # fmt: skip
    run.done("a.one")
    run.done("a.two")
    run.computed("a.bad", status="error")
    action = run.decided("a.two.undo", "escalate", "needs_approval")
    run.tell("escalation.answered", {"id": action, "state": "refused"})
    assert run.end().left == ("a.two", "a.one")


def test_rule_8_outputs_that_fail_make_the_run_fail() -> None:
    """And then what can be undone is undone."""
    run = Drive(define(job("a", effect("one", undo=("noop.undo", {"x": 1}))), outputs={"x": var("inputs.text < 1")}))
    run.done("a.one")
    assert run.asked() == ["Act a.one.undo:1"]
    run.done("a.one.undo")
    end = run.end()
    assert (end.status, end.outputs, end.undone) == ("failure", {}, ("a.one",))


# --- rule 9: cancelled


def test_rule_9_only_what_asks_for_it_begins_after_a_cancellation() -> None:
    """`success()` and `failure()` are false from then on, `always()` and `cancelled()` hold."""
    run = Drive(define(
        job("a", pure("one"), pure("two"), pure("three", if_="failure()"), pure("four", if_="cancelled()"),
            pure("five", if_="always()")),
        job("b", pure("s"), needs=("a",)), job("c", pure("s", if_="always()"), needs=("a",), if_="cancelled()"),
    ))  # fmt: skip
    run.computed("a.one")
    run.cancel()
    assert run.asked() == ["Compute a.four:1"]
    run.computed("a.four")
    run.computed("a.five")
    run.computed("c.s")
    assert [row.result for row in run.machine.jobs()] == ["cancelled", "skipped", "cancelled"]
    assert run.end().status == "cancelled"


def test_rule_9_what_is_in_flight_is_waited_for() -> None:
    """An intent has its outcome, and is undone like any other; nothing else begins."""
    run = Drive(define(job("a", effect("pay", undo=("noop.undo", {"x": 1})), effect("more"))))
    action = run.decided("a.pay")
    run.cancel()
    assert run.asked() == []
    run.settled(action)
    assert run.asked() == ["Act a.pay.undo:1"]
    run.done("a.pay.undo")
    end = run.end()
    assert (end.status, end.undone) == ("cancelled", ("a.pay",))


def test_rule_9_a_last_step_that_had_begun_leaves_its_job_a_success() -> None:
    """The job did all that it had to; the run is cancelled nevertheless."""
    run = Drive(define(job("a", effect("pay"))))
    action = run.decided("a.pay")
    run.cancel()
    run.settled(action)
    assert [row.result for row in run.machine.jobs()] == ["success"]
    assert run.end().status == "cancelled"


def test_rule_9_what_waits_ends_and_what_would_be_tried_again_has_failed() -> None:
    """Unless its condition, asked once more, still holds."""
    retry = {"attempts": 3, "delay_s": 60, "factor": 1}
    for if_, asked in ((None, ["Resume a.w cancelled"]), ("always()", ["Sleep 60"])):
        run = Drive(
            define(
                job("a", pause("w", {"kind": "time", "seconds": 60}, if_=if_)),
                job("b", effect("pay", retry=retry, if_=if_)),
            )
        )
        run.waiting("a.w")
        run.done("b.pay", "failed", "provider_error")
        run.cancel()
        assert run.asked() == asked
        assert run.row("b.pay").conclusion == ("failure" if if_ is None else "running")
        if if_ is None:
            run.resume("a.w")
            assert (run.row("a.w").code, run.end().status) == ("cancelled", "cancelled")


def test_rule_9_people_are_not_asked_any_more() -> None:
    """What waits for them is withdrawn, unless its condition still holds or they have answered; undos are not."""
    retry = {"attempts": 3, "delay_s": 60, "factor": 1}
    run = Drive(define(job("a", effect("pay", retry=retry)), job("b", effect("pay", if_="always()")),
                       job("c", effect("pay"))))  # fmt: skip
    asked = {place: run.decided(place, "escalate", "needs_approval") for place in ("a.pay", "b.pay", "c.pay")}
    run.cancel()
    assert run.asked() == ["Withdraw a.pay", "Withdraw c.pay"]
    run.tell("escalation.answered", {"id": asked["c.pay"], "state": "approved"})
    run.tell("action.decided", {"id": asked["c.pay"], "call_id": "c.pay:1", "disposition": "allow", "code": "allowed"})
    assert run.asked() == ["Withdraw a.pay"]
    run.tell("escalation.expired", {"id": asked["a.pay"], "because": "cancelled"})
    assert (run.row("a.pay").conclusion, run.row("a.pay").code, run.asked()) == ("failure", "cancelled", [])
    run.settled(asked["c.pay"])
    run.tell("escalation.expired", {"id": asked["b.pay"]})
    assert run.row("b.pay").code == "expired"
    assert run.end().status == "cancelled"


def test_rule_9_a_failed_attempt_of_a_cancelled_run_is_the_last() -> None:
    """A payment that a person stopped is not made a minute later."""
    run = Drive(define(job("a", effect("pay", retry={"attempts": 3, "delay_s": 60, "factor": 1}))))
    action = run.decided("a.pay")
    run.cancel()
    run.settled(action, "failed", "provider_error")
    assert run.end().status == "cancelled"


def test_rule_9_combinations_that_have_not_begun_never_do() -> None:
    """They are cancelled, and even their steps with `always()` do not run."""
    run = Drive(define(job("m", pure("s"), pure("t", if_="always()"), matrix={"a": [1, 2, 3]})))
    run.computed("m.0.s")
    run.cancel()
    assert run.asked() == ["Compute m.0.t:1"]
    run.computed("m.0.t")
    assert [row.result for row in run.machine.jobs()] == ["cancelled"] * 3
    assert run.machine.not_run() == ("m.1.s", "m.1.t", "m.2.s", "m.2.t")
    assert run.end().status == "cancelled"


def test_rule_9_a_second_cancellation_and_one_that_is_too_late_change_nothing() -> None:
    """They are strays: the run was cancelled already, or all its jobs were over."""
    run = Drive(define(job("a", effect("pay", undo=("noop.undo", {"x": 1})), pure("bad"))))
    run.done("a.pay")
    run.computed("a.bad", status="error")
    run.cancel()
    assert run.asked() == ["Act a.pay.undo:1"]
    run.done("a.pay.undo")
    assert run.end().status == "failure"
    assert [kind for _, kind in run.machine.strays] == ["run.cancelled"]


# --- rule 10: time


def test_rule_10_the_run_has_a_time() -> None:
    """It is to be cancelled then, by nobody; while undoing it is left alone."""
    undo = ("noop.undo", {"x": 1})
    run = Drive(
        define(
            job("a", effect("pay", undo=undo), pause("w", {"kind": "event", "source": "s", "key": "k"})), timeout_s=600
        )
    )
    run.done("a.pay")
    run.waiting("a.w")
    assert run.asked() == ["Sleep 600"]
    run.wait(600)
    assert run.asked() == ["Cancel timeout"]
    run.cancel("timeout", "")
    assert run.asked() == ["Resume a.w cancelled"]
    run.resume("a.w")
    assert run.asked() == ["Act a.pay.undo:1"]
    run.done("a.pay.undo", "failed", "provider_error")
    assert run.asked() == ["Sleep 10"]


def test_rule_10_a_job_has_a_time() -> None:
    """What waits ends by `timeout`; it counts from where the job began."""
    run = Drive(define(
        job("a", pure("s")),
        job("b", pure("s"), pause("w", {"kind": "event", "source": "s", "key": "k"}, timeout_s=600), needs=("a",),
            timeout_s=120),
    ))  # fmt: skip
    run.wait(30)
    run.computed("a.s")
    run.wait(100)
    run.computed("b.s")
    run.waiting("b.w")
    assert run.asked() == ["Sleep 20"]
    run.wait(20)
    assert run.asked() == ["Resume b.w timeout"]


def test_rule_10_what_comes_too_late_does_not_begin() -> None:
    """A step whose turn comes after its job's time sees a failure, and the job is one."""
    run = Drive(define(job("a", effect("pay"), effect("more"), pure("clean", if_="failure()"), timeout_s=120)))
    action = run.decided("a.pay")
    run.wait(120)
    assert run.asked() == []
    run.settled(action)
    assert run.asked() == ["Compute a.clean:1"]
    run.computed("a.clean")
    assert run.conclusions() == {"a.pay": "success", "a.more": "skipped", "a.clean": "success"}
    assert run.end().status == "failure"


def test_rule_10_the_last_step_may_end_late() -> None:
    """An effect cannot be called back, so a job that did everything is a success."""
    run = Drive(define(job("a", effect("pay"), timeout_s=120)))
    action = run.decided("a.pay")
    run.wait(500)
    run.settled(action)
    assert run.end().status == "success"


@pytest.mark.parametrize(("delay", "tried"), [(119, True), (120, False)])
def test_rule_10_no_attempt_after_the_job_s_time(delay: int, tried: bool) -> None:
    """One that would be due then is not made."""
    retry = {"attempts": 3, "delay_s": delay, "factor": 1}
    run = Drive(define(job("a", effect("pay", retry=retry), timeout_s=120)))
    run.done("a.pay", "failed", "provider_error")
    assert run.asked() == ([f"Sleep {delay}"] if tried else ["End failure"])


# --- what else is evaluated


def test_what_the_run_and_its_event_say_can_be_read() -> None:
    """`run` has the ID and the definition's name, `event` the payload; without an event it is null."""
    for event, wanted in (({"sum": 4}, 4), (None, None)):
        run = Drive(
            define(job("a", pure("s", {"id": var("run.id"), "n": var("run.name"), "e": var("event.sum")}))), event=event
        )
        command = run.command("a.s")
        assert isinstance(command, Compute)
        assert command.inputs == {"id": run.machine.run, "n": "sample", "e": wanted}


def test_what_is_too_long_fails_its_step() -> None:
    """Two values that are each short enough are together more than 16,000 bytes."""
    run = Drive(define(job("a", pure("s", {"x": var("inputs.text"), "y": var("inputs.text")}))), {"text": "x" * 9_000})
    assert run.row("a.s").code == "expression_failed"


def test_a_condition_leaves_nothing_behind_in_the_scope() -> None:
    """`$status` is there while the condition is evaluated, also when that fails."""
    scope: dict[str, Any] = {"inputs": {"x": None}}
    assert Condition("always()").holds(scope, Status(False, False, False))
    with pytest.raises(Exception, match="no order"):
        Condition("always() && inputs.x < 1").holds(scope, Status(False, False, False))
    assert scope == {"inputs": {"x": None}}
