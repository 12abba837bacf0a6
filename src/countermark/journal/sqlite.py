"""The journal in SQLite: WAL, ``synchronous=FULL``, one transaction and one fsync per batch of the lane.

Many bytes are bound as a ``bytearray``, which sqlite3 takes as it is; for ``bytes`` it first looks for an adapter, in
vain, which costs more than binding them.

The record table is the truth. ``idem``, ``outcome``, ``stream`` and ``snapshot`` repeat what the records below
``cached.size`` say, so that a look-up is one B-tree probe and a start reads few records; they are written in
transactions of their own, many rows at once (ADR 0007). Readers open connections of their own and see committed state
only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from countermark.model.crash import crash_point
from countermark.model.errors import EncodingError, StoreError
from countermark.model.ports import Batch, Cache
from countermark.model.records import Record, read

APPLICATION_ID = 0x434D4B31  # "CMK1", so that a foreign database is refused before it is touched
SCHEMA = 1
PAGE_BYTES = 8_192
PAGE_RECORDS = 512
WAL_PAGES = 500  # from one checkpoint to the next, 4 MiB: the lane waits while they are written and synced
RECORD_BYTES_MIN = 512  # of the records of a whole write-ahead log, on the average
CHUNK_ROWS_MAX = 64
STATEMENTS_KEPT = 256  # one insert for each number of rows
LOOKUP_MAX = 512

_TABLES = """
create table record (seq integer primary key, raw blob not null) strict;
create table head (size integer primary key, note blob not null) strict;
create table idem (key blob primary key, seq integer not null) strict, without rowid;
create table outcome (intent integer primary key, seq integer not null) strict;
create table snapshot (size integer primary key, doc blob not null) strict;
create table sealed (seq integer primary key, subject text not null, blob blob not null) strict;
create table stream (name text primary key, seq integer not null, digest text not null) strict, without rowid;
create table cached (one integer primary key check (one = 1), size integer not null) strict;
create table bundle (digest text primary key, doc blob not null) strict, without rowid;
"""

# What SQLite says of these tables. A trigger or view that somebody added would run inside the gate's own transactions.
_SCHEMA = sorted(line.rstrip(";").replace("create table", "CREATE TABLE", 1) for line in _TABLES.split("\n") if line)

_FORGET = "delete from snapshot; delete from stream; delete from idem; delete from outcome; delete from cached;"


def _wrap(error: sqlite3.Error, what: str) -> StoreError:
    return StoreError(f"{what}: {error}", hint="Free disk space or repair the file system; nothing was done.")


def short(key: str) -> bytes:
    """A key as the table keeps it: its kind's letter and the last 128 bits of its digest, so that pages hold many."""
    return key[:1].encode("ascii") + bytes.fromhex(key[-32:])


@lru_cache(maxsize=STATEMENTS_KEPT)
def _insert_of(head: str, columns: int, rows: int) -> str:
    marks = "(" + ",".join("?" * columns) + ")"
    return head + ",".join([marks] * rows)


