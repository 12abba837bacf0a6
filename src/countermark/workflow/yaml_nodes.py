"""YAML text to a tree of nodes that know where they stand, read strictly.

It is the part of YAML 1.2 that everybody reads the same way: mappings, sequences, texts, whole numbers, true, false and
null. No anchor, alias, tag, directive, merge key, second document or duplicate key; bounded before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from countermark.model.canon import INTEGER_ABS_MAX
from countermark.model.errors import ConfigError
from countermark.workflow.errors import DefinitionError

TEXT_BYTES_MAX = 256_000
DEPTH_MAX = 32
NODES_MAX = 5_000

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)|0o[0-7]+"
)
_HINTS = {
    "alias": "Write the value out; there are no aliases.",
    "float": "Whole numbers only: money is counted in minor units, 48000 for 480.00. A version or a name is quoted.",
    "zero": "Quote it to make it a text, or leave the zeros out.",
}
_YAML_HINTS = {
    "'\\t'": "Indent with spaces.",
    "mapping values are not allowed": "Quote a text that holds `: `, or begin it on a line of its own after `|`.",
    "could not find expected": "A key ends with a colon: `key: value`.",
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text as it is written; ``plain`` without quotes or block, so it may be a number, true, false or null."""

    text: str
    plain: bool
    line: int
    column: int
    source: str = ""  # how it is written, quotes and block indicator included

    def fail(self, what: str, hint: str = "", *, offset: int = 0) -> NoReturn:
        """Raise ``DefinitionError`` at the character ``offset`` of the text."""
        line, column = self.place(offset)
        raise DefinitionError(what, hint=hint, line=line, column=column, offset=offset)

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of a character of the text, as exactly as its way of writing tells."""
        if self.source == self.text:
            return self.line, self.column + offset
        if self.source[1:-1] == self.text and "\n" not in self.text:
            return self.line, self.column + 1 + offset
        head, _, body = self.source.partition("\n")
        if head.startswith("|") and self.text.strip():
            before = self.text[:offset]
            first = next(line for line in body.split("\n") if line.strip())
            wanted = next(line for line in self.text.split("\n") if line.strip())
            indent = len(first) - len(wanted)
            return self.line + 1 + before.count("\n"), indent + len(before) - (before.rfind("\n") + 1) + 1
        return self.line, self.column

    def value(self) -> Any:
        """The value by YAML's core schema, without floats. Raises ``DefinitionError``."""
        if not self.plain:
            return self.text
        if _NULL.fullmatch(self.text):
            return None
        if _BOOL.fullmatch(self.text):
            return self.text in ("true", "True", "TRUE")
        if _INT.fullmatch(self.text):
            digits = self.text.lstrip("+-")
            if len(digits) > 1 and digits[0] == "0":
                self.fail(f"`{self.text[:40]}` is a number or a text, and nobody can tell", _HINTS["zero"])
            if len(digits) > 16 or int(digits) > INTEGER_ABS_MAX:
                self.fail("a number is outside ±(2^53-1)", "Quote it to make it a text.")
            return int(self.text)
        if _NUMBER.fullmatch(self.text):
            self.fail(f"`{self.text[:40]}` is no whole number", _HINTS["float"])
        return self.text


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys in their order, each with its value."""

    items: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int

    def fail(self, what: str, hint: str = "") -> NoReturn:
        """Raise ``DefinitionError`` here."""
        raise DefinitionError(what, hint=hint, line=self.line, column=self.column)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Values in their order."""

    items: tuple[Node, ...]
    line: int
    column: int

    def fail(self, what: str, hint: str = "") -> NoReturn:
        """Raise ``DefinitionError`` here."""
        raise DefinitionError(what, hint=hint, line=self.line, column=self.column)


Node: TypeAlias = "Scalar | Mapping | Sequence"


def plain_value(node: Node) -> Any:
    """The JSON value of a tree. Raises ``DefinitionError``."""
    if isinstance(node, Scalar):
        return node.value()
    if isinstance(node, Sequence):
        return [plain_value(item) for item in node.items]
    return {key.text: plain_value(item) for key, item in node.items}


def parse_yaml(text: str) -> Node:
    """The tree of one YAML document.

    Raises:
        DefinitionError: it is no YAML, or beyond the part of YAML that is read here; line and column say where.
        ConfigError: the extra ``workflow`` is not installed.
    """
    if type(text) is not str:
        raise DefinitionError("a definition in YAML is a text")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise DefinitionError("the text holds a lone surrogate") from None
    if size > TEXT_BYTES_MAX:
        raise DefinitionError(f"the text is longer than {TEXT_BYTES_MAX:,} bytes", hint="Split it with `call` steps.")
    return _Builder(text).document()


