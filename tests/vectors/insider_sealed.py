"""Sealed runs: honest ones, and lies about whose the values are, what was sealed, and what an erasure took."""

from __future__ import annotations

import copy
from typing import Any

from build import doc_digest, head_of
from cases import UNSET, Case, case, trust
from erasures import DAY_S, KEEP_S, disclosed, erase, hold, kept, release
from fields import payment
from flows import HOUR_S, LINE, Flow, begin, define, document_of, input_of, job_of, receive, ref, step_of, transfer
from insider_workflows import reference
from lies import lie, put
from scribe import Story
from story import OF_RUNS, TRANSFER, opened, pack_of

MONTH_S = KEEP_S + DAY_S
WHOSE, NUMBER = "jane-roe", "DE89-3704"
INPUTS = {"who": WHOSE, "number": NUMBER, "amount": 300}


def _refund(**more: Any) -> dict[str, Any]:
    """Computes a line about the account, pays, waits for the bank, and ends with the line."""
    given = [["amount", ref("inputs.amount")], ["ref", ref("inputs.number")]]
    arrival = {"kind": "event", "source": "bank", "key": ref("steps.send.outputs.ref")}
    return document_of(
        "refund",
        job_of(
            "main",
            step_of("note", "pure", code=LINE, **{"with": given}, outputs={"line": "string"}),
            step_of("send", "effect", tool=TRANSFER, **{"with": transfer(ref("inputs.amount"), "INV-R")}, undo=None),
            step_of("arrival", "wait", **{"for": arrival}, timeout_s=HOUR_S, continue_on_error=True),
            outputs=[["line", ref("steps.note.outputs.line")]],
        ),
        inputs={"who": input_of("string"), "number": input_of("string"), "amount": input_of("int")},
        outputs=[["line", ref("needs.main.outputs.line")]],
        **more,
    )


SEALED, CLEAR = _refund(sensitive=ref("inputs.who")), _refund()
SAID = f"{NUMBER}: 300"


def begun(story: Story, **more: Any) -> Flow:
    define(story, SEALED)
    return begin(story, SEALED, INPUTS, subject=WHOSE, **more)


def noted(flow: Flow, line: str = SAID, **more: Any) -> int:
    return flow.compute("main.note", LINE, {"amount": 300, "ref": NUMBER}, {"line": line}, **more)


def paid(flow: Flow) -> None:
    """Noted, paid; nothing arrives within the hour."""
    noted(flow)
    sent = reference(flow, flow.act("main.send", payment(300, "aurora", "INV-R")))
    flow.wait("main.arrival", {"kind": "event", "source": "bank", "key": sent}, HOUR_S)
    flow.story.wait(HOUR_S)
    flow.resume("main.arrival", "timeout")


def ran(story: Story) -> Flow:
    flow = begun(story)
    paid(flow)
    flow.end("success", outputs={"line": SAID})
    return flow


# --- honest histories ---


def sealed() -> Story:
    """A sealed run, disclosed: followed like any other."""
    story = opened("sealed", bundle=kept())
    ran(story)
    return story


def gone() -> Story:
    """A sealed run that was disclosed, held for a while, and erased."""
    story = opened("sealed-and-erased", bundle=kept())
    flow = ran(story)
    hold(story, "run", flow.run)
    disclosed(story, ["$inputs", "$output"], 2)
    story.wait(MONTH_S)
    release(story)
    erase(story, WHOSE)
    return story


def erased() -> Story:
    """The same, and a later one of the same person that is disclosed."""
    story = gone()
    again = begin(story, SEALED, INPUTS, subject=WHOSE)
    noted(again)
    return story


@case
def workflow_sealed_and_withheld() -> Case:
    story = opened("sealed-and-withheld", bundle=kept())
    ran(story)
    found = trust([head_of(story.log.leaves)])
    return Case(pack_of(story, ("memo", "$inputs")).write(), "incomplete", ["V21.withheld"], UNSET, found)


# --- lies ---


