"""The grammar of expressions (``docs/spec/workflow.md``): text to a tree, and a tree to its one spelling.

Both directions are bounded before they recurse, so a text made to exhaust the stack is refused like any other mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from countermark.model.canon import INTEGER_ABS_MAX
from countermark.workflow.errors import DefinitionError, nearest

CHARS_MAX = 2_000
DEPTH_MAX = 50
NODES_MAX = 500

FUNCTIONS: Final = {  # name -> fewest and most arguments
    "contains": (2, 2), "startsWith": (2, 2), "endsWith": (2, 2), "format": (1, NODES_MAX), "join": (2, 2),
    "toJSON": (1, 1), "fromJSON": (1, 1), "length": (1, 1),
    "success": (0, 0), "failure": (0, 0), "cancelled": (0, 0), "always": (0, 0),
}  # fmt: skip
STATUS_FUNCTIONS: Final = frozenset(("success", "failure", "cancelled", "always"))
COMPARISONS: Final = ("==", "!=", "<=", ">=", "<", ">")
_WORDS: Final[dict[str, bool | None]] = {"null": None, "true": True, "false": False}

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")  # what may follow a point
_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<int>-?[0-9]+)|(?P<text>'(?:[^']|'')*')"
    r"|(?P<op>\|\||&&|==|!=|<=|>=|[!<>().,\[\]])"
)
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([0-9]{1,3})\}|[{}]")


@dataclass(frozen=True, slots=True)
class Const:
    """A literal."""

    value: str | int | bool | None


@dataclass(frozen=True, slots=True)
class Name:
    """A context: where a path begins."""

    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """The member of this name; ``a['b']`` and ``a.b`` are the same node."""

    base: Node
    name: str


@dataclass(frozen=True, slots=True)
class Index:
    """A member whose name or number is computed."""

    base: Node
    index: Node


@dataclass(frozen=True, slots=True)
class Not:
    """``!operand``."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Compare:
    """``left op right``."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Chain:
    """Two or more operands of ``||`` or ``&&``; both are associative, so a chain within a chain does not exist."""

    op: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """A function's call."""

    function: str
    args: tuple[Node, ...]


