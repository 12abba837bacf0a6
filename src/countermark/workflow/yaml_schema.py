"""JSON Schema (2020-12) of definitions in YAML, for editors: ``docs/reference/workflow.schema.json``.

It knows keys, types and bounds; what an expression reads, and whether types fit, only compiling tells.
"""

from __future__ import annotations

from typing import Any, Final

from countermark.workflow import yaml_source, yaml_steps, yaml_triggers
from countermark.workflow.definition import COMBINATIONS_MAX, JOBS_MAX, PARALLEL_MAX, STEPS_MAX
from countermark.workflow.definition_read import ARGUMENT, ID
from countermark.workflow.definition_triggers import MISSED, SOURCE
from countermark.workflow.expression_types import TYPES
from countermark.workflow.yaml_read import IGNORED, MINUTES_MAX

URL = "https://json-schema.org/draft/2020-12/schema"

_TEXT: Final = {"type": "string"}
_FLAG: Final = {"type": "boolean"}
_ANY: Final[dict[str, Any]] = {}
_MINUTES: Final = {"type": "integer", "minimum": 1, "maximum": MINUTES_MAX}
_CONDITION: Final = {"type": ["string", "boolean"], "description": "An expression, with or without ${{ }}."}
_SCALAR: Final = {"type": ["string", "integer", "boolean", "null"]}
_USES: Final = {"type": "string", "pattern": r"^[a-z0-9][A-Za-z0-9_.-]{0,95}(@v1)?$"}


