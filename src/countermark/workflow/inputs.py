"""What a run is given: every declared input, of its type and choices; and how it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.model.canon import canon, check
from countermark.model.driving import Start
from countermark.model.errors import ArgumentError
from countermark.workflow.definition import Definition
from countermark.workflow.sealing import subject_in

INPUT_BYTES_MAX = 16_000
_TYPES: Mapping[str, type] = {"string": str, "int": int, "bool": bool, "list": list, "object": dict}


def check_inputs(definition: Definition, given: Mapping[str, Any]) -> dict[str, Any]:
    """The ``inputs`` of ``run.started``. Raises ``ArgumentError``: unknown, missing, of another type, too large."""
    declared = definition.inputs
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise ArgumentError(
            f"{definition.name} has no input {unknown[0]!r}", field="inputs",
            hint="It has: " + (", ".join(sorted(declared)) or "none") + ".",
        )  # fmt: skip
    found: dict[str, Any] = {}
    for name, one in declared.items():
        value = given.get(name)
        if value is None:
            value = one.default
        if value is None and one.required:
            raise ArgumentError(f"{definition.name} needs the input {name!r}", field="inputs")
        if value is not None and type(value) is not _TYPES[one.type]:
            raise ArgumentError(f"the input {name!r} must be of type {one.type}", field="inputs")
        if value is not None and one.choices and value not in one.choices:
            raise ArgumentError(f"the input {name!r} is not one of its choices", field="inputs")
        found[name] = value
    check(found)
    if len(canon(found)) > INPUT_BYTES_MAX:
        raise ArgumentError(f"the inputs take more than {INPUT_BYTES_MAX} bytes", field="inputs")
    return found


def start_of(
    definition: Definition, run: str, agent: str, mandate: str | None, inputs: Mapping[str, Any],
    trigger: Mapping[str, Any], parent: Mapping[str, Any] | None,
) -> Start:  # fmt: skip
    """What begins a run. Raises ``ArgumentError``: as ``check_inputs``; or nobody is the subject of a sealed one."""
    given = check_inputs(definition, inputs)
    workflow = {
        "definition": definition.digest, "name": definition.name, "code": list(definition.code), "inputs": given,
        "trigger": dict(trigger), "parent": None if parent is None else dict(parent),
    }  # fmt: skip
    subject = subject_in(definition, given)
    return Start(run, agent, mandate, definition.name, workflow, document=definition.document, subject=subject)
