"""Schedules against a model that looks at every minute, and against cronsim's own counting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from countermark.model.clock import US
from countermark.model.errors import ArgumentError
from countermark.workflow.cron import check, due, following, local_of, spelled

MINUTE = 60 * US
DAY = 86_400 * US
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Cairo",
    "Asia/Kathmandu", "Pacific/Apia", "America/Havana", "Atlantic/Azores", "Africa/Casablanca",
)  # fmt: skip


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(moment.timestamp()) * US


def shown(moments: list[int], zone: str) -> list[str]:
    return [datetime.fromtimestamp(one // US, ZoneInfo(zone)).strftime("%m-%d %H:%M %z") for one in moments]


def _set(field: str, low: int, high: int) -> set[int]:
    """A field of digits, lists, ranges and steps, read a second time."""
    found: set[int] = set()
    for part in field.split(","):
        body, _, step = part.partition("/")
        if body == "*":
            first, last = low, high
        elif "-" in body:
            first, last = map(int, body.split("-"))
        else:
            first = int(body)
            last = high if step else first
        found.update(range(first, last + 1, int(step or 1)))
    return found


def model(cron: str, zone: str, after: int, now: int) -> list[int]:
    """Every minute is looked at; a time of the day that the clock skips waits for the first minute after the gap."""
    minute, hour, day, month, weekday = cron.split()
    minutes, hours = _set(minute, 0, 59), _set(hour, 0, 23)
    days, months, weekdays = _set(day, 1, 31), _set(month, 1, 12), _set(weekday, 0, 7)
    both = day.startswith("*") or weekday.startswith("*")
    fixed = not minute.startswith("*") and not hour.startswith("*")

    def fits(local: datetime) -> bool:
        on_day = local.day in days
        on_weekday = local.isoweekday() in weekdays or local.isoweekday() % 7 in weekdays
        fit = (on_day and on_weekday) if both else (on_day or on_weekday)
        return local.minute in minutes and local.hour in hours and local.month in months and fit

    found: set[int] = set()
    seen: set[datetime] = set()
    clock = datetime.fromtimestamp(after // US, UTC).replace(second=0) - timedelta(days=3)
    last_local = clock.astimezone(ZoneInfo(zone)).replace(tzinfo=None) - timedelta(minutes=1)
    while int(clock.timestamp()) * US <= now:
        local = clock.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
        moment = int(clock.timestamp()) * US
        if fixed:
            skipped = last_local + timedelta(minutes=1)
            while skipped < local:
                if fits(skipped):
                    found.add(moment)
                skipped += timedelta(minutes=1)
            if fits(local) and local not in seen:
                found.add(moment)
        elif fits(local):
            found.add(moment)
        seen.add(local)
        last_local, clock = local, clock + timedelta(minutes=1)
    return sorted(one for one in found if after < one <= now)


numbers = st.integers


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    one = numbers(low, high).map(str)
    span = st.tuples(numbers(low, high), numbers(low, high)).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(st.sampled_from(["*", f"{low}-{high}"]), numbers(1, 20)).map(lambda p: f"{p[0]}/{p[1]}")
    whole = st.one_of(one, span, stepped, st.just("*"))
    return st.one_of(whole, st.lists(st.one_of(one, span), min_size=2, max_size=3).map(",".join))


crons = st.tuples(_field(0, 59), st.one_of(_field(0, 23), _field(0, 3)), _field(1, 28), st.just("*"), _field(0, 7)).map(
    " ".join
)
CHANGES = {
    "UTC": "2026-03-01T00:00", "Europe/Berlin": "2026-03-29T00:00", "America/New_York": "2026-11-01T05:00",
    "Australia/Lord_Howe": "2026-04-04T14:00", "America/Santiago": "2026-09-06T03:00",
    "Africa/Cairo": "2026-04-23T21:00", "Asia/Kathmandu": "2026-05-01T00:00", "Pacific/Apia": "2011-12-30T09:00",
    "America/Havana": "2026-11-01T04:00", "Atlantic/Azores": "2026-10-25T00:00",
    "Africa/Casablanca": "2026-02-15T01:00",
}  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(crons, st.sampled_from(ZONES), numbers(-2 * 1_440, 1_440), numbers(0, 2 * 1_440))
@example("0,30 2 * * *", "Europe/Berlin", -60, 1_440)
@example("*/10 2,3 * * *", "Australia/Lord_Howe", -60, 1_440)
@example("*/30 0 * * *", "America/Santiago", -1_000, 2_000)
@example("15 0,12 * * *", "Pacific/Apia", -1_440, 2_880)
def test_due_is_what_a_look_at_every_minute_finds(cron: str, zone: str, start: int, length: int) -> None:
    """Around changes of the clock, nominal times are those that the page defines, minute by minute."""
    after = at(CHANGES[zone]) + start * MINUTE
    now = after + length * MINUTE
    assert due(cron, zone, after, now, 10_000) == model(cron, zone, after, now)


@settings(max_examples=25, deadline=None)
@given(crons, st.sampled_from(ZONES), numbers(0, 3_000), numbers(0, 3_000), numbers(0, 3_000))
def test_due_in_two_parts_is_due_in_one(cron: str, zone: str, start: int, first: int, second: int) -> None:
    """Wherever the counting is interrupted, no nominal time is named twice or left out; a bound keeps the newest."""
    after = at(CHANGES[zone]) + (start - 1_500) * MINUTE + 17 * US
    middle, now = after + first * MINUTE, after + (first + second) * MINUTE
    whole = due(cron, zone, after, now, 10_000)
    assert due(cron, zone, after, middle, 10_000) + due(cron, zone, middle, now, 10_000) == whole
    for limit in (0, 1, 7):
        assert due(cron, zone, after, now, limit) == (whole[-limit:] if limit else [])
    if whole:
        assert following(cron, zone, after) == whole[0]


@settings(max_examples=25, deadline=None)
@given(crons, st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu"]), numbers(0, 365))
def test_cronsim_counts_the_same(cron: str, zone: str, day: int) -> None:
    """Where clocks change by whole hours and not at midnight, cronsim's own counting names the same times."""
    after = at("2026-01-01T00:00") + day * DAY
    sim = CronSim(cron, datetime.fromtimestamp(after // US, ZoneInfo(zone)))
    wanted: list[int] = []
    while len(wanted) < 50 and (not wanted or wanted[-1] < after + 3 * DAY):
        try:
            wanted.append(int(next(sim).timestamp()) * US)
        except StopIteration:
            break
    wanted = [one for one in wanted if one > after]
    assert not wanted or due(cron, zone, after, wanted[-1], 100) == wanted


def test_a_skipped_and_a_repeated_hour() -> None:
    """A time of the day comes once on both days of change; what counts hours comes as often as the clock shows it."""
    spring, autumn = at("2026-03-28T23:00"), at("2026-10-24T22:00")
    zone = "Europe/Berlin"
    daily = due("30 2 * * *", zone, spring, spring + DAY, 9), due("30 2 * * *", zone, autumn, autumn + DAY, 9)
    assert [shown(one, zone) for one in daily] == [["03-29 03:00 +0200"], ["10-25 02:30 +0200"]]
    hourly = due("0 * * * *", zone, spring, spring + 4 * 60 * MINUTE, 9)
    assert [one[6:11] for one in shown(hourly, zone)] == ["01:00", "03:00", "04:00", "05:00"]
    hourly = due("0 * * * *", zone, autumn, autumn + 4 * 60 * MINUTE, 9)
    assert [one[6:11] for one in shown(hourly, zone)] == ["01:00", "02:00", "02:00", "03:00"]


def test_leap_days_and_last_days() -> None:
    """The 29th of February comes in leap years, and the last day of a month is that of its year."""
    start, end = at("2027-01-01T00:00"), at("2033-01-01T00:00")
    assert [one[:5] for one in shown(due("0 0 29 2 *", "UTC", start, end, 9), "UTC")] == ["02-29", "02-29"]
    months = due("0 6 L * *", "UTC", at("2028-01-01T00:00"), at("2028-04-01T00:00"), 9)
    assert [one[:5] for one in shown(months, "UTC")] == ["01-31", "02-29", "03-31"]
    assert following("0 0 29 2 */7", "UTC", at("2026-01-01T00:00")) == at("2032-02-29T00:00")
    assert following("0 0 29 2 *", "UTC", at("2096-03-01T00:00")) == at("2104-02-29T00:00")


def test_a_long_absence_costs_little() -> None:
    """Ten years of missed minutes give the newest hundred, and all are whole numbers of microseconds."""
    start, now = at("2026-01-01T00:00"), at("2036-01-01T00:00") + 30 * US
    found = due("* * * * *", "Europe/Berlin", start, now, 100)
    assert found == [at("2035-12-31T22:21") + n * MINUTE for n in range(100)]
    assert all(type(one) is int for one in found)
    assert due("* * * * *", "UTC", now, start, 100) == []


@pytest.mark.parametrize(
    ("cron", "zone", "field", "said"),
    [
        ("0 9 * *", "UTC", "cron", "has 4 fields"),
        ("0 0 9 * * *", "UTC", "cron", "has 6 fields"),
        ("@daily", "UTC", "cron", "nickname"),
        ("0 9 * * mon", "UTC", "cron", "in capitals"),
        ("60 9 * * *", "UTC", "cron", "field minute"),
        ("0 24 * * *", "UTC", "cron", "field hour"),
        ("0 9 32 * *", "UTC", "cron", "field day of month"),
        ("0 9 30 2 *", "UTC", "cron", "field day of month"),
        ("0 9 * 13 *", "UTC", "cron", "field month"),
        ("0 9 * * 8", "UTC", "cron", "field day of week"),
        ("0 9 * * MON#2/2", "UTC", "cron", "field day of week"),
        ("0 9 */30 2 TUE#5", "UTC", "cron", "no day fits"),
        ("0 9 * * *" + ",9" * 60, "UTC", "cron", "longer than"),
        ("0 9 * * *", "Mars/Olympus", "zone", "time zone"),
        ("0 9 * * *", "right/UTC", "zone", "time zone"),
        ("0 9 * * *", "../../etc/passwd", "zone", "time zone"),
        ("0 9 * * *", "", "zone", "time zone"),
    ],
)
def test_what_is_no_schedule_says_why(cron: str, zone: str, field: str, said: str) -> None:
    """A wrong field, a wrong count of fields, another spelling, a day that never comes and a wrong zone each say so."""
    with pytest.raises(ArgumentError, match=said) as caught:
        check(cron, zone)
    assert caught.value.field == field


def test_spelling_and_local_time() -> None:
    """Small letters and white space have one spelling; a nominal time has a day and a time in its zone."""
    assert spelled(" 0  9 * *  mon-fri ") == "0 9 * * MON-FRI"
    check("0 9 * * MON-FRI", "America/Argentina/Buenos_Aires")
    assert local_of(at("2026-12-31T23:30"), "Europe/Berlin") == ("2027-01-01", "00:30")
