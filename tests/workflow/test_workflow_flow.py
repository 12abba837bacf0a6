"""The Python front end compiles to the document of its YAML twin, and says what is wrong where it is written."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from everything_flow import everything

from countermark.workflow import flow_expressions as fx
from countermark.workflow.errors import DefinitionError
from countermark.workflow.expressions import canonical
from countermark.workflow.flow import Retry, Workflow, event, matrix, run_name
from countermark.workflow.yaml_source import compile_yaml, read_yaml

HERE = Path(__file__).parent
REPORT = "sha256:" + "0" * 64


def test_both_front_ends_make_one_document() -> None:
    """The Python twin of a file that uses every key has that file's document, and so its digest."""
    text = (HERE / "good" / "everything.yaml").read_text("utf-8")
    source = read_yaml(text, workflows={"report": REPORT})
    built = everything(REPORT).define()
    assert built.document == source.document
    assert built.digest == source.definition.digest


def test_a_definition_is_called_by_its_digest() -> None:
    """A call takes another definition itself: what runs is exactly that one."""
    inner = Workflow("inner")
    inner.job("only").wait("a", seconds=1)
    outer = Workflow("outer")
    outer.job("only").call("inner", inner.define())
    text = "name: outer\njobs: { only: { steps: [ { id: inner, call: inner } ] } }"
    assert outer.define().document == compile_yaml(text, workflows={"inner": inner.define().digest})


SPELLINGS = [
    ((event["a"] == 1) & (event["b"] != "x") | (event["c"] < 5), "event.a == 1 && event.b != 'x' || event.c < 5"),
    (~(event["a"] == True), "!(event.a == true)"),  # noqa: E712 (this makes an expression)
    ((event["a"] | event["b"]) & event["c"] & None, "(event.a || event.b) && event.c && null"),
    (event["a"][0]["b c"][matrix["x"]], "event.a[0]['b c'][matrix.x]"),
    (fx.contains(event["a"], "it's"), "contains(event.a, 'it''s')"),
    (
        fx.starts_with(run_name, "a") | fx.ends_with(run_name, "b"),
        "startsWith(run.name, 'a') || endsWith(run.name, 'b')",
    ),
    (fx.join(fx.from_json("[]"), ", ") == fx.to_json(event), "join(fromJSON('[]'), ', ') == toJSON(event)"),
    (fx.length(event) >= 3, "length(event) >= 3"),
    ((fx.length(event) <= -3) == (fx.length(event) > 1), "(length(event) <= -3) == (length(event) > 1)"),
    (fx.failure() | fx.cancelled(), "failure() || cancelled()"),
]


@pytest.mark.parametrize(("built", "spelled"), SPELLINGS, ids=[text for _, text in SPELLINGS])
def test_what_is_built_is_canonical(built: fx.Expr[object], spelled: str) -> None:
    """Operators build the tree that the spelling means, so it is in the one spelling already."""
    assert built.spelling == spelled
    assert canonical(built.spelling) == spelled
    assert repr(built) == f"<{spelled}>"


def test_an_expression_has_no_value_yet() -> None:
    """Asking it for one, as `and` and `if` do, is an error and not a silent yes."""
    with pytest.raises(DefinitionError, match="has no value yet"):
        bool(event["a"] == 1 and event["b"])
    with pytest.raises(DefinitionError, match="has no value yet"):
        list(event["list"])
    for told in (str, "{0:>9}".format, lambda one: f"pay {one}"):
        with pytest.raises(DefinitionError, match="has no value yet") as caught:
            told(event["number"])
        assert "fmt(" in caught.value.hint
    for computed in (lambda one: one * 2, lambda one: 2 * one, lambda one: "pay " + one, lambda one: -one):
        with pytest.raises(DefinitionError, match="has no value yet") as caught:
            computed(event["number"])
        assert "There is no arithmetic" in caught.value.hint
    with pytest.raises(DefinitionError, match="is no literal"):
        event["a"] == [1]  # noqa: B015 (this makes an expression)


def test_mistakes_are_found_when_it_is_defined() -> None:
    """What Python cannot see, an unknown output or a type that never fits, the definition's check does."""
    flow = Workflow("wrong")
    job = flow.job("a")
    match = job.pure("match", "def main():\n    return {}\n", outputs={"ok": bool})
    job.effect("pay", "bank.pay", if_=match.outputs["okay"])
    with pytest.raises(DefinitionError, match="no output of the step `match` `okay`") as caught:
        flow.define()
    assert caught.value.path == ("jobs", "a", "steps", "pay", "if")


def test_types_and_waits_are_checked_at_once() -> None:
    """A type that no value has, and a wait for nothing or for two things, are refused where they are written."""
    flow = Workflow("wrong")
    with pytest.raises(DefinitionError, match="is no type of a value"):
        flow.input("amount", float)
    with pytest.raises(DefinitionError, match="a wait has one of"):
        flow.job("a").wait("b")
    with pytest.raises(DefinitionError, match="a wait has one of"):
        flow.job("a").wait("b", seconds=1, event="bank", key="x")


def test_values_of_the_wrong_type_are_named() -> None:
    """What no record can hold is named with its place; names instead of jobs, and outputs without types, too."""
    flow = Workflow("wrong")
    job = flow.job("a")
    job.agent("b", "helper", "pay", tools=["bank.pay"], calls=1, minutes=1, budget={"eur": 600.0})  # type: ignore[dict-item]
    with pytest.raises(DefinitionError, match="type float is not allowed") as caught:
        flow.define()
    assert caught.value.path == ("jobs", "a", "steps", "b", "budget", "eur")
    flow = Workflow("wrong")
    flow.job("a", matrix={"day": ["x", date(2026, 11, 30)]}).wait("b", seconds=1)
    with pytest.raises(DefinitionError, match=r"jobs\.a\.matrix\.day\.1: a value of type date"):
        flow.define()
    with pytest.raises(DefinitionError, match="is no job"):
        flow.job("c", needs=["a"])  # type: ignore[list-item]
    with pytest.raises(DefinitionError, match="are no outputs"):
        flow.job("c").pure("d", "", outputs=["paid"])  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=r"0\.5 minutes"):
        flow.job("c", timeout_minutes=0.5)  # type: ignore[arg-type]


def test_triggers() -> None:
    """Without one it is started by hand; `on_call` leaves none; a condition may be a constant."""
    flow = Workflow("a")
    flow.job("a").wait("b", seconds=1, if_=False)
    assert flow.document()["triggers"] == [{"kind": "manual"}]
    flow.on_call()
    assert flow.document()["triggers"] == []
    flow.on_webhook("bank", if_=True)
    assert flow.define().triggers == ({"kind": "webhook", "source": "bank", "if": "true", "with": []},)
    assert flow.define().jobs[0].steps[0].if_ == "false"


def test_a_retry_has_bounds() -> None:
    """The bounds of a definition hold whoever wrote it."""
    flow = Workflow("a")
    flow.job("a").effect("b", "bank.pay", retry=Retry(11))
    with pytest.raises(DefinitionError, match="11 is not between 2 and 10"):
        flow.define()