def _whole(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


def _names(pattern: str, values: Any, description: str = "") -> dict[str, Any]:
    """A mapping whose keys are names."""
    found = {"type": ["object", "null"], "propertyNames": {"pattern": f"^{pattern}$"}, "additionalProperties": values}
    return found | ({"description": description} if description else {})


def _keys(known: tuple[str, ...], schemas: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A mapping with these keys, in their order, and those that are left aside."""
    properties = {key: schemas[key] for key in known}
    ignored = {key: {"description": "Says nothing here; left aside."} for key in IGNORED if key not in properties}
    return {"type": "object", "properties": properties | ignored, "additionalProperties": False, **more}


def _one_or_many(one: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [one, {"type": "array", "items": one}]}


_VALUES: Final = _names(ARGUMENT.pattern.replace(r"\ud800-\udfff", ""), _ANY, "Names and values.")
_OUTPUTS: Final = _names(ID.pattern, {"enum": list(TYPES)}, "Names and types.")
_ENV: Final = _names(".*", _SCALAR, "Constants: env.NAME in expressions.")
_INPUT: Final = {
    "anyOf": [
        {"enum": [*TYPES, *yaml_triggers.TYPES]},
        {"type": "null"},
        _keys(
            yaml_triggers.INPUT,
            {
                "type": {"enum": [*TYPES, *yaml_triggers.TYPES]}, "required": _FLAG, "default": _ANY,
                "options": {"type": "array"}, "choices": {"type": "array"}, "description": _TEXT,
                "deprecationMessage": _TEXT,
            },
        ),
    ]
}  # fmt: skip
_INPUTS: Final = {"$ref": "#/$defs/inputs"}


def _triggers() -> dict[str, Any]:
    declared = {"type": ["object", "null"], "properties": {"inputs": _INPUTS}, "additionalProperties": False}
    schedule = _keys(
        ("cron", "timezone", "zone", "missed", "with"),
        {"cron": _TEXT, "timezone": _TEXT, "zone": _TEXT, "missed": {"enum": list(MISSED)}, "with": _VALUES},
        required=["cron"],
    )
    source = _keys(
        ("source", "if", "with"),
        {"source": {"type": "string", "pattern": f"^{SOURCE.pattern}$"}, "if": _CONDITION, "with": _VALUES},
        required=["source"],
    )
    kinds = {
        "workflow_dispatch": declared, "manual": declared, "workflow_call": declared,
        "schedule": _one_or_many(schedule), "webhook": _one_or_many(source), "chain": _one_or_many(source),
        "chain_event": _one_or_many(source),
    }  # fmt: skip
    words = {"enum": ["workflow_dispatch", "manual", "workflow_call"]}
    mapping = {
        "type": "object", "properties": {key: kinds[key] for key in yaml_triggers.KINDS}, "additionalProperties": False,
    }  # fmt: skip
    return {"anyOf": [words, {"type": "array", "items": words}, mapping]}


def _step() -> dict[str, Any]:
    effect = _keys(("uses", "with"), {"uses": _USES, "with": _VALUES}, required=["uses"])
    retry = _keys(
        ("attempts", "delay-seconds", "factor"),
        {"attempts": _whole(2, 10), "delay-seconds": _whole(1, 86_400), "factor": _whole(1, 10)},
        required=["attempts"],
    )
    units = {unit: {"type": ["integer", "string"]} for unit in yaml_steps.UNITS}
    wait = _keys((*units, "until", "event", "key"), units | {"until": _TEXT, "event": _TEXT, "key": _ANY})
    schemas = {
        "id": {"type": "string", "pattern": f"^{ID.pattern}$"}, "name": {"type": "string", "maxLength": 100},
        "if": _CONDITION, "continue-on-error": _FLAG, "timeout-minutes": _MINUTES, "env": _ENV,
        "uses": _USES | {"description": "A governed tool."}, "run": _TEXT | {"description": "Starlark, or a file."},
        "approve": {"description": "A question to people, or arguments of workflow.approve."}, "wait": wait,
        "call": _TEXT | {"description": "Another workflow."}, "agent": _agent(), "with": _VALUES,
        "outputs": _OUTPUTS, "retry": {"anyOf": [_whole(2, 10), retry]}, "undo": effect,
    }  # fmt: skip
    kinds = [{"required": [kind]} for kind in yaml_steps.KINDS]
    return _keys(yaml_steps.ALL, schemas, oneOf=kinds)


def _agent() -> dict[str, Any]:
    where = _names(".*", _names(r"[a-z][a-z0-9_]{0,39}", _ANY), "Tool, argument's alias, the values it may have.")
    schemas = {
        "name": _TEXT, "goal": _TEXT, "tools": _one_or_many(_USES), "calls": _whole(1, 1_000), "minutes": _MINUTES,
        "budget": _names(".*", _whole(1, 2**53 - 1), "Currency, and how much in its minor unit."), "sees": _VALUES,
        "where": where, "outputs": _OUTPUTS,
    }  # fmt: skip
    return _keys(yaml_steps.AGENT, schemas, required=["name", "goal", "calls", "minutes"])


def _job() -> dict[str, Any]:
    axes = _names(ID.pattern, {"type": "array", "minItems": 1, "maxItems": COMBINATIONS_MAX})
    strategy = _keys(
        ("matrix", "fail-fast", "max-parallel"),
        {"matrix": axes, "fail-fast": _FLAG, "max-parallel": _whole(1, PARALLEL_MAX)},
        required=["matrix"],
    )
    schemas = {
        "name": _TEXT, "needs": _one_or_many(_TEXT), "if": _CONDITION, "strategy": strategy, "continue-on-error": _FLAG,
        "timeout-minutes": _MINUTES, "outputs": _VALUES, "env": _ENV, "steps": {"$ref": "#/$defs/steps"},
    }  # fmt: skip
    known = tuple(key for key in yaml_source.JOB if key not in yaml_source.NOT_OF_A_JOB)
    return _keys(known, schemas, required=["steps"])


def schema() -> dict[str, Any]:
    """The schema. Validate the YAML of a definition with it; ``on`` must be read as a text, as YAML 1.2 does."""
    concurrency = _keys(("group", "cancel-in-progress"), {"group": _TEXT, "cancel-in-progress": _FLAG})
    schemas = {
        "name": _TEXT, "on": _triggers(), "inputs": _INPUTS, "outputs": _VALUES,
        "concurrency": {"anyOf": [_TEXT, concurrency | {"required": ["group"]}]}, "env": _ENV,
        "sensitive": _TEXT | {"description": "Seals the values of its runs: whose they are, a text of inputs."},
        "timeout-minutes": _MINUTES,
        "jobs": _names(ID.pattern, {"$ref": "#/$defs/job"}) | {"maxProperties": JOBS_MAX},
        "steps": {"$ref": "#/$defs/steps"},
    }  # fmt: skip
    top = _keys(yaml_source.TOP, schemas, required=["name"], oneOf=[{"required": ["jobs"]}, {"required": ["steps"]}])
    steps = {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1, "maxItems": STEPS_MAX}
    return {
        "$schema": URL, "title": "A workflow of Countermark", **top,
        "$defs": {"inputs": _names(ID.pattern, _INPUT), "job": _job(), "steps": steps, "step": _step()},
    }  # fmt: skip
