"""Schedules: five fields of cron in a zone, and the minutes that they name (``docs/spec/workflow-triggers.md``).

cronsim reads the fields; which minutes they name is worked out here day by day, so that an answer does not depend on
where the counting began. Times are integer microseconds UTC, nominal times whole minutes. Needs the extra ``workflow``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from countermark.model.clock import US
from countermark.model.errors import ArgumentError, ConfigError

if TYPE_CHECKING:
    from cronsim.cronsim import CronSim

CRON_CHARS_MAX = 100
FIELDS = 5
CYCLE_YEARS = 400  # after so many years the calendar repeats itself, weekdays and all
DAYS_KEPT = 64
MARGIN_DAYS = 2  # a zone may skip a whole day, and set its clock back over midnight

_CHARS = re.compile(r"[0-9A-Z*,/#-]+(?: [0-9A-Z*,/#-]+){4}")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")
_NOT_ZONES = ("posix", "right", "localtime", "Factory")  # other files of a tz database; `right` counts leap seconds
_ZERO = datetime(1970, 1, 1, tzinfo=UTC)
_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class _Schedule:
    fields: CronSim
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    fixed: bool  # names times of the day: each comes once a day, whatever the clock does
    zone: tzinfo

    def on(self, day: date) -> bool:
        """Whether the fields of month and day fit."""
        return day.month in self.fields.months and self.fields.match_day(day)


def spelled(cron: str) -> str:
    """The fields as a definition has them: in capitals, one space between them."""
    return " ".join(cron.upper().split())


def check(cron: str, zone: str) -> None:
    """Raises ``ArgumentError`` (``field``: ``cron`` or ``zone``) unless both are as a definition may have them."""
    _schedule(cron, zone)


def due(cron: str, zone: str, after_us: int, now_us: int, limit: int) -> list[int]:
    """The newest ``limit`` nominal times after ``after_us`` and not after ``now_us``, in their order.

    Raises ``ArgumentError`` as ``check`` does.
    """
    schedule = _schedule(cron, zone)
    day = min(_local(now_us, schedule.zone).date(), date.max - MARGIN_DAYS * _DAY) + _DAY
    first = max(_local(after_us, schedule.zone).date(), date.min + MARGIN_DAYS * _DAY) - MARGIN_DAYS * _DAY
    found: set[int] = set()
    more = MARGIN_DAYS
    while day >= first and more:
        if schedule.on(day):
            found.update(at for at in _of_day(cron, zone, day) if after_us < at <= now_us)
        more -= len(found) >= limit  # what a day before names may be later than what this one does
        day -= _DAY
    return sorted(found)[-limit:] if limit > 0 else []


def following(cron: str, zone: str, after_us: int) -> int | None:
    """The next nominal time after ``after_us``; None beyond the end of the calendar. Raises as ``check`` does."""
    schedule = _schedule(cron, zone)
    day = max(_local(after_us, schedule.zone).date(), date.min + MARGIN_DAYS * _DAY) - MARGIN_DAYS * _DAY
    found: set[int] = set()
    more = MARGIN_DAYS + 1
    while more and day < date.max - _DAY:
        if schedule.on(day):
            found.update(at for at in _of_day(cron, zone, day) if at > after_us)
        more -= bool(found)
        day += _DAY
    return min(found, default=None)


def local_of(at_us: int, zone: str) -> tuple[str, str]:
    """Day and time in a zone, ``YYYY-MM-DD`` and ``HH:MM``."""
    moment = _local(at_us, ZoneInfo(zone))
    return moment.strftime("%Y-%m-%d"), moment.strftime("%H:%M")


@lru_cache(maxsize=256)
def _schedule(cron: str, zone: str) -> _Schedule:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise ConfigError(
            "the extra workflow is not installed", code="missing_extra", hint="uv add 'countermark[workflow]'"
        ) from None
    where = _zone(zone)
    if not isinstance(cron, str) or len(cron) > CRON_CHARS_MAX or _CHARS.fullmatch(cron) is None:
        raise _bad(_why(cron))
    try:
        fields = CronSim(cron, datetime(2000, 1, 1))  # only its fields are used
    except CronSimError as error:
        named = str(error).removeprefix("Bad ").replace("-", " ")
        raise _bad(f"the field {named} of {cron!r} is not one, or names nothing") from None
    except AssertionError:  # steps of MON#2
        raise _bad(f"the field day of week of {cron!r} is not one, or names nothing") from None
    fixed = not fields.parts[1].startswith("*") and not fields.parts[2].startswith("*")
    found = _Schedule(fields, tuple(sorted(fields.hours)), tuple(sorted(fields.minutes)), fixed, where)
    if not any(found.on(day) for day in _cycle()):
        raise _bad(f"no day fits {cron!r}")
    return found


def _zone(zone: str) -> ZoneInfo:
    fits = isinstance(zone, str) and _ZONE.fullmatch(zone) is not None and zone.split("/")[0] not in _NOT_ZONES
    try:
        if fits:
            return ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        pass
    raise ArgumentError(
        f"{zone!r:.80} is not a time zone", field="zone", hint="Write a name of the tz database, such as Europe/Berlin."
    )


def _why(cron: object) -> str:
    if not isinstance(cron, str):
        return "a schedule is a text"
    if cron.startswith("@"):
        return f"{cron!r:.80} is a nickname; write the five fields"
    if len(cron.split()) != FIELDS:
        return f"{cron!r:.80} has {len(cron.split())} fields, not minute, hour, day of month, month, day of week"
    if cron != spelled(cron):
        return f"{cron!r:.80} is not in capitals with one space between fields"
    return f"{cron!r:.80} is longer than {CRON_CHARS_MAX} characters, or holds one that no schedule has"


def _bad(message: str) -> ArgumentError:
    return ArgumentError(message, field="cron", hint='For instance "0 9 * * MON-FRI": at nine on working days.')


def _cycle() -> Iterator[date]:
    day = date(2000, 1, 1)
    while day.year < 2000 + CYCLE_YEARS:
        yield day
        day += _DAY


def _local(at_us: int, zone: tzinfo) -> datetime:
    return (_ZERO + timedelta(seconds=at_us // US)).astimezone(zone)


def _us(moment: datetime) -> int:
    return (moment.astimezone(UTC) - _ZERO) // timedelta(seconds=1) * US


@lru_cache(maxsize=DAYS_KEPT)
def _of_day(cron: str, zone: str, day: date) -> tuple[int, ...]:
    """What the times of a local day that fits name."""
    schedule = _schedule(cron, zone)
    found: set[int] = set()
    for hour in schedule.hours:
        for minute in schedule.minutes:
            local = datetime.combine(day, time(hour, minute))
            found.update(_once(local, schedule.zone) if schedule.fixed else _each(local, schedule.zone))
    return tuple(sorted(found))


def _each(local: datetime, zone: tzinfo) -> set[int]:
    """Every moment at which the clock shows a time: one, two or none."""
    moments = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    return {_us(moment) for moment in moments if _is_shown(moment)}


def _once(local: datetime, zone: tzinfo) -> set[int]:
    """The first moment at which the clock shows a time, or, if it never does, the first minute that it shows then."""
    moment = local.replace(tzinfo=zone)
    while not _is_shown(moment):
        local += _MINUTE
        moment = local.replace(tzinfo=zone)
    return {_us(moment)}


def _is_shown(moment: datetime) -> bool:
    there = moment.astimezone(UTC).astimezone(moment.tzinfo)
    return there.replace(tzinfo=None, fold=0) == moment.replace(tzinfo=None, fold=0)
