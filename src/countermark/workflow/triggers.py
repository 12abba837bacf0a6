"""What starts a run: the triggers of a definition, and the runs that time and events ask for.

Pure: it takes documents, records and a time, and says what is to be started. Whoever commits a run sees to it that each
``(name, kind, event)`` starts one. The rules are those of ``docs/spec/workflow-triggers.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.model.clock import US
from countermark.workflow.cron import due, following, local_of
from countermark.workflow.errors import ExpressionError
from countermark.workflow.expressions import evaluate, fill, truth

MANUAL, SCHEDULE, WEBHOOK, CHAIN = "manual", "schedule", "webhook", "chain"
SKIP, LATEST, ALL = "skip", "latest", "all"
GRACE_US = 60 * US  # with `skip`, a nominal time is missed when so much has passed
RUNS_MAX = 100  # of one schedule at once, with `all`
LEFT_COUNTED_MAX = 1_000
RECEIPT, RECEIPT_CHECKED = RECEIPTS = ("receipt", "receipt-checked")  # schemes of events on a chain

_OF_A_SCHEDULE = re.compile(r"(0|[1-9][0-9]{0,11}) ([^ ]+) (.+)")
_CONTEXT = "event"


@dataclass(frozen=True, slots=True)
class Start:
    """A run to start: ``given`` are the inputs that the trigger gives, by name, without those that came out null.

    ``event`` and ``record`` are members of ``run.started``'s ``trigger``.
    """

    name: str
    kind: str
    event: str
    record: int | None
    given: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unstarted:
    """An event of a trigger's source that starts no run, because its ``if`` or ``with`` fails."""

    name: str
    kind: str
    event: str
    record: int | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Planned:
    """What a schedule asks for now. ``left``: nominal times that are passed over, counted up to a bound.

    ``upto`` is the newest nominal time that is due (microseconds), None when none is.
    """

    starts: tuple[Start | Unstarted, ...] = ()
    left: int = 0
    upto: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule of a definition."""

    name: str
    trigger: Mapping[str, Any]

    @property
    def what(self) -> tuple[str, str]:
        """Cron and zone."""
        return self.trigger["cron"], self.trigger["zone"]

    def plan(self, after_us: int, now_us: int) -> Planned:
        """What is due now, when it is handled up to ``after_us``: what is to be started, in its order."""
        cron, zone = self.what
        found = due(cron, zone, after_us, now_us, LEFT_COUNTED_MAX)
        if self.trigger["missed"] == SKIP:
            kept = [at for at in found if at > now_us - GRACE_US]
        else:
            kept = found[-1 if self.trigger["missed"] == LATEST else -RUNS_MAX :]
        runs = (
            _started(self.name, self.trigger, schedule_event(at, cron, zone), None, event_of(at, zone)) for at in kept
        )
        starts = tuple(one for one in runs if one is not None)
        return Planned(starts, len(found) - len(kept), found[-1] if found else None)

    def next_us(self, after_us: int) -> int | None:
        """When it is due next, or was; None when never again."""
        return following(*self.what, after_us)


def schedules_of(document: Mapping[str, Any]) -> list[Schedule]:
    """The schedules of a definition, in its order."""
    return [Schedule(str(document["name"]), one) for one in document["triggers"] if one["kind"] == SCHEDULE]


def starts_of(documents: Iterable[Mapping[str, Any]], seq: int, body: Mapping[str, Any]) -> list[Start | Unstarted]:
    """The runs that an ``event.received`` (its seq and body) starts, of the definitions in force, in their order."""
    found: list[Start | Unstarted] = []
    kind = CHAIN if body["scheme"] in RECEIPTS else WEBHOOK
    for document in documents:
        for trigger in document["triggers"]:
            if trigger["kind"] != kind or trigger["source"] != body["source"]:
                continue
            event = f"{body['source']} {body['event']}"
            one = _started(str(document["name"]), trigger, event, seq, body["payload"])
            if one is not None:
                found.append(one)
    return found


def key_of(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """Source and key of the waits that an ``event.received`` wakes; None when it wakes nobody."""
    return (str(body["source"]), str(body["key"])) if body["key"] else None


def schedule_event(at_us: int, cron: str, zone: str) -> str:
    """The member ``event`` of a run that a schedule starts."""
    return f"{at_us // US} {zone} {cron}"


def read_schedule_event(event: str) -> tuple[int, str, str] | None:
    """Nominal time (microseconds), cron and zone of such a member; None when it is none."""
    found = _OF_A_SCHEDULE.fullmatch(event)
    return None if found is None else (int(found[1]) * US, found[3], found[2])


def event_of(at_us: int, zone: str) -> dict[str, Any]:
    """The context ``event`` of a schedule's trigger."""
    day, time = local_of(at_us, zone)
    return {"at": at_us // US, "day": day, "time": time, "zone": zone}


def _started(
    name: str, trigger: Mapping[str, Any], event: str, record: int | None, payload: Any
) -> Start | Unstarted | None:
    """A run, a failure, or None when the trigger's condition does not hold."""
    kind, scope = str(trigger["kind"]), {_CONTEXT: payload}
    try:
        condition = trigger.get("if")
        if condition is not None and not truth(evaluate(condition, scope)):
            return None
        filled = {given: fill(template, scope) for given, template in trigger["with"]}
    except ExpressionError as error:
        return Unstarted(name, kind, event, record, error.code, error.message)
    return Start(name, kind, event, record, {given: value for given, value in filled.items() if value is not None})