@dataclass(slots=True)
class _Open:
    """A collection that is being read; ``key`` is the key whose value comes next."""

    mapping: bool
    line: int
    column: int
    values: list[Node] = field(default_factory=list)
    pairs: list[tuple[Scalar, Node]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    key: Scalar | None = None


class _Builder:
    """Takes the parser's events one by one and stops at the first that does not fit: what follows is never read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._open: list[_Open] = []
        self._root: Node | None = None
        self._count = 0

    def document(self) -> Node:
        for kind, event in self._events():
            self._take(kind, event)
        if self._root is None:
            raise DefinitionError("there is nothing in this text", line=1, column=1)
        return self._root

    def _events(self) -> Iterator[tuple[str, Any]]:
        try:
            import yaml
        except ImportError:
            hint = "uv add 'countermark[workflow]'"
            raise ConfigError("the extra workflow is not installed", code="missing_extra", hint=hint) from None
        try:
            for event in yaml.parse(self._text, Loader=yaml.SafeLoader):
                yield type(event).__name__.removesuffix("Event"), event
        except yaml.MarkedYAMLError as error:
            raise _no_yaml(error) from None
        except yaml.YAMLError as error:  # a character that YAML does not have
            at = self._text[: getattr(error, "position", 0)]
            line, column = at.count("\n") + 1, len(at) - at.rfind("\n")
            raise DefinitionError("a character that YAML cannot hold", line=line, column=column) from None

    def _take(self, kind: str, event: Any) -> None:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1

        def fail(what: str, hint: str = "") -> NoReturn:
            raise DefinitionError(what, hint=hint, line=line, column=column)

        if kind == "Alias":
            fail(f"an alias: `*{event.anchor[:40]}`", _HINTS["alias"])
        if kind == "DocumentStart":
            if event.version or event.tags:
                fail("a YAML directive", "Leave it out.")
            if self._root is not None:
                fail("a second document", "One file, one definition.")
        if kind not in ("Scalar", "SequenceStart", "MappingStart", "SequenceEnd", "MappingEnd"):
            return
        if kind.endswith("End"):
            self._add(self._closed())
            return
        if event.anchor is not None:
            fail(f"an anchor: `&{event.anchor[:40]}`", _HINTS["alias"])
        if event.tag is not None:
            fail("a YAML tag", "Leave it out; a text that begins with ! needs quotes.")
        self._count += 1
        if self._count > NODES_MAX:
            fail(f"more than {NODES_MAX:,} values")
        if kind == "Scalar":
            self._add(self._scalar(event, line, column))
            return
        opened = self._open[-1] if self._open else None
        if opened is not None and opened.mapping and opened.key is None:
            fail("a key is a text")
        if len(self._open) == DEPTH_MAX:
            fail(f"values are nested deeper than {DEPTH_MAX}")
        self._open.append(_Open(kind == "MappingStart", line, column))

    def _scalar(self, event: Any, line: int, column: int) -> Scalar:
        source = self._text[event.start_mark.index : event.end_mark.index]
        return Scalar(event.value, event.style is None, line, column, source)

    def _closed(self) -> Node:
        done = self._open.pop()
        if done.mapping:
            return Mapping(tuple(done.pairs), done.line, done.column)
        return Sequence(tuple(done.values), done.line, done.column)

    def _add(self, node: Node) -> None:
        if not self._open:
            self._root = node
            return
        top = self._open[-1]
        if not top.mapping:
            top.values.append(node)
        elif top.key is None:
            top.key = self._key(node, top.keys)
        else:
            top.pairs.append((top.key, node))
            top.key = None

    def _key(self, node: Node, known: set[str]) -> Scalar:
        if not isinstance(node, Scalar):
            node.fail("a key is a text")
        if node.plain and node.text == "<<":
            node.fail("a merge key", _HINTS["alias"])
        if node.text in known:
            node.fail(f"the key `{node.text[:60]}` stands twice", "The first one would be lost.")
        known.add(node.text)
        return node


def _no_yaml(error: Any) -> DefinitionError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    what = error.problem or error.context or "not understood"
    hint = next((hint for part, hint in _YAML_HINTS.items() if part in what), "")
    return DefinitionError(f"no YAML: {what}", hint=hint, line=line, column=column)
