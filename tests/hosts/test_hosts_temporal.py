"""Temporal's activities behind the gate, in the SDK's own environment. No server is part of these tests."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from desk import ACCOUNT, LARGE, SMALL, Broken, Desk
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

import countermark.hosts.temporal as product
from countermark.hosts.temporal import ACT, Host, Rule, call_id, governed


@dataclass
class Refund:
    amount: int
    account: str
    ticket: str


class Last(ActivityInboundInterceptor):
    """Stands for the worker's own end of the chain: it calls the activity."""

    def __init__(self) -> None:
        """Nothing comes after it."""

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        found = input.fn(*input.args)
        return await found if asyncio.iscoroutine(found) else found


class Worker:
    """Runs attempts of one scheduled activity as a worker would, through the interceptor."""

    def __init__(self, host: Host, fn: Callable[..., Any], name: str, **info: Any) -> None:
        self.chain = host.interceptor().intercept_activity(Last())
        self.fn = fn
        self.environment = ActivityEnvironment()
        self.environment.info = replace(self.environment.info, activity_type=name, activity_id="7", **info)
        self.beats: list[Any] = []
        self.environment.on_heartbeat = lambda *details: self.beats.append(details)

    def attempt(self, number: int, *args: Any) -> Any:
        self.environment.info = replace(self.environment.info, attempt=number)
        asked = ExecuteActivityInput(self.fn, args, None, {})

        async def execute() -> Any:
            return await self.chain.execute_activity(asked)

        return asyncio.run(self.environment.run(execute))

    def fails(self, number: int, *args: Any) -> ApplicationError:
        with pytest.raises(ApplicationError) as caught:
            self.attempt(number, *args)
        return caught.value


def host(desk: Desk, gate: Any = None, rule: str | Rule = "desk.refund", **more: Any) -> Host:
    return Host(gate or desk.gate, run=desk.run, tools={"refund": rule}, **more)


def refunding(desk: Desk) -> Callable[[Refund], dict[str, str]]:
    @activity.defn
    def refund(asked: Refund) -> dict[str, str]:
        return json.loads(desk.refund(asked.amount, asked.account, asked.ticket))

    return refund


def asked(amount: int = SMALL, account: str = ACCOUNT) -> Refund:
    return Refund(amount, account, "T-1")


def test_it_is_decided_before_and_reported_after(desk: Desk) -> None:
    """The activity runs once; a later attempt, whose worker never heard the answer, is answered from the record."""
    worker = Worker(host(desk), refunding(desk), "refund")
    assert worker.attempt(1, asked()) == {"receipt": "r-T-1"}
    assert [worker.attempt(number, asked()) for number in (2, 3)] == [{"receipt": "r-T-1"}] * 2
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_the_identity_is_the_workflows_and_not_the_attempts() -> None:
    """Namespace, workflow, its run and the activity's id are the action's name; the attempt, task and queue are not."""
    info = ActivityEnvironment.default_info()
    same = {"attempt": 9, "task_token": b"other", "task_queue": "other", "activity_type": "other"}
    assert {call_id(replace(info, **{name: value})) for name, value in same.items()} == {call_id(info)}
    other = ("namespace", "workflow_id", "workflow_run_id", "activity_id")
    assert len({call_id(replace(info, **{name: "other"})) for name in other} | {call_id(info)}) == 5
    alone = replace(info, workflow_id=None, workflow_run_id=None, activity_run_id="a-1")
    assert call_id(alone) != call_id(replace(alone, activity_run_id="a-2"))


def test_a_denial_ends_it(desk: Desk) -> None:
    """A denied activity does not run, and Temporal is told not to try again; the answer travels with the error."""
    desk.gate.call("kill.set", {"kind": "tool", "value": "desk.refund", "reason": "looks odd"})
    error = Worker(host(desk), refunding(desk), "refund").fails(1, asked())
    assert error.non_retryable
    assert error.details[0]["status"] == "denied"
    assert error.type == error.details[0]["code"]
    assert desk.done == []


