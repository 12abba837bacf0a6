"""Expressions of workflows: their one spelling, read into a tree, and what they read (docs/spec/workflow.md)."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from countermark_verify.canon import INTEGER_MAX
from countermark_verify.errors import Malformed

CHARS_MAX = 2_000
NODES_MAX = 500
DEPTH_MAX = 50
CONTEXTS = frozenset(("inputs", "steps", "needs", "matrix", "run", "event"))
# Function -> how many arguments it takes; of the last, at least so many.
FUNCTIONS = {
    "contains": 2, "startsWith": 2, "endsWith": 2, "join": 2, "toJSON": 1, "fromJSON": 1, "length": 1,
    "success": 0, "failure": 0, "cancelled": 0, "always": 0, "format": 1,
}  # fmt: skip
STATUS = frozenset(("success", "failure", "cancelled", "always"))
_TOKEN = re.compile(
    r"(?P<text>'(?:[^']|'')*')|(?P<integer>-?(?:0|[1-9][0-9]{0,16}))(?![A-Za-z0-9_])|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>\|\||&&|==|!=|<=|>=|[!<>().,\[\]])|(?P<space> +)",
    re.ASCII | re.DOTALL,
)
_AFTER_POINT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_COMPARING = ("==", "!=", "<", "<=", ">", ">=")
_CONSTANTS: dict[str, Any] = {"null": None, "true": True, "false": False}

# A tree is a tuple: ("const", value), ("name", text), ("member", tree, tree), ("not", tree), ("cmp", sign, tree, tree),
# ("or", trees), ("and", trees), ("call", function, trees).
Tree = tuple[Any, ...]


@lru_cache(maxsize=4_096)
def parse(text: str) -> Tree:
    """The tree of an expression in its one spelling; raises `Malformed` for anything else."""
    if len(text) > CHARS_MAX:
        raise Malformed("is an expression that is too long")
    reader = _Reader(text)
    tree = reader.chain("or")
    if reader.at != len(text):
        raise Malformed("is no expression")
    if spelling(tree) != text:
        raise Malformed("is an expression in another spelling")
    if sum(1 for _ in walk(tree)) > NODES_MAX:
        raise Malformed("is an expression of too many parts")
    if _deep(tree) > DEPTH_MAX:
        raise Malformed("is an expression that is nested too deep")
    return tree


class _Reader:
    """Recursive descent over the text, which the limit of its depth bounds."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.deep = text, 0, 0

    def _peek(self) -> tuple[str, str]:
        """Kind and text of the next token, white space left out; ("", "") at the end."""
        while (found := _TOKEN.match(self.text, self.at)) and found.lastgroup == "space":
            self.at = found.end()
        if found is None:
            if self.at != len(self.text):
                raise Malformed("is no expression")
            return "", ""
        return str(found.lastgroup), found[0]

    def _take(self, *signs: str) -> str:
        """The next token, if it is one of these signs."""
        kind, text = self._peek()
        if kind != "sign" or text not in signs:
            return ""
        self.at += len(text)
        return text

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise Malformed(f"is an expression without {sign}")

    def chain(self, kind: str) -> Tree:
        self.deep += 1
        if self.deep > 2 * DEPTH_MAX + 2:
            raise Malformed("is an expression that is nested too deep")
        sign = "||" if kind == "or" else "&&"
        parts = [self._below(kind)]
        while self._take(sign):
            parts.append(self._below(kind))
        self.deep -= 1
        if len(parts) == 1:
            return parts[0]
        flat = [inner for part in parts for inner in (part[1] if part[0] == kind else (part,))]
        return (kind, tuple(flat))

    def _below(self, kind: str) -> Tree:
        return self.chain("and") if kind == "or" else self._compared()

    def _compared(self) -> Tree:
        left = self._unary()
        sign = self._take(*_COMPARING)
        return ("cmp", sign, left, self._unary()) if sign else left

    def _unary(self) -> Tree:
        count = 0
        while self._take("!"):
            count += 1
            if count > DEPTH_MAX:
                raise Malformed("is an expression that is nested too deep")
        tree = self._path()
        for _ in range(count):
            tree = ("not", tree)
        return tree

    def _path(self) -> Tree:
        tree, count = self._atom(), 0
        while sign := self._take(".", "["):
            count += 1
            if count > DEPTH_MAX:
                raise Malformed("is an expression that is nested too deep")
            if sign == "[":
                tree = ("member", tree, self.chain("or"))
                self._need("]")
                continue
            found = _AFTER_POINT.match(self.text, self.at)
            if found is None:
                raise Malformed("is an expression with a point before no name")
            self.at = found.end()
            tree = ("member", tree, ("const", found[0]))
        return tree

    def _atom(self) -> Tree:
        if self._take("("):
            tree = self.chain("or")
            self._need(")")
            return tree
        kind, text = self._peek()
        if kind not in ("text", "integer", "name"):
            raise Malformed("is no expression")
        self.at += len(text)
        if kind == "text":
            return ("const", text[1:-1].replace("''", "'"))
        if kind == "integer":
            if abs(int(text)) > INTEGER_MAX:
                raise Malformed("is an expression with an integer beyond 2^53-1")
            return ("const", int(text))
        if text in _CONSTANTS:
            return ("const", _CONSTANTS[text])
        return self._call(text) if self._take("(") else ("name", text)

    def _call(self, name: str) -> Tree:
        arguments = []
        if not self._take(")"):
            arguments.append(self.chain("or"))
            while self._take(","):
                arguments.append(self.chain("or"))
            self._need(")")
        if name not in FUNCTIONS or len(arguments) < FUNCTIONS[name]:
            raise Malformed(f"calls {name}, which is no function, or with too few arguments")
        if name != "format" and len(arguments) != FUNCTIONS[name]:
            raise Malformed(f"calls {name} with too many arguments")
        return ("call", name, tuple(arguments))


