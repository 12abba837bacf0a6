"""What code of a pure step may be: read by a small scanner first, by Starlark's own parser then.

No float can arise in code that the scanner lets pass: there is no literal of one, no true division and no name
``float``, the interpreter's other functions make none of integers and texts, and inputs hold none. Scanner and parser
must agree on what is text and what is code, so characters that one might read otherwise than the other are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NoReturn

from countermark.compute.values import CODE_BYTES_MAX, ENGINE, code_digest
from countermark.compute.worker import dialect, plain
from countermark.model.errors import ArgumentError, ConfigError

__all__ = ["check_code", "check_resolved", "checked", "code_digest"]

DEPTH_MAX = 50  # brackets, or levels of indentation
CHAIN_MAX = 1_000  # tokens of an expression since the last comma, and of those around it: a parser recurses over them
PREFIXES_MAX = 50  # of `-`, `not`, `lambda` in a row

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t]+|\\\n)
    | (?P<comment>\#[^\n]*)
    | (?P<newline>\n)
    | (?P<string>[A-Za-z]{0,2}(?:'''(?:[^\\']|\\.|'(?!''))*+'''|\"\"\"(?:[^\\"]|\\.|"(?!""))*+\"\"\"
        |'(?!'')(?:[^\\'\n]|\\.)*+'|"(?!"")(?:[^\\"\n]|\\.)*+"))
    | (?P<float>(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)
    | (?P<int>0[xX][0-9A-Fa-f]+|0[oO][0-7]+|0[bB][01]+|[0-9]+)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<operator>//=?|/=?|<<=?|>>=?|\*\*|->|\.\.\.|[-+*%&|^=!<>]=|[-+*%&|^~=<>.,:;()\[\]{}@])
    """,
    re.VERBOSE | re.DOTALL,
)
# Controls end lines for some and not for others; so do a few characters beyond ASCII, which stay possible in texts.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]|[\ud800-\udfff]")
# Possessive, since a zero may be a flag or a digit: a text of zeros would be tried in all ways to part it.
_FLOAT_FORMAT = re.compile(r"%(?:\([^)]*+\))?+[-#0 +]*+[0-9*]*+(?:\.[0-9*]++)?[eEfFgG]")
_OPENS, _CLOSES = frozenset("([{"), frozenset(")]}")
_PREFIX = frozenset(("-", "+", "~", "not", "lambda", ":"))
_NO_FLOATS = "Amounts are integers of the smallest unit; divide with //."


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    line: int
    column: int


def _refuse(line: int, column: int, what: str, fix: str = "") -> NoReturn:
    raise ArgumentError(f"line {line}, column {column}: {what}", field="code", hint=fix)


# What Python has and Starlark has not, by a word of what the parser says of it.
_LINE = re.compile(r"\(line ([0-9]+),")
_NOT_PYTHON = {
    "f-strings": 'There are no f-strings. Write "%d of %s" % (n, name), or "{} of {}".format(n, name).',
    "import": "There is nothing to import: a step's code stands alone.",
}


def _tokens(text: str) -> Iterator[Token]:
    """Everything but spaces and comments. Raises ``ArgumentError``."""
    at, line, begun = 0, 1, 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            what = "a text without an end" if text[at] in "'\"" else f"the character {text[at]!r} has no meaning here"
            _refuse(line, at - begun + 1, what, "Texts stand in quotes, on one line or in three quotes.")
        kind, piece = str(found.lastgroup), found[0]
        if kind not in ("space", "comment"):
            yield Token(kind, piece, line, at - begun + 1)
        if "\n" in piece:
            line += piece.count("\n")
            begun = at + piece.rindex("\n") + 1
        at = found.end()


@dataclass
class _Reader:
    """What the tokens so far amount to."""

    levels: list[int] = field(default_factory=lambda: [0])  # length of the chain, one for each open bracket
    chain: int = 0  # their sum
    prefixes: int = 0
    before: Token = field(default_factory=lambda: Token("newline", "\n", 1, 0))
    indents: list[int] = field(default_factory=lambda: [1])

    def read(self, token: Token) -> None:
        self._no_float(token)
        if token.kind == "name" and token.text == "load":
            _refuse(token.line, token.column, "load is not possible", "A step's code stands alone.")
        self._shape(token)
        self.before = token

    def _no_float(self, token: Token) -> None:
        line, column = token.line, token.column
        if token.kind == "float":
            _refuse(line, column, f"{token.text} is a float", _NO_FLOATS)
        if token.kind == "operator" and token.text in ("/", "/="):
            _refuse(line, column, f"{token.text} makes floats", _NO_FLOATS)
        if token.kind == "name" and token.text == "float":
            _refuse(line, column, "there are no floats", _NO_FLOATS)
        formats = token.kind == "operator" and token.text in ("%", "%=") and self.before.kind == "string"
        if formats and (found := _FLOAT_FORMAT.search(self.before.text.replace("%%", "  "))):
            _refuse(self.before.line, self.before.column, f"{found[0]} formats a float", "Use %d or %s.")

    def _shape(self, token: Token) -> None:
        """Bounds on what makes a parser recurse."""
        if token.kind == "newline":
            if len(self.levels) == 1:
                self.levels[0] = self.chain = self.prefixes = 0
            return
        if self.before.kind == "newline" and len(self.levels) == 1:
            while self.indents[-1] > token.column:
                self.indents.pop()
            if self.indents[-1] < token.column:
                self.indents.append(token.column)
        if token.text == ",":
            self.chain -= self.levels[-1]
            self.levels[-1] = 0
        elif token.kind == "operator" and token.text in _CLOSES and len(self.levels) > 1:
            self.chain -= self.levels.pop()
        else:
            self.chain += 1
            self.levels[-1] += 1
            if token.kind == "operator" and token.text in _OPENS:
                self.levels.append(0)
        self.prefixes = self.prefixes + 1 if token.text in _PREFIX else 0
        if len(self.levels) > DEPTH_MAX or len(self.indents) > DEPTH_MAX or self.prefixes > PREFIXES_MAX:
            _refuse(token.line, token.column, f"nested deeper than {DEPTH_MAX}", "Give the parts names.")
        if self.chain > CHAIN_MAX:
            _refuse(token.line, token.column, f"one expression of more than {CHAIN_MAX} parts", "Give the parts names.")


