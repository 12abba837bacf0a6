"""For every level of every axis: an honest pack reaches it, and what only seems to is lowered, in words."""

from __future__ import annotations

import ast
import json
import sys
from functools import cache
from pathlib import Path

import pytest

from countermark_verify import Report, axes, effects, parse_trust, verify

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
sys.path.insert(0, str(VECTORS))

from cases import canonical_trust  # noqa: E402
from generate import one  # noqa: E402
from insider_downgrades import CLAIMS, Claim, Lowered  # noqa: E402

LOWERED = [(claim, forged) for claim in CLAIMS for forged in claim.forged]


@cache
def report_of(name: str) -> Report:
    case = one(name)
    trust = case.trust
    if trust is None:
        shared = json.loads((VECTORS / "files" / "expected.json").read_text("utf-8"))[f"{name}.zip"]["trust"]
        return verify(case.data, parse_trust((VECTORS / "files" / shared).read_bytes()))
    report = verify(case.data, parse_trust(canonical_trust(trust)))
    verdicts = [case.verdict] if isinstance(case.verdict, str) else case.verdict
    assert report.verdict in verdicts, report.codes()
    assert not case.codes or any(code.startswith(want) for code in report.codes() for want in case.codes)
    return report


def levels_of(function: ast.FunctionDef) -> set[str]:
    """Every level that a function of `axes.py` can give: in the first argument of `_axis`, or in `level = ...`."""
    found: list[ast.expr] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_axis":
            found.append(node.args[0])
        elif isinstance(node, ast.Assign) and any(
            isinstance(one, ast.Name) and one.id == "level" for one in node.targets
        ):
            found.append(node.value)
    levels: set[str] = set()
    for expression in found:
        for node in ast.walk(expression):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                levels.add(node.value)
            elif isinstance(node, ast.Name) and node.id == "LEVELS":
                levels |= set(effects.LEVELS)
            elif isinstance(node, ast.Name) and isinstance(value := getattr(axes, node.id, None), str):
                levels.add(value)
    return levels


def every_level() -> set[tuple[str, str]]:
    """(axis, level) as `derive_axes` can derive them, following what each axis calls."""
    tree = ast.parse(Path(axes.__file__).read_text("utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    [answer] = [node for node in ast.walk(functions["derive_axes"]) if isinstance(node, ast.Dict)]
    found = set()
    for key, value in zip(answer.keys, answer.values, strict=True):
        names, waiting = set(), [value]
        levels: set[str] = set()
        while waiting:
            node = waiting.pop()
            for call in ast.walk(node):
                if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                    continue
                if call.func.id == "_axis" and isinstance(call.args[0], ast.Constant):
                    levels.add(call.args[0].value)
                elif call.func.id in functions and call.func.id not in names:
                    names.add(call.func.id)
                    waiting.append(functions[call.func.id])
        for name in names - {"_axis"}:
            levels |= levels_of(functions[name])
        found |= {(key.value, level) for level in levels}
    return found


def test_every_level_has_an_honest_pack_and_a_forged_one() -> None:
    """A level that somebody adds to `axes.py` fails here until it has both; `refuted` is where forgeries end."""
    claimed = [(claim.axis, claim.level) for claim in CLAIMS]
    there = every_level()
    assert len(set(claimed)) == len(claimed)
    assert set(claimed) == {(axis, level) for axis, level in there if level != "refuted"}
    assert len(there) >= 19
    refuted = {(claim.axis, forged.level) for claim, forged in LOWERED if forged.level == "refuted"}
    assert refuted == {(axis, level) for axis, level in there if level == "refuted"}
    assert all(claim.forged for claim in CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.axis}-{claim.level}")
def test_an_honest_pack_reaches_its_level(claim: Claim) -> None:
    """So that what is lowered elsewhere is not lowered always."""
    assert report_of(claim.honest).axes[claim.axis]["level"] == claim.level


@pytest.mark.parametrize(
    ("claim", "forged"), LOWERED, ids=lambda item: getattr(item, "case", getattr(item, "level", ""))
)
def test_a_forged_pack_is_lowered_and_told_why(claim: Claim, forged: Lowered) -> None:
    """Not the level that it looks as if it had, but a weaker one, and words that say what is missing."""
    axis = report_of(forged.case).axes[claim.axis]
    assert (axis["level"], forged.shown in axis["shown"]) == (forged.level, True), axis["shown"]
    assert claim.axis == "computation" or axis["level"] != claim.level