Node: TypeAlias = "Const | Name | Member | Index | Not | Compare | Chain | Apply"


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below this one."""
    match node:
        case Member(base, _):
            return (base,)
        case Index(base, index):
            return (base, index)
        case Not(operand):
            return (operand,)
        case Compare(_, left, right):
            return (left, right)
        case Chain(_, items) | Apply(_, items):
            return items
        case _:
            return ()


def chain(op: str, items: Iterable[Node]) -> Chain:
    """A chain in which no chain of the same operator stands."""
    flat: list[Node] = []
    for item in items:
        flat += item.items if isinstance(item, Chain) and item.op == op else (item,)
    return Chain(op, tuple(flat))


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    todo = [node]
    while todo:
        found = todo.pop()
        yield found
        todo += children(found)


def check_size(node: Node) -> None:
    """Raise ``DefinitionError`` for a tree that is too deep or too large; needs no stack of its own."""
    level, count = [node], 0
    for _ in range(DEPTH_MAX):
        count += len(level)
        level = [child for parent in level for child in children(parent)]
        if not level:
            break
    if level:
        raise DefinitionError(f"an expression is nested deeper than {DEPTH_MAX}", hint="Split it into steps.")
    if count > NODES_MAX:
        raise DefinitionError(f"an expression has more than {NODES_MAX} parts", hint="Split it into steps.")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _strange(text: str, at: int) -> DefinitionError:
    """Why no token begins here, in the words of somebody who knows other expression languages."""
    char = text[at]
    hints = {
        '"': "Texts stand in single quotes: 'text'.",
        "'": "A text needs a closing quote; a quote in it is doubled: 'it''s'.",
        "*": "There is no arithmetic; compute it in a pure step.",
        "+": "There is no arithmetic; compute it in a pure step.",
        "-": "There is no arithmetic; compute it in a pure step.",
        "/": "There is no arithmetic; compute it in a pure step.",
        "=": "Equality is `==`.", "&": "And is `&&`.", "|": "Or is `||`.",
    }  # fmt: skip
    if char == "*" and text[:at].rstrip().endswith("."):
        hints["*"] = "There is no filter `.*`; name the member or compute it in a pure step."
    what = "a text is not closed" if char == "'" else f"an expression cannot hold {char!r} here"
    return DefinitionError(what, hint=hints.get(char, ""), offset=at)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text):
        after_point = bool(found) and found[-1].text == "." and found[-1].kind == "op"
        if after_point and (plain := _PLAIN.match(text, at)):
            found.append(_Token("name", plain.group(), at))
            at = plain.end()
            continue
        token = _TOKEN.match(text, at)
        if token is None:
            raise _strange(text, at)
        kind = token.lastgroup or ""
        if kind != "space":
            found.append(_Token(kind, token.group(), at))
        at = token.end()
    found.append(_Token("end", "", len(text)))
    return found


class _Parser:
    """Recursive descent, one method per rule of the grammar; every recursion goes through ``_deeper``."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0
        self._count = 0

    def parse(self) -> Node:
        node = self._or()
        token = self._peek()
        if token.kind != "end":
            raise self._unexpected(token)
        check_size(node)
        return node

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *ops: str) -> str:
        """The next token's text, consumed, if it is one of these operators; else ``""``."""
        token = self._peek()
        if token.kind == "op" and token.text in ops:
            self._next += 1
            return token.text
        return ""

    def _expect(self, op: str) -> None:
        if not self._take(op):
            token = self._peek()
            found = f"`{token.text[:40]}`" if token.kind != "end" else "the end"
            raise DefinitionError(f"expected `{op}`, found {found}", offset=token.at)

    def _unexpected(self, token: _Token) -> DefinitionError:
        if token.kind == "end":
            return DefinitionError("an expression ends too early", hint="A value is missing.", offset=token.at)
        hint = ""
        if token.kind == "int":
            hint = "There is no arithmetic, and no number with a point; compute it in a pure step."
        elif token.text in COMPARISONS:
            hint = "Comparisons do not chain; join them with `&&`."
        return DefinitionError(f"unexpected `{token.text[:40]}` in an expression", hint=hint, offset=token.at)

    def _made(self, node: Node) -> Node:
        self._count += 1
        if self._count > NODES_MAX:
            at = self._peek().at
            raise DefinitionError(f"an expression has more than {NODES_MAX} parts", hint="Split it.", offset=at)
        return node

    def _deeper(self, rule: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            at = self._peek().at
            raise DefinitionError(f"an expression is nested deeper than {DEPTH_MAX}", hint="Split it.", offset=at)
        node = rule()
        self._depth -= 1
        return node

    def _chain(self, op: str, rule: Callable[[], Node]) -> Node:
        items = [rule()]
        while self._take(op):
            items.append(rule())
        if len(items) == 1:
            return items[0]
        return self._made(chain(op, items))

    def _or(self) -> Node:
        return self._chain("||", self._and)

    def _and(self) -> Node:
        return self._chain("&&", self._compare)

    def _compare(self) -> Node:
        left = self._unary()
        op = self._take(*COMPARISONS)
        return self._made(Compare(op, left, self._unary())) if op else left

    def _unary(self) -> Node:
        if self._take("!"):
            return self._made(Not(self._deeper(self._unary)))
        return self._path()

    def _path(self) -> Node:
        node = self._atom()
        while True:
            if self._take("."):
                token = self._peek()
                if token.kind == "int":
                    hint = "Write it as a text, or count in a smaller unit."
                    raise DefinitionError("there is no number with a point", hint=hint, offset=token.at)
                if token.kind != "name":
                    hint = "Other names stand in brackets: x['a b']."
                    raise DefinitionError("a name must follow the point", hint=hint, offset=token.at)
                self._next += 1
                node = self._made(Member(node, token.text))
            elif self._take("["):
                index = self._deeper(self._or)
                self._expect("]")
                named = isinstance(index, Const) and type(index.value) is str
                node = self._made(Member(node, str(index.value)) if named else Index(node, index))  # type: ignore[union-attr]
            else:
                return node

    def _atom(self) -> Node:
        token = self._peek()
        if self._take("("):
            node = self._deeper(self._or)
            self._expect(")")
            return node
        if token.kind in ("op", "end"):
            raise self._unexpected(token)
        self._next += 1
        if token.kind == "int":
            return self._made(Const(_integer(token)))
        if token.kind == "text":
            return self._made(Const(_literal(token)))
        if self._take("("):
            return self._call(token)
        if token.text in _WORDS:
            return self._made(Const(_WORDS[token.text]))
        return self._made(Name(token.text))

    def _call(self, token: _Token) -> Node:
        bounds = FUNCTIONS.get(token.text)
        if bounds is None:
            what = f"unknown function `{token.text[:40]}`"
            raise DefinitionError(what, hint=nearest(token.text, FUNCTIONS), offset=token.at)
        args: list[Node] = []
        if not self._take(")"):
            args.append(self._deeper(self._or))
            while self._take(","):
                args.append(self._deeper(self._or))
            self._expect(")")
        fewest, most = bounds
        if not fewest <= len(args) <= most:
            wanted = str(fewest) if fewest == most else f"at least {fewest}"
            what = f"`{token.text}` takes {wanted} argument{'' if wanted == '1' else 's'}, not {len(args)}"
            raise DefinitionError(what, offset=token.at)
        if token.text == "format" and isinstance(args[0], Const):
            _check_format(args[0].value, len(args) - 1, token.at)
        return self._made(Apply(token.text, tuple(args)))


def _integer(token: _Token) -> int:
    digits = token.text.removeprefix("-")
    if len(digits) > 1 and digits[0] == "0":
        raise DefinitionError(f"a number begins with 0: `{token.text[:40]}`", offset=token.at)
    if len(digits) > 16 or int(digits) > INTEGER_ABS_MAX:
        raise DefinitionError("a number is outside ±(2^53-1)", hint="Write it as a text.", offset=token.at)
    return int(token.text)


def _literal(token: _Token) -> str:
    text = token.text[1:-1].replace("''", "'")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise DefinitionError("a text holds a lone surrogate", offset=token.at)
    return text


def _check_format(pattern: object, count: int, at: int) -> None:
    if type(pattern) is not str:
        raise DefinitionError("the first argument of `format` is a text", offset=at)
    for part in placeholders(pattern):
        if type(part) is int and part >= count:
            raise DefinitionError(f"`format` has no argument for {{{part}}}", hint="They count from 0.", offset=at)
        if part is None:
            raise DefinitionError("a lone brace in `format`", hint="Write {{ or }} for a brace.", offset=at)


def placeholders(pattern: str) -> Iterator[str | int | None]:
    """The parts of a format: literal texts, numbers of arguments, and None for a brace that means nothing."""
    at = 0
    for found in _PLACEHOLDER.finditer(pattern):
        yield pattern[at : found.start()]
        at = found.end()
        if found.group(1) is not None:
            yield int(found.group(1))
        else:
            yield found.group()[0] if len(found.group()) == 2 else None
    yield pattern[at:]


@lru_cache(maxsize=4_096)
def parse(text: str) -> Node:
    """The tree of an expression in any spelling. Raises ``DefinitionError``, its ``offset`` at the mistake."""
    if type(text) is not str:
        raise DefinitionError("an expression is a text")
    if len(text) > CHARS_MAX:
        raise DefinitionError(f"an expression is longer than {CHARS_MAX:,} characters", hint="Split it into steps.")
    return _Parser(text).parse()


def quoted(text: str) -> str:
    """A text as a literal."""
    return "'" + text.replace("'", "''") + "'"


_OR, _AND, _COMPARE, _UNARY, _PATH = range(5)  # how tightly a node binds, loosest first


def _at_least(node: Node, level: int) -> str:
    text, own = _render(node)
    return text if own >= level else f"({text})"


def _render(node: Node) -> tuple[str, int]:
    match node:
        case Const(value):
            words = {None: "null", True: "true", False: "false"}
            if type(value) is str:
                return quoted(value), _PATH
            return str(value) if type(value) is int else words[value], _PATH  # type: ignore[index]
        case Name(name):
            return name, _PATH
        case Member(base, name):
            last = f".{name}" if _PLAIN.fullmatch(name) else f"[{quoted(name)}]"
            return _at_least(base, _PATH) + last, _PATH
        case Index(base, index):
            return f"{_at_least(base, _PATH)}[{_at_least(index, _OR)}]", _PATH
        case Not(operand):
            return "!" + _at_least(operand, _UNARY), _UNARY
        case Compare(op, left, right):
            return f"{_at_least(left, _UNARY)} {op} {_at_least(right, _UNARY)}", _COMPARE
        case Chain(op, items):
            own = _OR if op == "||" else _AND
            return f" {op} ".join(_at_least(item, own + 1) for item in items), own
        case Apply(function, args):
            return f"{function}({', '.join(_at_least(arg, _OR) for arg in args)})", _PATH


def render(node: Node) -> str:
    """The one spelling of a tree. Raises ``DefinitionError`` when the tree or its text is too large."""
    check_size(node)
    text = _render(node)[0]
    if len(text) > CHARS_MAX:
        raise DefinitionError(f"an expression is longer than {CHARS_MAX:,} characters", hint="Split it into steps.")
    return text
