"""Business time: the two clocks of the house against one that looks at every minute."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.model.errors import FactError, PolicyError
from countermark.policy import BusinessHours, due_at
from countermark.policy.hours import OFFICE, SPAN_DAYS_MAX, hours_of, local_time
from countermark_verify import hours as verifier

MINUTE = 60_000_000
# Offsets of whole, half and quarter hours; clocks that change by an hour, by half of one, and by a day.
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns",
    "Pacific/Chatham", "Africa/Casablanca", "Pacific/Apia", "Asia/Gaza",
)  # fmt: skip


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * 1_000_000


def naive(start: int, deadline_s: int, hours: BusinessHours, zone: str) -> int:
    """Every minute is business time or not, by what a clock on the wall shows."""
    left, now, info = deadline_s * 1_000_000, start, ZoneInfo(zone)
    while True:
        local = datetime.fromtimestamp(now // 1_000_000, UTC).astimezone(info)
        later = (now // MINUTE + 1) * MINUTE
        if local.isoweekday() in hours.days and hours.start <= local.hour * 60 + local.minute < hours.end:
            if later - now >= left:
                return now + left
            left -= later - now
        now = later


def agreed(start: int, deadline_s: int, hours: BusinessHours, zone: str) -> int:
    """What both say; they must say the same."""
    found = due_at(start, deadline_s, hours, zone)
    assert verifier.due(start, deadline_s, hours.document(), zone) == found
    return found


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    start=st.integers(at("2026-01-01T00:00Z"), at("2027-12-31T00:00Z")),
    deadline_s=st.integers(1, 40 * 3_600),
    opens=st.integers(0, 1_439),
    length=st.integers(1, 1_440),
    days=st.sets(st.integers(1, 7), min_size=1),
)
def test_a_rung_ends_when_its_business_minutes_are_over(
    zone: str, start: int, deadline_s: int, opens: int, length: int, days: set[int]
) -> None:
    """For any zone, hours, days and start, to the microsecond."""
    hours = BusinessHours(opens, min(opens + length, 1_440), tuple(sorted(days)))
    deadline_s = min(deadline_s, max(1, 14 * hours.week_s // 7))  # a fortnight: the slow clock has to walk it
    assert agreed(start, deadline_s, hours, zone) == naive(start, deadline_s, hours, zone)


@pytest.mark.parametrize("zone", ZONES)
def test_a_change_of_the_clock_is_counted_as_it_is(zone: str) -> None:
    """Around every change from 2010 to 2030, also with hours that lie in the one that is skipped or repeated."""
    chance = Random(zone)
    for change in changes(zone):
        for _ in range(6):
            opens = chance.randrange(0, 1_400)
            hours = BusinessHours(opens, chance.randrange(opens + 1, 1_441), (1, 2, 3, 4, 5, 6, 7))
            start = change * 1_000_000 - chance.randrange(30 * 3_600_000_000)
            deadline_s = chance.randrange(1, 2 * 60 * (hours.end - hours.start) + 2)
            assert agreed(start, deadline_s, hours, zone) == naive(start, deadline_s, hours, zone), (start, hours)


def changes(zone: str) -> list[int]:
    """When a zone's offset changes, in seconds; ten at the most."""
    info, found = ZoneInfo(zone), []

    def offset(second: int) -> object:
        return datetime.fromtimestamp(second, UTC).astimezone(info).utcoffset()

    for day in range(1_262_304_000, 1_893_456_000, 86_400):
        if offset(day) != offset(day + 86_400):
            found.append(next(s for s in range(day, day + 86_401, 900) if offset(s) != offset(day)))
    return found[:: max(1, len(found) // 10)]


@pytest.mark.parametrize(
    ("start", "deadline_s", "end"),
    [
        ("2026-11-30T09:00+01:00", 4 * 3_600, "2026-11-30T13:00+01:00"),
        ("2026-11-30T15:00+01:00", 4 * 3_600, "2026-12-01T11:00+01:00"),
        ("2026-11-27T16:00+01:00", 4 * 3_600, "2026-11-30T12:00+01:00"),  # over a weekend
        ("2026-11-28T12:00+01:00", 3_600, "2026-11-30T10:00+01:00"),  # asked on a Saturday
        ("2026-11-30T09:00+01:00", 8 * 3_600, "2026-11-30T17:00+01:00"),  # to the minute at which the office closes
        ("2026-11-30T17:00+01:00", 1, "2026-12-01T09:00:01+01:00"),
        ("2026-10-23T16:00+02:00", 2 * 3_600, "2026-10-26T10:00+01:00"),  # the clock goes back in between
        ("2026-03-27T16:00+01:00", 2 * 3_600, "2026-03-30T10:00+02:00"),
    ],
)
def test_office_hours_in_berlin(start: str, deadline_s: int, end: str) -> None:
    """What people expect of four office hours."""
    assert agreed(at(start), deadline_s, OFFICE, "Europe/Berlin") == at(end)


def test_without_hours_the_clock_does_not_stop() -> None:
    """A deadline that is not in business time is that many seconds, whatever the zone does."""
    start = at("2026-10-25T00:30Z")
    assert due_at(start, 3_600, None, "Europe/Berlin") == verifier.due(start, 3_600, None, "Europe/Berlin")
    assert due_at(start, 3_600, None, "Europe/Berlin") == start + 3_600_000_000


def test_hours_that_lead_nowhere_end_the_search() -> None:
    """Neither clock walks through years: one minute a week does not come to 30 days."""
    with pytest.raises(PolicyError):
        due_at(0, 30 * 86_400, BusinessHours(0, 1, (1,)), "UTC")
    assert verifier.due(0, 30 * 86_400, {"from": 0, "to": 1, "days": [1]}, "UTC") is None
    assert 2 * SPAN_DAYS_MAX >= verifier.DAYS_MAX


def test_an_unknown_zone_has_no_time() -> None:
    """It is missing, as a fact is."""
    with pytest.raises(FactError):
        local_time(0, "Mars/Olympus")


@pytest.mark.parametrize(
    "change",
    [{"from": 1_020}, {"to": 1_441}, {"from": -1}, {"days": []}, {"days": [1, 1]}, {"days": [2, 1]}, {"days": [0]},
     {"days": [8]}, {"zone": "UTC"}],
    ids=str,
)  # fmt: skip
def test_hours_of_a_bundle_are_part_of_a_day(change: dict[str, object]) -> None:
    """What is no time of a day, or no weekday, is refused."""
    assert hours_of(OFFICE.document()) == OFFICE
    with pytest.raises(PolicyError):
        hours_of({**OFFICE.document(), **change})
