"""Business time (docs/spec/policy.md): when so many seconds of it have passed, over changes of a zone's clock."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

_DAY_S = 86_400
_QUARTER_S = 900
_US = 1_000_000
DAYS_MAX = 240  # no rung lasts longer: a bundle's shape says so


def due(start: int, deadline_s: int, hours: Mapping[str, Any] | None, zone: str) -> int | None:
    """The first moment (microseconds) by which the seconds have passed since `start`; None when years go by.

    Raises `KeyError`, `ValueError` or `OSError` for a zone that this machine does not have.
    """
    if hours is None:
        return start + deadline_s * _US
    left = deadline_s * _US
    first = start // _US // _DAY_S - 1  # a zone's date is at most a day behind UTC's
    for day in range(first, first + DAYS_MAX):
        for opens, closes in _windows(day, hours["from"], hours["to"], tuple(hours["days"]), zone):
            begin = max(start, opens * _US)
            length = closes * _US - begin
            if length >= left:
                return begin + left
            left -= max(length, 0)
    return None


@lru_cache(maxsize=8_192)
def _windows(day: int, opens: int, closes: int, days: tuple[int, ...], zone: str) -> tuple[tuple[int, int], ...]:
    """The business time of a local day (days since 1970), as seconds UTC from and to."""
    if (day + 3) % 7 + 1 not in days:
        return ()
    midnight = day * _DAY_S
    wall = midnight + opens * 60, midnight + closes * 60
    before, after = _offset(midnight - _DAY_S, zone), _offset(midnight + 2 * _DAY_S, zone)
    if before == after:
        return ((wall[0] - before, wall[1] - before),)
    # The clock changes about this day: a quarter of an hour after the other, since it changes on one of them.
    parts: list[tuple[int, int]] = []
    for at in range(midnight - _DAY_S, midnight + 2 * _DAY_S, _QUARTER_S):
        offset = _offset(at, zone)
        begin, end = max(at + offset, wall[0]), min(at + offset + _QUARTER_S, wall[1])
        if begin < end:
            parts.append((begin - offset, end - offset))
    return tuple(parts)


@lru_cache(maxsize=65_536)
def _offset(at: int, zone: str) -> int:
    moment = datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(zone)).utcoffset()
    return int(moment.total_seconds()) if moment is not None else 0
