"""Workflows: two front ends, one definition, one pure interpreter, and the engine that drives runs.

A part of the room is read when somebody asks for it: a settings file needs little of it, a run nearly all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from countermark.workflow.calls import Reach, reach_of
    from countermark.workflow.chain_events import ChainSource, read_signature
    from countermark.workflow.check import refusal
    from countermark.workflow.commands import (
        Act,
        Call,
        Cancel,
        Command,
        Compute,
        Delegate,
        End,
        Resume,
        Sleep,
        Wait,
        Withdraw,
    )
    from countermark.workflow.definition import Definition, matrix_of, read_definition
    from countermark.workflow.definition_check import ANYTHING, Known
    from countermark.workflow.definition_triggers import SOURCE
    from countermark.workflow.engine import Engine
    from countermark.workflow.errors import DefinitionError, ExpressionError, nearest
    from countermark.workflow.expressions import Status, canonical, evaluate, fill
    from countermark.workflow.flow import Workflow
    from countermark.workflow.graph import svg
    from countermark.workflow.machine import Machine
    from countermark.workflow.migration import may_migrate
    from countermark.workflow.paths import Deviation, Path, path_of
    from countermark.workflow.progress import JobRow, Row
    from countermark.workflow.projection import Projection
    from countermark.workflow.receipts import receipt, weakest
    from countermark.workflow.scheduler import Moment, Runs, Scheduler
    from countermark.workflow.service import Service
    from countermark.workflow.sources import (
        BASE64,
        ENCODINGS,
        GITHUB,
        HEX,
        HMAC,
        KEPT_MAX,
        SCHEMES,
        STANDARD,
        STRIPE,
        TOLERANCE_S,
        WebhookSource,
        check_kept,
        check_pointer,
        received,
    )
    from countermark.workflow.standing import Standing
    from countermark.workflow.triggers import Planned, Schedule, Start, Unstarted, key_of, starts_of
    from countermark.workflow.watcher import ChainWatcher, Position, PositionFile
    from countermark.workflow.yaml_schema import schema
    from countermark.workflow.yaml_source import Source, compile_yaml, read_yaml

_PARTS = {
    "calls": ("Reach", "reach_of"),
    "chain_events": (
        "ChainSource",
        "read_signature",
    ),
    "check": ("refusal",),
    "commands": (
        "Act",
        "Call",
        "Cancel",
        "Command",
        "Compute",
        "Delegate",
        "End",
        "Resume",
        "Sleep",
        "Wait",
        "Withdraw",
    ),
    "definition": (
        "Definition",
        "matrix_of",
        "read_definition",
    ),
    "definition_check": (
        "ANYTHING",
        "Known",
    ),
    "definition_triggers": ("SOURCE",),
    "engine": ("Engine",),
    "errors": (
        "DefinitionError",
        "ExpressionError",
        "nearest",
    ),
    "expressions": (
        "Status",
        "canonical",
        "evaluate",
        "fill",
    ),
    "flow": ("Workflow",),
    "graph": ("svg",),
    "machine": ("Machine",),
    "migration": ("may_migrate",),
    "paths": (
        "Deviation",
        "Path",
        "path_of",
    ),
    "progress": (
        "JobRow",
        "Row",
    ),
    "projection": ("Projection",),
    "receipts": ("receipt", "weakest"),
    "scheduler": (
        "Moment",
        "Runs",
        "Scheduler",
    ),
    "service": ("Service",),
    "sources": (
        "BASE64",
        "ENCODINGS",
        "GITHUB",
        "HEX",
        "HMAC",
        "KEPT_MAX",
        "SCHEMES",
        "STANDARD",
        "STRIPE",
        "TOLERANCE_S",
        "WebhookSource",
        "check_kept",
        "check_pointer",
        "received",
    ),
    "standing": ("Standing",),
    "triggers": (
        "Planned",
        "Schedule",
        "Start",
        "Unstarted",
        "key_of",
        "starts_of",
    ),
    "watcher": (
        "ChainWatcher",
        "Position",
        "PositionFile",
    ),
    "yaml_schema": ("schema",),
    "yaml_source": (
        "Source",
        "compile_yaml",
        "read_yaml",
    ),
}
_WHERE = {name: part for part, names in _PARTS.items() for name in names}

__all__ = [
    "ANYTHING",
    "BASE64",
    "ENCODINGS",
    "GITHUB",
    "HEX",
    "HMAC",
    "KEPT_MAX",
    "SCHEMES",
    "SOURCE",
    "STANDARD",
    "STRIPE",
    "TOLERANCE_S",
    "Act",
    "Call",
    "Cancel",
    "ChainSource",
    "ChainWatcher",
    "Command",
    "Compute",
    "Definition",
    "DefinitionError",
    "Delegate",
    "Deviation",
    "End",
    "Engine",
    "ExpressionError",
    "JobRow",
    "Known",
    "Machine",
    "Moment",
    "Path",
    "Planned",
    "Position",
    "PositionFile",
    "Projection",
    "Reach",
    "Resume",
    "Row",
    "Runs",
    "Schedule",
    "Scheduler",
    "Service",
    "Sleep",
    "Source",
    "Standing",
    "Start",
    "Status",
    "Unstarted",
    "Wait",
    "WebhookSource",
    "Withdraw",
    "Workflow",
    "canonical",
    "check_kept",
    "check_pointer",
    "compile_yaml",
    "evaluate",
    "fill",
    "key_of",
    "matrix_of",
    "may_migrate",
    "nearest",
    "path_of",
    "reach_of",
    "read_definition",
    "read_signature",
    "read_yaml",
    "receipt",
    "received",
    "refusal",
    "schema",
    "starts_of",
    "svg",
    "weakest",
]


def __getattr__(name: str) -> Any:
    part = _WHERE.get(name)
    if part is None:
        raise AttributeError(name)
    return getattr(import_module(f"countermark.workflow.{part}"), name)
