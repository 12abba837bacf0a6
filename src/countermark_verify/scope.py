"""What an extract says it is about (docs/spec/pack.md): a case, a day of an agent or of a workflow, or a period."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from countermark_verify.bodies_workflow import TITLE
from countermark_verify.shape import const, either, integer, maybe, record, text
from countermark_verify.streams import stream_of

_DAY = text(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NAME = text(r"[^\x00-\x1f]+", chars_max=1_000)
_TIMES = {"from": integer(), "to": integer()}
SCOPE = either(
    record({"kind": const("period"), **_TIMES}),
    record({"kind": const("case"), "run": _NAME, "action": maybe(text(r"act_[0-9a-f]{32}")), **_TIMES}),
    record({"kind": const("agent"), "agent": _NAME, "day": _DAY, "zone": text(chars_max=100), **_TIMES}),
    record({"kind": const("workflow"), "workflow": text(TITLE), "day": _DAY, "zone": text(chars_max=100), **_TIMES}),
)
_ZERO = datetime(1970, 1, 1, tzinfo=UTC)
BEGINNINGS = "where runs began and ended; what they did or paid is not in this pack"
_UNSAFE = re.compile(r"[^ -~]")


@dataclass(frozen=True)
class Scope:
    """`start` <= time < `end`, in microseconds. `subject` is the stream that it is about; of a period there is none."""

    document: Mapping[str, Any]
    subject: str | None

    @property
    def kind(self) -> str:
        return str(self.document["kind"])

    @property
    def start(self) -> int:
        return int(self.document["from"])

    @property
    def end(self) -> int:
        return int(self.document["to"])


def scope_of(document: Mapping[str, Any]) -> Scope:
    """The scope of a predicate's member, which has its shape."""
    subject = None
    if document["kind"] == "agent":
        subject = stream_of("a", document["agent"])
    elif document["kind"] == "workflow":
        subject = stream_of("w", document["workflow"])
    elif document["kind"] == "case":
        subject = stream_of("r", document["run"])
    return Scope(document, subject)


def day_bounds(day: str, zone: str) -> tuple[int, int]:
    """From when until before when a day lasts. Raises `KeyError`, `ValueError`, `OSError` or `OverflowError`."""
    first = date.fromisoformat(day)
    return _begin(first, zone), _begin(first + timedelta(days=1), zone)


def _begin(day: date, zone: str) -> int:
    moment = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return (moment.astimezone(UTC) - _ZERO) // timedelta(microseconds=1)


def scope_lines(shown: Mapping[str, Any] | None) -> list[str]:
    """What the page for people says of an extract."""
    if shown is None:
        return []
    about = "everything"
    if shown["kind"] == "agent":
        about = f"agent {shown['agent']} on {shown['day']} ({shown['zone']})"
    elif shown["kind"] == "workflow":
        about = f"runs of {shown['workflow']} on {shown['day']} ({shown['zone']})"
    elif shown["kind"] == "case":
        about = f"run {shown['run']}" + (f", for action {shown['action']}" if shown["action"] else "")
    times = f"from {_when(shown['from'])} until before {_when(shown['to'])}"
    found = "" if shown["records"] is None else f": {shown['records'] or 'no'} records"
    if shown["inside"] == 0 and "day" in shown:
        of_a_workflow = f"no run of {shown.get('workflow')} began or ended"
        found += f"; on that day {of_a_workflow if shown['kind'] == 'workflow' else 'nothing is recorded of it'}"
    lines = [_UNSAFE.sub("?", f"about  {about}, {times}{found}")]
    return [*lines, f"       {BEGINNINGS}"] if shown["kind"] == "workflow" else lines


def _when(at: int) -> str:
    try:
        return (_ZERO + timedelta(microseconds=at)).strftime("%Y-%m-%d %H:%M:%S UTC")
    except OverflowError:
        return f"{at} us"
