"""A definition drawn, and a run on top of it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from run_fixtures import Defined, Drive, agent, define, effect, job, pause, pure

from countermark.workflow.graph import BYTES_MAX, svg

NASTY = "<script>alert('&\"')</script>"


def _texts(drawn: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(drawn).iter() if element.tag.endswith("text")]


def _groups(drawn: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for element in ElementTree.fromstring(drawn).iter():
        if element.tag.endswith("}g"):
            found.setdefault(element.get("class") or "", []).append(element)
    return found


def _ran() -> Drive:
    undo = ("noop.undo", {"x": 1})
    run = Drive(define(
        job("check", pure("one")), job("each", pure("part"), matrix={"a": [1, 2, 3]}, parallel=3, needs=("check",)),
        job("pay", effect("send", undo=undo, retry={"attempts": 2, "delay_s": 1, "factor": 1}), effect("no"),
            pure("never"), needs=("check",)),
        job("last", pause("w", {"kind": "time", "seconds": 1}), needs=("check", "pay")),
    ))  # fmt: skip
    run.computed("check.one")
    run.computed("each.0.part")
    run.computed("each.1.part", status="error")
    run.done("pay.send", "failed", "provider_error")
    run.wait(1)
    run.done("pay.send")
    run.decided("pay.no", "deny", "denied_by_policy")
    return run


def test_every_conclusion_is_said_in_words() -> None:
    """Not by colour alone: the text says success, failure with its code, skipped, and of how many combinations."""
    run = _ran()
    said = _texts(svg(run.definition, run.machine.progress()))
    for words in ("✓ success", "✓ success (2×)", "✗ failure: denied_by_policy", "– skipped"):
        assert words in said
    assert "✗ 1 of 3: failure" in said
    run.computed("each.2.part")
    run.decided("pay.send.undo")
    assert "⟲ being undone" in _texts(svg(run.definition, run.machine.progress()))
    run.settled(run.row("pay.send.undo").actions[0])
    assert "⟲ undone" in _texts(svg(run.definition, run.machine.progress()))


def test_what_ran_is_solid_and_what_did_not_is_dashed() -> None:
    """The border tells planned from actual; of the definition alone nothing is dashed."""
    run = _ran()
    for kind, elements in _groups(svg(run.definition, run.machine.progress())).items():
        for group in elements if kind not in ("wf-job", "wf-wrong") else ():
            dashed = group.find("{*}rect").get("stroke-dasharray") is not None
            assert dashed == (kind in ("wf-skipped", "wf-pending"))
    assert "stroke-dasharray" not in svg(run.definition)


def test_columns_are_the_depth_of_jobs_and_lines_their_needs() -> None:
    """A job stands right of everything that it needs; a need that another one implies has no line."""
    drawn = svg(_ran().definition)
    xs = [int(group.get("transform")[10:].split()[0]) for group in _groups(drawn)["wf-job"]]
    assert xs == sorted(xs)
    assert len(set(xs)) == 3
    needs = next(one for one in ElementTree.fromstring(drawn).iter() if one.get("class") == "wf-needs")
    assert (needs.get("d") or "").count("M") == 3


def test_deviations_are_marked() -> None:
    """What was done against the definition is said at its step; what the definition does not have, below it."""
    run = _ran()
    marks = {"pay.send": "another amount", "pay.ghost:1": "", "each.1.part": "too early"}
    drawn = svg(run.definition, run.machine.progress(), deviations=marks)
    said = _texts(drawn)
    assert "⚠ another amount" in said
    assert "⚠ too early" in said
    assert "⚠ pay.ghost:1: not in the definition" in said
    assert len(_groups(drawn)["wf-wrong"]) == 3
    assert "3 deviations" in drawn


def test_texts_are_escaped_and_nothing_runs() -> None:
    """Names are data: no element, attribute or control character comes out of one."""
    steps = [pure("one", name=NASTY), effect("two", tool="x.y", name="a\x00b\x1bc"), agent("three")]
    definition = define(job("a", *steps))
    drawn = svg(definition, deviations={f"{NASTY}\x07": NASTY})
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(drawn).iter()}
    assert tags == {"svg", "style", "title", "path", "g", "rect", "text"}
    assert "<script" not in drawn
    assert not [name for element in ElementTree.fromstring(drawn).iter() for name in element.attrib if name[:2] == "on"]


def test_the_same_run_is_the_same_drawing() -> None:
    """Byte for byte; and without its own style it brings none, for pages that forbid it."""
    one, other = _ran(), _ran()
    assert svg(one.definition, one.machine.progress()) == svg(other.definition, other.machine.progress())
    assert "<style" not in svg(one.definition, style=False)
    assert "style=" not in svg(one.definition, style=False)


@pytest.mark.parametrize("chain", [True, False])
def test_the_largest_definition_stays_small(chain: bool) -> None:
    """32 jobs with needs among all of them, 100 steps and a matrix of 64, with names that grow when escaped."""
    jobs = []
    for number in range(32):
        steps = [effect(f"s{i}_" + "x" * 36, name="&" * 100, undo=("noop.undo", {})) for i in range(3 + (number < 4))]
        before = tuple(one["id"] for one in jobs) if chain else tuple(one["id"] for one in jobs[:16] if number >= 16)
        jobs.append(
            job(f"j{number}_" + "y" * 36, *steps, needs=before, matrix={"a": list(range(8)), "b": list(range(8))})
        )
    definition: Defined = define(*jobs)
    run = Drive(definition)
    drawn = svg(definition, run.machine.progress(), deviations={f"&&&{n}": "&" * 200 for n in range(100)})
    assert len(drawn.encode()) <= BYTES_MAX
    ElementTree.fromstring(drawn)
