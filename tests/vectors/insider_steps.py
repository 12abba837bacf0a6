"""Lies about what code may be, what a step may use, why one was refused, whose turn it was, and when time was over."""

from __future__ import annotations

import copy
from typing import Any

from bundle import plain_bundle
from fields import payment
from flows import (
    HOUR_S,
    LIMITS,
    NET,
    PAY,
    Flow,
    begin,
    define,
    document_of,
    input_of,
    job_of,
    receive,
    ref,
    step_of,
    transfer,
)
from insider_called import INNER, nested, outer
from insider_workflows import asked, chasing, paid, planned, reference, sent, started
from lies import lie, put
from scribe import Alter, Story
from story import TRANSFER, child, opened


def coded(code: str) -> dict[str, Any]:
    document = copy.deepcopy(PAY)
    document["jobs"][0]["steps"][0]["code"] = code
    return document


def refused(flow: Flow, call_id: str, code: str, field: str) -> int:
    body = {"agent": flow.agent, "run": flow.run, "call_id": call_id, "tool": TRANSFER, "code": code, "field": field}
    return flow.story.add("action.refused", f"agent:{flow.agent}", flow.streams(), body)


@lie("V21.step")
def workflow_attempt_refused_that_no_step_asked_for(story: Story) -> int:
    # In a run of a definition only the definition's own requests are recorded with a call id.
    return refused(started(story), "pay.send:7", "bad_argument", "amount")


@lie("V21.step")
def workflow_attempt_refused_under_a_name_of_somebody_elses(story: Story) -> int:
    return refused(started(story), "call-1", "bad_argument", "amount")


def ended_by(message: str, ticks: int = 0) -> Alter:
    def alter(body: dict[str, Any]) -> None:
        body |= {"status": "limit", "output": None, "result": None, "message": message, "ticks": ticks}

    return alter


ONE_BY_ONE = document_of(
    "one-by-one",
    job_of("main", step_of("send", "effect", tool=TRANSFER, undo=None,
                           **{"with": transfer(ref("fromJSON(inputs.amount)"), ref("inputs.invoice"))})),
    inputs={"amount": input_of("string"), "invoice": input_of("string")},
    concurrency={"group": "all", "cancel": False},
)  # fmt: skip


def pays(flow: Flow, amount: int, invoice: str) -> None:
    reference(flow, flow.act("main.send", payment(amount, "aurora", invoice)))


def in_turn() -> Story:
    """Two runs of one group, one after the other; what the second one asks for is no action, since it is a text."""
    story = opened("in-turn", bundle=plain_bundle())
    define(story, ONE_BY_ONE)
    first = begin(story, ONE_BY_ONE, {"amount": "700", "invoice": "INV-1"})
    second = begin(story, ONE_BY_ONE, {"amount": '"700"', "invoice": "INV-2"})
    pays(first, 700, "INV-1")
    first.end("success")
    refused(second, "main.send:1", "bad_argument", "amount")
    second.end("failure")
    return story


@lie("V21.definition")
def workflow_code_with_a_float(story: Story) -> int:
    return define(story, coded(NET.replace("len(lines)", "1.5")))


@lie("V21.definition")
def workflow_code_without_main(story: Story) -> int:
    return define(story, coded(NET.replace("main", "other")))


@lie("V21.definition")
def workflow_code_that_is_no_starlark(story: Story) -> int:
    return define(story, coded(NET.replace("return {", "return return {")))


@lie("V21.definition")
def workflow_reads_an_output_that_nothing_gives(story: Story) -> int:
    document = copy.deepcopy(PAY)
    document["jobs"][0]["outputs"][0][1] = ref("steps.net.outputs.amounts")
    return define(story, document)


@lie("V21.input")
def workflow_step_under_a_limit_of_its_own(story: Story) -> int:
    # So that whatever the operator does not like fails.
    def alter(body: dict[str, Any]) -> None:
        ended_by("ticks: more than 1")(body)
        body["limits"] = LIMITS | {"ticks": 1}

    return planned(started(story), alter=alter)


@lie("V21.input")
def workflow_engine_that_nobody_has(story: Story) -> int:
    # Nobody could execute it again, nor anything behind it.
    return planned(started(story), 8_002, put("engine", value="starlark-pyo3/2099.1.1"))


@lie("V21.result")
def workflow_limit_that_is_none(story: Story) -> int:
    return planned(started(story), alter=ended_by("tired: no more"))