def spelling(tree: Tree) -> str:
    """The one text of a tree."""
    kind = tree[0]
    if kind == "const":
        return _constant(tree[1])
    if kind == "name":
        return str(tree[1])
    if kind == "call":
        return f"{tree[1]}({', '.join(map(spelling, tree[2]))})"
    if kind == "not":
        return "!" + _within(tree[1], ("or", "and", "cmp"))
    if kind == "cmp":
        left, right = (_within(side, ("or", "and", "cmp")) for side in tree[2:])
        return f"{left} {tree[1]} {right}"
    if kind == "member":
        base, key = _within(tree[1], ("or", "and", "cmp", "not")), tree[2]
        if key[0] == "const" and type(key[1]) is str and _AFTER_POINT.fullmatch(key[1]):
            return f"{base}.{key[1]}"
        return f"{base}[{spelling(key)}]"
    if kind == "or":
        return " || ".join(map(spelling, tree[1]))
    return " && ".join(_within(part, ("or",)) for part in tree[1])


def _within(tree: Tree, kinds: tuple[str, ...]) -> str:
    text = spelling(tree)
    return f"({text})" if tree[0] in kinds else text


def _constant(value: Any) -> str:
    if value is None or type(value) is bool:
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if type(value) is int else "'" + value.replace("'", "''") + "'"


def children(tree: Tree) -> tuple[Tree, ...]:
    """The trees directly within one."""
    if tree[0] in ("const", "name"):
        return ()
    if tree[0] in ("or", "and"):
        return tuple(tree[1])
    if tree[0] == "call":
        return tuple(tree[2])
    return tuple(part for part in tree[1:] if type(part) is tuple)


def _deep(tree: Tree) -> int:
    return 1 + max(map(_deep, children(tree)), default=0)


def walk(tree: Tree) -> Iterator[Tree]:
    """Every part of a tree, itself included; the name after a point is no part of its own."""
    yield tree
    parts = children(tree)
    if tree[0] == "member" and tree[2][0] == "const" and type(tree[2][1]) is str:
        parts = parts[:1]
    for part in parts:
        yield from walk(part)


def path_of(tree: Tree) -> tuple[str, ...]:
    """The names of a path such as `steps.pay.outputs.ref`, as far as they are spelled out; () of anything else."""
    if tree[0] == "name":
        return (tree[1],)
    if tree[0] != "member":
        return ()
    before, key = path_of(tree[1]), tree[2]
    if not before or before[-1] == "*":
        return before
    return (*before, key[1] if key[0] == "const" and type(key[1]) is str else "*")


def reads(tree: Tree) -> Iterator[tuple[str, ...]]:
    """The longest paths that an expression reads; a member that is computed is `*`, and ends its path."""
    if path := path_of(tree):
        yield path
        while tree[0] == "member":  # what a computed member is computed from is read too
            if not (tree[2][0] == "const" and type(tree[2][1]) is str):
                yield from reads(tree[2])
            tree = tree[1]
        return
    for part in children(tree):
        yield from reads(part)


def templates(value: Any) -> Iterator[Tree]:
    """The trees of the expressions in a template; raises `Malformed` where one is none."""
    if isinstance(value, dict):
        if "$" in value:
            if len(value) != 1 or type(value["$"]) is not str:
                raise Malformed("has an object with $ that is no expression")
            yield parse(value["$"])
            return
        value = value.values()
    elif not isinstance(value, list):
        return
    for item in value:
        yield from templates(item)


def has_status(text: str) -> bool:
    """Whether a condition asks one of the four functions of its run."""
    return any(part[0] == "call" and part[1] in STATUS for part in walk(parse(text)))
