"""The daybook: which actions there are, and where their records stand, so that a page of them is a few look-ups.

It is a cache in an SQLite file of its own, made from the records and followed up to the newest when somebody looks.
What it says is never shown: it only leads to records, and those are read again. So whoever alters it can hide records
from these pages, but change none; deleting the file is harmless.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from countermark.audit.daybook_rows import Batch, References
from countermark.audit.sources import bundle_document
from countermark.journal import SqliteStore
from countermark.model.crash import crash_point
from countermark.model.errors import StoreError
from countermark.model.records import Record

APPLICATION_ID = 0x434D4B44  # "CMKD"
SCHEMA = 2
DAYBOOK = "cache/daybook.db"  # below a deployment's directory
STEP_RECORDS = 512  # folded in one go: between two of them a question may pass
CACHE_KIB = 65_536

_NO_ROOM = frozenset(
    (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR_WRITE,
     sqlite3.SQLITE_IOERR_FSYNC)
)  # fmt: skip

_TABLES = """
create table action (first integer primary key, last integer not null, newest integer not null, day integer not null,
 id blob not null, agent text not null, tool text not null, payee text not null, status text not null,
 disposition text not null, money integer not null, words text not null) strict;
create unique index action_id on action(id);
create index action_agent on action(agent);
create index action_tool on action(tool);
create index action_payee on action(payee);
create index action_status on action(status);
create index action_disposition on action(disposition);
create index action_day on action(day);
create index action_money on action(money);
create table about (first integer not null, seq integer not null, primary key (first, seq)) strict, without rowid;
create table word (word text not null, first integer not null, primary key (word, first)) strict, without rowid;
create table event (seq integer primary key, kind text not null, name text not null) strict;
create index event_kind on event(kind, name);
create table follows (one integer primary key check (one = 1), size integer not null, digest text not null) strict;
"""


class Daybook:
    """One deployment's daybook. All calls come from one thread."""

    def __init__(self, path: Path) -> None:
        """Open or make the file at ``path``. Raises ``StoreError``."""
        self._path = path
        self._references: dict[str, References] = {}
        self._broken = False  # what it says cannot be read: the next follow makes it anew
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = self._opened()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the daybook cannot be opened: {error}", hint=f"Delete {path.name}.") from None

    def _opened(self) -> sqlite3.Connection:
        """A daybook of this version, whatever stood there before."""
        found = self._existing()
        if found is not None:
            return found
        self._delete()
        db = self._connected()
        db.execute("pragma journal_mode=wal")
        db.executescript(
            f"begin immediate; {_TABLES} pragma application_id={APPLICATION_ID}; pragma user_version={SCHEMA}; commit;"
        )
        return db

    def _existing(self) -> sqlite3.Connection | None:
        with suppress(sqlite3.DatabaseError):
            db = self._connected()
            with suppress(sqlite3.DatabaseError):
                marks = tuple(db.execute(f"pragma {name}").fetchone()[0] for name in ("application_id", "user_version"))
                if marks == (APPLICATION_ID, SCHEMA):
                    return db
            db.close()
        return None

    def _connected(self) -> sqlite3.Connection:
        self._path.touch(0o600)
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        db.execute("pragma synchronous=normal")
        db.execute(f"pragma cache_size=-{CACHE_KIB}")
        return db

    def _delete(self) -> None:
        for end in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)

    def forget(self) -> None:
        """Throw everything away: it is not what the journal says. Raises ``StoreError``; then the next follow tries."""
        with suppress(sqlite3.Error):
            self._db.close()
        self._broken = True
        try:
            self._db = self._opened_anew()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the daybook cannot be made anew: {error}", hint="Free disk space.",
                             retryable=True) from None  # fmt: skip
        self._broken = False

    def _opened_anew(self) -> sqlite3.Connection:
        self._delete()
        return self._opened()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def size(self) -> int:
        """How many records it has followed."""
        row = self.one("select size from follows")
        return 0 if row is None else int(row[0])

    def follow(self, store: SqliteStore, records_max: int = STEP_RECORDS) -> int:
        """Take in at most so many further records. Returns how many are left.

        Raises:
            StoreError: a record is missing or damaged, or the daybook cannot be written.
        """
        try:
            if self._broken:
                self.forget()
            return self._follow(store, records_max)
        except sqlite3.Error as error:
            self._undo()
            if error.sqlite_errorcode in _NO_ROOM:  # nothing is wrong with what it holds
                raise StoreError(f"the daybook cannot follow: {error}", hint="Free disk space.",
                                 retryable=True) from None  # fmt: skip
            self.forget()
            raise StoreError(f"the daybook is made anew: {error}", hint="Look again.", retryable=True) from None

    def _follow(self, store: SqliteStore, records_max: int) -> int:
        size, start = store.size(), self.size
        if start and not self._fits(store, start, size):
            self.forget()
            start = 0
        stop = min(size, start + records_max)
        if stop > start:
            batch = Batch(self._known, self._refers(store))
            before: Mapping[str, Any] | None = None if start == 0 else orjson.loads(store.record(start - 1).raw)
            for seq, raw in store.raw(start, stop):
                document = _document(seq, raw)
                batch.add(document, before)
                before = document
            self._write(batch, start, stop, store.record(stop - 1).digest)
        return size - self.size

    def _fits(self, store: SqliteStore, start: int, size: int) -> bool:
        """Whether this journal is the one that was followed: a restored one may have other records here."""
        row = self.one("select digest from follows")
        return row is not None and start <= size and store.record(start - 1).digest == row[0]

    def _known(self, name: bytes) -> tuple[int, str] | None:
        """First record and status of an action by its ID."""
        row = self.one("select first, status from action where id=?", name)
        return None if row is None else (row[0], row[1])

    def _refers(self, store: SqliteStore) -> Callable[[str], References]:
        def of(bundle: str) -> References:
            if bundle not in self._references:
                self._references[bundle] = References.of(bundle_document(store, bundle)["compiled"])
            return self._references[bundle]

        return of

    def _write(self, batch: Batch, start: int, size: int, digest: str) -> None:
        db = self._db
        db.execute("begin immediate")
        if self.size != start:  # another process has followed the same records meanwhile
            db.execute("rollback")
            return
        db.executemany("insert into action values(?,?,?,?,?,?,?,?,?,?,?,?)", [row.values() for row in batch.rows])
        db.executemany(
            "update action set last=coalesce(?, last), newest=?, status=?, disposition=coalesce(?, disposition) "
            "where first=?", batch.changes,
        )  # fmt: skip
        for first, words in batch.named:
            db.execute("update action set words=words||? where first=?", (words + "\n", first))
        db.executemany("insert into about values(?,?)", batch.about)
        db.executemany("insert or ignore into word values(?,?)", batch.words)
        db.executemany("insert into event values(?,?,?)", batch.events)
        db.execute("insert or replace into follows values(1,?,?)", (size, digest))
        crash_point("daybook.in_transaction")
        db.execute("commit")

    def _undo(self) -> None:
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("rollback")

    def one(self, sql: str, *args: object) -> tuple[Any, ...] | None:
        """The first row of a question. Raises ``StoreError``."""
        return next(self.rows(sql, *args), None)

    def rows(self, sql: str, *args: object) -> Iterator[tuple[Any, ...]]:
        """The rows of a question, read as they are asked for. Raises ``StoreError``."""
        try:
            yield from self._db.execute(sql, args)
        except sqlite3.Error as error:
            self._broken = True
            raise StoreError(f"the daybook is made anew: it cannot be read: {error}", hint="Look again.",
                             retryable=True) from None  # fmt: skip

    # What stands where ---------------------------------------------------------------------------------------------

    def about(self, action: str) -> list[int]:
        """The places of all records about an action, in order; empty when there is no such action."""
        row = self.one("select first from action where id=?", bytes.fromhex(action[4:]))
        if row is None:
            return []
        return sorted([row[0], *(seq for (seq,) in self.rows("select seq from about where first=?", row[0]))])

    def newest(self, key: str) -> int | None:
        """As ``lookup.newest`` for an action's key (``id:ACTION``): the newest record about it."""
        row = self.one("select newest from action where id=?", bytes.fromhex(key[7:]))
        return None if row is None else int(row[0])

    def of_kind(self, store: SqliteStore) -> Callable[[str, int], Iterator[Record]]:
        """Records of a kind before a place, the newest first. Only for kinds that stand in no stream."""

        def found(kind: str, stop: int) -> Iterator[Record]:
            rows = self.rows("select seq from event where kind=? and seq<? order by seq desc", kind, stop)
            return (record for (seq,) in rows if (record := store.record(seq)).kind == kind)

        return found

    def event(self, store: SqliteStore, kind: str, name: str) -> Record | None:
        """The newest record of a kind that is about this name: a kill, a mandate, a bundle."""
        row = self.one("select max(seq) from event where kind=? and name=?", kind, name)
        if row is None or row[0] is None:
            return None
        record = store.record(row[0])
        return record if record.kind == kind else None

    def last_of(self, agent: str) -> int | None:
        """The first record of an agent's newest action."""
        row = self.one("select max(first) from action where agent=?", agent)
        return None if row is None else row[0]


def _document(seq: int, raw: bytes) -> Mapping[str, Any]:
    try:
        document: Mapping[str, Any] = orjson.loads(raw)
    except ValueError:
        raise StoreError(f"record {seq} is damaged", hint="Restore a backup.") from None
    return document
