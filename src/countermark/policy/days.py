"""Calendar days of a zone as times: where an epoch ends, and what a day is in an extract (``docs/spec/pack.md``)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from countermark.model.errors import FactError

_ZERO = datetime(1970, 1, 1, tzinfo=UTC)


def day_start(day: date, zone: str) -> int:
    """When a day begins (microseconds): the first of two midnights, where the clock is set back over it.

    Raises:
        FactError: this machine does not know the zone, or the day lies outside the calendar.
    """
    try:
        moment = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
        return (moment.astimezone(UTC) - _ZERO) // timedelta(microseconds=1)
    except (KeyError, ValueError, OSError, OverflowError):
        raise FactError("local_day", hint=f"The time zone {zone} is not known on this machine.") from None


def day_bounds(day: date, zone: str) -> tuple[int, int]:
    """From when until before when a day lasts. Raises ``FactError``."""
    try:
        following = day + timedelta(days=1)
    except OverflowError:
        raise FactError("local_day", hint="There is no day after it.") from None
    return day_start(day, zone), day_start(following, zone)


def midnight_after(at: int, zone: str) -> int:
    """The first beginning of a day in ``zone`` that is later than ``at`` (microseconds). Raises ``FactError``."""
    try:
        day = (_ZERO + timedelta(microseconds=at)).astimezone(ZoneInfo(zone)).date()
    except (KeyError, ValueError, OSError, OverflowError):
        raise FactError("local_day", hint=f"The time zone {zone} is not known on this machine.") from None
    begin, end = day_bounds(day, zone)
    return begin if begin > at else end
