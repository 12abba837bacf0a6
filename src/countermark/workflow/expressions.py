"""Expressions: what a definition may compute from a run's data. Data is never parsed, so it is never evaluated.

An expression is compiled once to nested functions of the scope. A scope is a dict of plain JSON values (``inputs``,
``steps``, ``needs``, ``matrix``, ``run``, ``event``); in conditions it also holds ``$status``, a ``Status``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

from countermark.model.canon import DEPTH_MAX as PROFILE_DEPTH_MAX
from countermark.model.canon import canon, read_json, render, structure
from countermark.model.errors import EncodingError
from countermark.workflow import expression_parser as tree
from countermark.workflow.errors import DefinitionError, ExpressionError
from countermark.workflow.expression_parser import Apply, Chain, Compare, Const, Index, Member, Name, Node, Not

VALUE_BYTES_MAX = 16_000
VALUE_DEPTH_MAX = 8
_CHAR_BYTES_MAX = 6  # a control character is written \u0000
_SAFE_CHARS = (VALUE_BYTES_MAX - 2) // _CHAR_BYTES_MAX

Scope: TypeAlias = Mapping[str, Any]
_Code: TypeAlias = Callable[[Scope], Any]


class Status(NamedTuple):
    """What the functions of a condition say; ``always()`` is true without it."""

    success: bool
    failure: bool
    cancelled: bool


def canonical(text: str) -> str:
    """The canonical spelling of an expression. Raises ``DefinitionError``, its ``offset`` at the mistake."""
    return tree.render(tree.parse(text))


def truth(value: Any) -> bool:
    """Whether a condition of this value holds: all but ``false``, ``0``, ``''`` and ``null`` do."""
    return not (value is None or value is False or value == "" or (type(value) is int and value == 0))


def evaluate(text: str, scope: Scope) -> Any:
    """The value of an expression; lists and objects may be those of the scope itself, so change neither.

    Raises:
        ExpressionError: the data does not fit; the message holds no data.
        DefinitionError: ``text`` is no expression.
    """
    try:
        return _bounded(_compiled(text)(scope))
    except ExpressionError as error:
        shown = text if len(text) <= 200 else text[:200] + "..."
        raise ExpressionError(f"{error.message}, in `{shown}`") from None


def fill(template: Any, scope: Scope) -> Any:
    """The value of a template: each ``{"$": TEXT}`` in it evaluated, all else as it stands.

    Raises:
        ExpressionError: an expression fails, or the value is too long or more than 8 deep.
    """
    value = _filled(template, scope)
    if type(value) is dict or type(value) is list:
        return _bounded(value, depth_max=VALUE_DEPTH_MAX)
    return value


def _filled(template: Any, scope: Scope) -> Any:
    if type(template) is dict:
        if len(template) == 1 and "$" in template:
            return evaluate(template["$"], scope)
        return {key: _filled(item, scope) for key, item in template.items()}
    if type(template) is list:
        return [_filled(item, scope) for item in template]
    return template


def expressions_of(template: Any) -> Iterator[str]:
    """The texts of all expressions in a template."""
    if type(template) is dict:
        if len(template) == 1 and "$" in template:
            yield template["$"]
        else:
            for item in template.values():
                yield from expressions_of(item)
    elif type(template) is list:
        for item in template:
            yield from expressions_of(item)


def names_of(template: Any) -> set[tuple[str, ...]]:
    """What an expression (a text) or a template (anything else) reads: ``("steps", "pay", "outputs", "ref")``.

    A path ends where a member is computed; what computes it is listed too. A text that is a template, not an
    expression, reads nothing: hand it over as ``[text]``.
    """
    texts = [template] if type(template) is str else list(expressions_of(template))
    return {path for text in texts for path in _names(text)}


@lru_cache(maxsize=4_096)
def _names(text: str) -> frozenset[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    todo: list[Node] = [tree.parse(text)]
    while todo:
        node = todo.pop()
        path: list[str] = []
        while isinstance(node, Member | Index):  # down to where the path begins
            if isinstance(node, Index):
                todo.append(node.index)
                path.clear()
            else:
                path.append(node.name)
            node = node.base
        if isinstance(node, Name):
            found.add((node.name, *reversed(path)))
        else:
            todo += tree.children(node)
    return frozenset(found)


@lru_cache(maxsize=4_096)
def has_status(text: str) -> bool:
    """Whether an expression calls ``success()``, ``failure()``, ``cancelled()`` or ``always()``."""
    return any(
        isinstance(node, Apply) and node.function in tree.STATUS_FUNCTIONS for node in tree.walk(tree.parse(text))
    )


def kind(value: Any) -> str:
    """The word for a value's type."""
    words = {str: "string", int: "int", bool: "bool", list: "list", dict: "object", type(None): "null"}
    return words.get(type(value), "value")


