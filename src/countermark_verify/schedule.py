"""V21: which minutes a schedule names (docs/spec/workflow-triggers.md, Schedules)."""

import re
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from countermark_verify.errors import Malformed

CHARS_MAX = 100
_MINUTE = timedelta(minutes=1)
_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_MONTHS = {
    name: at
    for at, name in enumerate(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1)
}
_DAYS = {name: at for at, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}
# Of each field: the least and the largest value, and names of values.
_FIELDS: tuple[tuple[int, int, Mapping[str, int]], ...] = (
    (0, 59, {}), (0, 23, {}), (1, 31, {}), (1, 12, _MONTHS), (0, 7, _DAYS),
)  # fmt: skip
_OF_MONTH, _OF_WEEK = 2, 4
_LAST, _LAST_WORKING = -1, -2  # of the month, as days of it


@dataclass(frozen=True, slots=True)
class Schedule:
    """Five fields. `nth` are (day of the week, which of the month), 0 being the last."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    nth: frozenset[tuple[int, int]]
    both: bool  # both fields of days have to fit
    fixed: bool  # names times of the day: each comes once a day, whatever the clock does

    def names(self, moment: datetime) -> bool:
        """Whether this moment of its zone is a nominal time."""
        if not self.fixed:
            return self._fits(moment)
        if moment.fold:
            return False
        if self._fits(moment):
            return True
        before = (moment.astimezone(UTC) - _MINUTE).astimezone(moment.tzinfo)
        skipped, shown = before.replace(tzinfo=None) + _MINUTE, moment.replace(tzinfo=None)
        while skipped < shown:
            if self._fits(skipped):
                return True
            skipped += _MINUTE
        return False

    def _fits(self, local: datetime) -> bool:
        if local.minute not in self.minutes or local.hour not in self.hours or local.month not in self.months:
            return False
        month, week = self._of_month(local), self._of_week(local)
        return month and week if self.both else month or week

    def _of_month(self, local: datetime) -> bool:
        last = monthrange(local.year, local.month)[1]
        working = last - max(0, local.replace(day=last).weekday() - 4)
        return local.day in self.days or (
            (_LAST in self.days and local.day == last) or (_LAST_WORKING in self.days and local.day == working)
        )

    def _of_week(self, local: datetime) -> bool:
        last = monthrange(local.year, local.month)[1]
        which = {(local.day + 6) // 7} | ({0} if local.day + 7 > last else set())
        same = {local.isoweekday(), local.isoweekday() % 7}
        return bool(same & self.weekdays) or any(day in same and number in which for day, number in self.nth)


@lru_cache(maxsize=256)
def read_cron(text: str) -> Schedule:
    """Raises `Malformed`."""
    parts = text.split(" ")
    if len(text) > CHARS_MAX or len(parts) != len(_FIELDS):
        raise Malformed("has a cron that does not have five fields")
    found = [_field(part, at) for at, part in enumerate(parts)]
    minutes, hours, days, months, weekdays = (frozenset(one for one in values if type(one) is int) for values in found)
    return Schedule(
        minutes,
        hours,
        days,
        months,
        weekdays,
        nth=frozenset(one for one in found[_OF_WEEK] if type(one) is tuple),
        both=parts[_OF_MONTH].startswith("*") or parts[_OF_WEEK].startswith("*"),
        fixed=not parts[0].startswith("*") and not parts[1].startswith("*"),
    )


def _field(text: str, at: int) -> set[int | tuple[int, int]]:
    found: set[int | tuple[int, int]] = set()
    for term in text.split(","):
        found |= _term(term, at)
    return found


def _term(term: str, at: int) -> set[int | tuple[int, int]]:
    low, high, _ = _FIELDS[at]
    if at == _OF_WEEK and term.endswith("L"):
        return {(_value(term[:-1], at, named=False), 0)}
    if at == _OF_WEEK and "#" in term:
        day, _, number = term.partition("#")
        if not 1 <= _number(number) <= 5:
            raise Malformed("has a cron with a week that no month has")
        return {(_value(day, at), _number(number))}
    base, stepped, step_text = term.partition("/")
    step = _number(step_text) if stepped else 1
    if step == 0:
        raise Malformed("has a cron with steps of nothing")
    if at == _OF_MONTH and base in ("L", "LW"):
        return {_LAST if base == "L" else _LAST_WORKING}
    if base == "*":
        return set(range(low, high + 1)[::step])
    first, ranged, last = base.partition("-")
    begin = _value(first, at)
    end = _value(last, at) if ranged else begin
    if end < begin:
        raise Malformed("has a cron with a range that runs backwards")
    if begin == end and stepped:  # a range of one value is that value
        end = high
    return set(range(begin, end + 1)[::step])


def _number(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise Malformed("has a cron with what is no number")
    return int(text)


def _value(text: str, at: int, *, named: bool = True) -> int:
    low, high, names = _FIELDS[at]
    value = names[text] if named and text in names else _number(text)
    if not low <= value <= high:
        raise Malformed("has a cron with a number that its field does not have")
    return value
