"""Which effects an expression's value comes from: what `because` names (docs/spec/workflow.md, rule 3)."""

from collections.abc import Iterable, Mapping
from typing import Any

from countermark_verify.definition import EFFECT
from countermark_verify.expression import reads, templates
from countermark_verify.flow import SUCCESS, Combo, Stage, Step


def effects_read(stages: Mapping[str, Stage], step: Step, given: Iterable[Any]) -> list[str]:
    """IDs of the confirmed effects whose outputs these templates read, sorted, each once."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    for template in given:
        _read(stages, step.combo, template, found, seen)
    return sorted(found)


def _read(
    stages: Mapping[str, Stage], combo: Combo, template: Any, found: set[str], seen: set[tuple[str, str]]
) -> None:
    for tree in templates(template):
        for path in reads(tree):
            wanted = path[2] if len(path) > 2 else "*"
            if path[0] == "steps" and wanted in ("outputs", "*"):
                for step in combo.steps:
                    if step.spec["id"] == path[1] and step.spec["kind"] == EFFECT and step.outcome == SUCCESS:
                        found.add(step.action)
            elif path[0] == "needs" and wanted in ("outputs", "*"):
                name = path[3] if len(path) > 3 else "*"
                _of_job(stages, stages[path[1]], name, found, seen)


def _of_job(stages: Mapping[str, Stage], stage: Stage, name: str, found: set[str], seen: set[tuple[str, str]]) -> None:
    """What an output of a job reads, in the combination whose outputs are the job's; all where it is computed."""
    for output, template in stage.job.document["outputs"]:
        if name in ("*", output) and (stage.job.id, output) not in seen:
            seen.add((stage.job.id, output))
            _read(stages, stage.combos[-1], template, found, seen)
