"""Runs of workflows: honest histories, and lies about what a definition says, what code computes and how a run ends."""

from __future__ import annotations

import copy
from typing import Any

from acts import Action
from build import doc_digest
from bundle import plain_bundle
from fields import payment
from flows import CHASE, HOUR_S, LINE, NET, PAY, Flow, begin, bounded, define, receive
from lies import lie, put
from scribe import ALLOWED, Alter, Answer, Story
from story import PAYOUT, TRANSFER, opened

INPUTS = {"amount": 9_000, "invoice": "INV-7"}
PAYLOAD = {"id": "evt_1", "kind": "invoice", "amount": 9_000, "invoice": "INV-7"}
DECLINED: Answer = ("deny", "policy", "not_permitted", [])


def started(story: Story, document: dict[str, Any] = PAY, **more: Any) -> Flow:
    """The definition, the invoice that came, and the run that it starts."""
    define(story, document)
    seq = receive(story, "inbox", "evt_1", PAYLOAD)
    trigger = {"kind": "webhook", "event": "inbox evt_1", "record": seq}
    return begin(story, document, INPUTS, trigger, **more)


def planned(flow: Flow, amount: int = 9_002, alter: Alter | None = None) -> int:
    inputs = {"amount": 9_000, "lines": ["a", "b"]}
    return flow.compute("plan.net", NET, inputs, {"amount": amount, "fine": True}, alter)


def sent(flow: Flow, amount: int = 9_002, attempt: int = 1, **more: Any) -> Action:
    return flow.act("pay.send", payment(amount, "aurora", "INV-7"), attempt=attempt, **more)


def reference(flow: Flow, action: Action) -> str:
    """What the bank calls the payment."""
    seq = flow.story.settle(action)
    text: str = flow.story.log.records[seq]["body"]["ref"]
    return text


def paid(flow: Flow, attempt: int = 1) -> tuple[Action, str]:
    """Planned and paid."""
    planned(flow)
    action = sent(flow)
    return action, reference(flow, action)


def arrived(flow: Flow, ref: str) -> None:
    flow.wait("pay.arrival", {"kind": "event", "source": "bank", "key": ref}, HOUR_S)
    seq = receive(flow.story, "bank", "evt_9", {"state": "arrived"}, ref)
    flow.resume("pay.arrival", "event", {"payload": {"state": "arrived"}, "event": "evt_9"}, seq)


def noted(flow: Flow, ref: str, amount: int = 9_002) -> str:
    line = f"{ref}: {amount}"
    flow.compute("pay.note", LINE, {"amount": amount, "ref": ref}, {"line": line})
    return line


def late(flow: Flow, ref: str) -> None:
    """Nothing arrives within the hour."""
    flow.wait("pay.arrival", {"kind": "event", "source": "bank", "key": ref}, HOUR_S)
    flow.story.wait(HOUR_S)
    flow.resume("pay.arrival", "timeout")


def undone(flow: Flow, action: Action, ref: str, **more: Any) -> Action:
    args = payment(100, "borealis", f"undo {ref}")
    return flow.act("pay.send.undo", args, because=[action], **more)


# --- honest histories ---


def followed() -> Story:
    """One invoice that a webhook starts, one by hand whose first attempt fails, and one that is undone."""
    story = opened("followed", bundle=plain_bundle())
    flow = started(story)
    _, ref = paid(flow)
    arrived(flow, ref)
    flow.end("success", outputs={"note": noted(flow, ref)})
    again = begin(story, PAY, {"amount": 5_000, "invoice": "INV-8"})
    again.compute("plan.net", NET, {"amount": 5_000, "lines": ["a", "b"]}, {"amount": 5_002, "fine": True})
    args = payment(5_002, "aurora", "INV-8")
    story.settle(again.act("pay.send", args), "failed")
    story.wait(60)
    action = again.act("pay.send", args, attempt=2)
    late(again, ref := reference(again, action))
    reference(again, undone(again, action, ref))
    again.end("failure", undone=["pay.send"])
    return story


def changed_plan() -> Story:
    """A run that a person cancels while it waits, and one that goes on by another definition."""
    story = opened("changed-plan", bundle=plain_bundle())
    flow = started(story)
    action, ref = paid(flow)
    flow.wait("pay.arrival", {"kind": "event", "source": "bank", "key": ref}, HOUR_S)
    flow.cancel()
    flow.resume("pay.arrival", "cancelled")
    reference(flow, undone(flow, action, ref))
    flow.end("cancelled", undone=["pay.send"])
    other = begin(story, PAY, {"amount": 5_000, "invoice": "INV-8"})
    other.compute("plan.net", NET, {"amount": 5_000, "lines": ["a", "b"]}, {"amount": 5_002, "fine": True})
    define(story, SHORT)
    other.migrate(SHORT)
    other.document = SHORT
    ref = reference(other, other.act("pay.send", payment(5_002, "aurora", "INV-8")))
    other.end("success", outputs={"note": noted(other, ref, 5_002)})
    return story


