"""W3's published shapes of workflows (`examples/shapes`) compile, and what starts each starts it once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow"))

from trigger_stage import HOUR_S, TriggerStage, bodies, unsound

from countermark.cli.run import compiled

SHAPES = Path(__file__).resolve().parents[2] / "examples" / "shapes"


def shape(name: str) -> dict[str, Any]:
    return dict(compiled(SHAPES / f"{name}.yaml")[0].document)


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TriggerStage]:
    found = TriggerStage(tmp_path / "d", shape(request.param))
    yield found
    found.close()
    assert unsound(found.root) == []


def over(stage: TriggerStage) -> list[str]:
    """How every run that was begun ended."""
    for body in bodies(stage.root, "run.started"):
        if "workflow" in body:
            stage.handle.call("workflow.drive", {"run": body["run"]})
    return [body["workflow"]["status"] for body in bodies(stage.root, "run.ended") if "workflow" in body]


@pytest.mark.parametrize("stage", ["schedule"], indirect=True)
def test_a_schedule_starts_its_shape(stage: TriggerStage) -> None:
    """At nine, once a day; its payment is made."""
    stage.tick(9 * HOUR_S)
    stage.tick(HOUR_S)
    assert over(stage) == ["success"]
    assert len(stage.provider.effects) == 1


@pytest.mark.parametrize("stage", ["dispatch"], indirect=True)
def test_people_start_the_shape_with_inputs(stage: TriggerStage) -> None:
    """Inputs are typed, and both jobs run."""
    body = {"document": shape("dispatch"), "agent": stage.agent, "inputs": {"amount": 3_001, "batch_id": "B-1"}}
    found = stage.handle.call("workflow.start", {**body, "wait": True})
    assert found["status"] == "success"
    assert len(stage.provider.effects) == 2


@pytest.mark.parametrize("stage", ["webhook"], indirect=True)
def test_a_delivery_starts_its_shape_once(stage: TriggerStage) -> None:
    """Delivered twice, started once; another type starts nothing."""
    payload = {"type": "invoice.accepted", "invoice": "INV-8"}
    for number, kind in ((1, "invoice.accepted"), (1, "invoice.accepted"), (2, "invoice.made")):
        stage.receive(number, payload={**payload, "type": kind})
        stage.settle()
    assert over(stage) == ["success"]
    assert len(stage.provider.effects) == 1


@pytest.mark.parametrize("stage", ["chain-event"], indirect=True)
def test_an_event_on_a_chain_starts_its_shape(stage: TriggerStage) -> None:
    """Each log starts a run of its own; a large one only says so."""
    for number, value in ((1, 500), (2, 5_000_000)):
        payload = {"from": "0x" + "1" * 40, "value": value, "block": number}
        stage.receive(number, source="usdc-in", scheme="receipt", payload=payload)
        stage.settle()
    assert over(stage) == ["success", "success"]
    assert len(stage.provider.effects) == 1
