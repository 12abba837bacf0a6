"""Amounts, times and durations as people read them. Amounts stay integers: the decimal point is put in as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from countermark.facts import COUNT
from countermark.model.clock import US
from countermark.model.currency import digits_of as digits_of
from countermark.model.words import escaped as escaped
from countermark.model.words import money as money
from countermark.model.words import safe as safe
from countermark.model.words import written

CLAIM_WIDTH = 76
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def _moment(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us // US, UTC)


def day(at_us: int) -> str:
    """``3 Nov 2026`` (UTC), the same in every locale."""
    return written(_moment(at_us))


def when(at_us: int) -> str:
    """``3 Nov 2026, 09:12:03 UTC``."""
    return f"{day(at_us)}, {_moment(at_us):%H:%M:%S} UTC"


def span(over_us: int) -> str:
    """A length of time in its largest whole unit: ``24 hours`` is ``1 day``."""
    seconds = -(-over_us // US)
    for size, name in _UNITS:
        if seconds and seconds % size == 0:
            count = seconds // size
            return f"{count} {name}" + ("" if count == 1 else "s")
    return "0 seconds"


def lasting(over_us: int) -> str:
    """A length of time that was measured, in its two largest units: ``5 days 23 hours``, ``1 day 1 minute``."""
    seconds = over_us // US
    said: list[str] = []
    for size, name in _UNITS:
        count, seconds = divmod(seconds, size)
        if count and len(said) < 2:
            said.append(f"{count} {name}" + ("" if count == 1 else "s"))
    return " ".join(said) or "0 seconds"


def date_of(value: int) -> str:
    """A day as a number: ``20261103`` -> ``3 Nov 2026``."""
    try:
        return written(date(value // 10_000, value // 100 % 100, value % 100))
    except ValueError:
        return str(value)


def minute(value: int) -> str:
    """Minute of the day as a clock shows it: ``550`` -> ``09:10``."""
    return f"{value // 60:02d}:{value % 60:02d}"


def weekday(value: int) -> str:
    """ISO weekday by name."""
    return _DAYS[value - 1] if 1 <= value <= 7 else str(value)


def claim(text: str) -> list[str]:
    """What an agent says, for people who decide: quoted lines that cannot be taken for ours."""
    return [f"  > {line}" for line in textwrap.wrap(safe(text), CLAIM_WIDTH)]


def listed(items: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" and {items[-1]}" if items else ""


def times(count: int) -> str:
    """``once``, ``twice``, ``5 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def limit(row: Mapping[str, Any]) -> str:
    """A mandate's limit: ``2,500.00 EUR for each payment``."""
    over = row["over_us"]
    scope = "over its life" if over is None else "for each payment" if over == 0 else f"in any {span(over)}"
    return f"{counted(row['amount'], row['currency'])} {scope}"


def counted(amount: int, currency: str) -> str:
    """What a mandate's limit adds up: money, or with the currency ``*`` payments."""
    if currency != COUNT:
        return money(amount, currency)
    return f"{amount:,} payment" + ("" if amount == 1 else "s")


_UNANSWERED = {
    "cancelled": "the run was cancelled before an answer",
    "policy": "another policy came into force before an answer",
}


def unanswered(body: Mapping[str, Any], whom: str = "nobody") -> str:
    """Why an ``escalation.expired`` ended a question."""
    return _UNANSWERED.get(body.get("because", ""), f"{whom} answered in time")