def _short() -> dict[str, Any]:
    """The same without the wait."""
    document = copy.deepcopy(PAY)
    del document["jobs"][1]["steps"][1]
    return document


SHORT = _short()
SPEC = CHASE["jobs"][0]["steps"][0]
GIVEN: dict[str, Any] = {
    "goal": "pay what is open of aurora",
    "sees": {"vendor": "aurora"},
    "where": [[TRANSFER, "destination", ["acct-aurora"]]],
}


def chasing(story: Story, alter: Alter | None = None) -> tuple[Flow, Flow]:
    """An agent is given a step, inside its boundary."""
    define(story, CHASE)
    flow = begin(story, CHASE, {"vendor": "aurora"})
    story.wait(1)
    inner = bounded(story, flow, "main.ask", SPEC, GIVEN, alter)
    until = story.log.records[-1]["body"]["boundary"]["until"]
    flow.wait("main.ask", {"kind": "agent", "run": inner.run}, HOUR_S, put("until", value=until))
    return flow, inner


def asked(flow: Flow, number: int, amount: int, answer: Answer = ALLOWED, payee: str = "aurora", **more: Any) -> Action:
    """What the agent asks for."""
    args = payment(amount, payee, f"INV-{number}")
    return flow.story.decide(flow.run, f"call-{number}", more.pop("tool", TRANSFER), args, answer, **more)


def outside(code: str, *reasons: str) -> Answer:
    return "deny", "boundary", f"boundary_{code}", list(reasons)


def given_up(inner: Flow, outputs: dict[str, Any]) -> None:
    body = {"run": inner.run, "agent": inner.agent, "reason": "done", "outputs": outputs}
    inner.story.add("run.ended", f"agent:{inner.agent}", inner.streams(), body)


def delegated() -> Story:
    """An agent pays within its boundary; everything else is denied."""
    story = opened("delegated", bundle=plain_bundle())
    flow, inner = chasing(story)
    story.settle(asked(inner, 1, 9_000))
    asked(inner, 2, 1_000, outside("argument", "destination"), "borealis")
    asked(inner, 3, 7_000, outside("budget", "EUR"))
    asked(inner, 4, 100, outside("calls"))
    given_up(inner, {"paid": 9_000})
    flow.resume("main.ask", "ended", {"paid": 9_000})
    flow.end("success", outputs={"paid": 9_000})
    return story


# --- lies about a run ---


@lie("V21.result")
def workflow_output_altered(story: Story) -> int:
    return planned(started(story), alter=put("output", "amount", value=8_002))


@lie("V21.compute")
def workflow_output_altered_with_its_digest(story: Story) -> int:
    flow = started(story)
    seq = planned(flow, 8_002)
    story.settle(sent(flow, 8_002))
    return seq


@lie("V21.input")
def workflow_input_of_code_altered(story: Story) -> int:
    return planned(started(story), alter=put("input", value=doc_digest("value", {"amount": 8_000, "lines": []})))


@lie("V21.input")
def workflow_code_exchanged(story: Story) -> int:
    return planned(started(story), alter=put("code", value=doc_digest("code", "other")))


@lie("V21.step")
def workflow_action_that_no_step_asks_for(story: Story) -> int:
    flow = started(story)
    planned(flow)
    return flow.act("pay.again", payment(9_002, "aurora", "INV-7")).seq


@lie("V21.step")
def workflow_step_skipped(story: Story) -> int:
    return sent(started(story)).seq


@lie("V21.step")
def workflow_step_done_twice(story: Story) -> int:
    flow = started(story)
    paid(flow)
    return flow.act("pay.send", payment(9_002, "aurora", "INV-9"), attempt=2).seq


@lie("V21.step")
def workflow_attempt_before_its_time(story: Story) -> int:
    flow = started(story)
    planned(flow)
    story.settle(sent(flow), "failed")
    story.wait(30)
    return sent(flow, attempt=2).seq


