"""Expressions: one spelling, exact types, bounds, and data that stays data."""

from __future__ import annotations

from typing import Any

import pytest

from countermark.workflow import expressions
from countermark.workflow.errors import DefinitionError, ExpressionError
from countermark.workflow.expressions import Status, canonical, evaluate, fill, has_status, names_of, truth

SCOPE: dict[str, Any] = {
    "inputs": {"n": 3, "s": "abc", "yes": True, "list": ["a", "b"], "o": {"x": {"y-z": 5}, "4-b": 1}, "nothing": None},
    "steps": {"pay": {"outputs": {"ref": "po_1"}, "outcome": "success", "conclusion": "success"}},
    "event": None,
}

SPELLINGS = [
    ("a==1&&b  ||c", "a == 1 && b || c"),
    ("((a))", "a"),
    ("a || (b || c)", "a || b || c"),
    ("(a && b) && c", "a && b && c"),
    ("(a || b) && c", "(a || b) && c"),
    ("(a && b) || c", "a && b || c"),
    ("!(a)", "!a"),
    ("!(a == b)", "!(a == b)"),
    ("(a == b) == true", "(a == b) == true"),
    ("!!a", "!!a"),
    ("(!a).b", "(!a).b"),
    ("a['b']", "a.b"),
    ("a['b-c'].d-e", "a.b-c.d-e"),
    ("a['b c']", "a['b c']"),
    ("a['']", "a['']"),
    ("a [ 0 ] [ b ]", "a[0][b]"),
    ("'it''s'", "'it''s'"),
    ("-0", "0"),
    ("-5 < 3", "-5 < 3"),
    ("a . true", "a.true"),
    ("format( '{0}' , x )", "format('{0}', x)"),
    ("contains(a||b,(c))", "contains(a || b, c)"),
    ("\n success ( ) \t", "success()"),
]


@pytest.mark.parametrize(("written", "spelled"), SPELLINGS)
def test_an_expression_has_one_spelling(written: str, spelled: str) -> None:
    """White space, needless parentheses and brackets go; what is spelled canonically stays as it is."""
    assert canonical(written) == spelled
    assert canonical(spelled) == spelled


MISTAKES = [
    ("", 0, "ends too early"),
    ("a ==", 4, "ends too early"),
    ("a = b", 2, "cannot hold '='"),
    ('a == "b"', 5, "cannot hold '\"'"),
    ("'abc", 0, "not closed"),
    ("a + 1", 2, "cannot hold '+'"),
    ("a -1", 2, "unexpected `-1`"),
    ("1.5", 2, "number with a point"),
    ("007", 0, "begins with 0"),
    ("9007199254740992", 0, "outside"),
    ("a.*", 2, "cannot hold '*'"),
    ("a < b < c", 6, "unexpected `<`"),
    ("(a", 2, "expected `)`"),
    ("a[1", 3, "expected `]`"),
    ("a)", 1, "unexpected `)`"),
    ("contain(a, b)", 0, "unknown function `contain`"),
    ("contains(a)", 0, "takes 2 arguments, not 1"),
    ("success(1)", 0, "takes 0 arguments, not 1"),
    ("format('{1}', a)", 0, "no argument for {1}"),
    ("format('{', a)", 0, "lone brace"),
    ("format(1)", 0, "is a text"),
    ("ä", 0, "cannot hold 'ä'"),
    ("a b", 2, "unexpected `b`"),
]


@pytest.mark.parametrize(("text", "offset", "words"), MISTAKES)
def test_a_mistake_is_named_with_its_place(text: str, offset: int, words: str) -> None:
    """What is no expression is refused; the error says where it goes wrong."""
    with pytest.raises(DefinitionError) as caught:
        canonical(text)
    assert (caught.value.offset, words in caught.value.what) == (offset, True), caught.value.what


