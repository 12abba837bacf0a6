"""A definition names only what exists, and keeps every bound; each mistake is found where it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from definition_support import CODE, DIGEST, TOOLS, changed, definition, job, step

from countermark.model.digest import CODE as CODE_DOMAIN
from countermark.model.digest import WORKFLOW, digest, digest_of
from countermark.workflow.definition import matrix_of, read_definition
from countermark.workflow.definition_check import Known
from countermark.workflow.definition_parts import EffectStep, PureStep
from countermark.workflow.errors import DefinitionError

Change = Callable[[dict[str, Any]], None]
PAY = ("jobs", 0, "steps", 1)
MATCH = ("jobs", 0, "steps", 0)
SETTLE = ("jobs", 0, "steps", 2)
CHASE = ("jobs", 1, "steps", 0)


def test_a_definition_is_read() -> None:
    """What was read is what was written; the digest is that of the canonical document, the code's of its text."""
    read = read_definition(definition(), known=Known(TOOLS))
    assert read.document == definition()
    assert read.digest == digest_of(WORKFLOW, definition())
    assert read.code == (digest(CODE_DOMAIN, CODE.encode()),)
    assert [each.kind for one in read.jobs for each in one.steps] == ["pure", "effect", "wait", "agent", "call"]
    match, pay, _ = read.jobs[0].steps
    assert isinstance(match, PureStep)
    assert match.outputs == {"ok": "bool", "amount": "int", "who": "string"}
    assert isinstance(pay, EffectStep)
    assert pay.undo is not None
    assert pay.undo.tool == "bank.refund"


def test_a_read_definition_is_nobody_elses() -> None:
    """Changing the document that was handed over changes nothing that was read."""
    document = definition()
    read = read_definition(document)
    document["name"] = "another"
    document["jobs"].clear()
    assert read.document == definition()


def test_the_order_of_members_does_not_matter() -> None:
    """The digest is of canonical bytes."""
    document = definition()
    turned = {key: document[key] for key in reversed(document)}
    turned["inputs"] = dict(reversed(turned["inputs"].items()))
    assert read_definition(turned).digest == read_definition(document).digest


def test_a_matrix_counts_its_last_axis_fastest() -> None:
    """Combinations come in the order of the sorted axes; a job without a matrix has one empty one."""
    first, second = read_definition(definition()).jobs
    assert matrix_of(first) == [{}]
    assert matrix_of(second) == [{"copy": c, "who": who} for c in (1, 2) for who in ("ann", "bob")]


def _cycle(document: dict[str, Any]) -> None:
    document["jobs"][0]["needs"] = ["after"]


def _two_schedules(document: dict[str, Any]) -> None:
    one = {"kind": "schedule", "cron": "0 9 * * *", "zone": "UTC", "missed": "all", "with": [["invoice", {"a": 1}]]}
    document["triggers"] = [one, one | {"missed": "skip"}]


def _many_steps(document: dict[str, Any]) -> None:
    one = document["jobs"][0]["steps"][0]
    document["jobs"][0]["steps"] += [one | {"id": f"s{number}"} for number in range(98)]


def _deep(document: dict[str, Any]) -> None:
    value: Any = 1
    for _ in range(9):
        value = [value]
    document["inputs"]["deep"] = {"type": "list", "required": False, "default": value, "choices": []}


def _no_member(*path: str | int) -> Change:
    def change(document: dict[str, Any]) -> None:
        at: Any = document
        for part in path[:-1]:
            at = at[part]
        del at[path[-1]]

    return change


def _with(name: str, template: Any, *path: str | int) -> Change:
    return changed(*path, "with", to=[[name, template]])


