"""What the product refuses as a definition, and as an action of one, the verifier refuses too, but for types."""

from __future__ import annotations

from typing import Any

import pytest
from definition_support import definition
from hypothesis import given, settings
from hypothesis import strategies as st
from test_workflow_definition import MISTAKES, READS
from test_workflow_yaml import GOOD, REPORT

from countermark.model.errors import ArgumentError
from countermark.model.tool import ArgSpec, ToolSpec
from countermark.workflow.definition import read_definition as product_definition
from countermark.workflow.yaml_source import compile_yaml
from countermark_verify.definition import read_definition
from countermark_verify.errors import Malformed
from countermark_verify.refusals import FOUNDED, UNFOUNDED, UNKNOWN, judge

# What an expression's value may be is known where it runs; then it fails its step, by the same rules.
UNCHECKED = {"group", "tool_name", *(name for name in READS if name.startswith("type_") and name != "type_inside")}
EVERY = MISTAKES | READS


@pytest.mark.parametrize("name", sorted(EVERY.keys() - UNCHECKED))
def test_a_mistake_is_no_definition(name: str) -> None:
    """A document that the product refuses is refused here."""
    document = definition()
    assert read_definition(document).name == "pay-invoice"
    EVERY[name][0](document)
    with pytest.raises(Malformed):
        read_definition(document)


def test_a_definition_that_uses_everything_is_read() -> None:
    """What the product compiles of every word of the grammar is a definition here, with the same digest and code."""
    document = compile_yaml(GOOD, workflows=REPORT)
    found, read = read_definition(document), product_definition(document)
    assert (found.digest, found.code) == (read.digest, read.code)


ARGS = (
    ArgSpec("amount", "integer", "amount", "amount", maximum=900),
    ArgSpec("flag", "boolean", "inert", "flag", required=False),
    ArgSpec("note", "string", "inert", "note", required=False, enum=("a", "b")),
    ArgSpec("to", "string", "payee", "to", chars_max=4, pattern="[a-z]*"),
    ArgSpec("free", "string", "inert", "free", required=False),
)
TOOL = ToolSpec(name="bank.pay", connector="bank", class_="money", args=ARGS)


class _Bundle:
    """As much of a bundle as a refusal is judged by."""

    def __init__(self, connector: str = "bank") -> None:
        self.tools = {"bank.pay": {"connector": connector, "args": [arg.document() for arg in ARGS]}}


def judged(given: dict[str, Any], code: str, field: str, tool: str = "bank.pay", connector: str = "bank") -> str:
    body = {"tool": tool, "code": code, "field": field}
    return judge(body, "bank.pay", given, _Bundle(connector))  # type: ignore[arg-type]


def _wrong(given: dict[str, Any]) -> ArgumentError | None:
    try:
        TOOL.decode(given)
    except ArgumentError as error:
        return error
    return None


VALUES = st.one_of(
    st.integers(-2, 1_000), st.booleans(), st.sampled_from(["a", "b", "abcd", "abcde", "A", "x\x00", "x\ny", "\x85"]),
    st.just([]), st.just({}),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["amount", "flag", "note", "to", "free", "other"]), VALUES))
def test_what_the_product_refuses_is_founded(given: dict[str, Any]) -> None:
    """Whatever the product says of arguments that are none follows from them; what it takes is refused for nothing."""
    wrong = _wrong(given)
    if wrong is not None:
        assert judged(given, wrong.code, "" if wrong.code == "unknown_argument" else wrong.field) == FOUNDED
        return
    assert judged(given, "unknown_argument", "") == UNFOUNDED
    assert judged(given, "missing_argument", "amount") == UNFOUNDED
    assert judged(given, "bad_argument", "amount") == UNKNOWN  # its connector may not take it


def test_a_tool_that_is_not_there() -> None:
    """A tool that the policy lacks, or that its caller runs, is refused as that, and for nothing else."""
    given = {"amount": 5, "to": "a"}
    assert judge({"tool": "", "code": "unknown_tool", "field": "tool"}, "bank.pay", given, None) == FOUNDED
    assert judge({"tool": "", "code": "bad_argument", "field": "to"}, "bank.pay", given, None) == UNFOUNDED
    assert judged(given, "unknown_tool", "tool", tool="") == UNFOUNDED
    assert judged(given, "unknown_tool", "tool") == UNKNOWN  # its connector may not be there
    assert judged(given, "caller_runs_it", "tool") == UNFOUNDED
    assert judged(given, "caller_runs_it", "tool", connector="caller") == FOUNDED
    assert judged(given, "bad_argument", "amount", connector="caller") == UNFOUNDED