class SqliteStore:
    """One deployment's journal. Implements ``Store``; ``commit`` belongs to the lane thread alone."""

    def __init__(self, path: Path, *, create: bool = False, readonly: bool = False) -> None:
        """Open the journal at ``path``. ``readonly`` opens a reader beside the lane's own connection.

        Raises:
            StoreError: missing, foreign, damaged, written by a newer schema, or not writable.
        """
        if not create and not path.is_file():
            raise StoreError(f"there is no journal at {path}", hint="Run `countermark init DIR` first.")
        self._path = path
        try:
            self._db = self._connect(path, readonly)
            self._prepare(create, readonly)
            if not readonly:
                self._check_end()
        except sqlite3.Error as error:
            raise _wrap(error, f"the journal {path.name} cannot be opened") from None

    @staticmethod
    def _connect(path: Path, readonly: bool) -> sqlite3.Connection:
        uri = f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rwc'}"
        db = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_KEPT, timeout=5.0
        )
        db.execute("pragma synchronous=full")
        return db

    def _prepare(self, create: bool, readonly: bool) -> None:
        (found,) = self._db.execute("pragma application_id").fetchone()
        (schema,) = self._db.execute("pragma user_version").fetchone()
        (tables,) = self._db.execute("select count(*) from sqlite_master").fetchone()
        if create and tables == 0:
            self._db.execute(f"pragma page_size={PAGE_BYTES}")  # a record takes 1 to 2 kB: fewer, fuller pages
            self._db.execute("pragma journal_mode=wal")
            self._db.executescript(
                f"begin immediate; {_TABLES} pragma application_id={APPLICATION_ID}; "
                f"pragma user_version={SCHEMA}; commit;"
            )
            return
        if found != APPLICATION_ID:
            raise StoreError(f"{self._path.name} is not a countermark journal")
        if schema > SCHEMA:
            raise StoreError(
                f"the journal has schema {schema}, this version knows {SCHEMA}", code="newer_schema",
                hint="Install a newer countermark.",
            )  # fmt: skip
        if schema < SCHEMA:
            raise StoreError(f"the journal has schema {schema}", hint="Run `countermark upgrade`.")
        _check_tables(self._db)
        if readonly:
            return
        (mode,) = self._db.execute("pragma journal_mode=wal").fetchone()
        if mode != "wal":
            raise StoreError("the journal cannot use a write-ahead log here", hint="Network file systems cannot.")
        self._db.execute(f"pragma wal_autocheckpoint={WAL_PAGES}")

    def _check_end(self) -> None:
        """No record is missing where the write-ahead log meets the file.

        An older copy of the file, put back beside a newer log, lacks what was moved from the log to the file since:
        the records just before those that the log has. The newest ones are there, so nothing else would show it.
        """
        wal = self._path.with_name(self._path.name + "-wal")
        reach = max(wal.stat().st_size if wal.exists() else 0, WAL_PAGES * PAGE_BYTES) // RECORD_BYTES_MIN
        size = self.size()
        row = self._one("select count(*) from record where seq>=?", size - reach)
        if row is None or row[0] != min(size, reach):
            raise StoreError(
                "records are missing: the journal may be an older copy beside a newer write-ahead log",
                hint="Restore a backup.",
            )

    def commit(self, batch: Batch) -> None:
        """Write one batch durably: when this returns, an fsync has covered every row."""
        db = self._db
        try:
            if batch.unsealed:
                db.execute("pragma secure_delete=on")  # from now on: what is deleted is overwritten with zeros
            db.execute("begin immediate")
            if batch.bundles:
                db.executemany("insert or ignore into bundle values(?,?)", batch.bundles.items())
            self._insert("insert into record values", [(r.seq, bytearray(r.raw)) for r in batch.records])
            self._insert("insert into sealed values", batch.sealed)
            if batch.unsealed:
                self._db.executemany("delete from sealed where seq=?", [(seq,) for seq in batch.unsealed])
            db.execute("insert or replace into head values(?,?)", batch.head)
            crash_point("lane.in_transaction")
            db.execute("commit")
        except sqlite3.Error as error:
            raise _wrap(error, "the journal could not be written") from None

    def save(self, cache: Cache) -> None:
        """Write the cache: keys and streams that changed, and a snapshot in place of the one before.

        Keys and streams may be ahead of the snapshot, never behind it. A failure leaves the journal as it was.
        """
        try:
            self._db.execute("begin immediate")
            self._write_keys(cache.keys)
            rows = sorted((name, *place) for name, place in cache.streams.items())
            self._insert("insert or replace into stream values", rows)
            self._db.execute("insert or replace into cached values(1,?)", (cache.size,))
            if cache.snapshot is not None:
                self._db.execute("delete from snapshot")
                self._db.execute("insert into snapshot values(?,?)", (cache.size, cache.snapshot))
            crash_point("lane.in_snapshot")
            self._db.execute("commit")
        except (sqlite3.Error, OverflowError) as error:
            self._undo()
            raise StoreError(f"the snapshot could not be written: {error}", hint="Free disk space.") from None

    @contextmanager
    def steady(self) -> Iterator[None]:
        """What a reader reads inside is one committed state: the cache and the records after it fit each other."""
        if self._db.in_transaction:
            yield
            return
        try:
            self._db.execute("begin")
        except sqlite3.Error as error:
            raise _wrap(error, "the journal could not be read") from None
        try:
            self._one("select 1 from sqlite_master limit 1")  # the first read chooses the state
            yield
        finally:
            self._undo()

    def cached(self) -> int:
        """Up to which record keys and streams are in their tables."""
        row = self._one("select size from cached")
        return int(row[0]) if row and isinstance(row[0], int) else 0

    def cached_rows(self) -> tuple[int, int]:
        """How many keys, and how many streams, are in their tables."""
        row = self._one(
            "select (select count(*) from idem) + (select count(*) from outcome), (select count(*) from stream)"
        )
        return (0, 0) if row is None else (int(str(row[0])), int(str(row[1])))

    def forget(self) -> None:
        """Empty the cache: what it says does not fit the records."""
        try:
            self._db.executescript(f"begin immediate; {_FORGET} commit;")
        except sqlite3.Error as error:
            self._undo()
            raise _wrap(error, "the journal could not be written") from None

    def _undo(self) -> None:
        """Leave the transaction under way, or the next one could not begin."""
        if self._db.in_transaction:
            self._db.execute("rollback")

    def _write_keys(self, keys: Mapping[str, int | None]) -> None:
        outcomes = [(int(key[3:]), seq) for key, seq in keys.items() if key.startswith("st:")]
        # In their order a page takes several; as they come, nearly every key would change a page of its own.
        put = sorted((short(key), seq) for key, seq in keys.items() if seq is not None and not key.startswith("st:"))
        freed = [(short(key),) for key, seq in keys.items() if seq is None]
        self._insert("insert or replace into outcome values", outcomes)
        self._insert("insert or replace into idem values", [(bytearray(key), seq) for key, seq in put])
        if freed:
            self._db.executemany("delete from idem where key=?", freed)

    def _insert(self, head: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert rows in few statements: each gives up the interpreter lock once, and taking it back costs."""
        for start in range(0, len(rows), CHUNK_ROWS_MAX):
            part = rows[start : start + CHUNK_ROWS_MAX]
            self._db.execute(_insert_of(head, len(part[0]), len(part)), [value for row in part for value in row])

    def _one(self, sql: str, *args: object) -> tuple[object, ...] | None:
        try:
            row: tuple[object, ...] | None = self._db.execute(sql, args).fetchone()
        except sqlite3.Error as error:
            raise _wrap(error, "the journal could not be read") from None
        return row

    def size(self) -> int:
        """Number of records."""
        row = self._one("select coalesce(max(seq)+1,0) from record")
        return int(row[0]) if row and isinstance(row[0], int) else 0

    def head(self) -> tuple[int, bytes] | None:
        """Newest signed head: size and note."""
        row = self._one("select size, note from head order by size desc limit 1")
        return None if row is None else (row[0], row[1])  # type: ignore[return-value]

    def head_at(self, size: int) -> bytes | None:
        """The signed head of exactly ``size``, if a batch ended there."""
        row = self._one("select note from head where size=?", size)
        return None if row is None else row[0]  # type: ignore[return-value]

    def head_over(self, seq: int) -> tuple[int, bytes] | None:
        """The smallest signed head that covers the record ``seq``: size and note."""
        row = self._one("select size, note from head where size>? order by size limit 1", seq)
        return None if row is None else (row[0], row[1])  # type: ignore[return-value]

    def heads(self, below: int, limit: int) -> list[tuple[int, bytes]]:
        """Signed heads smaller than ``below``, the largest first, at most ``limit``."""
        try:
            rows = self._db.execute("select size, note from head where size<? order by size desc limit ?",
                                    (below, limit)).fetchall()  # fmt: skip
        except sqlite3.Error as error:
            raise _wrap(error, "the journal could not be read") from None
        return [(int(size), bytes(note)) for size, note in rows]

    def head_before(self, size: int) -> int | None:
        """The largest head size not above ``size``."""
        row = self._one("select max(size) from head where size<=?", size)
        return None if row is None else row[0]  # type: ignore[return-value]

    def key(self, key: str) -> int | None:
        """The seq that a key points to; for an action's key, the newest record about the action."""
        seq = self.keys((key,)).get(key)
        return self.keys((f"st:{seq}",)).get(f"st:{seq}", seq) if key.startswith("id:") and seq is not None else seq

    def keys(self, keys: Collection[str]) -> dict[str, int]:
        """Those of ``keys`` that exist, with the seqs they point to exactly."""
        outcomes = [int(key[3:]) for key in keys if key.startswith("st:")]
        named = {short(key): key for key in keys if not key.startswith("st:")}
        found: dict[str, int] = {}
        try:
            for intent, seq in self._in("select intent, seq from outcome where intent in", outcomes):
                found[f"st:{intent}"] = seq
            for key, seq in self._in("select key, seq from idem where key in", list(map(bytearray, named))):
                found[named[key]] = seq
        except sqlite3.Error as error:
            raise _wrap(error, "the journal could not be read") from None
        return found

    def _in(self, head: str, values: Sequence[object]) -> Iterator[tuple[Any, int]]:
        """Rows of ``head (values)``. The list is padded to a power of two, so that few statements are ever prepared."""
        for start in range(0, len(values), LOOKUP_MAX):
            part = list(values[start : start + LOOKUP_MAX])
            part += part[-1:] * ((1 << (len(part) - 1).bit_length()) - len(part))
            yield from self._db.execute(f"{head} ({','.join('?' * len(part))})", part)

    def record(self, seq: int) -> Record:
        """The record at ``seq``. Raises ``StoreError`` when it is missing or damaged."""
        row = self._one("select raw from record where seq=?", seq)
        if row is None:
            raise StoreError(f"there is no record {seq}")
        return self._parsed(seq, row[0])

    def _parsed(self, seq: int, raw: object) -> Record:
        try:
            record = read(raw if isinstance(raw, bytes) else b"")
        except EncodingError as error:
            raise StoreError(f"record {seq} is damaged: {error.message}", hint="Restore a backup.") from None
        if record.seq != seq:
            raise StoreError(f"record {seq} is damaged: it says it is {record.seq}", hint="Restore a backup.")
        return record

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Records in order from a snapshot of the database; safe on any thread."""
        for seq, raw in self.raw(start, stop):
            yield self._parsed(seq, raw)

    def raw_at(self, seq: int) -> bytes | None:
        """The canonical bytes of one record."""
        row = self._one("select raw from record where seq=?", seq)
        return None if row is None else row[0]  # type: ignore[return-value]

    def raw(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Seq and canonical bytes in order. Raises ``StoreError`` at a gap."""
        end = self.size() if stop is None else stop
        while start < end:
            try:
                rows = self._db.execute(
                    "select seq, raw from record where seq>=? and seq<? order by seq limit ?",
                    (start, end, PAGE_RECORDS),
                ).fetchall()
            except sqlite3.Error as error:
                raise _wrap(error, "the journal could not be read") from None
            for seq, raw in rows:
                if seq != start:
                    raise StoreError(f"record {start} is missing", hint="Restore a backup.")
                start += 1
                yield seq, raw
            if not rows:
                raise StoreError(f"record {start} is missing", hint="Restore a backup.")

    def sealed(self, seq: int) -> tuple[str, bytes] | None:
        """Subject and ciphertext of the values sealed with record ``seq``."""
        row = self._one("select subject, blob from sealed where seq=?", seq)
        return None if row is None else (row[0], row[1])  # type: ignore[return-value]

    def bundle(self, digest: str) -> bytes | None:
        """A policy bundle's canonical document."""
        row = self._one("select doc from bundle where digest=?", digest)
        return None if row is None else row[0]  # type: ignore[return-value]

    def snapshot(self) -> tuple[int, bytes] | None:
        """Newest snapshot: size and document."""
        row = self._one("select size, doc from snapshot order by size desc limit 1")
        return None if row is None else (row[0], row[1])  # type: ignore[return-value]

    def stream(self, name: str) -> tuple[int, str] | None:
        """Place and digest of a stream's newest record, as of the last ``save``."""
        row = self._one("select seq, digest from stream where name=?", name)
        return None if row is None else (row[0], row[1])  # type: ignore[return-value]

    def reader(self) -> SqliteStore:
        """A connection of its own that only reads. Raises ``StoreError``."""
        return SqliteStore(self._path, readonly=True)

    def close(self) -> None:
        """Close the writing connection; readers of other threads close with their threads."""
        try:
            self._db.close()
        except sqlite3.Error as error:
            raise _wrap(error, "the journal could not be closed") from None


def _check_tables(db: sqlite3.Connection) -> None:
    rows = db.execute("select sql from sqlite_master where sql is not null and name not like 'sqlite~_%' escape '~'")
    if sorted(sql for (sql,) in rows) != _SCHEMA:
        raise StoreError(
            f"the journal's tables are not those of schema {SCHEMA}", code="other_tables",
            hint="It was made before 0.1.0 was released, or altered: restore a backup, or make the deployment anew.",
        )  # fmt: skip


def upgrade(path: Path) -> int:
    """Bring an older journal to this schema; returns the schema found. There is one schema so far."""
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            (found,) = db.execute("pragma application_id").fetchone()
            (schema,) = db.execute("pragma user_version").fetchone()
            if (found, schema) == (APPLICATION_ID, SCHEMA):
                _check_tables(db)
        finally:
            db.close()
    except sqlite3.Error as error:
        raise _wrap(error, "the journal cannot be opened") from None
    if found != APPLICATION_ID:
        raise StoreError(f"{path.name} is not a countermark journal")
    if schema > SCHEMA:
        raise StoreError(
            f"the journal has schema {schema}, this version knows {SCHEMA}", code="newer_schema",
            hint="Install a newer countermark; an older one never writes to it.",
        )  # fmt: skip
    if schema < SCHEMA:
        raise StoreError(f"no version of countermark ever wrote schema {schema}", hint="Restore a backup.")
    return int(schema)
