"""V21: runs that steps of others started, as both sides say it (docs/spec/workflow.md)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark_verify.flow import Step


@dataclass(frozen=True, slots=True)
class Child:
    """A run that a step of another one started, as its `run.started` says."""

    seq: int
    at: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The same, as the step that waits for it has it."""

    seq: int
    parent: str
    agent: str  # of the parent
    step: Step
    until: int | None


def parent_of(body: Mapping[str, Any]) -> Any:
    """The run and the place that started this one, or None."""
    if (boundary := body.get("boundary")) is not None:
        return {"run": boundary["parent"], "place": boundary["place"]}
    return body.get("workflow", {}).get("parent")