def test_people_are_asked_between_attempts(desk: Desk) -> None:
    """What waits for people is tried again later, under the same action; once approved it runs, once."""
    worker = Worker(host(desk), refunding(desk), "refund")
    first, second = worker.fails(1, asked(LARGE)), worker.fails(2, asked(LARGE))
    assert (first.type, first.non_retryable, first.next_retry_delay is not None) == ("needs_approval", False, True)
    assert first.details[0]["escalation"] == second.details[0]["escalation"]
    desk.approve()
    assert worker.attempt(3, asked(LARGE)) == {"receipt": "r-T-1"}
    assert worker.attempt(4, asked(LARGE)) == {"receipt": "r-T-1"}
    assert desk.done == [("T-1", LARGE)]


def test_an_attempt_may_hold_on_with_heartbeats(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``hold_s`` one attempt waits for people itself, and each heartbeat carries what is waited for."""
    worker = Worker(host(desk, hold_s=15), refunding(desk), "refund")

    async def no_time(_: float) -> None:
        if len(worker.beats) == 2:
            desk.approve()

    monkeypatch.setattr(product, "sleep", no_time)
    assert worker.attempt(1, asked(LARGE)) == {"receipt": "r-T-1"}
    assert [beat[0]["status"] for beat in worker.beats] == ["escalated"] * 2


def test_without_a_gate_nothing_runs_and_it_is_tried_again(desk: Desk) -> None:
    """No gate to ask: a retryable error."""
    with desk.unreachable() as governor:
        error = Worker(host(desk, governor._gate), refunding(desk), "refund").fails(1, asked())
    assert (error.type, error.non_retryable) == ("gate_halted", False)
    assert desk.done == []


def test_a_hook_that_crashes_blocks(desk: Desk) -> None:
    """What nobody foresaw is raised as it is: the activity does not run."""
    with pytest.raises(RuntimeError, match="the hook crashed"):
        Worker(host(desk, Broken()), refunding(desk), "refund").attempt(1, asked())
    assert desk.done == []


def test_only_what_is_free_is_not_asked_about(desk: Desk) -> None:
    """An activity that is neither governed nor free is refused for good; a free one runs and leaves no record."""
    ran: list[int] = []
    refused = Worker(host(desk), lambda: ran.append(1), "load").fails(1)
    assert (refused.type, refused.non_retryable, ran) == ("unknown_tool", True, [])
    Worker(host(desk, free=["load"]), lambda: ran.append(1), "load").attempt(1)
    assert (ran, desk.decisions()) == ([1], [])


def test_an_activity_is_governed_where_it_is_written(desk: Desk) -> None:
    """The decorator's rule holds, with the parameters' names as the arguments', and other names where it gives them."""

    @governed("desk.refund", names={"cents": "amount"})
    @activity.defn
    async def repay(cents: int, account: str, ticket: str) -> dict[str, str]:
        return json.loads(desk.refund(cents, account, ticket))

    worker = Worker(Host(desk.gate, run=desk.run), repay, "repay")
    assert worker.attempt(1, SMALL, ACCOUNT, "T-1") == {"receipt": "r-T-1"}
    worker.environment.info = replace(worker.environment.info, activity_id="8")
    conflict = Worker(Host(desk.gate, run=desk.run), repay, "repay").fails(1, SMALL + 1, ACCOUNT, "T-1")
    assert (conflict.type, conflict.non_retryable) == ("identity_conflict", True)  # one activity, other arguments
    assert desk.done == [("T-1", SMALL)]


def died(desk: Desk, rule: Rule) -> Worker:
    """A worker that asked, was told to go, and died: what the tool did by then is in ``desk.done``."""
    worker = Worker(host(desk, rule=rule), refunding(desk), "refund")
    call = call_id(worker.environment.info)
    assert desk.gate.admit("desk.refund", vars(asked()), call_id=call, run=desk.run, once=True).admitted
    return worker


def test_a_lost_report_is_for_people(desk: Desk) -> None:
    """An earlier attempt was told to go and is silent: it is not run again, and unknown until somebody settles it."""
    worker = died(desk, Rule("desk.refund"))
    errors = [worker.fails(number, asked()) for number in (2, 3)]
    assert [(error.details[0]["status"], error.non_retryable) for error in errors] == [("unknown", False)] * 2
    assert desk.done == []
    desk.gate.settle(errors[0].details[0]["action"], "confirmed", output={"receipt": "r-9"})
    assert worker.attempt(4, asked()) == {"receipt": "r-9"}


def test_a_lost_report_is_looked_up(desk: Desk) -> None:
    """The activity's own look-up says what became of it: not known yet, then done."""
    answers: list[Any] = [("unknown", None), ("confirmed", {"receipt": "r-5"})]
    worker = died(desk, Rule("desk.refund", lookup=lambda refund: answers.pop(0)))
    assert worker.fails(2, asked()).details[0]["status"] == "unknown"
    assert worker.attempt(3, asked()) == {"receipt": "r-5"}
    assert worker.attempt(4, asked()) == {"receipt": "r-5"}
    assert (answers, desk.done) == ([], [])
    assert desk.outcomes() == [("unknown", "reported"), ("confirmed", "reported")]


def test_a_lookup_may_say_that_nothing_was_done(desk: Desk) -> None:
    """Then the action failed for good. The word of a worker frees nothing: another activity may not pay it either."""

    async def nothing(refund: Refund) -> tuple[str, object]:
        return "failed", None

    worker = died(desk, Rule("desk.refund", lookup=nothing))
    assert [worker.fails(number, asked()).non_retryable for number in (2, 3)] == [True, True]
    worker.environment.info = replace(worker.environment.info, activity_id="8")
    assert worker.fails(1, asked()).type == "duplicate_obligation"


def test_what_is_idempotent_is_run_again(desk: Desk) -> None:
    """Its provider knows it by the same call_id; an attempt that raised is followed by one that may run."""
    keys: list[str] = []

    @activity.defn
    async def refund(asked: Refund) -> dict[str, str]:
        keys.append(call_id())
        return json.loads(desk.refund(asked.amount, asked.account, asked.ticket))

    worker = Worker(host(desk, rule=Rule("desk.refund", idempotent=True)), refund, "refund")
    desk.fails = True
    with pytest.raises(RuntimeError):
        worker.attempt(1, asked())
    desk.fails = False
    assert worker.attempt(2, asked()) == {"receipt": "r-T-1"}
    assert worker.attempt(3, asked()) == {"receipt": "r-T-1"}
    assert (len(keys), len(set(keys))) == (2, 1)
    assert desk.outcomes() == [("confirmed", "reported")]


def test_an_activity_that_raises_may_have_acted(desk: Desk) -> None:
    """It is unknown and not run again, however often Temporal tries; an error may say that nothing was done."""
    desk.fails = True
    worker = Worker(host(desk), refunding(desk), "refund")
    with pytest.raises(RuntimeError):
        worker.attempt(1, asked())
    assert worker.fails(2, asked()).details[0]["status"] == "unknown"
    other = Worker(
        host(desk, rule=Rule("desk.refund", failed=(RuntimeError,))), refunding(desk), "refund", workflow_id="w"
    )
    with pytest.raises(RuntimeError):
        other.attempt(1, Refund(SMALL, ACCOUNT, "T-2"))
    assert other.fails(2, Refund(SMALL, ACCOUNT, "T-2")).non_retryable
    assert desk.done == [("T-1", SMALL), ("T-2", SMALL)]
    assert desk.outcomes() == [("unknown", "reported"), ("failed", "reported")]


def test_two_attempts_at_once_are_told_to_go_once(desk: Desk) -> None:
    """An attempt that Temporal gave up may still be there: of two that ask, one runs."""
    rule, barrier, told = Rule("desk.refund"), threading.Barrier(6), []

    def attempt() -> None:
        worker = Worker(host(desk, rule=rule), refunding(desk), "refund")
        barrier.wait()
        try:
            told.append(worker.attempt(1, asked()))
        except ApplicationError as error:
            told.append(error.type)

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert desk.done == [("T-1", SMALL)]
    assert {"receipt": "r-T-1"} in told


def test_a_cancelled_activity_is_unknown(desk: Desk) -> None:
    """Cancelled in the midst, it may have acted."""

    @activity.defn
    async def refund(asked: Refund) -> None:
        desk.refund(asked.amount, asked.account, asked.ticket)
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        Worker(host(desk), refund, "refund").attempt(1, asked())
    assert desk.outcomes() == [("unknown", "reported")]


def acting(desk: Desk, request: dict[str, Any], attempt: int = 1, **more: Any) -> Any:
    (act,) = host(desk, **more).activities()
    worker = Worker(host(desk, **more), act, ACT)
    return worker.attempt(attempt, request)


def paying(amount: int = SMALL, account: str = ACCOUNT) -> dict[str, Any]:
    args = {"amount": amount, "currency": "eur", "destination": account, "metadata[invoice]": "INV-1"}
    return {"tool": "stripe.transfers.create", "args": args, "reason": "invoice 1"}


def test_the_gate_itself_may_execute(desk: Desk) -> None:
    """``countermark.act`` hands the action to the gate: one effect for all attempts, with the gate's own credential."""
    answers = [acting(desk, paying(), attempt) for attempt in (1, 2)]
    assert [answer["status"] for answer in answers] == ["confirmed"] * 2
    assert answers[0]["ref"] == answers[1]["ref"]
    assert len(desk.provider.sent) == 1


def test_what_the_gate_does_not_execute_is_an_error(desk: Desk) -> None:
    """Denied: for good. A request in no form: for good. Neither is sent."""
    desk.gate.call("kill.set", {"kind": "tool", "value": "stripe.transfers.create", "reason": "looks odd"})
    with pytest.raises(ApplicationError) as denied:
        acting(desk, paying())
    assert denied.value.non_retryable
    with pytest.raises(ApplicationError) as wrong:
        acting(desk, {"tool": "desk.refund", "call_id": "c"})
    assert (wrong.value.type, wrong.value.non_retryable) == ("bad_argument", True)
    assert desk.provider.sent == []


def test_an_approved_action_is_executed_by_the_gate(desk: Desk) -> None:
    """While people are asked Temporal tries again; what they approved was done once."""
    with pytest.raises(ApplicationError) as waits:
        acting(desk, paying(LARGE))
    assert not waits.value.non_retryable
    desk.approve()
    assert acting(desk, paying(LARGE), 2)["status"] == "confirmed"
    assert len(desk.provider.sent) == 1


def test_arguments_are_read_as_the_gate_knows_them(desk: Desk) -> None:
    """A mapping's members, dotted where they are nested and absent where they are null; one name twice is refused."""
    rule = Rule("desk.refund", names={"to.account": "account"}, outcome=lambda value: ("confirmed", {"receipt": value}))
    worker = Worker(host(desk, rule=rule), lambda given: "r-1", "refund")
    assert worker.attempt(1, {"amount": SMALL, "to": {"account": ACCOUNT}, "ticket": "T-1", "note": None}) == "r-1"
    assert worker.attempt(2, {"amount": SMALL, "to": {"account": ACCOUNT}, "ticket": "T-1"}) == {"receipt": "r-1"}
    twice = {"amount": SMALL, "to": {"account": ACCOUNT}, "account": ACCOUNT, "ticket": "T-1"}
    assert worker.fails(3, twice).type == "bad_argument"


def _names(found: Sequence[Any]) -> list[str]:
    return [activity._Definition.must_from_callable(fn).name or "" for fn in found]


def test_the_activity_of_the_gate_has_its_name(desk: Desk) -> None:
    """A workflow calls it by ``countermark.act``."""
    assert _names(host(desk).activities()) == [ACT]
