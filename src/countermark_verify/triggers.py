"""V21: what started a run of a workflow, and the inputs that it gave (docs/spec/workflow-triggers.md)."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from countermark_verify.chain_events import SCHEMES
from countermark_verify.definition import Definition, admits
from countermark_verify.errors import Malformed
from countermark_verify.evaluate import Failed, alike, fill, short, truth, value_of
from countermark_verify.flow import LATE_US_MAX, SECOND
from countermark_verify.schedule import read_cron
from countermark_verify.sealed import SUBJECT

_NOMINAL = re.compile(r"(0|[1-9][0-9]{0,11}) ([^ ]+) (.+)", re.ASCII)
_MISSED_S = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def inputs_of(definition: Definition, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every declared input: what is given, else its default; raises `Malformed` where that does not fit."""
    declared = definition.document["inputs"]
    if unknown := sorted(given.keys() - declared.keys()):
        raise Malformed(f"has no input {unknown[0]}")
    inputs = {name: row["default"] if given.get(name) is None else given[name] for name, row in declared.items()}
    for name, value in inputs.items():
        if not admits(declared[name], value):
            raise Malformed(f"has an input {name} that may not be this")
    return inputs


def subject_of(definition: Definition, inputs: Mapping[str, Any]) -> str | None:
    """Whose the values of a sealed run are, None where the inputs name nobody."""
    try:
        found = fill(definition.subject, {"inputs": inputs})
    except Failed:
        return None
    return found if type(found) is str and re.fullmatch(SUBJECT, found, re.ASCII) else None


def unfit(definition: Definition, given: Mapping[str, Any]) -> bool:
    """Whether a call that gives this cannot begin: by its inputs, its group, or its subject."""
    try:
        inputs = inputs_of(definition, given)
        if (concurrency := definition.document["concurrency"]) is not None:
            fill(concurrency["group"], {"inputs": inputs, "run": {"name": definition.name}})
    except (Failed, Malformed):
        return True
    nobody = definition.subject is not None and subject_of(definition, inputs) is None
    return nobody or not short(inputs)


def misfit(definition: Definition, inputs: Mapping[str, Any]) -> str:
    """Why these are not the inputs of a run, or ""."""
    declared = definition.document["inputs"]
    if inputs.keys() != declared.keys():
        return "the run has other inputs than the definition declares"
    crooked = [name for name, value in inputs.items() if not admits(declared[name], value)]
    return f"the input {crooked[0]} may not be this" if crooked else ""


def unfounded(definition: Definition, started: Mapping[str, Any], at: int, event: Mapping[str, Any] | None) -> str:
    """Why the definition's triggers do not start this run, or ""; `event` is the `event.received` it names.

    `inputs` of None are sealed and not shown: they are not compared.
    """
    said, triggers = started["trigger"], definition.document["triggers"]
    kind = said["kind"]
    if (said["record"] is not None) != (kind in ("webhook", "chain")) or (started["parent"] is not None) != (
        kind == "call"
    ):
        return "an event or another run is named exactly where one starts this run"
    if kind == "call":
        return ""
    if kind == "manual":
        return ""  # whoever may ask at the gate starts it
    if kind == "schedule":
        return _scheduled(definition, started, at)
    if event is None:
        return "no such event was recorded before"
    found = [row for row in triggers if row["kind"] == kind and row["source"] == event["source"]]
    if event["scheme"] not in SCHEMES[kind] or not found or said["event"] != f"{event['source']} {event['event']}":
        return "no trigger of the definition is for this event"
    return _given(definition, found[0], event["payload"], started["inputs"])


def _scheduled(definition: Definition, started: Mapping[str, Any], at: int) -> str:
    """The nominal time is one of the schedule, and not later than the record."""
    named = _NOMINAL.fullmatch(started["trigger"]["event"])
    if named is None:
        return "a run of a schedule does not name its time"
    seconds, zone, cron = int(named[1]), named[2], named[3]
    found = [
        row
        for row in definition.document["triggers"]
        if row["kind"] == "schedule" and (row["cron"], row["zone"]) == (cron, zone)
    ]
    if not found or seconds % 60 or seconds * SECOND > at:
        return "no trigger of the definition has this time, or it has not come yet"
    if found[0]["missed"] == "skip" and at > (seconds + _MISSED_S) * SECOND + LATE_US_MAX:
        return "the time was missed, and such times are left out"
    try:
        local = (_EPOCH + timedelta(seconds=seconds)).astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError, OSError, OverflowError):
        return ""  # this machine does not know the zone
    if not read_cron(cron).names(local):
        return "the schedule does not name this time"
    event = {"at": seconds, "day": f"{local:%Y-%m-%d}", "time": f"{local:%H:%M}", "zone": zone}
    return _given(definition, found[0], event, started["inputs"])


def _given(definition: Definition, trigger: Mapping[str, Any], event: Any, inputs: Mapping[str, Any] | None) -> str:
    scope = {"event": event}
    try:
        if trigger.get("if") is not None and not truth(value_of(trigger["if"], scope)):
            return "the trigger's condition is false"
        expected = inputs_of(definition, {name: fill(template, scope) for name, template in trigger["with"]})
    except (Failed, Malformed) as error:
        return f"the trigger {error}"
    return "" if inputs is None or alike(expected, inputs) else "the inputs are not those that the trigger gives"