def _scan(text: str) -> list[Token]:
    if found := _CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        column = found.start() - text.rfind("\n", 0, found.start())
        _refuse(
            line, column, f"the character {found[0]!r} is not possible", "Lines end with \\n alone; indent with spaces."
        )
    reader, tokens = _Reader(), []
    for token in _tokens(text):
        reader.read(token)
        tokens.append(token)
    return tokens


def _parameters(tokens: list[Token]) -> tuple[str, ...]:
    """Names of the parameters of the one ``def main`` at the left margin."""
    found: list[int] = []
    for at, token in enumerate(tokens[:-2]):
        if token.text == "def" and token.column == 1 and tokens[at + 1].text == "main":
            found.append(at)
    if len(found) != 1:
        last = tokens[found[1]] if found else Token("", "", 1, 1)
        what = "main is defined twice" if found else "there is no main"
        _refuse(last.line, last.column, what, "Define one function: def main(NAME, NAME): with the inputs' names.")
    names: list[str] = []
    rest = [token for token in tokens[found[0] + 3 :] if token.kind != "newline"]
    expected = True  # a name, not a comma
    for token in rest:
        if token.text == ")":
            break
        if token.kind != ("name" if expected else "operator") or not (expected or token.text == ","):
            _refuse(
                token.line, token.column, f"{token.text} in the parameters of main",
                "They are the names of the inputs, without defaults and stars: an input is always given.",
            )  # fmt: skip
        if expected:
            names.append(token.text)
        expected = not expected
    return tuple(names)


@lru_cache(maxsize=1_024)
def checked(text: str) -> tuple[bytes, str, tuple[str, ...]]:
    """UTF-8 bytes and digest of code that the scanner lets pass, and the names of main's parameters.

    Raises ``ArgumentError``.
    """
    if len(text) > CODE_BYTES_MAX or len(text.encode("utf-8", "surrogatepass")) > CODE_BYTES_MAX:
        _refuse(1, 1, f"the code is longer than {CODE_BYTES_MAX} bytes", "Split the step.")
    names = _parameters(_scan(text))
    return text.encode("utf-8"), code_digest(text), names


def check_resolved(text: str) -> None:
    """Every name that the code uses is one that it or the language defines. Nothing of the code is executed.

    Starlark resolves all names of a text before its first statement: one in front of the code's own ends it there.

    Raises:
        ArgumentError: a name is not found; the message names line and column.
    """
    import starlark

    first = starlark.parse("code", f"fail()\n{text}", dialect(starlark))
    try:
        starlark.eval(starlark.Module(), first, starlark.Globals.standard())
    except starlark.StarlarkError as error:
        said = plain(str(error))
        if said.startswith("Variable "):
            raise ArgumentError(
                _LINE.sub(lambda found: f"(line {int(found[1]) - 1},", said), field="code",
                hint="Names are looked up in the code, among the parameters and in Starlark's own functions.",
            ) from None  # fmt: skip


def check_code(text: str) -> tuple[str, ...]:
    """Names of the parameters of ``main``, in order, of code that may be run.

    Raises:
        ArgumentError: the code is not Starlark, may not be run or has no ``main``; the message names line and column.
        ConfigError: the extra ``workflow`` is not installed.
    """
    names = checked(text)[2]
    try:
        import starlark
    except ImportError:
        raise ConfigError(
            f"pure steps need {ENGINE}, which is not installed", hint="Install it: uv add 'countermark[workflow]'."
        ) from None
    try:
        starlark.parse("code", text, dialect(starlark))
    except starlark.StarlarkError as error:
        said = plain(str(error))
        hint = next(
            (hint for word, hint in _NOT_PYTHON.items() if word in said), "Starlark's syntax is that of Python."
        )
        raise ArgumentError(said, field="code", hint=hint) from None
    return names