@lie("V21.step")
def workflow_denied_attempt_made_again(story: Story) -> int:
    flow = started(story, _to_nobody())
    planned(flow)
    args = payment(9_002, "nobody", "INV-7")
    flow.act("pay.send", args, DECLINED)
    story.wait(60)
    return flow.act("pay.send", args, DECLINED, attempt=2).seq


def _to_nobody() -> dict[str, Any]:
    document = copy.deepcopy(PAY)
    document["jobs"][1]["steps"][0]["with"][2][1] = "acct-nobody"
    return document


@lie("V21.input")
def workflow_argument_altered(story: Story) -> int:
    flow = started(story)
    planned(flow)
    return sent(flow, 9_003).seq


@lie("V21.input")
def workflow_source_of_an_argument_left_out(story: Story) -> int:
    flow = started(story)
    _, ref = paid(flow)
    late(flow, ref)
    return flow.act("pay.send.undo", payment(100, "borealis", f"undo {ref}")).seq


@lie("V21.trigger")
def workflow_two_runs_of_one_event(story: Story) -> int:
    started(story)
    begin(story, PAY, INPUTS, story.log.records[-1]["body"]["workflow"]["trigger"])
    return len(story.log.leaves) - 1


@lie("V21.event")
def workflow_event_received_twice(story: Story) -> int:
    started(story)
    return receive(story, "inbox", "evt_1", PAYLOAD)


@lie("V21.trigger")
def workflow_event_that_starts_nothing(story: Story) -> int:
    define(story, PAY)
    seq = receive(story, "inbox", "evt_1", PAYLOAD | {"kind": "reminder"})
    begin(story, PAY, INPUTS, {"kind": "webhook", "event": "inbox evt_1", "record": seq})
    return seq + 1


@lie("V21.trigger")
def workflow_inputs_that_its_event_does_not_give(story: Story) -> int:
    flow = started(story, alter=put("workflow", "inputs", "amount", value=90_000))
    return len(flow.story.log.leaves) - 1


@lie("V21.start")
def workflow_input_of_another_type(story: Story) -> int:
    define(story, PAY)
    begin(story, PAY, INPUTS | {"amount": "9000"})
    return len(story.log.leaves) - 1


@lie("V21.start")
def workflow_under_another_policy(story: Story) -> int:
    define(story, PAY)
    begin(story, PAY, INPUTS, alter=put("workflow", "bundle", value=doc_digest("bundle", {})))
    return len(story.log.leaves) - 1


@lie("V21.definition")
def workflow_definition_exchanged(story: Story) -> int:
    other = copy.deepcopy(PAY)
    other["jobs"][1]["steps"][0]["with"][2][1] = "acct-borealis"
    seq = define(story, PAY, put("document", value=other))
    begin(story, PAY, INPUTS)
    return seq


@lie("V21.definition")
def workflow_that_is_no_definition(story: Story) -> int:
    circular = copy.deepcopy(PAY)
    circular["jobs"][0]["needs"] = ["pay"]
    return define(story, circular)


@lie("V04.record")
def workflow_defined_by_somebody(story: Story) -> int:
    # Who brings a definition is no matter of the record's: nobody signs it.
    seq = define(story, PAY, by="person:nobody")
    begin(story, PAY, INPUTS)
    return seq


@lie("V21.step")
def workflow_cancelled_by_somebody_unknown(story: Story) -> int:
    flow = started(story)
    return flow.cancel(person="nobody")


@lie("V21.definition")
def workflow_never_defined(story: Story) -> int:
    begin(story, PAY, INPUTS)
    return len(story.log.leaves) - 1


@lie("V21.end")
def workflow_ended_too_early(story: Story) -> int:
    flow = started(story)
    _, ref = paid(flow)
    return flow.end("success", outputs={"note": f"{ref}: 9002"})


@lie("V21.end")
def workflow_ended_with_another_status(story: Story) -> int:
    flow = started(story)
    action, ref = paid(flow)
    late(flow, ref)
    story.settle(undone(flow, action, ref))
    return flow.end("success", undone=["pay.send"])


@lie("V21.end")
def workflow_compensation_left_out(story: Story) -> int:
    flow = started(story)
    _, ref = paid(flow)
    late(flow, ref)
    return flow.end("failure")


@lie("V21.end")
def workflow_compensation_that_failed_called_done(story: Story) -> int:
    flow = started(story)
    action, ref = paid(flow)
    late(flow, ref)
    kill = story.kill("deployment", "")
    undone(flow, action, ref, answer=("deny", "kill", "killed", [kill]))
    return flow.end("failure", undone=["pay.send"])


