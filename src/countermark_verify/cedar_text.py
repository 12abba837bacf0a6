"""Bounds on Cedar text before Cedar sees it.

Cedar's parser recurses without a limit of its own, so that a few kilobytes of brackets end the whole process. They are
refused here, by reading no more than tokens.
"""

import re
from collections.abc import Iterator

from countermark_verify.errors import Malformed

TEXT_CHARS_MAX = 4 * 1024**2
POLICIES_MAX = 5_000
BRACKETS_DEEP_MAX = 48
# Whatever makes an expression deeper: operators chain to the left, `if` nests to the right.
DEEPENING_MAX = 400

_TOKEN = re.compile(
    r'(?P<text>"[^"]*+"?)|(?P<comment>//[^\n]*)|(?P<open>[(\[{<])|(?P<close>[)\]}>])|(?P<end>;)'
    r"|(?P<deeper>&&|\|\||[-+*!.]|\b(?:if|else|has|like|is|in|when|unless)\b)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)",
    re.DOTALL,
)


def split_policies(text: str) -> list[str]:
    """The text of each policy, with its semicolon; raises `Malformed` beyond the bounds, and for a backslash.

    Without escapes a text reads as it is written, so that no word can hide from whoever looks for words.
    """
    if "\\" in text:
        raise Malformed("has a policy with a backslash")
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


def _tokens(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    if len(text) > TEXT_CHARS_MAX:
        raise Malformed(f"has Cedar text longer than {TEXT_CHARS_MAX} characters")
    for token in _TOKEN.finditer(text):
        if token.lastgroup not in ("text", "comment"):
            yield token.lastgroup or "", token
