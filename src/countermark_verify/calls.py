"""V21: how far the calls of a definition reach (docs/spec/workflow.md, Records)."""

from collections.abc import Iterator, Mapping
from typing import Any

from countermark_verify.definition import CALL, Definition

CALLS_DEEP_MAX, RUNS_BELOW_MAX = 8, 1_000  # below one run

Reach = tuple[int, int]  # how deep, and how many runs in all


def _calls(definition: Definition) -> Iterator[tuple[int, Any]]:
    """In how many combinations each call step stands, and what it calls."""
    for job in definition.jobs:
        for step in job.document["steps"]:
            if step["kind"] == CALL:
                yield len(job.combinations), step["workflow"]


def called_by(definition: Definition) -> set[str]:
    """Digests of the definitions that it calls."""
    return {digest for _, digest in _calls(definition)}


def mixed(definition: Definition, known: Mapping[str, Definition | None]) -> bool:
    """Whether of it and one that it calls one is sealed, and the other is not."""
    below = [known.get(digest) for digest in called_by(definition)]
    return any(one is not None and (one.subject is None) != (definition.subject is None) for one in below)


def reach_of(definition: Definition, known: Mapping[str, Reach]) -> Reach:
    """Of one that was refuted no more is counted than what is too far."""
    deep = runs = 0
    for combinations, digest in _calls(definition):
        below = known.get(digest, (0, 0))
        deep, runs = max(deep, 1 + below[0]), runs + combinations * (1 + below[1])
    return min(deep, CALLS_DEEP_MAX + 1), min(runs, RUNS_BELOW_MAX + 1)


def too_far(reach: Reach) -> bool:
    """Whether one start may not lead to so much."""
    return reach[0] > CALLS_DEEP_MAX or reach[1] > RUNS_BELOW_MAX
