"""Expressions against a second, naive evaluation of the same tree, on random trees and data."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.model.canon import canon
from countermark.workflow.errors import DefinitionError, ExpressionError
from countermark.workflow.expression_parser import (
    Apply,
    Chain,
    Compare,
    Const,
    Index,
    Member,
    Name,
    Node,
    Not,
    chain,
    parse,
    render,
)
from countermark.workflow.expressions import canonical, evaluate, fill, names_of

TEXTS = st.sampled_from(["", "a", "b-c", "it's", "${{ x }}", "{0}", "{", "0", "é", "a b"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b-c", "d"]), inner, max_size=3),
    max_leaves=6,
)
LEAVES = st.builds(Const, st.none() | st.booleans() | st.integers(-3, 3) | TEXTS) | st.builds(
    Name, st.sampled_from(["inputs", "event"])
)


def _inner(nodes: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.one_of(
        st.builds(Member, nodes, TEXTS),
        st.builds(_index, nodes, nodes),
        st.builds(Not, nodes),
        st.builds(Compare, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), nodes, nodes),
        st.builds(chain, st.sampled_from(["||", "&&"]), st.lists(nodes, min_size=2, max_size=3)),
        st.builds(
            lambda name, args: Apply(name, tuple(args)),
            st.sampled_from(["contains", "startsWith", "endsWith", "join"]),
            st.lists(nodes, min_size=2, max_size=2),
        ),
        st.builds(lambda name, arg: Apply(name, (arg,)), st.sampled_from(["toJSON", "length"]), nodes),
    )


def _index(base: Node, index: Node) -> Node:
    """What the parser makes of ``base[index]``: a literal text names a member."""
    if isinstance(index, Const) and isinstance(index.value, str):
        return Member(base, index.value)
    return Index(base, index)


NODES: st.SearchStrategy[Node] = st.recursive(LEAVES, _inner, max_leaves=10)


class Refused(Exception):
    """The model's way of saying that data does not fit."""


def model(node: Node, scope: dict[str, Any]) -> Any:
    """The specification's sentences, one after the other, with no thought of speed."""
    match node:
        case Const(value):
            return value
        case Name(name):
            return scope[name]
        case Member(base, name):
            return member(model(base, scope), name)
        case Index(base, index):
            return member(model(base, scope), model(index, scope))
        case Not(operand):
            return not true(model(operand, scope))
        case Compare(op, left, right):
            return compare(op, model(left, scope), model(right, scope))
        case Chain(op, items):
            first, *rest = items
            value = model(first, scope)
            if not rest or true(value) == (op == "||"):
                return value
            return model(rest[0] if len(rest) == 1 else Chain(op, tuple(rest)), scope)
        case Apply(function, args):
            return call(function, [model(arg, scope) for arg in args])


def true(value: Any) -> bool:
    return not (value is None or value is False or (type(value) is int and value == 0) or value == "")


def member(base: Any, key: Any) -> Any:
    if base is None:
        return None
    if type(base) is dict and type(key) is str:
        return dict(base).get(key)
    if type(base) is list and type(key) is int:
        return base[key] if key in range(len(base)) else None
    raise Refused


def compare(op: str, left: Any, right: Any) -> bool:
    if op in ("==", "!="):
        if left is not None and right is not None and type(left) is not type(right):
            raise Refused
        return (canon(left) == canon(right)) == (op == "==")
    if type(left) is not type(right) or type(left) not in (int, str):
        raise Refused
    order = sorted([left, right], key=list if type(left) is str else None)
    return {"<": left != right and order[0] == left, ">": left != right and order[0] == right,
            "<=": order[0] == left, ">=": order[0] == right}[op]  # fmt: skip


def call(function: str, args: list[Any]) -> Any:
    kinds = [type(arg) for arg in args]
    if function == "toJSON":
        return canon(args[0]).decode()
    if function == "length" and kinds[0] in (str, list, dict):
        return sum(1 for _ in args[0])
    if function == "contains" and kinds[0] is list:
        return canon(args[1]) in [canon(item) for item in args[0]]
    if function == "join" and kinds == [list, str] and all(type(item) is str for item in args[0]):
        return args[1].join(args[0])
    if function in ("contains", "startsWith", "endsWith") and kinds == [str, str]:
        text, part = args
        places = [at for at in range(len(text) + 1) if text[at : at + len(part)] == part]
        return {"contains": places != [], "startsWith": 0 in places, "endsWith": len(text) - len(part) in places}[
            function
        ]
    raise Refused


@settings(max_examples=300, deadline=None)
@given(NODES, VALUES, VALUES)
def test_evaluation_is_that_of_a_naive_model(node: Node, inputs: Any, event: Any) -> None:
    """Any tree on any data has the value, of the value's type, or the refusal of a second evaluation."""
    scope = {"inputs": inputs, "event": event}
    try:
        expected = ("value", canon(model(node, scope)))
    except Refused:
        expected = ("refused", b"")
    try:
        found = ("value", canon(evaluate(render(node), scope)))
    except ExpressionError:
        found = ("refused", b"")
    assert found == expected


@settings(max_examples=300, deadline=None)
@given(NODES)
def test_a_spelling_is_read_back_as_its_tree(node: Node) -> None:
    """Each tree has one spelling, which means that tree and is canonical."""
    text = render(node)
    assert parse(text) == node
    assert canonical(text) == text


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.[]()!=<>&|'0-9,{}$ \n\té\"*", max_size=30))
def test_any_text_is_canonical_after_one_reading(text: str) -> None:
    """A text is refused as a definition's mistake, at a place within it, or its spelling stays what it is."""
    try:
        spelled = canonical(text)
    except DefinitionError as error:
        place = error.offset
        assert 0 <= place <= len(text)
        return
    assert canonical(spelled) == spelled


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_data_in_a_template_stays_data(value: Any) -> None:
    """Whatever the data is, a template that passes it on gives that data and evaluates nothing of it."""
    assert fill({"$": "event"}, {"event": value}) == value
    assert fill([{"$": "event"}], {"event": value}) == [value]


@settings(max_examples=200, deadline=None)
@given(NODES, VALUES)
def test_what_is_not_named_is_not_read(node: Node, value: Any) -> None:
    """An expression that does not name a context has the same value whatever that context is."""
    read = {path[0] for path in names_of(render(node))}
    results = []
    for other in ("x", value):
        scope = {name: value if name in read else other for name in ("inputs", "event")}
        try:
            results.append(canon(evaluate(render(node), scope)))
        except ExpressionError:
            results.append(b"refused")
    assert results[0] == results[1]
