"""Actions as a list for a terminal: what was asked for in a time, what became of it, and what was confirmed in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from countermark.audit.daybook import Daybook
from countermark.audit.daybook_find import PAGE_ROWS_MAX, Entry, Filter, find_page
from countermark.audit.lookup import find
from countermark.audit.sources import present_state
from countermark.audit.told import Told
from countermark.audit.told_row import Documents, near, row_from, told_by
from countermark.journal import SqliteStore
from countermark.model.records import read

FOLLOW_RECORDS = 8_192  # taken in by the daybook at a time
_REFUSED = b'"kind":"action.refused"'


@dataclass(frozen=True, slots=True)
class Span:
    """From when until before when, in microseconds; and the records of that time, ``low`` up to before ``high``."""

    start: int
    stop: int
    low: int
    high: int


def span_of(store: SqliteStore, start: int, stop: int) -> Span:
    """The records of a time. Times of records never go back, so two searches find them."""
    return Span(start, stop, _since(store, start), _since(store, stop))


def whole_span(store: SqliteStore) -> Span:
    """Every record."""
    size = store.size()
    return Span(0, store.record(size - 1).at + 1 if size else 1, 0, size)


def _since(store: SqliteStore, at: int) -> int:
    low, high = 0, store.size()
    while low < high:
        middle = (low + high) // 2
        if store.record(middle).at < at:
            low = middle + 1
        else:
            high = middle
    return low


def actions_in(
    store: SqliteStore, book: Daybook, wanted: Filter, span: Span, *, run: str = "", limit: int
) -> dict[str, Any]:
    """The actions of a time that fit, the newest first; each is read from its own records.

    Returns:
        ``{"actions": [row], "counted": {status: n}, "confirmed": {currency: amount}, "malformed": {code: n} | None}``:
        at most ``limit`` rows, and figures over all that fit. ``malformed`` counts the requests that were no valid
        action; they have no payee and no status, so it is None where those are asked for.

    Raises:
        ArgumentError: the filter cannot be meant, or there is no such run.
        StoreError: the journal or the daybook cannot be read.
    """
    while book.follow(store, FOLLOW_RECORDS):
        pass
    names = {name: payee.name for name, payee in present_state(store).register.known.payees.items()}
    documents: Documents = {}
    ways = near(store, book, documents, names)
    rows: list[dict[str, Any]] = []
    counted: Counter[str] = Counter()
    confirmed: Counter[str] = Counter()
    for entry in _entries(store, book, wanted, span, run):
        told = told_by(store, book, entry.id, ways)
        if told is None:
            continue
        counted[told.status] += 1
        if (moved := moved_by(told)) is not None:
            confirmed[moved[1]] += moved[0]
        if len(rows) < limit:
            rows.append({**row_from(told), "run": told.body["run"], "terms": dict(told.body["terms"])})
    narrowed = wanted.payee or wanted.status or wanted.tool or wanted.disposition
    malformed = None if narrowed else dict(sorted(_malformed(store, span, wanted.agent, run).items()))
    return {"actions": rows, "counted": dict(sorted(counted.items())), "confirmed": dict(sorted(confirmed.items())),
            "malformed": malformed}  # fmt: skip


def moved_by(told: Told) -> tuple[int, str] | None:
    """What a confirmed action moved, as the provider stated it, else as it was asked; None for no money."""
    outcome, terms = told.outcome, told.body["terms"]
    if outcome is None or outcome.body["outcome"] != "confirmed" or terms["amount"] is None:
        return None
    settled = outcome.body["settled"]
    return (settled["amount"], settled["currency"]) if settled is not None else (terms["amount"], terms["currency"])


def _entries(store: SqliteStore, book: Daybook, wanted: Filter, span: Span, run: str) -> Iterator[Entry]:
    if run:
        ids = {r.body["id"]: r.seq for r in reversed(find(store, run).records) if r.kind == "action.decided"}
        for name in sorted(ids, key=ids.__getitem__, reverse=True):
            for entry in find_page(book, replace(wanted, text=name), span.high).entries:
                if entry.first >= span.low:
                    yield entry
        return
    before: int | None = span.high
    while before is not None and before > span.low:
        page = find_page(book, wanted, before, PAGE_ROWS_MAX)
        for entry in page.entries:
            if entry.first < span.low:
                return
            yield entry
        before = page.older


def _malformed(store: SqliteStore, span: Span, agent: str, run: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for _, raw in store.raw(span.low, span.high):
        if _REFUSED not in raw or (record := read(raw)).kind != "action.refused":
            continue
        if agent in ("", record.body["agent"]) and run in ("", record.body["run"]):
            found[record.body["code"]] += 1
    return found
