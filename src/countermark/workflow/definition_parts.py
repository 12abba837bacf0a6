"""What a checked definition is made of (``docs/spec/workflow.md``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from countermark.workflow.definition_read import Pairs


@dataclass(frozen=True, slots=True)
class Input:
    """A declared input; ``default`` is None when there is none."""

    type: str
    required: bool
    default: Any
    choices: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """After the n-th failed attempt the next waits ``delay_s * factor**(n - 1)`` seconds."""

    attempts: int
    delay_s: int
    factor: int


@dataclass(frozen=True, slots=True)
class Step:
    """What all steps have. ``if_`` is an expression, ``timeout_s`` whole minutes in seconds."""

    id: str
    kind: str
    name: str
    if_: str | None
    continue_on_error: bool
    timeout_s: int | None
    retry: Retry | None


@dataclass(frozen=True, slots=True)
class Undo:
    """The effect that makes up for another."""

    tool: str
    with_: Pairs


@dataclass(frozen=True, slots=True)
class EffectStep(Step):
    """An action of a governed tool."""

    tool: str
    with_: Pairs
    undo: Undo | None


@dataclass(frozen=True, slots=True)
class PureStep(Step):
    """Code without effects; ``outputs`` are names and their types."""

    code: str
    with_: Pairs
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WaitStep(Step):
    """A time or an event; ``for_`` as in the document."""

    for_: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CallStep(Step):
    """A run of another definition, by its digest."""

    workflow: str
    with_: Pairs


@dataclass(frozen=True, slots=True)
class AgentStep(Step):
    """A run of an agent within a boundary."""

    agent: str
    goal: Any
    tools: tuple[str, ...]
    calls: int
    budget: tuple[tuple[str, int], ...]
    sees: Pairs
    where: tuple[tuple[str, str, tuple[Any, ...]], ...]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Job:
    """Steps one after the other. ``matrix`` is None, or its axes, sorted, with their values."""

    id: str
    needs: tuple[str, ...]
    if_: str | None
    matrix: tuple[tuple[str, tuple[Any, ...]], ...] | None
    fail_fast: bool
    parallel: int
    continue_on_error: bool
    timeout_s: int | None
    outputs: Pairs
    steps: tuple[Step, ...]


class Concurrency(NamedTuple):
    """Of the runs with the same ``group`` (a template) one goes on at a time; ``cancel``: the newest."""

    group: Any
    cancel: bool


@dataclass(frozen=True, slots=True)
class Definition:
    """A checked definition. ``code`` are the sorted digests of the code of its pure steps.

    ``sensitive``: a template of the subject whose the values of its runs are, None where they stand in clear.
    """

    document: Mapping[str, Any]
    digest: str
    name: str
    triggers: tuple[Mapping[str, Any], ...]
    inputs: Mapping[str, Input]
    outputs: Pairs
    concurrency: Concurrency | None
    timeout_s: int | None
    jobs: tuple[Job, ...]
    code: tuple[str, ...]
    sensitive: Any = None


def matrix_of(job: Job) -> list[dict[str, Any]]:
    """The combinations of a job's matrix: axes sorted, the last axis fastest; one empty one without a matrix."""
    axes = job.matrix or ()
    names = [name for name, _ in axes]
    return [dict(zip(names, values, strict=True)) for values in product(*(values for _, values in axes))]