@lie("V21.end")
def workflow_output_of_the_run_altered(story: Story) -> int:
    flow = started(story)
    _, ref = paid(flow)
    arrived(flow, ref)
    noted(flow, ref)
    return flow.end("success", outputs={"note": "nothing"})


@lie("V21.step")
def workflow_goes_on_after_its_end(story: Story) -> int:
    flow = started(story)
    _, ref = paid(flow)
    arrived(flow, ref)
    flow.end("success", outputs={"note": noted(flow, ref)})
    return planned(flow)


@lie("V21.step")
def workflow_wait_ended_early(story: Story) -> int:
    flow = started(story)
    _, ref = paid(flow)
    flow.wait("pay.arrival", {"kind": "event", "source": "bank", "key": ref}, HOUR_S)
    story.wait(HOUR_S // 2)
    return flow.resume("pay.arrival", "timeout")


@lie("V21.step")
def workflow_wait_ended_by_another_event(story: Story) -> int:
    flow = started(story)
    _, ref = paid(flow)
    flow.wait("pay.arrival", {"kind": "event", "source": "bank", "key": ref}, HOUR_S)
    seq = receive(story, "bank", "evt_9", {"state": "arrived"}, "tr_other")
    return flow.resume("pay.arrival", "event", {"payload": {"state": "arrived"}, "event": "evt_9"}, seq)


@lie("V21.step")
def workflow_cancelled_by_nobody(story: Story) -> int:
    flow = started(story)
    return flow.cancel("just so", "")


@lie("V21.migrated")
def workflow_definition_changed_by_nobody(story: Story) -> int:
    flow = started(story)
    planned(flow)
    define(story, SHORT)
    return flow.migrate(SHORT, signed={"v": 1})


@lie("V21.migrated")
def workflow_definition_changed_behind_what_was_done(story: Story) -> int:
    flow = started(story)
    planned(flow)
    other = copy.deepcopy(PAY)
    other["jobs"][0]["steps"][0]["with"][1][1] = ["a"]
    define(story, other)
    return flow.migrate(other)


# --- lies about a boundary ---


@lie("V21.boundary")
def boundary_wider_than_its_step(story: Story) -> int:
    chasing(story, put("boundary", "budget", value=[["EUR", 150_000]]))
    return next(r["seq"] for r in story.log.records if "boundary" in r["body"])


@lie("V21.boundary")
def boundary_of_no_step(story: Story) -> int:
    define(story, CHASE)
    flow = begin(story, CHASE, {"vendor": "aurora"})
    bounded(story, flow, "main.ask", SPEC, GIVEN)
    return len(story.log.leaves) - 1


@lie("V14.decision")
def boundary_of_calls_exceeded(story: Story) -> int:
    _, inner = chasing(story)
    for number in (1, 2, 3):
        story.settle(asked(inner, number, 1_000))
    return asked(inner, 4, 1_000).seq


@lie("V14.decision")
def boundary_of_calls_does_not_count_denials(story: Story) -> int:
    _, inner = chasing(story)
    for number in (1, 2, 3):
        asked(inner, number, 1_000, outside("argument", "destination"), "borealis")
    return asked(inner, 4, 1_000).seq


@lie("V14.decision", bundle=plain_bundle(tools=[TRANSFER, PAYOUT]))
def boundary_of_tools_left(story: Story) -> int:
    _, inner = chasing(story)
    return asked(inner, 1, 1_000, tool=PAYOUT).seq


@lie("V14.decision")
def boundary_of_the_budget_exceeded(story: Story) -> int:
    _, inner = chasing(story)
    story.settle(asked(inner, 1, 9_000))
    return asked(inner, 2, 6_001).seq


@lie("V14.decision")
def boundary_of_the_budget_forgets_the_unknown(story: Story) -> int:
    _, inner = chasing(story)
    story.settle(asked(inner, 1, 9_000), "unknown")
    return asked(inner, 2, 6_001).seq


@lie("V14.decision")
def boundary_of_an_argument_left(story: Story) -> int:
    _, inner = chasing(story)
    return asked(inner, 1, 1_000, payee="borealis").seq


@lie("V14.decision")
def boundary_in_time_exceeded(story: Story) -> int:
    _, inner = chasing(story)
    story.wait(HOUR_S)
    return asked(inner, 1, 1_000).seq


@lie("V21.step")
def boundary_ends_with_other_outputs(story: Story) -> int:
    flow, inner = chasing(story)
    given_up(inner, {"paid": 1})
    return flow.resume("main.ask", "ended", {"paid": 2})
