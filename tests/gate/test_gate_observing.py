"""Tier ``observing``: the gate decides and records, the caller runs the tool and reports; its word releases nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from observed import CALLER_TOOLS, NOTE, REFUND, make_desk, refund_args
from rig import (
    TOOL,
    Provider,
    args_for,
    bodies,
    edited,
    grant_to,
    hold,
    kinds,
    rebuilt_equally,
    signed_answer,
    unsound,
    waiting,
)

from countermark.model.clock import FakeClock
from countermark.model.errors import CountermarkError, PolicyError
from countermark.policy import compile_bundle

US = 1_000_000


def test_an_admitted_action_is_decided_before_and_reported_after(tmp_path: Path) -> None:
    """The intent is durable when the answer comes; the outcome is the caller's word, with the declared outputs only."""
    provider = Provider()
    make_desk(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        answer = handle.admit(REFUND, refund_args(1), call_id="c-1")
        assert answer.admitted
        assert (answer.status, answer.disposition, answer.code) == ("pending", "allow", "allowed")
        assert answer.receipt is not None
        assert answer.receipt.tier == "observing"
        assert bodies(tmp_path / "d", "action.decided")[-1]["tier"] == "observing"
        output = {"receipt": "r-1", "left": "no integer", "secret": "sk_live_1"}
        done = handle.settle(answer.action, "confirmed", ref="r-1", output=output)
        assert (done.status, done.code, done.ref) == ("confirmed", "reported", "r-1")
        assert dict(done.output) == {"receipt": "r-1"}
    settled = bodies(tmp_path / "d", "action.settled")[-1]
    assert (settled["via"], settled["tier"], settled["attempts"]) == ("report", "observing", 0)
    assert provider.sent == []
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_the_same_call_is_admitted_once_however_often_it_is_asked(tmp_path: Path) -> None:
    """Asked again, also after a restart, the answer is the same, nothing is recorded and nothing more is held."""
    provider = Provider()
    make_desk(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        first = handle.admit(REFUND, refund_args(1), call_id="c-1", run=run)
        size = handle.call("status", {})["records"]
        again = handle.admit(REFUND, refund_args(1), call_id="c-1", run=run)
        assert (again.admitted, again.action, again.code) == (True, first.action, first.code)
        assert handle.call("status", {})["records"] == size
    with hold(tmp_path / "d", provider) as handle:
        later = handle.admit(REFUND, refund_args(1), call_id="c-1", run=run)
        assert (later.admitted, later.action) == (True, first.action)
        handle.settle(first.action, "confirmed")
        done = handle.admit(REFUND, refund_args(1), call_id="c-1", run=run)
        assert (done.admitted, done.status) == (False, "confirmed")  # it was run: it is not to be run again
    assert len(bodies(tmp_path / "d", "action.decided")) == 1


def test_asked_to_say_go_once_it_is_said_once(tmp_path: Path) -> None:
    """With ``once`` only the first is told to go, also after an approval; what an earlier gate said counts as said."""
    provider = Provider()
    made = make_desk(tmp_path / "d", provider)

    def asked_again(handle: Any, number: int, amount: int = 1000) -> str:
        try:
            args = refund_args(number, amount)
            return str(handle.admit(REFUND, args, call_id=f"c-{number}", run=run, once=True).code)
        except CountermarkError as error:
            return error.code

    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        assert [asked_again(handle, 1) for _ in range(3)] == ["allowed", "admitted_before", "admitted_before"]
        assert handle.admit(REFUND, refund_args(1), call_id="c-1", run=run).admitted
        handle.admit(REFUND, refund_args(3), call_id="c-3", run=run)
        assert [asked_again(handle, 2, 600_000) for _ in range(2)] == ["needs_approval"] * 2
        handle.call("answer", signed_answer(made, waiting(handle)[0]))
        assert [asked_again(handle, 2, 600_000) for _ in range(2)] == ["flagged", "admitted_before"]
    with hold(tmp_path / "d", provider) as handle:
        assert [asked_again(handle, number) for number in (1, 3, 4)] == ["admitted_before"] * 2 + ["allowed"]
        handle.call("settle", {"id": handle.admit(REFUND, refund_args(1), call_id="c-1", run=run).action,
                               "outcome": "confirmed"})  # fmt: skip
        assert asked_again(handle, 1) == "reported"
        with pytest.raises(CountermarkError, match="once must be true or false"):
            handle.call("admit", {"run": run, "call_id": "c-9", "tool": REFUND, "args": {}, "once": 1})
    assert unsound(tmp_path / "d") == []


def test_a_call_id_is_admitted_for_one_action(tmp_path: Path) -> None:
    """Other arguments under the same call_id are a conflict."""
    provider = Provider()
    make_desk(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        handle.admit(REFUND, refund_args(1), call_id="c-1")
        with pytest.raises(CountermarkError) as caught:
            handle.admit(REFUND, refund_args(1, 1001), call_id="c-1")
        assert caught.value.code == "identity_conflict"


def test_the_policy_says_who_runs_a_tool_not_the_agent(tmp_path: Path) -> None:
    """A tool that the gate executes is not admitted, one that its caller runs is not executed; both are recorded."""
    provider = Provider()
    make_desk(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        for ask, tool, args, code in (
            (handle.admit, TOOL, args_for(1), "unknown_tool"),
            (handle.act, REFUND, refund_args(1), "caller_runs_it"),
        ):
            with pytest.raises(CountermarkError) as caught:
                ask(tool, args, call_id="c-1")
            assert caught.value.code == code
        paid = handle.act(TOOL, args_for(1), call_id="c-2")
        for report in ("confirmed", "failed", "unknown"):
            with pytest.raises(CountermarkError) as caught:
                handle.settle(paid.action, report)
            assert caught.value.code == "not_admitted"
    assert [body["code"] for body in bodies(tmp_path / "d", "action.refused")] == ["unknown_tool", "caller_runs_it"]


def test_a_reported_failure_gives_nothing_back(tmp_path: Path) -> None:
    """The hold, the window and the business key stay taken: the caller may be wrong, or lie."""
    provider, clock = Provider(), FakeClock()
    made = make_desk(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        limits = [{"currency": "eur", "amount": 2500, "over_us": None}]
        run = handle.start_run(mandate=grant_to(handle, made, clock.now_us(), limits=limits))
        first = handle.admit(REFUND, refund_args(1), call_id="c-1", run=run)
        handle.settle(first.action, "failed")
        assert handle.admit(REFUND, refund_args(1), call_id="c-2", run=run).code == "duplicate_obligation"
        assert handle.admit(REFUND, refund_args(2, 1501), call_id="c-3", run=run).code == "mandate_limit"
    assert unsound(tmp_path / "d") == []


def test_an_outcome_is_reported_once(tmp_path: Path) -> None:
    """The same report again changes nothing, another one is refused; after unknown one final word is heard."""
    provider = Provider()
    make_desk(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        first = handle.admit(REFUND, refund_args(1), call_id="c-1")
        assert handle.settle(first.action, "unknown").status == "unknown"
        assert handle.settle(first.action, "unknown").status == "unknown"
        assert handle.settle(first.action, "confirmed").status == "confirmed"
        assert handle.settle(first.action, "confirmed").status == "confirmed"
        with pytest.raises(CountermarkError) as caught:
            handle.settle(first.action, "failed")
        assert caught.value.code == "already_settled"
    assert [body["outcome"] for body in bodies(tmp_path / "d", "action.settled")] == ["unknown", "confirmed"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"outcome": "done"}, "bad_argument"),
        ({"outcome": "confirmed", "ref": "a\nb"}, "bad_argument"),
        ({"outcome": "confirmed", "ref": 7}, "bad_argument"),
        ({"outcome": "confirmed", "output": []}, "bad_argument"),
        ({"outcome": "confirmed", "output": {"left": 1.5}}, "bad_encoding"),
        ({"outcome": "confirmed", "more": 1}, "unknown_argument"),
        ({"outcome": "confirmed", "id": "act_" + "0" * 32}, "unknown_action"),
        ({"outcome": "confirmed", "id": 5}, "bad_argument"),
        ({}, "bad_argument"),
    ],
)
def test_a_report_is_read_strictly(tmp_path: Path, body: dict[str, object], code: str) -> None:
    """A report that is not one changes nothing and says why."""
    provider = Provider()
    make_desk(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        answer = handle.admit(REFUND, refund_args(1), call_id="c-1")
        with pytest.raises(CountermarkError) as caught:
            handle.call("settle", {"id": answer.action, **body})
        assert caught.value.code == code
    assert "action.settled" not in kinds(tmp_path / "d")


def test_another_agent_reports_nothing(tmp_path: Path) -> None:
    """Who did not ask cannot settle: to them the action does not exist."""
    provider = Provider()
    make_desk(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        answer = handle.admit(REFUND, refund_args(1), call_id="c-1")
        with pytest.raises(CountermarkError) as caught:
            handle.settle(answer.action, "confirmed", agent="somebody")
        assert caught.value.code == "unknown_action"


def test_an_approval_admits_and_executes_nothing(tmp_path: Path) -> None:
    """Parked until people answer; then the caller, asking again, is told to run it. The gate sends nothing."""
    provider = Provider()
    made = make_desk(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        parked = handle.admit(REFUND, refund_args(1, 600_000), call_id="c-1")
        assert (parked.admitted, parked.status) == (False, "escalated")
        with pytest.raises(CountermarkError) as caught:
            handle.settle(parked.action, "confirmed")
        assert caught.value.code == "not_admitted"
        answered = handle.call("answer", signed_answer(made, waiting(handle)[0]))
        assert answered["result"]["status"] == "pending"
        go = handle.admit(REFUND, refund_args(1, 600_000), call_id="c-1")
        assert (go.admitted, go.action) == (True, parked.action)
        assert handle.settle(go.action, "confirmed").status == "confirmed"
    assert provider.sent == []
    assert bodies(tmp_path / "d", "action.decided")[-1]["tier"] == "observing"
    assert unsound(tmp_path / "d") == []


def test_a_kill_lists_what_callers_run_and_stops_who_asks_again(tmp_path: Path) -> None:
    """What was admitted and not reported is in flight; the same call, asked after the kill, is not to be run."""
    provider = Provider()
    make_desk(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        answer = handle.admit(REFUND, refund_args(1), call_id="c-1")
        note = handle.admit(NOTE, {"text": "hello"}, call_id="n-1")
        handle.settle(note.action, "confirmed")
        killed = handle.call("kill.set", {"kind": "tool", "value": REFUND, "reason": "looks odd"})
        assert [row["id"] for row in killed["in_flight"]] == [answer.action]
        again = handle.admit(REFUND, refund_args(1), call_id="c-1")
        assert (again.admitted, again.disposition, again.code) == (False, "deny", "killed")
        assert handle.admit(REFUND, refund_args(2), call_id="c-2").code == "killed"
        # What was under way is still heard.
        assert handle.settle(answer.action, "confirmed").status == "confirmed"


def test_nobody_reported_in_time_is_unknown(tmp_path: Path) -> None:
    """Past its time an intent becomes unknown, is not admitted again, and its caller may still say what happened."""
    provider, clock = Provider(), FakeClock()
    make_desk(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        answer = handle.admit(REFUND, refund_args(1), call_id="c-1")
        handle.gate.wait(handle.gate._lapse())
        assert handle.call("result", {"id": answer.action})["status"] == "pending"
        clock.advance(601 * US)
        assert handle.admit(REFUND, refund_args(1), call_id="c-1").code == "too_late"
        handle.call("recover", {})
        handle.gate.wait(handle.gate._lapse())
        late = handle.call("result", {"id": answer.action})
        assert (late["status"], late["code"]) == ("unknown", "not_reported")
        handle.gate.wait(handle.gate._lapse())
        assert handle.settle(answer.action, "confirmed").status == "confirmed"
    assert [body["via"] for body in bodies(tmp_path / "d", "action.settled")] == ["recovery", "report"]
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_a_dead_gate_recovers_nothing_that_its_caller_runs(tmp_path: Path) -> None:
    """After a restart the intent is open as it was: the gate neither sends it nor asks anybody."""
    provider = Provider()
    make_desk(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        answer = handle.admit(REFUND, refund_args(1), call_id="c-1")
    with hold(tmp_path / "d", provider) as handle:
        assert handle.call("result", {"id": answer.action})["status"] == "pending"
        assert handle.settle(answer.action, "failed").status == "failed"
    assert (provider.sent, provider.asked) == ([], [])


@pytest.mark.parametrize(
    "line", ['endpoint = "POST /x"', 'recovery = "idempotent"', 'headers = { X = "1" }', 'encoding = "form-v1"']
)
def test_a_tool_of_the_caller_says_nothing_about_sending(line: str) -> None:
    """What could only matter to the gate's own sending is refused in the policy, with its line."""

    tools = CALLER_TOOLS.replace('class = "change"', f'class = "change"\n{line}')
    files = {**edited(), "tools.toml": edited()["tools.toml"] + tools}
    with pytest.raises(PolicyError) as caught:
        compile_bundle(sorted(files.items()), {})
    assert "not for a tool that its caller runs" in str(caught.value.findings)
