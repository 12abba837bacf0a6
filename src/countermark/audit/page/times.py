"""Moments in UTC and in the policy's zone. No clock and no locale: the same record is written the same everywhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from countermark.audit.page.markup import Html, inside, tag
from countermark.model.words import written

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return None  # a machine without this zone shows UTC alone


def utc(at_us: int) -> str:
    """``3 Nov 2026, 09:12:03 UTC``."""
    moment = _EPOCH + timedelta(microseconds=at_us)
    return f"{written(moment.date())}, {moment:%H:%M:%S} UTC"


def local(at_us: int, zone: str) -> str:
    """``10:12:03 in Europe/Berlin``, with the day where it is another one; "" where the zone is not known here."""
    known = _zone(zone)
    if known is None or zone == "UTC":
        return ""
    moment = _EPOCH + timedelta(microseconds=at_us)
    there = moment.astimezone(known)
    day = f"{written(there.date())}, " if there.date() != moment.date() else ""
    return f"{day}{there:%H:%M:%S} in {zone}"


def both(at_us: int, zone: str) -> Html:
    """A moment in UTC and in the zone."""
    there = local(at_us, zone)
    return inside(tag("time", utc(at_us)), tag("span", f" ({there})", cls="soft") if there else None)
