"""``${{ }}`` in a YAML text: to an expression in its one spelling, or to a template.

Names that GitHub's users know are brought to ours: ``env.X`` becomes what is declared, ``github.run_id`` ``run.id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from countermark.workflow import expression_parser as tree
from countermark.workflow.errors import DefinitionError, nearest
from countermark.workflow.expression_parser import Apply, Chain, Compare, Const, Index, Member, Name, Node, Not
from countermark.workflow.yaml_nodes import Mapping as MappingNode
from countermark.workflow.yaml_nodes import Node as YamlNode
from countermark.workflow.yaml_nodes import Scalar, Sequence

_OPEN, _CLOSE = "${{", "}}"
_OURS = {
    ("github", "event", "inputs"): ("inputs",),
    ("github", "event"): ("event",),
    ("github", "run_id"): ("run", "id"),
    ("github", "workflow"): ("run", "name"),
}
_NOT_OURS = {
    "secrets": "Secrets are no data of a run: the connector of a tool holds them. Leave the argument out.",
    "github": "Known of it: github.event, github.run_id, github.workflow.",
    "vars": "Declare it under `env`, or as an input with a default.",
    "runner": "There is no runner: code runs in a worker that has nothing.",
    "strategy": "Name an axis: `matrix.NAME`.",
    "job": "Say `success()` or `steps.ID.outcome`.",
}


@dataclass(frozen=True, slots=True)
class Texts:
    """Reads texts of a definition. ``env`` are declared constants; ``jobs``: whether ``jobs.X`` means ``needs.X``."""

    env: Mapping[str, Node] = field(default_factory=dict)
    jobs: bool = False

    def within(self, env: Mapping[str, Node]) -> Texts:
        """The same with more constants, which hide those of the same name."""
        return replace(self, env={**self.env, **env})

    def template(self, node: YamlNode) -> Any:
        """The template that a YAML value means. Raises ``DefinitionError`` with its place."""
        if isinstance(node, Sequence):
            return [self.template(item) for item in node.items]
        if isinstance(node, MappingNode):
            for key, _ in node.items:
                if key.text == "$":
                    key.fail("no key is `$`: it is how an expression is recorded", "Write ${{ ... }}.")
            return {key.text: self.template(item) for key, item in node.items}
        if _OPEN not in node.text:
            return node.value()
        found = self.mixed(node)
        return found.value if isinstance(found, Const) else {"$": _spelled(found, node)}

    def constant(self, node: Scalar) -> Node:
        """The tree of a value that is declared to be used under a name."""
        if _OPEN in node.text:
            return self.mixed(node)
        return Const(node.value())

    def mixed(self, node: Scalar) -> Node:
        """The tree of a text with ``${{ }}`` in it: an expression by itself, or a call of ``format``."""
        pieces: list[str] = []
        values: list[Node] = []
        at = 0
        while (start := node.text.find(_OPEN, at)) >= 0:
            end = _end(node, start + len(_OPEN))
            pieces.append(node.text[at:start])
            values.append(self.parsed(node, start + len(_OPEN), end))
            at = end + len(_CLOSE)
        pieces.append(node.text[at:])
        if len(values) == 1 and pieces == ["", ""]:
            return values[0]
        pattern = pieces[0].replace("{", "{{").replace("}", "}}")
        for number, piece in enumerate(pieces[1:]):
            pattern += f"{{{number}}}" + piece.replace("{", "{{").replace("}", "}}")
        return Apply("format", (Const(pattern), *values)) if values else Const(node.text)

    def condition(self, node: YamlNode) -> str:
        """The expression of an ``if``, with or without ``${{ }}`` around it."""
        if not isinstance(node, Scalar):
            node.fail("a condition is an expression")
        value = node.value()
        if type(value) is bool:
            return "true" if value else "false"
        if type(value) is not str or not value.strip():
            node.fail("a condition is an expression", "Such as: steps.match.outputs.ok == true.")
        text = node.text
        start, end = len(text) - len(text.lstrip()), len(text.rstrip())
        if text.startswith(_OPEN, start):
            inner = start + len(_OPEN)
            close = _end(node, inner)
            if close + len(_CLOSE) != end:
                node.fail("a condition is one expression", "Put all of it between ${{ and }}.", offset=close)
            start, end = inner, close
        elif _OPEN in text:
            node.fail("a condition is one expression", "Leave ${{ and }} out.", offset=text.index(_OPEN))
        return _spelled(self.parsed(node, start, end), node)

    def parsed(self, node: Scalar, start: int, end: int) -> Node:
        """The tree of one expression within a text, with our names. Raises ``DefinitionError`` at the mistake."""
        inner = node.text[start:end]
        try:
            found = self._ours(tree.parse(inner))
            tree.check_size(found)
        except DefinitionError as error:
            offset = start + error.offset
            if not error.offset:
                offset += len(inner) - len(inner.lstrip())
            node.fail(error.what, error.hint, offset=offset)
        return found

    def _ours(self, node: Node) -> Node:
        match node:
            case Member(base, name):
                path = _path(node)
                if path[:1] == ("env",) and len(path) == 2:
                    if name not in self.env:
                        raise DefinitionError(f"there is no `env.{name[:60]}`", hint=nearest(name, self.env))
                    return self.env[name]
                if path in _OURS:
                    first, *rest = _OURS[path]
                    made: Node = Name(first)
                    for part in rest:
                        made = Member(made, part)
                    return made
                return Member(self._ours(base), name)
            case Name(name):
                if name in _NOT_OURS:
                    raise DefinitionError(f"there is no `{name}` here", hint=_NOT_OURS[name])
                if name == "env":
                    raise DefinitionError("`env` stands only before a name", hint=nearest("", self.env))
                return Name("needs") if name == "jobs" and self.jobs else node
            case Index(base, index):
                return Index(self._ours(base), self._ours(index))
            case Not(operand):
                return Not(self._ours(operand))
            case Compare(op, left, right):
                return Compare(op, self._ours(left), self._ours(right))
            case Chain(op, items):
                return tree.chain(op, (self._ours(item) for item in items))
            case Apply(function, args):
                return Apply(function, tuple(self._ours(arg) for arg in args))
        return node


def _path(node: Node) -> tuple[str, ...]:
    """The names of a path that is spelled out, else ``()``."""
    names: list[str] = []
    while isinstance(node, Member):
        names.append(node.name)
        node = node.base
    return (node.name, *reversed(names)) if isinstance(node, Name) else ()


def _end(node: Scalar, start: int) -> int:
    """Where the ``}}`` that closes an expression begins; one within a literal text closes nothing."""
    at = start
    while not node.text.startswith(_CLOSE, at):
        if at >= len(node.text):
            node.fail("`${{` is not closed", "Write }} after the expression.", offset=start - len(_OPEN))
        if node.text[at] == "'":
            closing = node.text.find("'", at + 1)
            if closing < 0:
                node.fail("a text is not closed", "A quote in it is doubled: 'it''s'.", offset=at)
            at = closing + 1
        else:
            at += 1
    return at


def _spelled(found: Node, node: Scalar) -> str:
    try:
        return tree.render(found)
    except DefinitionError as error:
        node.fail(error.what, error.hint)


def is_secret(node: YamlNode) -> bool:
    """Whether a value is nothing but a secret: ``${{ secrets.KEY }}``."""
    if not isinstance(node, Scalar):
        return False
    text = node.text.strip()
    if not (text.startswith(_OPEN) and text.endswith(_CLOSE)):
        return False
    try:
        found = tree.parse(text[len(_OPEN) : -len(_CLOSE)])
    except DefinitionError:
        return False
    return _path(found)[:1] == ("secrets",) and len(_path(found)) == 2
