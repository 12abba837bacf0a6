"""A page of the daybook: the newest actions that fit a filter, found in bounded work however many there are.

A filter that few actions fit is answered by its index. One that many fit walks from the newest back, at most
``WALK_MAX`` of them; what it has not reached by then is for the next page, and the page says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from countermark.audit.daybook import Daybook
from countermark.audit.daybook_rows import DAY_US, REFERENCE_CHARS_MAX
from countermark.model.clock import US
from countermark.model.errors import ArgumentError

PAGE_ROWS = 50
PAGE_ROWS_MAX = 200
FEW = 500  # so many are looked at one by one, whatever else is asked
WALK_MAX = 1_500
TEXT_CHARS_MAX = 128
STATUSES = ("confirmed", "failed", "unknown", "pending", "waiting", "denied", "refused", "expired")
DISPOSITIONS = ("allow", "flag", "escalate", "deny")

_END = 1 << 60
_HIGH = "\U0010ffff"  # after every text that begins alike
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ACTION = re.compile(r"act_([0-9a-f]{32})")
_COLUMNS = "first, last, newest, id, agent, tool, payee, status, disposition, money, words"
_EQUAL = ("agent", "tool", "payee", "status", "disposition")


@dataclass(frozen=True, slots=True)
class Filter:
    """What somebody looks for; an empty member asks for nothing.

    ``day`` is ``YYYY-MM-DD`` in UTC. ``text`` is the beginning of a reference or of a word in one, of the provider's
    reference likewise, or an action's whole ID. ``others`` asks also for actions without an amount.
    """

    agent: str = ""
    tool: str = ""
    payee: str = ""
    status: str = ""
    disposition: str = ""
    day: str = ""
    text: str = ""
    others: bool = False

    def check(self) -> None:
        """Raise ``ArgumentError`` for what nothing could fit."""
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is str and len(value) > TEXT_CHARS_MAX:
                raise ArgumentError(f"{field.name} is longer than {TEXT_CHARS_MAX} characters", field=field.name)
        if self.status and self.status not in STATUSES:
            raise ArgumentError(f"status is one of {', '.join(STATUSES)}", field="status")
        if self.disposition and self.disposition not in DISPOSITIONS:
            raise ArgumentError(f"disposition is one of {', '.join(DISPOSITIONS)}", field="disposition")
        if self.day:
            _day(self.day)


def _day(text: str) -> int:
    """Days since 1970. Raises ``ArgumentError``."""
    try:
        if _DAY.fullmatch(text) is None:
            raise ValueError
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * US // DAY_US
    except ValueError:
        raise ArgumentError("day is written YYYY-MM-DD", field="day") from None


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the records of an action stand: first decision, newest decision, newest record; and its ID."""

    first: int
    last: int
    newest: int
    id: str


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, the newest first. ``older`` is the cursor of the next page, None at the end.

    ``walked`` is how many were looked at when that was as many as one page may; else None.
    """

    entries: tuple[Entry, ...]
    older: int | None
    walked: int | None = None


def find_page(book: Daybook, wanted: Filter, before: int | None = None, limit: int = PAGE_ROWS) -> Page:
    """The newest actions that fit, of those decided before the record ``before``.

    Raises:
        ArgumentError: the filter cannot be meant.
        StoreError: the daybook cannot be read.
    """
    wanted.check()
    limit = max(1, min(limit, PAGE_ROWS_MAX))
    low, high = _range(book, wanted.day, _END if before is None else before)
    text = wanted.text.strip().casefold()[:REFERENCE_CHARS_MAX].replace("\n", " ")
    action = _ACTION.fullmatch(text)
    if action is not None:
        row = book.one(f"select {_COLUMNS} from action where id=? and first>=? and first<?",
                       bytes.fromhex(action[1]), low, high)  # fmt: skip
        return Page((_entry(row),) if row is not None and _fits(row, wanted, "") else (), None)
    rows, bound = _candidates(book, wanted, text, low, high)
    found: list[Entry] = []
    for looked, row in enumerate(rows, 1):
        if _fits(row, wanted, text):
            found.append(_entry(row))
            if len(found) > limit:
                return Page(tuple(found[:limit]), found[limit - 1].first)
        if looked == bound:
            return Page(tuple(found), int(row[0]), looked)
    return Page(tuple(found), None)


def _range(book: Daybook, day: str, high: int) -> tuple[int, int]:
    if not day:
        return 0, high
    number = _day(day)
    first = book.one("select min(first) from action where day=?", number)
    last = book.one("select max(first) from action where day=?", number)
    if first is None or last is None or first[0] is None:
        return 0, 0
    return first[0], min(high, last[0] + 1)


def _candidates(
    book: Daybook, wanted: Filter, text: str, low: int, high: int
) -> tuple[Iterator[tuple[Any, ...]], int | None]:
    """Rows among which all that fit are, newest first, and how many of them may be looked at."""
    if text:
        rows = book.rows("select first from word where word>=? and word<? limit ?", text, text + _HIGH, FEW + 1)
        places = [place for (place,) in rows]
        if len(places) <= FEW:
            kept = sorted({place for place in places if low <= place < high}, reverse=True)
            return _each(book, kept), None
    conditions = [(name, getattr(wanted, name)) for name in _EQUAL if getattr(wanted, name)]
    if not wanted.others:
        conditions.append(("money", 1))
    for name, value in conditions:
        if _few(book, name, value, low, high):
            return _walk(book, name, value, low, high), None
    for name, value in conditions:
        if name != "money":
            return _walk(book, name, value, low, high), WALK_MAX
    rows = book.rows(f"select {_COLUMNS} from action where first>=? and first<? order by first desc", low, high)
    return rows, WALK_MAX


def _few(book: Daybook, name: str, value: object, low: int, high: int) -> bool:
    row = book.one(
        f"select count(*) from (select 1 from action indexed by action_{name} "
        f"where {name}=? and first>=? and first<? limit ?)", value, low, high, FEW + 1,
    )  # fmt: skip
    return row is not None and row[0] <= FEW


def _walk(book: Daybook, name: str, value: object, low: int, high: int) -> Iterator[tuple[Any, ...]]:
    return book.rows(
        f"select {_COLUMNS} from action indexed by action_{name} where {name}=? and first>=? and first<? "
        "order by first desc", value, low, high,
    )  # fmt: skip


def _each(book: Daybook, places: list[int]) -> Iterator[tuple[Any, ...]]:
    for place in places:
        row = book.one(f"select {_COLUMNS} from action where first=?", place)
        if row is not None:
            yield row


def _fits(row: tuple[Any, ...], wanted: Filter, text: str) -> bool:
    equal = all(
        not asked or asked == has
        for asked, has in zip((wanted.agent, wanted.tool, wanted.payee, wanted.status, wanted.disposition), row[4:9],
                              strict=True)
    )  # fmt: skip
    return equal and (wanted.others or bool(row[9])) and (not text or "\n" + text in row[10])


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(row[0], row[1], row[2], "act_" + row[3].hex())
