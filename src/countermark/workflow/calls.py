"""How far the calls of a definition reach: known before its first run, since it can only call what was recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from countermark.workflow.definition import Definition
from countermark.workflow.definition_parts import CallStep
from countermark.workflow.errors import DefinitionError

CALLS_DEEP_MAX = 8
RUNS_BELOW_MAX = 1_000


class Reach(NamedTuple):
    """How many calls stand in one another below one run, and how many runs it may start in all, were each step run.

    ``sealed``: whether its runs are; None when nobody knows.
    """

    deep: int
    runs: int
    sealed: bool | None = None


def reach_of(definition: Definition, known: Callable[[str], Reach]) -> Reach:
    """``known`` answers for a definition that is called.

    Raises:
        DefinitionError: deeper or more than one start may have; or of it and one that it calls one is sealed.
        CountermarkError: as ``known`` does.
    """
    deep = runs = 0
    sealed = definition.sensitive is not None
    for job in definition.jobs:
        combinations = 1
        for _, values in job.matrix or ():
            combinations *= len(values)
        for step in job.steps:
            if isinstance(step, CallStep):
                below = known(step.workflow)
                if below.sealed not in (None, sealed):
                    raise DefinitionError(
                        f"of {definition.name} and a workflow that it calls one is sealed",
                        hint="What a run hands to another one stands there: give both `sensitive`, or neither.",
                    )
                deep = max(deep, 1 + below.deep)
                runs += combinations * (1 + below.runs)
    if deep > CALLS_DEEP_MAX:
        raise DefinitionError(
            f"{definition.name} calls {deep} deep, but at most {CALLS_DEEP_MAX} is allowed",
            hint="Put steps of the innermost definitions into those that call them.",
        )
    if runs > RUNS_BELOW_MAX:
        raise DefinitionError(
            f"one run of {definition.name} may start {runs:,} others, but at most {RUNS_BELOW_MAX:,} are allowed",
            hint="Calls in a matrix start one for each combination: start the runs of the parts one by one.",
        )
    return Reach(deep, runs, sealed)