def _withheld(label: str, **trigger: Any) -> Case:
    story = opened(label, bundle=kept())
    define(story, SEALED)
    receive(story, "inbox", "evt_1", {"who": WHOSE})
    begin(story, SEALED, INPUTS, subject=WHOSE, trigger=trigger)
    found, seq = trust([head_of(story.log.leaves)]), len(story.log.leaves) - 1
    return Case(pack_of(story, ()).write(), "refuted", ["V21.trigger"], seq, found)


@case
def workflow_withheld_and_started_by_an_event_that_starts_nothing() -> Case:
    # What started a sealed run is in clear, whatever its inputs are.
    return _withheld("withheld-by-no-trigger", kind="webhook", event="inbox evt_1", record=4)


@case
def workflow_withheld_and_started_by_another_record() -> Case:
    return _withheld("withheld-by-no-event", kind="webhook", event="inbox evt_1", record=2)


@case
def workflow_value_disclosed_that_was_not_sealed() -> Case:
    story = opened("sealed-otherwise", bundle=kept())
    ran(story)
    row = next(row for row in story.sealed if row["alias"] == OF_RUNS[1])
    row["value"] = {"line": f"{NUMBER}: 3"}
    return Case(pack_of(story).write(), "refuted", ["V12.disclosure"], row["seq"], trust([head_of(story.log.leaves)]))


@lie("V21.start")
def workflow_sealed_against_its_definition(story: Story) -> int:
    # Nobody could follow the run: everything that it did would be withheld.
    define(story, CLEAR)
    begin(story, CLEAR, INPUTS, subject=WHOSE)
    return len(story.log.leaves) - 1


@lie("V21.start")
def workflow_clear_against_its_definition(story: Story) -> int:
    define(story, SEALED)
    begin(story, SEALED, INPUTS)
    return len(story.log.leaves) - 1


@lie("V21.start")
def workflow_sealed_for_another_subject(story: Story) -> int:
    # Whoever asks for Jane Roe's data to be erased would not reach it.
    define(story, SEALED)
    begin(story, SEALED, INPUTS, subject="richard-roe")
    return len(story.log.leaves) - 1


@lie("V21.step")
def workflow_output_of_a_sealed_run_in_clear(story: Story) -> int:
    flow = begun(story)
    flow.subject = ""
    return noted(flow)


@lie("V21.compute")
def workflow_sealed_output_altered(story: Story) -> int:
    return noted(begun(story), f"{NUMBER}: 3")


@lie("V21.definition")
def workflow_sealed_that_calls_a_clear_one(story: Story) -> int:
    given = [["amount", ref("inputs.amount")], ["number", "DE00"], ["who", ref("inputs.who")]]
    sub = step_of("sub", "call", workflow=doc_digest("workflow", CLEAR), timeout_s=None, **{"with": given})
    inputs = {"who": input_of("string"), "amount": input_of("int")}
    define(story, CLEAR)
    return define(story, document_of("outer", job_of("main", sub), inputs=inputs, sensitive=ref("inputs.who")))


@lie("V21.definition")
def workflow_sealed_whose_event_has_a_secret_key(story: Story) -> int:
    document = copy.deepcopy(SEALED)
    document["jobs"][0]["steps"][2]["for"]["key"] = ref("inputs.number")
    return define(story, document)


@lie("V21.migrated")
def workflow_migrated_to_one_that_seals_nothing(story: Story) -> int:
    flow = begun(story)
    define(story, CLEAR)
    return flow.migrate(CLEAR)


@lie("V19.open", bundle=kept())
def erased_while_a_sealed_run_is_open(story: Story) -> int:
    noted(begun(story))
    story.wait(MONTH_S)
    return erase(story, WHOSE)


@lie("V19.count", bundle=kept())
def erased_fewer_values_of_a_sealed_run(story: Story) -> int:
    ran(story)
    story.wait(MONTH_S)
    return erase(story, WHOSE, sign=put("values", value=3))


@lie("V19.retention", bundle=kept(None, {TRANSFER: DAY_S}))
def erased_a_sealed_run_under_a_tools_rule(story: Story) -> int:
    ran(story)
    story.wait(MONTH_S)
    return erase(story, WHOSE, keep_s=DAY_S)
