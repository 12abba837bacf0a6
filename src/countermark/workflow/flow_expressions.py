"""Expressions of the Python front end: values that a run will have, and what may be computed of them.

Operators build a tree that is spelled like any other expression; nothing is evaluated here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

from countermark.workflow import expression_parser as tree
from countermark.workflow.errors import DefinitionError
from countermark.workflow.expression_parser import Apply, Compare, Const, Index, Member, Name, Node, Not

T = TypeVar("T")
Scalar: TypeAlias = "str | int | bool | None"
Template: TypeAlias = "Expr[Any] | Scalar | Sequence[Template] | Mapping[str, Template]"


class Expr(Generic[T]):
    """A value of type ``T`` that a run will have. Combine with ``==``, ``<``, ``&``, ``|``, ``~`` and ``[...]``."""

    __slots__ = ("node",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def spelling(self) -> str:
        """The canonical spelling. Raises ``DefinitionError`` when it is too large."""
        return tree.render(self.node)

    def __repr__(self) -> str:
        return f"<{self.spelling}>"

    def __str__(self) -> NoReturn:
        raise DefinitionError(
            f"`{self.spelling}` has no value yet", hint="A text with it in is fmt('invoice {0}', value)."
        )

    def __format__(self, spec: str) -> NoReturn:
        self.__str__()

    def __bool__(self) -> NoReturn:
        raise DefinitionError(
            f"`{self.spelling}` has no value yet", hint="Join conditions with &, | and ~; give them as `if_`."
        )

    def __iter__(self) -> NoReturn:
        raise DefinitionError(f"`{self.spelling}` has no value yet", hint="A matrix runs over values that are known.")

    def _no_arithmetic(self, other: object = None) -> NoReturn:
        hint = "There is no arithmetic; compute it in a pure step. Texts are put together with fmt(...)."
        raise DefinitionError(f"`{self.spelling}` has no value yet", hint=hint)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _no_arithmetic
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _no_arithmetic

    def __getitem__(self, key: str | int | Expr[str] | Expr[int]) -> Expr[Any]:
        """The member of this name or number; null when there is none."""
        if isinstance(key, str):
            return Expr(Member(self.node, key))
        return Expr(Index(self.node, node_of(key)))

    def __eq__(self, other: object) -> Expr[bool]:  # type: ignore[override]
        return Expr(Compare("==", self.node, node_of(other)))

    def __ne__(self, other: object) -> Expr[bool]:  # type: ignore[override]
        return Expr(Compare("!=", self.node, node_of(other)))

    def __lt__(self, other: T | Expr[T]) -> Expr[bool]:
        return Expr(Compare("<", self.node, node_of(other)))

    def __le__(self, other: T | Expr[T]) -> Expr[bool]:
        return Expr(Compare("<=", self.node, node_of(other)))

    def __gt__(self, other: T | Expr[T]) -> Expr[bool]:
        return Expr(Compare(">", self.node, node_of(other)))

    def __ge__(self, other: T | Expr[T]) -> Expr[bool]:
        return Expr(Compare(">=", self.node, node_of(other)))

    def __and__(self, other: Expr[Any] | Scalar) -> Expr[Any]:
        return Expr(tree.chain("&&", (self.node, node_of(other))))

    def __or__(self, other: Expr[Any] | Scalar) -> Expr[Any]:
        return Expr(tree.chain("||", (self.node, node_of(other))))

    def __invert__(self) -> Expr[bool]:
        return Expr(Not(self.node))


def node_of(value: object) -> Node:
    """The tree of an expression or a literal. Raises ``DefinitionError``."""
    if isinstance(value, Expr):
        return value.node
    if value is None or isinstance(value, str | int):  # bool is an int
        return Const(value)
    raise DefinitionError(
        f"a {type(value).__name__} is no literal of an expression", hint="Strings, ints, bools and None are."
    )


def template_of(value: Template) -> Any:
    """The template that a Python value means. Raises ``DefinitionError``."""
    if isinstance(value, Expr):
        return {"$": value.spelling}
    if isinstance(value, Mapping):
        return {key: template_of(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [template_of(item) for item in value]
    return value


def _call(function: str, *args: object) -> Expr[Any]:
    return Expr(Apply(function, tuple(node_of(arg) for arg in args)))


def contains(where: Expr[Any] | str, what: object) -> Expr[bool]:
    """Whether a text holds another, or a list a value."""
    return _call("contains", where, what)


def starts_with(text: Expr[str] | str, start: Expr[str] | str) -> Expr[bool]:
    """Whether a text begins with another."""
    return _call("startsWith", text, start)


def ends_with(text: Expr[str] | str, end: Expr[str] | str) -> Expr[bool]:
    """Whether a text ends with another."""
    return _call("endsWith", text, end)


def fmt(pattern: str, *values: object) -> Expr[str]:
    """A text with ``{0}``, ``{1}``... replaced; ``{{`` and ``}}`` are braces."""
    return _call("format", pattern, *values)


def join(texts: Expr[list[Any]], separator: str) -> Expr[str]:
    """The texts of a list with something between them."""
    return _call("join", texts, separator)


def to_json(value: object) -> Expr[str]:
    """The canonical bytes of a value as a text."""
    return _call("toJSON", value)


def from_json(text: Expr[str] | str) -> Expr[Any]:
    """The value of a JSON text."""
    return _call("fromJSON", text)


def length(value: Expr[Any]) -> Expr[int]:
    """The number of characters, values or members."""
    return _call("length", value)


def success() -> Expr[bool]:
    """In a condition: nothing failed, and the run is not cancelled."""
    return _call("success")


def failure() -> Expr[bool]:
    """In a condition: something failed."""
    return _call("failure")


def cancelled() -> Expr[bool]:
    """In a condition: the run is cancelled."""
    return _call("cancelled")


def always() -> Expr[bool]:
    """In a condition: whatever happened."""
    return _call("always")


def context(*path: str) -> Expr[Any]:
    """``context("run", "id")`` is ``run.id``."""
    node: Node = Name(path[0])
    for name in path[1:]:
        node = Member(node, name)
    return Expr(node)
