"""Lies about when a run may begin, why it ends, and what a wait took: of called runs, events and other definitions."""

from __future__ import annotations

import copy
from typing import Any

from build import doc_digest
from bundle import asking_bundle, plain_bundle
from fields import payment
from flows import CHASE, HOUR_S, PAY, Flow, begin, define, document_of, job_of, receive, step_of, transfer
from insider_actions import ask
from insider_workflows import paid, reference, started, undone
from lies import lie
from scribe import Escalation, Story
from story import TRANSFER, opened


def _sends(name: str, invoice: str) -> dict[str, Any]:
    send = step_of("send", "effect", tool=TRANSFER, **{"with": transfer(500, invoice)}, undo=None)
    return document_of(name, job_of("main", send))


def _calls(called: dict[str, Any]) -> dict[str, Any]:
    """Pays, then calls another definition."""
    first = step_of("send", "effect", tool=TRANSFER, **{"with": transfer(100, "INV-P")}, undo=None)
    sub = step_of("sub", "call", workflow=doc_digest("workflow", called), timeout_s=HOUR_S, **{"with": []})
    return document_of("outer", job_of("main", first, sub))


INNER, OTHER = _sends("inner", "INV-C"), _sends("other", "INV-D")
OUTER, OUTER_OF_OTHER = _calls(INNER), _calls(OTHER)


def outer(story: Story) -> Flow:
    define(story, INNER)
    define(story, OUTER)
    return begin(story, OUTER, {})


def called(flow: Flow) -> Flow:
    trigger = {"kind": "call", "event": "", "record": None}
    return begin(flow.story, INNER, {}, trigger, {"run": flow.run, "place": "main.sub"})


def pays(flow: Flow, amount: int, invoice: str) -> None:
    reference(flow, flow.act("main.send", payment(amount, "aurora", invoice)))


def waits(flow: Flow, inner: Flow) -> int:
    return flow.wait("main.sub", {"kind": "call", "run": inner.run}, HOUR_S)


def nested(story: Story) -> tuple[Flow, Flow]:
    """A run that waits for the one that it called."""
    flow = outer(story)
    pays(flow, 100, "INV-P")
    inner = called(flow)
    waits(flow, inner)
    return flow, inner


def cancelled_below() -> Story:
    """A called run that is cancelled with the run that called it."""
    story = opened("cancelled-below", bundle=plain_bundle())
    flow, inner = nested(story)
    flow.cancel()
    inner.cancel("parent", "")
    flow.resume("main.sub", "cancelled")
    inner.end("cancelled")
    flow.end("cancelled")
    return story


def called_twice() -> Story:
    """Two steps call the same definition."""
    story = opened("called-twice", bundle=plain_bundle())
    quiet = document_of("quiet", job_of("main", step_of("w", "wait", **{"for": {"kind": "time", "seconds": 0}})))
    define(story, quiet)
    steps = [step_of(n, "call", workflow=doc_digest("workflow", quiet), **{"with": []}) for n in ("a", "b")]
    twice = document_of("twice", job_of("main", *steps))
    define(story, twice)
    flow = begin(story, twice, {})
    for place in ("main.a", "main.b"):
        trigger = {"kind": "call", "event": "", "record": None}
        inner = begin(story, quiet, {}, trigger, {"run": flow.run, "place": place})
        turn = story.now
        flow.wait(place, {"kind": "call", "run": inner.run}, None)
        inner.wait("main.w", {"kind": "time", "at": turn}, None)
        inner.resume("main.w", "time")
        inner.end("success")
        flow.resume(place, "ended")
    flow.end("success")
    return story


def superseded() -> Story:
    """The newer run of a group ends the one before it."""
    story = opened("superseded", bundle=plain_bundle())
    document = INNER | {"concurrency": {"group": "one", "cancel": True}}
    define(story, document)
    old = begin(story, document, {})
    new = begin(story, document, {})
    old.cancel("superseded", "")
    old.end("cancelled")
    pays(new, 500, "INV-C")
    new.end("success")
    return story


def _asking(story: Story) -> tuple[Flow, Escalation]:
    """A run whose payment people are asked about."""
    send = step_of("send", "effect", tool=TRANSFER, **{"with": transfer(60_000, "INV-W")}, undo=None)
    document = document_of("large", job_of("main", send))
    define(story, document)
    flow = begin(story, document, {})
    args = payment(60_000, "aurora", "INV-W")
    return flow, story.escalate(flow.run, "main.send:1", TRANSFER, args, {"treasury": ["ask-treasury"]})


def withdrawn() -> Story:
    """A run that is cancelled while people are asked: they are not asked any more."""
    story = opened("withdrawn", bundle=asking_bundle())
    flow, asked = _asking(story)
    flow.cancel()
    story.expire(asked, because="cancelled")
    flow.end("cancelled")
    return story


def shared_events() -> Story:
    """Two waits of one key: at once they end by one event; what ended one ends no later one."""
    story = opened("shared-events", bundle=plain_bundle())
    target = {"kind": "event", "source": "bank", "key": "K"}

    def wait(name: str) -> dict[str, Any]:
        return step_of(name, "wait", **{"for": target})

    document = document_of("both", job_of("one", wait("a"), wait("c")), job_of("two", wait("b")))
    define(story, document)
    flow = begin(story, document, {})
    flow.wait("one.a", target, None)
    flow.wait("two.b", target, None)
    first = receive(story, "bank", "evt_1", {"n": 1}, "K")
    for place in ("one.a", "two.b"):
        flow.resume(place, "event", {"payload": {"n": 1}, "event": "evt_1"}, first)
    flow.wait("one.c", target, None)
    second = receive(story, "bank", "evt_2", {"n": 2}, "K")
    flow.resume("one.c", "event", {"payload": {"n": 2}, "event": "evt_2"}, second)
    flow.end("success")
    return story


