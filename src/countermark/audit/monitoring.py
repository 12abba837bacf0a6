"""What the policy would have done with a tool that it only monitors: read from the records, nothing else keeps it."""

from __future__ import annotations

from typing import Any

from countermark.journal import SqliteStore
from countermark.model.records import Record, read

_WOULD = b'"stage":"monitor"'
LISTED_MAX = 1_000


def monitored(store: SqliteStore) -> dict[str, Any]:
    """Counts by tool and code, and the newest ``LISTED_MAX`` decisions that were waived, the oldest of them first."""
    counts: dict[str, dict[str, int]] = {}
    newest: list[Record] = []
    for _, raw in store.raw(0, store.size()):
        if _WOULD in raw and (record := read(raw)).kind == "action.decided" and record.body["stage"] == "monitor":
            codes = counts.setdefault(record.body["tool"], {})
            codes[record.body["code"]] = codes.get(record.body["code"], 0) + 1
            if record.body["disposition"] != "deny":
                newest.append(record)
            if len(newest) > 2 * LISTED_MAX:
                del newest[:LISTED_MAX]
    return {"counts": counts, "decisions": [_row(record) for record in newest[-LISTED_MAX:]]}


def _row(record: Record) -> dict[str, Any]:
    names = ("id", "agent", "run", "call_id", "tool", "terms", "code", "reasons")
    return {"seq": record.seq, "at": record.at, **{name: record.body[name] for name in names}}
