"""docs/bypass.md and the suite say the same: no attack without its verdict, no verdict without its test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
DOCS = TESTS.parent / "docs"
VERDICTS = ("prevented", "detected", "not covered")
ROW = re.compile(
    r"^\| (?P<attack>[^|]+) \| (?P<verdict>[^|]+) \| `(?P<file>[\w/]+\.py)::(?P<test>\w+)` \|$", re.MULTILINE
)


def facts_of(path: Path) -> Iterator[tuple[str, str]]:
    """Name and docstring, in one line, of every test in a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, " ".join((ast.get_docstring(node) or "").split())


def sections() -> tuple[str, str]:
    """The table of this suite's attacks, and that of attacks which tests elsewhere prove."""
    page = (DOCS / "bypass.md").read_text("utf-8")
    own, elsewhere = re.split(r"^## Tried elsewhere$", page, flags=re.MULTILINE)
    return own, elsewhere


def rows(text: str) -> list[tuple[str, str, str, str]]:
    """The rows of a text's tables; one of another form is an error."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith(("|---", "| attack |"))]
    found = ROW.findall(text)
    assert len(found) == len(lines)
    return found


def test_the_table_is_the_suite() -> None:
    """Each test of the suite says its attack and its verdict, and stands in the table with just these words."""
    suite = set()
    for path in sorted(HERE.glob("test_bypass_*.py")):
        if path != Path(__file__).resolve():
            for name, said in facts_of(path):
                verdict, _, attack = said.partition(": ")
                suite.add((attack, verdict.lower(), f"bypass/{path.name}", name))
    assert {verdict for _, verdict, _, _ in suite} == set(VERDICTS)
    listed = rows(sections()[0])
    assert len(listed) == len(set(listed))
    assert set(listed) == suite


def test_what_other_tests_prove_is_named() -> None:
    """Each row about an attack that is tried elsewhere names a test that exists, once."""
    listed = rows(sections()[1])
    assert len({row[2:] for row in listed}) == len(listed) > 0
    for attack, verdict, file, name in listed:
        assert verdict in VERDICTS, attack
        assert not file.startswith("bypass/")
        assert name in dict(facts_of(TESTS / file)), f"{file}::{name}"


def test_what_is_not_covered_is_a_limitation() -> None:
    """The limitations list exactly the ways around that are not covered, each by its test."""
    page = (DOCS / "limitations.md").read_text("utf-8")
    _, _, section = page.partition("\n## Ways around\n")
    section, _, _ = section.partition("\n## ")
    uncovered = {name for text in sections() for _, verdict, _, name in rows(text) if verdict == "not covered"}
    assert set(re.findall(r"`(test_\w+)`", section)) == uncovered
