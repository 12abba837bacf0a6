"""What code of a pure step may be, as far as its tokens say it (docs/spec/workflow.md, Running code).

Whether it is Starlark otherwise, only the engine's own parser says (`recompute.py`).
"""

import re
from collections.abc import Collection
from functools import lru_cache

CODE_BYTES_MAX = 32_000
REMEMBERED_MAX = 50  # open brackets and the line that they stand in; columns at which lines begin
PARTS_MAX = 1_000
PREFIXES_MAX = 50
_TEXT = "|".join(
    rf"{quote * 3}(?:[^\\{quote}]|\\.|{quote}(?!{quote * 2}))*+{quote * 3}"
    rf"|{quote}(?!{quote * 2})(?:[^\\{quote}\n]|\\.)*+{quote}"
    for quote in ("'", '"')
)
_TOKEN = re.compile(
    rf"(?P<none>[ \t]+|\\\n|\#[^\n]*)|(?P<line>\n)|(?P<text>[A-Za-z]{{0,2}}(?:{_TEXT}))"
    r"|(?P<float>(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)"
    r"|(?P<number>0[xX][0-9A-Fa-f]+|0[oO][0-7]+|0[bB][01]+|[0-9]+)|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>//=|//|/=|<<=|>>=|<<|>>|\*\*|->|\.\.\.|[-+*%&|^=!<>]=|[-+*/%&|^~=<>.,:;()\[\]{}@])",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_CONVERSION = re.compile(r"[-#0 +]*+[0-9*]*+(?:\.[0-9*]++)?[eEfFgG]")
_PERCENT = re.compile("%")
_PREFIX = frozenset(("-", "+", "~", ":", "not", "lambda"))
_FLOATING = frozenset(("/", "/=", "float", "load"))

Token = tuple[str, str, int]  # kind, text, column


@lru_cache(maxsize=1_024)
def refused(code: str, given: Collection[str]) -> str:
    """Why this is no code of a step whose `with` has these names, or ""."""
    if len(code) > CODE_BYTES_MAX or len(code.encode()) > CODE_BYTES_MAX:
        return "is too long"
    if _CONTROL.search(code):
        return "holds a control character"
    tokens = _tokens(code)
    if tokens is None:
        return "holds what is no token"
    if reason := _floats(tokens) or _nested(tokens):
        return reason
    taken = _taken(tokens)
    if taken is None:
        return "has not exactly one main that takes names alone"
    return "" if taken.issuperset(given) else "has a main that does not take every name of its with"


def _tokens(code: str) -> list[Token] | None:
    """All but spaces and comments."""
    found: list[Token] = []
    at = begun = 0
    while at < len(code):
        one = _TOKEN.match(code, at)
        if one is None:
            return None
        if one.lastgroup != "none":
            found.append((str(one.lastgroup), one[0], at - begun + 1))
        if "\n" in one[0]:
            begun = at + one[0].rindex("\n") + 1
        at = one.end()
    return found


def _floats(tokens: list[Token]) -> str:
    before = ("line", "\n", 1)
    for kind, text, column in tokens:
        if kind == "float" or (kind in ("sign", "word") and text in _FLOATING):
            return f"holds {text[:20]}"
        formats = kind == "sign" and text in ("%", "%=") and before[0] == "text"
        if formats and _converts(before[1].replace("%%", "  ")):
            return "formats a float"
        before = (kind, text, column)
    return ""


def _converts(text: str) -> bool:
    """Whether a text holds a conversion to a float: written so that no text takes long."""
    at = text.find("%")
    while at >= 0:
        begin = at + 1
        if text.startswith("(", begin):
            begin = text.find(")", begin) + 1
            if not begin:
                return any(_CONVERSION.match(text, found.end()) for found in _PERCENT.finditer(text, at + 1))
        if _CONVERSION.match(text, begin):
            return True
        at = text.find("%", at + 1)
    return False


def _nested(tokens: list[Token]) -> str:
    """What would make a parser recurse too deep."""
    parts, columns, prefixes, begins = [0], [1], 0, True
    every = 0  # all of them together
    for kind, text, column in tokens:
        if kind == "line":
            begins = len(parts) == 1
            if begins:
                parts, prefixes, every = [0], 0, 0
            continue
        if begins and len(parts) == 1:
            while columns[-1] > column:
                columns.pop()
            if columns[-1] < column:
                columns.append(column)
        begins = False
        prefixes = prefixes + 1 if text in _PREFIX else 0
        if kind == "sign" and text in ")]}" and len(parts) > 1:
            every -= parts.pop()
        elif text == ",":
            every -= parts[-1]
            parts[-1] = 0
        else:
            parts[-1] += 1
            every += 1
        if kind == "sign" and text in "([{":
            parts.append(0)
        if len(parts) > REMEMBERED_MAX or len(columns) > REMEMBERED_MAX or prefixes > PREFIXES_MAX:
            return "is nested too deep"
        if every > PARTS_MAX:
            return "has an expression of too many parts"
    return ""


def _taken(tokens: list[Token]) -> frozenset[str] | None:
    """The parameters of `main`."""
    mains = [
        at
        for at, (_, text, column) in enumerate(tokens[:-2])
        if text == "def" and column == 1 and tokens[at + 1][1] == "main"
    ]
    if len(mains) != 1:
        return None
    names: list[str] = []
    comma = False
    for kind, text, _ in tokens[mains[0] + 3 :]:
        if kind == "line":
            continue
        if text == ")":
            break
        if (text != ",") if comma else (kind != "word"):
            return None
        if not comma:
            names.append(text)
        comma = not comma
    return frozenset(names)