@lie("V21.compute")
def workflow_ticks_that_were_not_taken(story: Story) -> int:
    return planned(started(story), alter=ended_by("ticks: more than 10000000", 10_001_000))


@lie("V04.record")
def workflow_message_that_moves_the_cursor(story: Story) -> int:
    return planned(started(story), alter=ended_by("time: \x1b[1A\x1b[2K"))


@lie("V21.input")
def workflow_refused_for_an_argument_that_is_there(story: Story) -> int:
    flow = started(story)
    planned(flow)
    return refused(flow, "pay.send:1", "missing_argument", "amount")


@lie("V21.input")
def workflow_refused_for_a_reason_that_nothing_has(story: Story) -> int:
    # A code after which nothing is tried again.
    flow = started(story)
    planned(flow)
    return refused(flow, "pay.send:1", "denied_by_policy", "")


@lie("V21.step")
def workflow_attempt_that_was_no_action_made_again(story: Story) -> int:
    """What is no action today is none in a minute; the connector's word alone says that this one was none."""
    flow = started(story)
    planned(flow)
    refused(flow, "pay.send:1", "bad_argument", "metadata[invoice]")
    story.wait(60)
    return sent(flow, attempt=2).seq


@lie("V21.step")
def workflow_begins_in_anothers_turn(story: Story) -> int:
    define(story, ONE_BY_ONE)
    begin(story, ONE_BY_ONE, {"amount": "700", "invoice": "INV-1"})
    second = begin(story, ONE_BY_ONE, {"amount": "800", "invoice": "INV-2"})
    return second.act("main.send", payment(800, "aurora", "INV-2")).seq


@lie("V21.step")
def workflow_pays_when_its_time_is_over(story: Story) -> int:
    document = copy.deepcopy(PAY) | {"timeout_s": HOUR_S}
    flow = started(story, document)
    planned(flow)
    story.wait(3 * HOUR_S)
    return sent(flow).seq


@lie("V21.trigger")
def workflow_at_a_time_that_its_schedule_does_not_name(story: Story) -> int:
    at_nine = {"kind": "schedule", "cron": "0 9 * * *", "zone": "UTC", "missed": "skip", "with": []}
    document = copy.deepcopy(ONE_BY_ONE) | {"triggers": [at_nine], "inputs": {}, "concurrency": None}
    document["jobs"][0]["steps"][0]["with"] = transfer(700, "INV-1")
    define(story, document)
    story.wait((33 * 3_600 - story.now // 1_000_000 % 86_400) % 86_400 + 30)  # until half a minute after nine
    nine = story.now // 60_000_000 * 60
    for seconds in (nine, nine - 60):
        begin(story, document, {}, {"kind": "schedule", "event": f"{seconds} UTC 0 9 * * *", "record": None})
    return len(story.log.leaves) - 1


@lie("V21.step")
def workflow_event_that_came_too_late_heeded(story: Story) -> int:
    flow = started(story)
    _, key = paid(flow)
    flow.wait("pay.arrival", {"kind": "event", "source": "bank", "key": key}, HOUR_S)
    story.wait(2 * HOUR_S)
    seq = receive(story, "bank", "evt_9", {"state": "arrived"}, key)
    return flow.resume("pay.arrival", "event", {"payload": {"state": "arrived"}, "event": "evt_9"}, seq)


@lie("V21.boundary")
def boundary_outlives_its_step(story: Story) -> int:
    flow, inner = chasing(story)
    flow.cancel()
    flow.resume("main.ask", "cancelled")
    return asked(inner, 1, 1_000).seq


@lie("V21.start")
def called_run_of_another_agent(story: Story) -> int:
    # Whose mandate allows what the caller's does not.
    mandate = story.runs[child(story)][1]
    flow = outer(story)
    reference(flow, flow.act("main.send", payment(100, "aurora", "INV-P")))
    trigger = {"kind": "call", "event": "", "record": None}
    parent = {"run": flow.run, "place": "main.sub"}
    inner = begin(story, INNER, {}, trigger, parent, agent="clerk", mandate=mandate)
    flow.wait("main.sub", {"kind": "call", "run": inner.run}, HOUR_S)
    return len(story.log.leaves) - 2


@lie("V21.boundary")
def called_run_outlives_its_step(story: Story) -> int:
    flow, inner = nested(story)
    flow.cancel()
    flow.resume("main.sub", "cancelled")
    return inner.act("main.send", payment(500, "aurora", "INV-C")).seq