VALUES = [
    ("inputs.n", 3),
    ("inputs.o.x.y-z", 5),
    ("inputs.o['4-b']", 1),
    ("inputs.list[1]", "b"),
    ("inputs.list[2]", None),
    ("inputs.list[-1]", None),
    ("inputs['n']", 3),
    ("inputs[inputs.nothing || 's']", "abc"),
    ("inputs.none.at.all", None),
    ("event.amount", None),
    ("event[0]", None),
    ("inputs.n == 3 && inputs.s", "abc"),
    ("inputs.n == 4 && inputs.s", False),
    ("0 || '' || null || 'x'", "x"),
    ("0 || ''", ""),
    ("true || inputs.n.bad", True),
    ("false && inputs.n.bad", False),
    ("!inputs.list", False),
    ("!0", True),
    ("null == 0", False),
    ("null == null", True),
    ("inputs.nothing != 'a'", True),
    ('inputs.list == fromJSON(\'[ "a", "b" ]\')', True),
    ("inputs.o == fromJSON('{}')", False),
    ("'a' < 'b'", True),
    ("'é' > 'z'", True),
    ("2 <= 2", True),
    ("3 >= 4", False),
    ("contains('hay', 'a')", True),
    ("contains(inputs.list, 'c')", False),
    ("contains(fromJSON('[1, true]'), 1)", True),
    ("contains(fromJSON('[true]'), 1)", False),
    ("startsWith(inputs.s, 'ab')", True),
    ("endsWith(inputs.s, 'ab')", False),
    ("format('{0} {{{1}}} {2}', inputs.n, inputs.s, true)", "3 {abc} true"),
    ("join(inputs.list, ', ')", "a, b"),
    ("toJSON(inputs.o)", '{"4-b":1,"x":{"y-z":5}}'),
    ("length(inputs.s)", 3),
    ("length(inputs.list)", 2),
    ("length(inputs.o)", 2),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_an_expression_has_this_value(text: str, value: Any) -> None:
    """Paths, comparisons, truth and functions do what the specification says, also in canonical spelling."""
    assert evaluate(text, SCOPE) == value
    assert evaluate(canonical(text), SCOPE) == value
    assert type(evaluate(text, SCOPE)) is type(value)


FAILURES = [
    "inputs.n == 's'", "inputs.yes == 1", "inputs.list == inputs.o", "inputs.n < 's'", "inputs.yes < true",
    "null < 1", "inputs.n.member", "inputs.s[0]", "inputs.list.a", "inputs.list['a b']", "inputs.list[true]",
    "inputs.o[1]", "contains(1, 2)", "contains('a', 1)", "contains(null, 'a')", "startsWith(1, 'a')",
    "endsWith('a', null)", "format('{0}', null)", "format('{0}', inputs.list)", "format(inputs.s == 'abc' && '{', 1)",
    "format(inputs.s == 'abc' && '{1}', 1)", "join('a', 'b')", "join(fromJSON('[1]'), '')", "join(inputs.list, 1)",
    "fromJSON(1)",
    "fromJSON('{')", "fromJSON('1.5')", "fromJSON('{\"a\":1,\"a\":2}')", "fromJSON('[[[[[[[[[1]]]]]]]]]')",
    "fromJSON('{\"a b\":1}')", "length(1)", "length(null)", "success()", "unknown.x",
]  # fmt: skip


@pytest.mark.parametrize("text", FAILURES)
def test_what_does_not_fit_fails(text: str) -> None:
    """No type is converted into another, and nothing is guessed: the expression fails."""
    with pytest.raises(ExpressionError, match="expression_failed"):
        evaluate(text, SCOPE)


def test_conditions_see_the_status() -> None:
    """The four functions of a condition read the status; always() is true without one."""
    scope = {**SCOPE, "$status": Status(success=False, failure=True, cancelled=False)}
    assert [evaluate(f"{name}()", scope) for name in ("success", "failure", "cancelled", "always")] == [
        False, True, False, True,
    ]  # fmt: skip
    assert evaluate("always()", SCOPE) is True
    assert has_status("inputs.n == 1 || !failure()")
    assert not has_status("inputs.success")


def test_what_an_expression_reads_is_known() -> None:
    """Paths are listed as far as they are spelled out, and so is what computes the rest."""
    assert names_of("steps.pay.outputs.ref == inputs['n']") == {("steps", "pay", "outputs", "ref"), ("inputs", "n")}
    assert names_of("steps.pay.outputs[inputs.s].x") == {("steps", "pay", "outputs"), ("inputs", "s")}
    assert names_of("event.items[0].id") == {("event", "items")}
    assert names_of("fromJSON(event.text).a") == {("event", "text")}
    assert names_of([["a", {"$": "inputs.n"}], ["b", {"c": [{"$": "run.id"}]}]]) == {("inputs", "n"), ("run", "id")}
    assert names_of({"$": "inputs"}) == {("inputs",)}
    assert names_of(["inputs.n"]) == set()


def test_data_is_never_evaluated() -> None:
    """Text that looks like an expression, a placeholder or a template stays what it is, however it is passed on."""
    evil = "${{ inputs.n }} {0} {{ }} ' || true || '"
    scope = {**SCOPE, "event": {"text": evil, "template": {"$": "inputs.n"}}}
    assert evaluate("event.text", scope) == evil
    assert evaluate("format('{0}{0}', event.text)", scope) == evil + evil
    assert evaluate("fromJSON(toJSON(event.text))", scope) == evil
    assert fill({"a": {"$": "event.text"}, "b": [{"$": "event.template"}], "c": evil}, scope) == {
        "a": evil, "b": [{"$": "inputs.n"}], "c": evil,
    }  # fmt: skip


def test_an_error_holds_no_data() -> None:
    """What failed is named by its types: a value may be a secret."""
    with pytest.raises(ExpressionError) as caught:
        evaluate("event.secret < 5", {"event": {"secret": "hunter2"}})
    assert "hunter2" not in str(caught.value)
    assert "a string and a int have no order, in `event.secret < 5`" in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "(" * 990 + "1" + ")" * 990,
        "!" * 1_999 + "1",
        "a" + "[a" * 600 + "]" * 600,
        "a" + ".b" * 900,
        "length(" * 280 + "1",
        "a||" * 600 + "a",
        "a" * 2_001,
    ],
    ids=["parentheses", "nots", "indices", "members", "calls", "chain", "length"],
)
def test_a_bomb_of_an_expression_is_refused(text: str) -> None:
    """Depth, number of parts and length are bounded before anything recurses."""
    with pytest.raises(DefinitionError, match=r"deeper|parts|longer"):
        canonical(text)