def _bounded(value: Any, *, depth_max: int = PROFILE_DEPTH_MAX) -> Any:
    """The value, if its canonical bytes are not too many."""
    if value is None or type(value) in (bool, int) or (type(value) is str and len(value) <= _SAFE_CHARS):
        return value
    _bytes(value, depth_max)
    return value


def _bytes(value: Any, depth_max: int = PROFILE_DEPTH_MAX) -> bytes:
    try:
        structure(value, PROFILE_DEPTH_MAX - depth_max)
        return render(value, VALUE_BYTES_MAX)
    except EncodingError as error:
        raise ExpressionError(f"a value does not fit: {error.message}") from None


@lru_cache(maxsize=4_096)
def _compiled(text: str) -> _Code:
    return _compile(tree.parse(text))


def _compile(node: Node) -> _Code:
    match node:
        case Const(value):
            return lambda scope: value
        case Name(name):
            return lambda scope: _context(scope, name)
        case Member(base, name):
            code = _compile(base)
            return lambda scope: _member(code(scope), name)
        case Index(base, index):
            code, key = _compile(base), _compile(index)
            return lambda scope: _member(code(scope), key(scope))
        case Not(operand):
            code = _compile(operand)
            return lambda scope: not truth(code(scope))
        case Compare(op, left, right):
            compare, first, second = _COMPARE[op], _compile(left), _compile(right)
            return lambda scope: compare(first(scope), second(scope))
        case Chain(op, items):
            return _chain(op == "||", [_compile(item) for item in items])
        case Apply(function, args):
            if function in tree.STATUS_FUNCTIONS:
                return lambda scope: _status(scope, function)
            call, codes = _CALLS[function], [_compile(arg) for arg in args]
            return lambda scope: call(*[code(scope) for code in codes])


def _context(scope: Scope, name: str) -> Any:
    if name not in scope or name.startswith("$"):
        raise ExpressionError(f"there is no `{name}` here")
    return scope[name]


def _status(scope: Scope, function: str) -> bool:
    if function == "always":
        return True
    if "$status" not in scope:
        raise ExpressionError(f"`{function}()` has a meaning in conditions only")
    return bool(getattr(scope["$status"], function))


def _member(base: Any, key: Any) -> Any:
    if base is None:
        return None
    if type(base) is dict and type(key) is str:
        return base.get(key)
    if type(base) is list and type(key) is int:
        return base[key] if 0 <= key < len(base) else None
    raise ExpressionError(f"a {kind(base)} has no member that a {kind(key)} names")


def _chain(until: bool, codes: list[_Code]) -> _Code:
    """``||`` stops at the first that is true, ``&&`` at the first that is false; the value is where it stopped."""

    def run(scope: Scope) -> Any:
        value: Any = None
        for code in codes:
            value = code(scope)
            if truth(value) is until:
                break
        return value

    return run