MISTAKES: dict[str, tuple[Change, str]] = {
    "version": (changed("v", to=2), "v: this version"),
    "version_true": (changed("v", to=True), "v: this version"),
    "unknown_member": (changed("job", to=1), "job: unknown member [bad_definition] Did you mean `jobs`?"),
    "missing_member": (_no_member("triggers"), "the member `triggers` is missing"),
    "name": (changed("name", to="Pay Invoice"), "name: `Pay Invoice` is no name here"),
    "float": (changed("timeout_s", to=60.0), "float"),
    "timeout": (changed("timeout_s", to=90), "timeout_s: 90 seconds are not whole minutes"),
    "timeout_bool": (changed("timeout_s", to=True), "timeout_s: an integer was expected, not a bool"),
    "timeout_high": (changed("timeout_s", to=366 * 86_400 + 60), "is not between 60 and"),
    "key": (changed("inputs", "invoice", "a b", to=1), "an object key"),
    "input_name": (changed("inputs", "9b", to={}), "inputs: `9b` is no name here"),
    "input_type": (changed("inputs", "mail", "type", to="text"), "inputs.mail.type: `text` is not known here"),
    "input_default": (changed("inputs", "mail", "default", to=5), "inputs.mail.default: this is no string"),
    "input_choice": (changed("inputs", "rail", "choices", 1, to=5), "inputs.rail.choices.1: this is no string"),
    "input_choice_twice": (changed("inputs", "rail", "choices", 1, to="sepa"), "a choice stands twice"),
    "input_no_choice": (changed("inputs", "rail", "default", to="ach"), "default is none of the choices"),
    "input_dollar": (changed("inputs", "invoice", "default", to={"$": "1"}), "has no member `$`"),
    "outputs_order": (changed("outputs", to=[["b", 1], ["a", 1]]), "outputs: `a` stands after `b`: not sorted"),
    "outputs_twice": (changed("outputs", to=[["a", 1], ["a", 1]]), "outputs: `a` stands twice"),
    "outputs_pair": (changed("outputs", to=[["a"]]), "outputs.0: 1 members, but 2 to 2 are allowed"),
    "spelling": (changed("outputs", 0, 1, "$", to="run.id  "), "outputs.ref: an expression is not in its one spelling"),
    "syntax": (changed("outputs", 0, 1, "$", to="run."), "outputs.ref: a name must follow the point"),
    "dollar": (changed("outputs", 0, 1, "x", to=1), "outputs.ref.x: unknown member"),
    "status": (changed("outputs", 0, 1, "$", to="success()"), "belong in an `if` only"),
    "status_for_steps": (changed(*PAY, "with", 0, 1, "$", to="always()"), "payment.steps.pay.with.amount: success()"),
    "group": (changed("concurrency", "group", "$", to="length(inputs.mail)"), "concurrency.group: a string was exp"),
    "group_needs": (changed("concurrency", "group", "$", to="needs.payment.result"), "there is no `needs` here"),
    "no_jobs": (changed("jobs", to=[]), "jobs: 0 members, but 1 to 32"),
    "many_jobs": (changed("jobs", to=[{}] * 33), "jobs: 33 members"),
    "no_steps": (changed("jobs", 0, "steps", to=[]), "jobs.payment.steps: 0 members"),
    "many_steps": (_many_steps, "jobs.payment.steps: 101 members"),
    "job_twice": (changed("jobs", 1, "id", to="payment"), "jobs.1: there are two jobs `payment`"),
    "job_id": (changed("jobs", 1, "id", to="a.b"), "jobs.1.id: `a.b` is no name here"),
    "step_twice": (changed(*PAY, "id", to="match"), "jobs.payment.steps.1: there are two steps `match`"),
    "needs_unknown": (changed("jobs", 1, "needs", to=["paymnt"]), "jobs.after.needs: there is no job `paymnt`"),
    "needs_twice": (changed("jobs", 1, "needs", to=["payment", "payment"]), "`payment` stands twice"),
    "needs_itself": (changed("jobs", 0, "needs", to=["payment"]), "in a circle: payment -> payment"),
    "needs_circle": (_cycle, "in a circle: after -> payment -> after"),
    "parallel": (changed("jobs", 0, "parallel", to=17), "jobs.payment.parallel: 17 is not between 1 and 16"),
    "matrix_empty": (changed("jobs", 1, "matrix", to=[]), "jobs.after.matrix: 0 members"),
    "matrix_many": (changed("jobs", 1, "matrix", 0, 1, to=list(range(33))), "matrix: 66 combinations"),
    "default_deep": (_deep, "more than 8 deep"),
    "matrix_expression": (changed("jobs", 1, "matrix", 0, 1, to=[{"$": "1"}]), "has no member `$`"),
    "flag": (changed("jobs", 0, "fail_fast", to=1), "fail_fast: true or false was expected, not a int"),
    "kind": (changed(*PAY, "kind", to="efect"), "jobs.payment.steps.1.kind: `efect` is not known here"),
    "other_kind": (changed(*PAY, "kind", to="pure"), "unknown member"),
    "step_name": (changed(*PAY, "name", to="x" * 101), "longer than 100 characters"),
    "effect_timeout": (changed(*PAY, "timeout_s", to=60), "of the kind effect has no timeout of its own"),
    "agent_timeout": (changed(*CHASE, "timeout_s", to=None), "an agent's step must have a timeout"),
    "wait_retry": (changed(*SETTLE, "retry", to={"attempts": 2, "delay_s": 1, "factor": 1}), "is not tried again"),
    "attempts": (changed(*MATCH, "retry", "attempts", to=1), "match.retry.attempts: 1 is not between 2 and 10"),
    "delay": (changed(*MATCH, "retry", "delay_s", to=0), "match.retry.delay_s: 0 is not"),
    "factor": (changed(*MATCH, "retry", "factor", to=11), "match.retry.factor: 11 is not"),
    "tool_name": (changed(*PAY, "tool", to="Bank Pay"), "pay.tool: `Bank Pay` is no name here"),
    "argument_name": (changed(*PAY, "with", 0, 0, to="a\nb"), "is no name here"),
    "code_type": (changed(*MATCH, "code", to=5), "match.code: a text was expected"),
    "code_long": (changed(*MATCH, "code", to="#" * 32_001), "longer than 32,000 characters"),
    "output_type": (changed(*MATCH, "outputs", "ok", to="boolean"), "match.outputs.ok: `boolean` is not known"),
    "wait_kind": (changed(*SETTLE, "for", "kind", to="date"), "settle.for.kind: `date` is not known here"),
    "wait_source": (changed(*SETTLE, "for", "source", to="B"), "settle.for.source: `B` is no name here"),
    "wait_seconds": (changed(*SETTLE, "for", to={"kind": "time", "seconds": -1}), "-1 is not between 0 and"),
    "wait_text": (changed(*SETTLE, "for", to={"kind": "time", "seconds": "5"}), "Write the number without quotes."),
    "call_name": (changed("jobs", 1, "steps", 1, "workflow", to="report"), "report.workflow: `report` is no name"),
    "agent_tools": (changed(*CHASE, "tools", to=["b", "a"]), "`a` stands after `b`"),
    "agent_calls": (changed(*CHASE, "calls", to=0), "chase.calls: 0 is not"),
    "agent_budget": (changed(*CHASE, "budget", to=[["eur", 0]]), "chase.budget.eur: 0 is not"),
    "agent_where": (changed(*CHASE, "where", 0, 0, to="bank.pay"), "`bank.pay` is none of the agent's tools"),
    "agent_goal": (changed(*CHASE, "goal", to=5), "chase.goal: a string was expected, not an int"),
    "trigger_kind": (changed("triggers", 0, to={"kind": "cron"}), "triggers.0.kind: `cron` is not known here"),
    "trigger_twice": (changed("triggers", to=[{"kind": "manual"}] * 2), "none stands twice"),
    "trigger_input": (
        changed("triggers", to=[{"kind": "webhook", "source": "bank", "if": None, "with": [["invoce", 1]]}]),
        "triggers.0.with.invoce: there is no input `invoce` [bad_definition] Did you mean `invoice`?",
    ),
    "trigger_type": (
        changed("triggers", to=[{"kind": "webhook", "source": "bank", "if": None, "with": [["invoice", 1]]}]),
        "triggers.0.with.invoice: an object was expected, not an int",
    ),
    "trigger_scope": (
        changed("triggers", to=[{"kind": "chain", "source": "usdc", "if": "inputs.mail == 'a'", "with": []}]),
        "triggers.0.if: there is no `inputs` here",
    ),
    "trigger_required": (
        changed("triggers", to=[{"kind": "chain", "source": "usdc", "if": None, "with": []}]),
        "triggers.0: the input `invoice` is required",
    ),
    "trigger_missed": (
        changed("triggers", 0, to={"kind": "schedule", "cron": "0 9 * * *", "zone": "UTC", "missed": "no", "with": []}),
        "triggers.0.missed: `no` is not known here",
    ),
    "trigger_same": (_two_schedules, "triggers.1: two triggers have this cron and zone"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(name: str) -> None:
    """A document with one thing wrong is refused, and the error leads there."""
    change, words = MISTAKES[name]
    document = definition()
    change(document)
    with pytest.raises(DefinitionError) as caught:
        read_definition(document)
    assert words in str(caught.value)


READS: dict[str, tuple[Change, str]] = {
    "input": (changed(*PAY, "if", to="inputs.mial == 'a'"), "steps.pay.if: there is no input `mial`"),
    "context": (changed(*PAY, "if", to="github.ref == 'a'"), "There is no repository here"),
    "secrets": (changed(*PAY, "if", to="secrets.key == 'a'"), "Secrets are no data of a run"),
    "later_step": (changed(*PAY, "if", to="steps.settle.outcome == 'success'"), "no earlier step of this job `settle`"),
    "own_step": (changed(*PAY, "if", to="steps.pay.outcome == 'success'"), "no earlier step of this job `pay`"),
    "other_jobs_step": (changed(*CHASE, "if", to="steps.pay.outcome == 'success'"), "step of this job `pay`"),
    "step_member": (changed(*PAY, "if", to="steps.match.output.ok"), "no member of a step `output`"),
    "output": (changed(*PAY, "if", to="steps.match.outputs.okay"), "no output of the step `match` `okay`"),
    "wait_output": (changed("jobs", 0, "outputs", 0, 1, "$", to="steps.settle.outputs.body"), "`settle` `body`"),
    "steps_bare": (changed(*PAY, "if", to="toJSON(steps) == ''"), "`steps` stands only before a name"),
    "steps_computed": (changed(*PAY, "if", to="steps[inputs.mail].outputs.x"), "`steps` stands only before a name"),
    "job_if_steps": (changed("jobs", 1, "if", to="steps.pay.outcome == 'a'"), "there is no `steps` here"),
    "needs_indirect": (changed("jobs", 1, "needs", to=[]), "there is no job that this one needs `payment`"),
    "needs_output": (changed("outputs", 0, 1, "$", to="needs.payment.outputs.reff"), "job `payment` `reff`"),
    "needs_member": (changed("outputs", 0, 1, "$", to="needs.payment.status"), "no member of a job `status`"),
    "matrix_axis": (changed("jobs", 1, "if", to="matrix.kopy == 1"), "there is no axis of the matrix `kopy`"),
    "matrix_none": (changed(*PAY, "if", to="matrix.copy == 1"), "This job has no matrix."),
    "run_member": (changed(*PAY, "if", to="run.number == 1"), "there is no member of `run` `number`"),
    "undo_later": (changed(*PAY, "undo", "with", 0, 1, "$", to="steps.settle.outputs.event"), "undo.with.payment"),
    "trigger_status": (
        changed("triggers", to=[{"kind": "webhook", "source": "bank", "if": "always()", "with": []}]),
        "belong in an `if` only",
    ),
    "type_equal": (changed(*PAY, "if", to="steps.match.outputs.who == 5"), "a string is never equal to an int"),
    "type_order": (changed(*PAY, "if", to="steps.match.outputs.ok < true"), "a bool and a bool have no order"),
    "type_null": (changed(*PAY, "if", to="steps.match.outputs.amount < null"), "have no order"),
    "type_member": (changed(*PAY, "if", to="inputs.mail.host == 'a'"), "`inputs.mail` is a string and has no members"),
    "type_index": (changed(*PAY, "if", to="inputs.invoice[0] == 'a'"), "which an int does not index"),
    "type_argument": (changed(*PAY, "if", to="startsWith(inputs.invoice, 'a')"), "argument 1 of `startsWith` is an ob"),
    "type_join": (changed(*PAY, "if", to="join(inputs.mail, ',') == 'a'"), "argument 1 of `join` is a string, not a l"),
    "type_matrix": (changed("jobs", 1, "if", to="matrix.copy == 'a'"), "an int is never equal to a string"),
    "type_result": (changed("jobs", 1, "if", to="needs.payment.result == true"), "never equal"),
    "type_length": (changed(*PAY, "if", to="length(inputs.mail) == 'a'"), "an int is never equal to a string"),
    "type_not": (changed(*PAY, "if", to="!inputs.mail == 'a'"), "a bool is never equal to a string"),
    "type_chain": (changed(*PAY, "if", to="(inputs.mail || 'x') == 1"), "never equal to an int"),
    "type_inside": (_with("invoice", {"a": [{"$": "inputs.no"}]}, *MATCH), "match.with.invoice.a.0: there is no input"),
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_what_is_read_is_there(name: str) -> None:
    """A name that is not there by then, or a type that can never fit, is an error of the definition."""
    change, words = READS[name]
    document = definition()
    change(document)
    with pytest.raises(DefinitionError) as caught:
        read_definition(document)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "inputs.invoice.a.b == 5", "inputs.invoice['4-a'] == 'x'", "event.type == 'x'",
        "steps.match.outputs.who == null",
        "null != 5", "(inputs.mail || 5) == 5", "fromJSON(inputs.mail).a < 5", "steps.match.outputs[inputs.mail] == 1",
        "length(inputs) == 1", "toJSON(steps.match.outputs) == ''", "inputs[inputs.mail] == 5", "!event == true",
        "steps.match.conclusion == 'success' && success()",
    ],
)  # fmt: skip
def test_what_may_fit_is_left_to_the_run(text: str) -> None:
    """Only what fails on all data is refused."""
    document = definition()
    changed(*PAY, "if", to=text)(document)
    read_definition(document)


TOOL_MISTAKES: dict[str, tuple[Change, str]] = {
    "unknown_tool": (changed(*PAY, "tool", to="bank.pai"), "pay.tool: there is no tool `bank.pai` here"),
    "unknown_argument": (_with("amont", 5, *PAY), "pay.with.amont: `bank.pay` has no argument `amont`"),
    "missing_argument": (_with("amount", 5, *PAY), "pay.with: `bank.pay` needs the argument `payee`"),
    "null_argument": (changed(*PAY, "with", 0, 1, to=None), "needs the argument `amount`"),
    "constant_type": (changed(*PAY, "with", 0, 1, to="5"), "an int was expected, not a string"),
    "constant_range": (changed(*PAY, "with", 0, 1, to=0), "amount is out of range"),
    "declared_type": (changed(*PAY, "with", 0, 1, "$", to="steps.match.outputs.who"), "pay.with.amount: an int was"),
    "enum": (changed(*PAY, "with", to=[["amount", 1], ["note", "c"], ["payee", "a"]]), "not one of the allowed values"),
    "undo_tool": (changed(*PAY, "undo", "tool", to="bank.void"), "pay.undo.tool: there is no tool `bank.void`"),
    "output": (changed("jobs", 0, "outputs", 0, 1, "$", to="steps.pay.outputs.feee"), "step `pay` `feee`"),
    "output_type": (changed(*SETTLE, "for", "key", "$", to="steps.pay.outputs.fee"), "settle.for.key: a string was"),
    "agent_tool": (changed(*CHASE, "tools", to=["mail.send", "mail.sent"]), "there is no tool `mail.sent`"),
    "agent_alias": (changed(*CHASE, "where", 0, 1, to="cc"), "has no argument with the alias `cc`"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOOL_MISTAKES)
def test_with_the_tools_arguments_are_checked(name: str) -> None:
    """Against the tools of a deployment, an unknown tool, argument or output and a type that does not fit are found."""
    change, words = TOOL_MISTAKES[name]
    document = definition()
    change(document)
    if not name.startswith("null"):
        read_definition(document)  # without the tools nobody can know
    with pytest.raises(DefinitionError) as caught:
        read_definition(document, known=Known(TOOLS))
    assert words in str(caught.value)


def test_a_document_is_bounded() -> None:
    """A definition stands in one record: it is at most 48,000 bytes and 14 deep."""
    document = definition()
    changed(*MATCH, "with", 0, 1, to=["x" * 1_000] * 48)(document)
    with pytest.raises(DefinitionError, match="48000 bytes"):
        read_definition(document)
    document = definition()
    deep: Any = {"$": "run.id"}
    for _ in range(7):
        deep = [deep]
    changed(*MATCH, "with", 0, 1, to=deep)(document)
    with pytest.raises(DefinitionError, match="deeper than 14"):
        read_definition(document)
    changed(*MATCH, "with", 0, 1, to=deep[0])(document)
    read_definition(document)


@pytest.mark.parametrize("value", [None, [], "x", 5, {}, {"v": 1}, {1: 2}, float("nan"), object()])
def test_what_is_no_document_is_refused(value: Any) -> None:
    """Anything at all may be handed over; the answer is an error of this kind."""
    with pytest.raises(DefinitionError):
        read_definition(value)


def _places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if type(value) is dict else enumerate(value) if type(value) is list else ()
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


@pytest.mark.parametrize("value", [None, True, -1, 2**60, "", "\ud800", [], {}, [[]], {"$": 1}, {"$": "x"}, 1.5, b""])
def test_any_value_anywhere_is_read_or_refused(value: Any) -> None:
    """Whatever stands in whatever place, no other error comes out, and what is read is canonical."""
    for place in _places(definition())[1:]:
        document = definition()
        changed(*place, to=copy.deepcopy(value))(document)
        try:
            read = read_definition(document, known=Known(TOOLS))
        except DefinitionError:
            continue
        assert read.digest == digest_of(WORKFLOW, document)


def test_a_need_can_come_later() -> None:
    """Jobs stand in any order; what counts is that no circle closes."""
    one = step("a", "call", workflow=DIGEST, **{"with": []})
    document = definition() | {"outputs": [], "concurrency": None}
    document["jobs"] = [
        job("third", one, needs=["first", "second"]),
        job("second", one, needs=["first"]),
        job("first", one),
    ]
    assert [each.id for each in read_definition(document).jobs] == ["third", "second", "first"]
