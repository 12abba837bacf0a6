"""Bounds on Cedar text before Cedar sees it.

Cedar's parser recurses without a limit of its own, so that a few kilobytes of brackets end the whole process, and
nested common types of a schema expand exponentially. Both are refused here, by reading no more than tokens.
"""

import re
from collections.abc import Iterator

from countermark_verify.errors import Malformed

TEXT_CHARS_MAX = 8 * 1024**2
POLICIES_MAX = 20_000
BRACKETS_DEEP_MAX = 48
# Whatever makes an expression deeper: operators chain to the left, `if` nests to the right.
DEEPENING_MAX = 400
EXPANSION_MAX = 1_000_000

_TOKEN = re.compile(
    r'(?P<text>"[^"\\]*+(?:\\.[^"\\]*+)*+"?)|(?P<comment>//[^\n]*)|(?P<open>[(\[{<])|(?P<close>[)\]}>])|(?P<end>;)'
    r"|(?P<deeper>&&|\|\||[-+*!.]|\b(?:if|else|has|like|is|in|when|unless)\b)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)",
    re.DOTALL,
)


def split_policies(text: str) -> list[str]:
    """The text of each policy, with its semicolon; raises `Malformed` beyond the bounds."""
    chunks, start, depth, deepening = [], 0, 0, 0
    for kind, token in _tokens(text):
        if kind == "open" and token.group() != "<":
            depth += 1
            deepening += token.group() in "[("
        elif kind == "close" and token.group() != ">":
            depth -= 1
        elif kind == "deeper":
            deepening += 1
        elif kind == "end":
            chunks.append(text[start : token.end()])
            start, depth, deepening = token.end(), 0, 0
        if depth > BRACKETS_DEEP_MAX or deepening > DEEPENING_MAX or len(chunks) > POLICIES_MAX:
            raise Malformed("has a policy nested too deep, or too many policies")
    return chunks


def check_schema(text: str) -> None:
    """Raises `Malformed` when the schema is nested too deep or its common types expand beyond bounds."""
    depth = 0
    for kind, _ in _tokens(text):
        depth += (kind == "open") - (kind == "close")
        if depth > BRACKETS_DEEP_MAX:
            raise Malformed("has a schema nested too deep")
    declared: dict[str, list[str]] = {}
    names: list[str] = []
    for statement in _statements(text):
        if statement[:1] == ["type"] and len(statement) > 1:
            declared[statement[1]] = statement[2:]
        names += statement
    sizes: dict[str, int] = {}
    if sum(_expanded(name, declared, sizes, 0) for name in names) > EXPANSION_MAX:
        raise Malformed("has a schema whose types expand too far")


def _tokens(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    if len(text) > TEXT_CHARS_MAX:
        raise Malformed(f"has Cedar text longer than {TEXT_CHARS_MAX} characters")
    for token in _TOKEN.finditer(text):
        if token.lastgroup not in ("text", "comment"):
            yield token.lastgroup or "", token


def _statements(text: str) -> Iterator[list[str]]:
    """The names in each statement."""
    names: list[str] = []
    for kind, token in _tokens(text):
        if kind == "end":
            yield names
            names = []
        elif kind in ("name", "deeper"):
            names.append(token.group())
    yield names


def _expanded(name: str, declared: dict[str, list[str]], sizes: dict[str, int], depth: int) -> int:
    """How many names a type's name stands for; a cycle or a long chain counts as beyond all bounds."""
    if name not in declared:
        return 1
    if name not in sizes:
        if depth > BRACKETS_DEEP_MAX:
            return EXPANSION_MAX + 1
        sizes[name] = EXPANSION_MAX + 1
        sizes[name] = sum(_expanded(inner, declared, sizes, depth + 1) for inner in declared[name])
    return sizes[name]