@lie("V21.step")
def called_before_its_turn(story: Story) -> int:
    """The called run pays before the step before it has."""
    flow = outer(story)
    inner = called(flow)
    seq = len(story.log.leaves) - 1
    pays(inner, 500, "INV-C")
    inner.end("success")
    pays(flow, 100, "INV-P")
    waits(flow, inner)
    flow.resume("main.sub", "ended")
    flow.end("success")
    return seq


@lie("V21.step")
def called_run_ended_and_not_heeded(story: Story) -> int:
    flow, inner = nested(story)
    pays(inner, 500, "INV-C")
    inner.end("success")
    story.wait(HOUR_S)
    return flow.resume("main.sub", "timeout")


@lie("V21.step")
def called_run_cancelled_with_a_parent_that_waits(story: Story) -> int:
    _, inner = nested(story)
    return inner.cancel("parent", "")


@lie("V21.step")
def called_by_nobody_and_cancelled_with_its_parent(story: Story) -> int:
    return outer(story).cancel("parent", "")


@lie("V21.step")
def workflow_event_that_came_in_time_not_heeded(story: Story) -> int:
    flow = started(story)
    action, ref = paid(flow)
    flow.wait("pay.arrival", {"kind": "event", "source": "bank", "key": ref}, HOUR_S)
    receive(story, "bank", "evt_9", {"state": "arrived"}, ref)
    story.wait(HOUR_S)
    seq = flow.resume("pay.arrival", "timeout")
    story.settle(undone(flow, action, ref))
    flow.end("failure", undone=["pay.send"])
    return seq


@lie("V21.step")
def workflow_superseded_by_no_newer_run(story: Story) -> int:
    document = copy.deepcopy(PAY)
    document["concurrency"] = {"group": "one", "cancel": True}
    return started(story, document).cancel("superseded", "")


@lie("V21.migrated")
def workflow_changed_to_one_that_calls_another(story: Story) -> int:
    """What was called is not what the new definition calls."""
    flow, inner = nested(story)
    define(story, OTHER)
    define(story, OUTER_OF_OTHER)
    pays(inner, 500, "INV-C")
    inner.end("success")
    seq = flow.migrate(OUTER_OF_OTHER)
    flow.document = OUTER_OF_OTHER
    flow.resume("main.sub", "ended")
    flow.end("success")
    return seq


@lie("V21.step")
def workflow_event_taken_twice(story: Story) -> int:
    """One event ends two waits, of which the second begins when it has ended the first."""
    target = {"kind": "event", "source": "bank", "key": "K"}
    steps = [step_of(name, "wait", **{"for": target}) for name in ("a", "b")]
    document = document_of("twice", job_of("one", *steps))
    define(story, document)
    flow = begin(story, document, {})
    flow.wait("one.a", target, None)
    outputs = {"payload": {"n": 1}, "event": "evt_1"}
    event = receive(story, "bank", "evt_1", {"n": 1}, "K")
    flow.resume("one.a", "event", outputs, event)
    flow.wait("one.b", target, None)
    return flow.resume("one.b", "event", outputs, event)


@lie("V21.definition")
def workflow_whose_calls_multiply(story: Story) -> int:
    """64 runs that each start 64."""
    documents, seq = [INNER], define(story, INNER)
    for name in ("middle", "top"):
        sub = step_of("sub", "call", workflow=doc_digest("workflow", documents[-1]), **{"with": []})
        documents.append(document_of(name, job_of("main", sub, matrix=[["n", list(range(64))]])))
        seq = define(story, documents[-1])
    return seq


@lie("V21.definition")
def workflow_recorded_before_what_it_calls(story: Story) -> int:
    seq = define(story, OUTER)
    define(story, INNER)
    return seq


@lie("V21.step")
def workflow_call_that_fits_and_begins_nothing(story: Story) -> int:
    """The inner payment is left out: what the step gives is said not to fit."""
    flow = outer(story)
    pays(flow, 100, "INV-P")
    seq = flow.resume("main.sub", "unfit", status="failure")
    flow.end("failure")
    return seq


@lie("V21.step")
def workflow_agent_that_is_named_said_to_be_nobody(story: Story) -> int:
    """Its step is left out: the policy names the agent, and is said not to."""
    define(story, CHASE)
    flow = begin(story, CHASE, {"vendor": "aurora"})
    seq = flow.resume("main.ask", "unfit", status="failure")
    flow.end("failure")
    return seq


@lie("V21.step", bundle=asking_bundle())
def question_of_a_run_that_goes_on_withdrawn(story: Story) -> int:
    """The run was not cancelled: people may still say yes."""
    _, asked = _asking(story)
    return story.expire(asked, because="cancelled")


@lie("V21.step", bundle=asking_bundle())
def question_of_no_workflow_withdrawn(story: Story) -> int:
    """An agent's own run is not cancelled."""
    return story.expire(ask(story, 1, 60_000), because="cancelled")
