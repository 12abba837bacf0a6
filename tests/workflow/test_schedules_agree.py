"""Two readers of schedules: what the product's names and refuses, the verifier's does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.model.clock import US
from countermark.model.errors import ArgumentError
from countermark.workflow import cron as product
from countermark_verify.errors import Malformed
from countermark_verify.schedule import read_cron

# Clocks go forward and back by an hour, by half of one, over midnight, and by a whole day.
CHANGES = (
    ("Europe/Berlin", datetime(2026, 3, 29)), ("Europe/Berlin", datetime(2026, 10, 25)), ("UTC", datetime(2028, 2, 29)),
    ("Australia/Lord_Howe", datetime(2026, 4, 5)), ("Australia/Lord_Howe", datetime(2026, 10, 4)),
    ("America/Santiago", datetime(2026, 9, 6)), ("Pacific/Apia", datetime(2011, 12, 30)),
)  # fmt: skip
FIELDS = (
    ("30 2 * * *", "*/15 2 * * *", "30 * * * *", "15,45 0-3 * * *", "0 0 L * *", "59 23 LW * *", "30 1 * * 0L"),
    ("0 12 29 2 *", "0 0 * * SUN#5", "5/20 1/2 1-31/2 MAR-OCT *", "0 9 13 * FRI", "0 9 */2 * MON-FRI", "07 02 * * 7"),
)


def fits(text: str) -> bool:
    try:
        read_cron(text)
    except Malformed:
        return False
    return True


@pytest.mark.parametrize(("zone", "day"), CHANGES)
@pytest.mark.parametrize("fields", FIELDS, ids=("times", "days"))
def test_both_name_the_same_minutes(zone: str, day: datetime, fields: tuple[str, ...]) -> None:
    """Of two days around each change of the clock exactly the minutes that the product would start are nominal."""
    first = (day - timedelta(days=1)).replace(tzinfo=UTC)
    moments = [first + timedelta(minutes=at) for at in range(3 * 1_440)]
    locals_ = [moment.astimezone(ZoneInfo(zone)) for moment in moments]
    for text in fields:
        schedule = read_cron(text)
        mine = [at for at, local in zip(moments, locals_, strict=True) if schedule.names(local)]
        assert [_us(at) for at in mine] == product.due(text, zone, _us(first) - US, _us(moments[-1]), 10_000), text


def _us(moment: datetime) -> int:
    return round(moment.timestamp()) * US


TERM = st.text(st.sampled_from("0123456789*,/#-LW"), min_size=1, max_size=7)
FIELD = st.one_of(TERM, st.sampled_from(["*", "MON-FRI", "JAN", "5L", "SUN#2", "MONL", "L", "LW/2", "1#2/3", "9-1"]))


@settings(max_examples=600, deadline=None)
@given(st.integers(0, 4), FIELD)
def test_both_refuse_the_same_fields(place: int, field: str) -> None:
    """A field that the product refuses is none here, unless all that is wrong is that no day ever fits."""
    text = " ".join(field if at == place else "*" for at in range(5))
    try:
        product.check(text, "UTC")
    except ArgumentError as error:
        never = "no day fits" in error.message or ("day of month" in error.message and place in (2, 3))
        assert not fits(text) or never, text
    else:
        assert fits(text), text