def _equal(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    if type(left) is not type(right):
        raise ExpressionError(f"a {kind(left)} and a {kind(right)} cannot be compared")
    if type(left) is list or type(left) is dict:
        return _bytes(left) == _bytes(right)
    return bool(left == right)


def _less(left: Any, right: Any) -> bool:
    if type(left) is not type(right) or type(left) not in (int, str):
        raise ExpressionError(f"a {kind(left)} and a {kind(right)} have no order")
    return bool(left < right)  # texts: by code points, as Python orders them


_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": _less,
    ">": lambda left, right: _less(right, left),
    "<=": lambda left, right: not _less(right, left),
    ">=": lambda left, right: not _less(left, right),
}


def _text(value: Any, function: str) -> str:
    if type(value) is not str:
        raise ExpressionError(f"`{function}` wants a string, not a {kind(value)}")
    return value


def _long(function: str) -> ExpressionError:
    return ExpressionError(f"`{function}` would make a value of more than {VALUE_BYTES_MAX:,} bytes")


def _contains(where: Any, what: Any) -> bool:
    if type(where) is list:
        wanted = _bytes(what)
        return any(type(item) is type(what) and _bytes(item) == wanted for item in where)
    if type(where) is not str:
        raise ExpressionError(f"`contains` wants a string or a list, not a {kind(where)}")
    return _text(what, "contains") in where


def _format(pattern: Any, *args: Any) -> str:
    parts: list[str] = []
    size = 0
    for part in tree.placeholders(_text(pattern, "format")):
        if part is None:
            raise ExpressionError("a lone brace in `format`")
        if type(part) is int and part >= len(args):
            raise ExpressionError(f"`format` has no argument for {{{part}}}")
        parts.append(_spelled(args[part]) if type(part) is int else str(part))
        size += len(parts[-1])
        if size > VALUE_BYTES_MAX:
            raise _long("format")
    return "".join(parts)


def _spelled(value: Any) -> str:
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return str(value)
    raise ExpressionError(f"`format` wants strings, ints and bools, not a {kind(value)}")


def _join(items: Any, separator: Any) -> str:
    if type(items) is not list:
        raise ExpressionError(f"`join` wants a list, not a {kind(items)}")
    texts = [_text(item, "join") for item in items]
    between = _text(separator, "join")
    if sum(map(len, texts)) + len(between) * max(len(texts) - 1, 0) > VALUE_BYTES_MAX:
        raise _long("join")  # before it is made: a long separator between many empty texts is a bomb
    return between.join(texts)


def _from_json(text: Any) -> Any:
    try:
        value = read_json(_text(text, "fromJSON").encode("utf-8"), bytes_max=VALUE_BYTES_MAX, depth_max=VALUE_DEPTH_MAX)
        canon(value)
    except (EncodingError, UnicodeEncodeError) as error:
        why = error.message if isinstance(error, EncodingError) else "a lone surrogate"
        raise ExpressionError(f"`fromJSON`: {why}") from None
    return value


def _length(value: Any) -> int:
    if type(value) not in (str, list, dict):
        raise ExpressionError(f"`length` wants a string, a list or an object, not a {kind(value)}")
    return len(value)


_CALLS: Final[dict[str, Callable[..., Any]]] = {
    "contains": _contains,
    "startsWith": lambda text, start: _text(text, "startsWith").startswith(_text(start, "startsWith")),
    "endsWith": lambda text, end: _text(text, "endsWith").endswith(_text(end, "endsWith")),
    "format": _format,
    "join": _join,
    "toJSON": lambda value: _bytes(value).decode("utf-8"),
    "fromJSON": _from_json,
    "length": _length,
}


def condition(text: str, scope: Scope) -> bool:
    """Whether a condition holds. Raises as ``evaluate``."""
    return truth(evaluate(text, scope))


def check_template(template: Any) -> None:
    """Raise ``DefinitionError`` unless every expression of a template is canonical and calls no function of status."""
    for text in expressions_of(template):
        if canonical(text) != text:
            raise DefinitionError(
                f"not in canonical spelling: `{text[:200]}`", hint=f"Write `{canonical(text)[:200]}`."
            )
        if has_status(text):
            raise DefinitionError("success(), failure(), cancelled() and always() belong in conditions only")
