"""The simulator's durable books: one SQLite file, WAL, ``synchronous=FULL``, one transaction a request.

``Ledger`` writes and belongs to the simulator's process; ``Books`` reads from any process, also after a kill.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.model.errors import StoreError

FILE = "stripe-simulator.sqlite3"
FILTERS = ("destination", "transfer_group", "charge", "payment_intent", "source", "type", "status", "payout")
MOVES = ("transfer", "refund", "payout")
BUSY_MS_MAX = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS apikey(key TEXT PRIMARY KEY, scopes TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS balance(currency TEXT PRIMARY KEY, available INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS idem(key TEXT PRIMARY KEY, created INTEGER NOT NULL, fingerprint TEXT NOT NULL,
  status INTEGER NOT NULL, body TEXT NOT NULL, request_id TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idem_created ON idem(created);
CREATE TABLE IF NOT EXISTS object(ordinal INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL, created INTEGER NOT NULL, key TEXT NOT NULL, destination TEXT, transfer_group TEXT,
  charge TEXT, payment_intent TEXT, source TEXT, type TEXT, status TEXT, payout TEXT, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS object_kind ON object(kind, ordinal);
CREATE INDEX IF NOT EXISTS object_destination ON object(kind, destination, ordinal);
CREATE INDEX IF NOT EXISTS object_charge ON object(kind, charge, ordinal);
CREATE INDEX IF NOT EXISTS object_source ON object(kind, source, ordinal);
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """What an idempotency key keeps."""

    fingerprint: str
    status: int
    body: str
    request_id: str


class Ledger:
    """The writing side. Not thread-safe: the simulator is one event loop."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(directory / FILE, isolation_level=None, timeout=BUSY_MS_MAX / 1000)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; one fsync at the end."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what a failing handler wrote, but keep the transaction, so that its error can be stored."""
        self._db.execute("SAVEPOINT effect")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK TO effect")
            self._db.execute("RELEASE effect")
            raise
        self._db.execute("RELEASE effect")

    def meta(self, name: str, default: Any = None) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def set_meta(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    def scopes(self, key: str) -> list[str] | None:
        row = self._db.execute("SELECT scopes FROM apikey WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0].split()

    def set_key(self, key: str, scopes: list[str]) -> None:
        self._db.execute("INSERT OR REPLACE INTO apikey VALUES (?, ?)", (key, " ".join(scopes)))

    def stored(self, key: str, oldest: int) -> Stored | None:
        """What ``key`` keeps, if it was kept at or after ``oldest`` (seconds)."""
        row = self._db.execute(
            "SELECT fingerprint, status, body, request_id FROM idem WHERE key = ? AND created >= ?", (key, oldest)
        ).fetchone()
        return None if row is None else Stored(*row)

    def store(self, key: str, at: int, kept: Stored) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO idem VALUES (?, ?, ?, ?, ?, ?)",
            (key, at, kept.fingerprint, kept.status, kept.body, kept.request_id),
        )

    def prune(self, oldest: int) -> None:
        self._db.execute("DELETE FROM idem WHERE created < ?", (oldest,))

    def next_ordinal(self) -> int:
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'object'").fetchone()
        return 1 if row is None else int(row[0]) + 1

    def add(self, kind: str, body: Mapping[str, Any], key: str = "", **more: str | None) -> None:
        """Insert an object; ``key`` is the idempotency key of its request, ``more`` are filters not in the body."""
        columns = [_text(more.get(name, body.get(name))) for name in FILTERS]
        self._db.execute(
            "INSERT INTO object(id, kind, created, key, destination, transfer_group, charge, payment_intent, source,"
            " type, status, payout, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (body["id"], kind, body["created"], key, *columns, json.dumps(body)),
        )

    def change(self, body: Mapping[str, Any]) -> None:
        self._db.execute(
            "UPDATE object SET body = ?, status = ? WHERE id = ?",
            (json.dumps(body), _text(body.get("status")), body["id"]),
        )

    def get(self, kind: str, id_: str) -> dict[str, Any] | None:
        row = self._db.execute("SELECT body FROM object WHERE id = ? AND kind = ?", (id_, kind)).fetchone()
        return None if row is None else json.loads(row[0])

    def ordinal(self, kind: str, id_: str) -> int | None:
        row = self._db.execute("SELECT ordinal FROM object WHERE id = ? AND kind = ?", (id_, kind)).fetchone()
        return None if row is None else int(row[0])

    def select(
        self, kind: str, where: Mapping[str, str], created: Mapping[str, int], *, after: int | None = None,
        before: int | None = None, limit: int,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Objects, newest first; ``before`` asks for the ``limit`` next newer ones instead."""
        sql, values = ["kind = ?"], [kind]
        for name, value in where.items():
            if name not in FILTERS:
                raise StoreError(f"no filter on {name}")
            sql.append(f"{name} = ?")
            values.append(value)
        bounds: list[int] = []
        for name, seconds in created.items():
            sql.append(f"created {({'gt': '>', 'gte': '>=', 'lt': '<', 'lte': '<='})[name]} ?")
            bounds.append(seconds)
        if after is not None:
            sql.append("ordinal < ?")
            bounds.append(after)
        if before is not None:
            sql.append("ordinal > ?")
            bounds.append(before)
        order = "ASC" if before is not None else "DESC"
        rows = self._db.execute(  # column names come from FILTERS and the literals above; values are bound
            f"SELECT body FROM object WHERE {' AND '.join(sql)} ORDER BY ordinal {order} LIMIT ?",  # noqa: S608
            (*values, *bounds, limit),
        ).fetchall()
        found = [json.loads(row[0]) for row in rows]
        return found[::-1] if before is not None else found

    def events_after(self, ordinal: int, limit: int) -> list[tuple[int, dict[str, Any]]]:
        rows = self._db.execute(
            "SELECT ordinal, body FROM object WHERE kind = 'event' AND ordinal > ? ORDER BY ordinal LIMIT ?",
            (ordinal, limit),
        ).fetchall()
        return [(int(row[0]), json.loads(row[1])) for row in rows]

    def available(self, currency: str) -> int:
        row = self._db.execute("SELECT available FROM balance WHERE currency = ?", (currency,)).fetchone()
        return 0 if row is None else int(row[0])

    def balances(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT currency, available FROM balance ORDER BY currency").fetchall())

    def add_to_balance(self, currency: str, amount: int) -> None:
        self._db.execute(
            "INSERT INTO balance VALUES (?, ?) ON CONFLICT(currency) DO UPDATE SET available = available + ?",
            (currency, amount, amount),
        )

    def sum_of(self, kind: str, name: str, value: str) -> int:
        """Sum of the amounts of objects of ``kind`` whose filter column ``name`` is ``value``."""
        rows = self.select(kind, {name: value}, {}, limit=1_000_000)
        return sum(int(row["amount"]) for row in rows)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Movement:
    """One transfer, refund or payout in the books. ``amount`` in minor units; ``created`` in seconds."""

    kind: str
    id: str
    amount: int
    currency: str
    destination: str
    charge: str
    status: str
    metadata: Mapping[str, str]
    idempotency_key: str
    created: int


class Books:
    """Read-only view of a simulator's books, living or dead. Raises ``StoreError`` when there are none."""

    def __init__(self, directory: Path | str) -> None:
        self._file = Path(directory) / FILE
        if not self._file.is_file():
            raise StoreError("there are no simulator books in this directory")

    def _rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        # mode=rw never creates the file; query_only keeps this side from writing to it.
        uri = f"{self._file.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_MS_MAX / 1000)) as db:
            db.execute("PRAGMA query_only=ON")
            return db.execute(sql, values).fetchall()

    def movements(self, kind: str | None = None) -> list[Movement]:
        """Every transfer, refund and payout (or one ``kind`` of them), in the order they happened."""
        kinds = MOVES if kind is None else (kind,)
        marks = ", ".join("?" * len(kinds))
        sql = f"SELECT kind, key, body FROM object WHERE kind IN ({marks}) ORDER BY ordinal"  # noqa: S608
        return [_movement(kind, key, json.loads(body)) for kind, key, body in self._rows(sql, kinds)]

    @property
    def balance(self) -> dict[str, int]:
        """Currency -> available amount in minor units."""
        return dict(self._rows("SELECT currency, available FROM balance ORDER BY currency"))

    def transactions(self) -> list[dict[str, Any]]:
        """Every balance transaction, oldest first."""
        sql = "SELECT body FROM object WHERE kind = 'balance_transaction' ORDER BY ordinal"
        return [json.loads(row[0]) for row in self._rows(sql)]

    def check(self) -> list[str]:
        """What does not add up, in words; an empty list when the books balance."""
        wrong = []
        sums: dict[str, int] = {}
        moved: dict[str, int] = {}
        for txn in self.transactions():
            sums[txn["currency"]] = sums.get(txn["currency"], 0) + txn["net"]
            moved[txn["source"]] = moved.get(txn["source"], 0) + txn["net"]
        for currency in sums.keys() | self.balance.keys():
            if sums.get(currency, 0) != self.balance.get(currency, 0):
                wrong.append(f"the {currency} balance is not the sum of its transactions")
            if self.balance.get(currency, 0) < 0:
                wrong.append(f"the {currency} balance is negative")
        for move in self.movements():
            expected = 0 if move.status == "canceled" else -move.amount
            if moved.get(move.id, 0) != expected:
                wrong.append(f"{move.id} is not in the ledger with its amount")
        return wrong


def _movement(kind: str, key: str, body: Mapping[str, Any]) -> Movement:
    return Movement(
        kind, body["id"], body["amount"], body["currency"], body.get("destination") or "", body.get("charge") or "",
        body.get("status") or "", body.get("metadata") or {}, key, body["created"],
    )  # fmt: skip
