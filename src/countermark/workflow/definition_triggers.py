"""What starts a run by itself, as a definition says it (``docs/spec/workflow-triggers.md``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from countermark.model.canon import canon
from countermark.model.errors import ArgumentError
from countermark.workflow import cron as schedules
from countermark.workflow import definition_read as read
from countermark.workflow.definition_read import fail
from countermark.workflow.errors import DefinitionError, Path

TRIGGERS_MAX = 16
SOURCE: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
MISSED: Final = ("skip", "latest", "all")
_MEMBERS: Final = {
    "manual": ("kind",),
    "schedule": ("kind", "cron", "zone", "missed", "with"),
    "webhook": ("kind", "source", "if", "with"),
    "chain": ("kind", "source", "if", "with"),
}


def read_triggers(value: Any, path: Path) -> tuple[Mapping[str, Any], ...]:
    """Triggers, sorted by their canonical bytes, none twice. Raises ``DefinitionError``."""
    found = [_trigger(item, (*path, number)) for number, item in enumerate(read.items(value, path, TRIGGERS_MAX))]
    order = [canon(item) for item in found]
    if order != sorted(set(order)):
        fail(path, "triggers are sorted by their canonical bytes, and none stands twice")
    same = [_identity(item) for item in found]
    for number, one in enumerate(same):
        if one in same[:number]:
            fail((*path, number), "two triggers have this " + ("cron and zone" if len(one) == 2 else "source"))
    return tuple(found)


def _identity(trigger: Mapping[str, Any]) -> tuple[str, ...]:
    """What no two triggers share: schedule and zone, or a source."""
    return (trigger["cron"], trigger["zone"]) if trigger["kind"] == "schedule" else (trigger.get("source", ""),)


def _trigger(value: Any, path: Path) -> Mapping[str, Any]:
    if type(value) is not dict or "kind" not in value:
        fail(path, "a trigger is an object with a `kind`")
    kind = read.choice(value["kind"], (*path, "kind"), _MEMBERS)
    found = read.members(value, path, _MEMBERS[kind])
    if kind == "schedule":
        read.choice(found["missed"], (*path, "missed"), MISSED)
        _check_cron(read.text(found["cron"], (*path, "cron")), read.text(found["zone"], (*path, "zone")), path)
    elif kind != "manual":
        read.named(found["source"], (*path, "source"), SOURCE, "1 to 40 of a-z 0-9 -, and begins with a letter")
        if found["if"] is not None:
            read.expression(found["if"], (*path, "if"), condition=False)
    if "with" in found:
        read.pairs(found["with"], (*path, "with"))
    return found


def _check_cron(cron: str, zone: str, path: Path) -> None:
    try:
        schedules.check(cron, zone)
    except ArgumentError as error:
        raise DefinitionError(error.message, hint=error.hint, path=(*path, error.field)) from None
