"""The review queue: flagged actions that nobody has looked at. It is read from the records; nothing else keeps it."""

from __future__ import annotations

from typing import Any

from countermark.journal import SqliteStore
from countermark.model.records import Record, read

_FLAGGED = b'"disposition":"flag"'
_CLEARED = b'"kind":"review.cleared"'


def review_queue(store: SqliteStore) -> list[Record]:
    """Deciding records of the flagged actions that wait for somebody, the oldest first."""
    waiting: dict[str, Record] = {}
    for _, raw in store.raw(0, store.size()):
        # Canonical bytes have no space between a key and its value, and quotes within strings are escaped.
        if _FLAGGED in raw:
            record = read(raw)
            if record.kind == "action.decided":
                waiting[record.body["id"]] = record
        elif _CLEARED in raw:
            waiting.pop(read(raw).body.get("id", ""), None)
    return list(waiting.values())


def review_row(record: Record) -> dict[str, Any]:
    """A waiting action as a document."""
    body = record.body
    names = ("id", "agent", "run", "call_id", "tool", "terms", "reasons")
    return {"seq": record.seq, "at": record.at, "digest": record.digest, **{name: body[name] for name in names}}
