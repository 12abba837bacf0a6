"""The policies of a bundle as text: annotations, effect, action scope and words, without Cedar (docs/spec/policy.md).

V09 must be able to judge a bundle on a machine that has no Cedar; where Cedar is installed, `rules` compares what is
read here with what Cedar reads.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark_verify.cedar_text import split_policies
from countermark_verify.errors import Malformed

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r'(?P<text>"[^"]*+")|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>::|==|\S)', re.DOTALL)
_SKIPPED = re.compile(r"(?:\s++|//[^\n]*+)*+")
_OPEN, _CLOSE = "([{", ")]}"
_HEAD_TOKENS_MAX = 20_000

Token = tuple[str, str]  # its kind (text, word, mark) and, for a text, what it says
Reference = tuple[str, str, str]  # operator (== or in), entity type, entity id


@dataclass(frozen=True)
class Policy:
    """One policy. `actions` is None for an open action scope, `text` runs from its first token to its semicolon."""

    id: str
    forbids: bool
    annotations: Mapping[str, str]
    actions: frozenset[Reference] | None
    words: frozenset[str]
    text: str

    def covers(self, tool: Mapping[str, Any]) -> bool:
        """Whether the action scope can match the tool: `Action::"TOOL"`, or its group with `in`."""
        if self.actions is None:
            return True
        return any(
            kind == "Action" and (name == tool["name"] or (operator == "in" and name == tool["class"]))
            for operator, kind, name in self.actions
        )


def read_policies(text: str) -> tuple[Policy, ...]:
    """Raises `Malformed` beyond the bounds, and when what stands before a policy's conditions cannot be read."""
    chunks = split_policies(text)
    if _after_space(text, sum(map(len, chunks))) != len(text):
        raise Malformed("has text after its last policy")
    return tuple(_policy(chunk[_after_space(chunk, 0) :]) for chunk in chunks)


def _after_space(text: str, at: int) -> int:
    match = _SKIPPED.match(text, at)
    return match.end() if match else at


class _Reader:
    """Walks over the tokens of one policy's head."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._left = _HEAD_TOKENS_MAX

    def next(self) -> Token:
        self._at = _after_space(self._text, self._at)
        match = _TOKEN.match(self._text, self._at)
        self._left -= 1
        if match is None or self._left < 0:
            raise Malformed("has a policy whose head cannot be read")
        self._at = match.end()
        kind = match.lastgroup or ""
        return kind, match.group()[1:-1] if kind == "text" else match.group()

    def expect(self, kind: str, *allowed: str) -> str:
        found, value = self.next()
        if found != kind or (allowed and value not in allowed):
            raise Malformed("has a policy whose head cannot be read")
        return value


def _policy(text: str) -> Policy:
    reader = _Reader(text)
    annotations: dict[str, str] = {}
    kind, value = reader.next()
    while (kind, value) == ("mark", "@"):
        name = reader.expect("word")
        if name in annotations:
            raise Malformed(f"has a policy with two annotations @{name}")
        annotations[name] = ""
        kind, value = reader.next()
        if (kind, value) == ("mark", "("):
            annotations[name] = reader.expect("text")
            reader.expect("mark", ")")
            kind, value = reader.next()
    if kind != "word" or value not in ("permit", "forbid"):
        raise Malformed("has a policy that is neither permit nor forbid")
    reader.expect("mark", "(")
    scope = _scope(reader)
    actions = _actions(scope[1]) if len(scope) > 1 else None
    words = frozenset(WORD.findall(text))
    return Policy(annotations.get("id", ""), value == "forbid", annotations, actions, words, text)


def _scope(reader: _Reader) -> list[list[Token]]:
    """The parts between the scope's parentheses: principal, action, resource."""
    parts: list[list[Token]] = [[]]
    depth = 1
    while True:
        kind, value = token = reader.next()
        if kind == "mark":
            depth += (value in _OPEN) - (value in _CLOSE)
            if depth == 0:
                return parts
            if value == "," and depth == 1:
                parts.append([])
                continue
        parts[-1].append(token)


def _actions(tokens: list[Token]) -> frozenset[Reference] | None:
    """What the action scope names: `action`, `action == REF`, `action in REF` or `action in [REF, ...]`."""
    if tokens[:1] != [("word", "action")]:
        raise Malformed("has a policy without an action scope")
    if len(tokens) == 1:
        return None
    operator, rest = tokens[1][1], tokens[2:]
    if rest[:1] == [("mark", "[")] and rest[-1] == ("mark", "]") and operator == "in":
        rest = rest[1:-1]
    found, at = set(), 0
    while at < len(rest):
        end = at
        while end < len(rest) and rest[end] != ("mark", ","):
            end += 1
        found.add(_reference(operator, rest[at:end]))
        at = end + 1
    if operator not in ("==", "in"):
        raise Malformed("has a policy with an unknown action scope")
    return frozenset(found)


def _reference(operator: str, tokens: list[Token]) -> Reference:
    """`Type::"id"`, the type perhaps in namespaces."""
    names, marks = tokens[0:-1:2], tokens[1::2]
    shaped = len(tokens) >= 3 and len(tokens) % 2 == 1 and tokens[-1][0] == "text"
    if not shaped or any(kind != "word" for kind, _ in names) or any(mark != ("mark", "::") for mark in marks):
        raise Malformed("has a policy with an unknown action scope")
    return operator, "::".join(name for _, name in names), tokens[-1][1]
