"""Local time and business time: which minute it is in a zone, and when so many seconds of business time have passed.

Pure; times are microseconds UTC. The zone's rules are those of this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from countermark.model.clock import US
from countermark.model.errors import FactError, PolicyError

QUARTER_S = 900  # zones change their offset on quarter hours only
DAY_S = 86_400
SPAN_DAYS_MAX = 120  # the longest that a rung may last by the calendar: what ``due_at`` is prepared to walk


@dataclass(frozen=True, slots=True)
class BusinessHours:
    """When business time runs: minutes of the local day from ``start`` to before ``end``, on these ISO weekdays."""

    start: int
    end: int
    days: tuple[int, ...]

    def document(self) -> dict[str, Any]:
        return {"from": self.start, "to": self.end, "days": list(self.days)}

    @property
    def week_s(self) -> int:
        """Seconds of business time in an ordinary week."""
        return (self.end - self.start) * 60 * len(self.days)


OFFICE = BusinessHours(9 * 60, 17 * 60, (1, 2, 3, 4, 5))  # where limits.toml has no [hours]


def hours_of(doc: Any) -> BusinessHours | None:
    """Business hours of a compiled rung. Raises ``PolicyError``."""
    if doc is None:
        return None
    if doc.keys() != {"from", "to", "days"}:
        raise PolicyError("business hours do not have exactly their members")
    found = BusinessHours(doc["from"], doc["to"], tuple(doc["days"]))
    days = found.days
    if not 0 <= found.start < found.end <= 1_440 or not days or sorted(set(days) & set(range(1, 8))) != list(days):
        raise PolicyError("business hours are no part of a day, or their days are no weekdays")
    return found


@lru_cache(maxsize=4_096)
def _offset(quarter: int, zone: str) -> int:
    try:
        moment = datetime.fromtimestamp(quarter * QUARTER_S, UTC).astimezone(ZoneInfo(zone))
    except (KeyError, ValueError, OSError, OverflowError):
        raise FactError("local_minute", hint=f"The time zone {zone} is not known on this machine.") from None
    offset = moment.utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def local_time(at: int, zone: str) -> tuple[int, int]:
    """Minute of the day and ISO weekday at ``at`` in ``zone``."""
    seconds = at // US
    local = seconds + _offset(seconds // QUARTER_S, zone)
    return local % DAY_S // 60, _weekday(local)


def _weekday(local_s: int) -> int:
    return (local_s // DAY_S + 3) % 7 + 1


def due_at(start: int, deadline_s: int, hours: BusinessHours | None, zone: str) -> int:
    """The first moment at which ``deadline_s`` seconds have passed since ``start``; with ``hours`` of business time.

    Exact over changes of the zone's offset: a repeated hour counts twice, a skipped one not at all.

    Raises:
        FactError: the zone is not known here.
        PolicyError: the hours are so short that this lies years ahead.
    """
    if hours is None:
        return start + deadline_s * US
    left, at = deadline_s * US, start
    end = start + 2 * SPAN_DAYS_MAX * DAY_S * US
    while at < end:
        upto, running = _stretch(at, hours, zone)
        if running and upto - at >= left:
            return at + left
        left -= upto - at if running else 0
        at = upto
    raise PolicyError("the deadline of a rung is out of reach in its business hours")


def _stretch(at: int, hours: BusinessHours, zone: str) -> tuple[int, bool]:
    """Until when business time runs, or does not run, without a break from ``at`` on; at most until midnight."""
    seconds = at // US
    offset = _offset(seconds // QUARTER_S, zone)
    local = seconds + offset
    second, today = local % DAY_S, _weekday(local) in hours.days
    opens, closes = hours.start * 60, hours.end * 60
    running = today and opens <= second < closes
    if running:
        change = closes
    elif today and second < opens:
        change = opens
    else:
        change = DAY_S
    upto = seconds - second + change
    # Where the offset changes on the way, only as far as it stays: zones do so hours apart from each other.
    if _offset((upto - 1) // QUARTER_S, zone) != offset:
        upto = min(upto, (seconds // QUARTER_S + 1) * QUARTER_S)
    return upto * US, running
