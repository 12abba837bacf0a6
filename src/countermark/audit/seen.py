"""What witnesses saw of the log, by its own records: who, when, and how far our clock was from theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from countermark.audit import words
from countermark.journal import SqliteStore
from countermark.log import cosigned_by
from countermark.model.clock import US
from countermark.model.records import Record, read
from countermark.policy import WitnessRule, is_own

LOOK_RECORDS_MAX = 50_000  # how far a page looks for the head that covers a payment
_BLOCK = 4_096
_MARK = b'"kind":"head.witnessed"'


@dataclass(frozen=True, slots=True)
class Seen:
    """One ``head.witnessed``. ``rows``: witness, operator, whether it is our own, and when it cosigned (microseconds).

    Our clock was ahead of theirs by at least ``ahead[0]`` and at most ``ahead[1]`` microseconds; None when their times
    do not fit together.
    """

    seq: int
    size: int
    asked: int
    answered: int
    rows: tuple[tuple[str, str, bool, int], ...]

    @property
    def ahead(self) -> tuple[int, int] | None:
        """A cosignature's second began before the answer and ended after the question."""
        times = [at for _, _, own, at in self.rows if not own]
        if not times:
            return None
        low, high = max(self.asked - at - US for at in times), min(self.answered - at for at in times)
        return (low, high) if low <= high else None

    def document(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "seq": self.seq, "size": self.size, "asked": self.asked, "answered": self.answered,
            "witnesses": [
                {"name": name, "operator": operator, "own": own, "at": at} for name, operator, own, at in self.rows
            ],
            "ahead": None if self.ahead is None else list(self.ahead),
        }  # fmt: skip

    def said(self) -> str:
        """In words: who cosigned when; our own are named as such, and count for nobody else."""
        others = [name for name, _, own, _ in self.rows if not own]
        own = [name for name, _, own, _ in self.rows if own]
        mine = f" ({words.listed(own)}, our own, too: it counts for nobody else)" if own else ""
        return f"{words.listed(others)} cosigned the first {self.size:,} records at {words.when(self.answered)}{mine}"

    def offset(self) -> str:
        """In words: how far our clock can have been from theirs."""
        if self.ahead is None:
            return "the witnesses' clocks contradict each other"
        low, high = (f"{value // 1_000:+,} ms" for value in self.ahead)
        return f"our clock was ahead of the witnesses' by between {low} and {high}"


def covering(store: SqliteStore, seq: int, rule: WitnessRule) -> Seen | None:
    """The first ``head.witnessed`` that covers a record; looked for not too far."""
    stop = min(store.size(), seq + LOOK_RECORDS_MAX)
    for _, raw in store.raw(seq + 1, stop) if stop > seq + 1 else ():
        if _MARK in raw and (record := read(raw)).kind == "head.witnessed" and record.body["size"] > seq:
            return _seen(record, rule, store.record(0).body["deployment"])
    return None


def newest_seen(store: SqliteStore, rule: WitnessRule | None) -> Seen | None:
    """The newest ``head.witnessed``; looked for not too far."""
    for record in witnessed_back(store, max(0, store.size() - LOOK_RECORDS_MAX)) if rule is not None else ():
        return None if rule is None else _seen(record, rule, store.record(0).body["deployment"])
    return None


def witnessed_back(store: SqliteStore, start: int) -> Iterator[Record]:
    """``head.witnessed`` records from the newest down to ``start``."""
    stop = store.size()
    while stop > start:
        low = max(start, stop - _BLOCK)
        for _, raw in reversed(list(store.raw(low, stop))):
            if _MARK in raw and (record := read(raw)).kind == "head.witnessed":
                yield record
        stop = low


def _seen(record: Record, rule: WitnessRule, deployment: str) -> Seen:
    body = record.body
    found = cosigned_by(rule.policy, body["note"].encode("utf-8"))
    rows = tuple(
        (name, name.partition("/")[0], is_own(name, deployment), one.at_s * US) for name, one in sorted(found.items())
    )
    return Seen(record.seq, body["size"], body["asked"], body["answered"], rows)