def test_the_deepest_expression_works() -> None:
    """The bound itself is allowed, and evaluating it needs little stack."""
    text = "!" * 49 + "inputs.n"
    with pytest.raises(DefinitionError, match="deeper"):
        canonical(text)
    text = "!" * 48 + "inputs.n"
    assert canonical(text) == text
    assert evaluate(text, SCOPE) is True


def test_a_spelling_may_not_be_longer_than_the_bound() -> None:
    """A text within the bound whose one spelling is longer is refused: the spelling is what is recorded."""
    text = "||".join(["aa"] * 450)
    assert len(text) <= 2_000
    with pytest.raises(DefinitionError, match="longer"):
        canonical(text)


@pytest.mark.parametrize(
    "text",
    [
        "format('{0}{0}', event.long)",
        "format('" + "{0}" * 400 + "', event.long)",
        "join(event.many, event.long)",
        "toJSON(event.quotes)",
        "event.list",
        "event.long == 'x' || event.list == event.list",
    ],
)
def test_a_value_has_a_bound(text: str) -> None:
    """No function makes, and no expression has, a value of more than 16,000 bytes."""
    scope = {
        "event": {"long": "x" * 9_000, "many": [""] * 9_000, "quotes": '"' * 9_000, "list": ["x" * 9_000, "y" * 9_000]}
    }
    with pytest.raises(ExpressionError, match="bytes"):
        evaluate(text, scope)


def test_a_filled_template_has_bounds() -> None:
    """Each value may fit and the whole not: it is measured, in bytes and in depth."""
    scope = {"event": {"long": "x" * 9_000, "deep": [[[[[[[1]]]]]]]}}
    assert fill({"a": {"$": "event.deep"}}, scope) == {"a": [[[[[[[1]]]]]]]}
    with pytest.raises(ExpressionError, match="bytes"):
        fill([{"$": "event.long"}, {"$": "event.long"}], scope)
    with pytest.raises(ExpressionError, match="deeper"):
        fill({"a": {"b": {"$": "event.deep"}}}, scope)


def test_truth_is_that_of_four_values() -> None:
    """Only false, 0, the empty text and null are false."""
    falses: list[Any] = [False, 0, "", None]
    truths: list[Any] = [True, -1, "0", "false", [], {}]
    assert [truth(value) for value in falses + truths] == [False] * 4 + [True] * 6


def test_every_function_can_be_called() -> None:
    """The parser's table of functions and what evaluates them name the same ones."""
    from countermark.workflow import expression_parser

    assert set(expression_parser.FUNCTIONS) - expression_parser.STATUS_FUNCTIONS == set(expressions._CALLS)
