"""Which runs are open and what each waits for: rows made from the records, so that a run that waits costs no memory.

A cache and never evidence: without the file, or with an older one, it is made anew from the journal. A run that begins
and ends without waiting leaves one row, written later with many others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.model.errors import StoreError

VERSION = 2
DONE_BATCH_MAX = 500
PAGE_MAX = 500

_SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE head(size INTEGER NOT NULL, digest TEXT NOT NULL);
CREATE TABLE run(run TEXT PRIMARY KEY, name TEXT NOT NULL, definition TEXT NOT NULL, agent TEXT NOT NULL,
    grp TEXT, started INTEGER NOT NULL, due INTEGER, state TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX run_due ON run(due) WHERE due IS NOT NULL;
CREATE INDEX run_grp ON run(name, grp, started) WHERE grp IS NOT NULL;
CREATE TABLE step(run TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(run, seq)) WITHOUT ROWID;
CREATE TABLE wait(source TEXT NOT NULL, key TEXT NOT NULL, run TEXT NOT NULL, PRIMARY KEY(source, key, run))
    WITHOUT ROWID;
CREATE INDEX wait_run ON wait(run);
CREATE TABLE child(run TEXT PRIMARY KEY, parent TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX child_parent ON child(parent);
CREATE TABLE definition(digest TEXT PRIMARY KEY, name TEXT NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE event(source TEXT NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(source, key, seq))
    WITHOUT ROWID;
CREATE TABLE done(run TEXT PRIMARY KEY, name TEXT NOT NULL, definition TEXT NOT NULL, status TEXT NOT NULL,
    started INTEGER NOT NULL, ended INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX done_name ON done(name, ended);
"""

_ALL = (
    "DELETE FROM head", "DELETE FROM run", "DELETE FROM step", "DELETE FROM wait", "DELETE FROM child",
    "DELETE FROM definition", "DELETE FROM event", "DELETE FROM done",
)  # fmt: skip
_DONE = ("run", "name", "definition", "status", "started", "ended")
_FORGET = (
    "DELETE FROM run WHERE run=?", "DELETE FROM step WHERE run=?", "DELETE FROM wait WHERE run=?",
    "DELETE FROM child WHERE parent=?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """An open run. ``started``: seq of its ``run.started``; ``due``: when to look at it, microseconds, None: when
    something happens; ``state``: ``ready``, ``waiting`` or ``queued``."""

    run: str
    name: str
    definition: str
    agent: str
    group: str | None
    started: int
    due: int | None
    state: str


class Projection:
    """One connection, used on one thread. ``position``: the records before it are in the rows."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = self._open(path)
            if self._meta("version") != VERSION:
                self._db.close()
                for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
                    name.unlink(missing_ok=True)
                self._db = self._open(path)
                self._db.executescript(_SCHEMA)
                self._set("version", VERSION)
                self._set("position", 0)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the runs' file {path.name} cannot be opened: {error}", hint="Delete it.") from None
        self._done: list[tuple[Any, ...]] = []
        self.children = self._one("SELECT count(*) FROM child") or 0  # at least so many parked runs wait for others

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")  # a power cut takes the newest rows, all of them or none
        return db

    def _meta(self, name: str) -> int:
        try:
            row = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        except sqlite3.OperationalError:
            return -1
        return -1 if row is None else int(row[0])

    def _set(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (name, value))

    @property
    def position(self) -> int:
        """The records before it need not be read again."""
        return self._meta("position")

    @property
    def head(self) -> tuple[int, str]:
        """How many records there were when it was last written, and the digest of the newest."""
        found = self._db.execute("SELECT size, digest FROM head").fetchone()
        return (0, "") if found is None else (int(found[0]), str(found[1]))

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction, also around others."""
        if self._db.in_transaction:
            yield
            return
        with self._db:
            self._db.execute("BEGIN")
            yield

    def forget(self) -> None:
        """Make everything anew: the rows are not of this journal."""
        with self.together():
            for statement in _ALL:
                self._db.execute(statement)
            self._set("position", 0)
        self._done.clear()

    def flush(self, position: int, head: tuple[int, str] | None = None) -> None:
        """Write what is kept back, that all before ``position`` is in the rows, and how long the journal is."""
        with self.together():
            self._db.executemany("INSERT OR REPLACE INTO done VALUES(?,?,?,?,?,?)", self._done)
            self._set("position", position)
            if head is not None:
                self._db.execute("DELETE FROM head")
                self._db.execute("INSERT INTO head VALUES(?,?)", head)
        self._done.clear()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def define(self, digest: str, name: str, seq: int) -> None:
        """A definition stands in the record at ``seq``."""
        self._db.execute("INSERT OR IGNORE INTO definition VALUES(?,?,?)", (digest, name, seq))

    def definition(self, digest: str) -> int | None:
        """Where a definition stands."""
        return self._one("SELECT seq FROM definition WHERE digest=?", digest)

    def event(self, source: str, key: str, seq: int) -> list[str]:
        """Something happened outside; returns the runs that wait for it."""
        self._db.execute("INSERT OR IGNORE INTO event VALUES(?,?,?)", (source, key, seq))
        return [row[0] for row in self._db.execute("SELECT run FROM wait WHERE source=? AND key=?", (source, key))]

    def happened(self, source: str, key: str, since: int, taken: Collection[int]) -> int | None:
        """The first such event after the record at ``since`` that is not among those taken."""
        rows = self._db.execute(
            "SELECT seq FROM event WHERE source=? AND key=? AND seq>? ORDER BY seq", (source, key, since)
        )
        return next((row[0] for row in rows if row[0] not in taken), None)

    def park(self, row: Row, seqs: Iterable[int], waits: Iterable[tuple[str, str]], children: Iterable[str]) -> None:
        """A run is not driven for now: all that is known of it."""
        with self.together():
            self._db.execute("INSERT OR REPLACE INTO run VALUES(?,?,?,?,?,?,?,?)",
                             (row.run, row.name, row.definition, row.agent, row.group, row.started, row.due,
                              row.state))  # fmt: skip
            self._db.executemany("INSERT OR IGNORE INTO step VALUES(?,?)", [(row.run, seq) for seq in seqs])
            self._db.execute("DELETE FROM wait WHERE run=?", (row.run,))
            self._db.executemany("INSERT OR IGNORE INTO wait VALUES(?,?,?)", [(*wait, row.run) for wait in waits])
            waited = [(one, row.run) for one in children]
            self._db.executemany("INSERT OR IGNORE INTO child VALUES(?,?)", waited)
            self.children += len(waited)

    def delay(self, run: str, due: int | None, state: str) -> None:
        """When to look at a parked run again."""
        self._db.execute("UPDATE run SET due=?, state=? WHERE run=?", (due, state, run))

    def ready(self) -> list[str]:
        """Runs that should be driven now."""
        return [row[0] for row in self._db.execute("SELECT run FROM run WHERE due<=0 ORDER BY started")]

    def append(self, run: str, seq: int) -> bool:
        """A record about a run that is not driven now, and so should be; whether there is such a run."""
        if not self._db.execute("UPDATE run SET due=0, state='ready' WHERE run=?", (run,)).rowcount:
            return False
        self._db.execute("INSERT OR IGNORE INTO step VALUES(?,?)", (run, seq))
        return True

    def waits(self, run: str, what: Mapping[str, Any]) -> None:
        """A run that is not driven now began to wait: ``for`` of its ``step.waiting``."""
        if what["kind"] == "event":
            self._db.execute("INSERT OR IGNORE INTO wait VALUES(?,?,?)", (what["source"], what["key"], run))
        elif what["kind"] in ("call", "agent"):
            self._db.execute("INSERT OR IGNORE INTO child VALUES(?,?)", (what["run"], run))
            self.children += 1

    def migrate(self, run: str, to: str) -> None:
        """A run that is not driven now goes on by another definition."""
        self._db.execute("UPDATE run SET definition=? WHERE run=?", (to, run))

    def row(self, run: str) -> Row | None:
        """An open run that was parked."""
        found = self._db.execute("SELECT * FROM run WHERE run=?", (run,)).fetchone()
        return None if found is None else Row(*found)

    def seqs(self, run: str) -> list[int]:
        """The records about a parked run, in order."""
        return [row[0] for row in self._db.execute("SELECT seq FROM step WHERE run=? ORDER BY seq", (run,))]

    def parent(self, child: str) -> str | None:
        """The run that waits for another one to end."""
        found = self._db.execute("SELECT parent FROM child WHERE run=?", (child,)).fetchone()
        return None if found is None else str(found[0])

    def due(self, now_us: int, limit: int) -> list[str]:
        """Runs whose time has come."""
        rows = self._db.execute("SELECT run FROM run WHERE due<=? ORDER BY due LIMIT ?", (now_us, limit))
        return [row[0] for row in rows]

    def ahead(self, name: str, group: str, started: int) -> list[str]:
        """Open runs of the same group that began earlier."""
        rows = self._db.execute("SELECT run FROM run WHERE name=? AND grp=? AND started<? ORDER BY started",
                                (name, group, started))  # fmt: skip
        return [row[0] for row in rows]

    def behind(self, name: str, group: str) -> str | None:
        """The run of a group that is the next to go on."""
        found = self._db.execute(
            "SELECT run FROM run WHERE name=? AND grp=? ORDER BY started LIMIT 1", (name, group)
        ).fetchone()  # fmt: skip
        return None if found is None else str(found[0])

    def end(self, row: Row, status: str, ended: int) -> str | None:
        """A run is over; returns the run that is the next of its group to go on."""
        with self.together():
            for statement in _FORGET:
                self._db.execute(statement, (row.run,))
            # Where its row was, nothing would tell a restart of it any more.
            done = (row.run, row.name, row.definition, status, row.started, ended)
            self._db.execute("INSERT OR REPLACE INTO done VALUES(?,?,?,?,?,?)", done)
            following = None if row.group is None else self.behind(row.name, row.group)
            if following is not None:
                self.delay(following, 0, "ready")
        return following

    def done(self, row: Row, status: str, ended: int) -> None:
        """A run is over that never was parked."""
        self._done.append((row.run, row.name, row.definition, status, row.started, ended))

    def over(self, run: str) -> int | None:
        """Where the end of a run stands."""
        found = self.ended_row(run)
        return None if found is None else int(found["ended"])

    def ended_row(self, run: str) -> Mapping[str, Any] | None:
        """A run that is over: ``run, name, definition, status, started, ended`` (seqs)."""
        row = next((row for row in self._done if row[0] == run), None)
        row = row or self._db.execute("SELECT * FROM done WHERE run=?", (run,)).fetchone()
        return None if row is None else dict(zip(_DONE, row, strict=True))

    @property
    def kept_back(self) -> int:
        """Rows that the next flush writes."""
        return len(self._done)

    def open_runs(self, after: str = "", limit: int = PAGE_MAX) -> list[Row]:
        """Parked runs by ID, a page at a time."""
        return [Row(*row) for row in self._db.execute("SELECT * FROM run WHERE run>? ORDER BY run LIMIT ?",
                                                      (after, limit))]  # fmt: skip

    def ended(self, name: str = "", limit: int = PAGE_MAX) -> list[Mapping[str, Any]]:
        """The runs that ended last: ``run, name, definition, status, started, ended`` (seqs)."""
        self.flush(self.position)
        rows = self._db.execute("SELECT * FROM done WHERE ?1='' OR name=?1 ORDER BY ended DESC LIMIT ?2", (name, limit))
        return [dict(zip(_DONE, row, strict=True)) for row in rows]

    def _one(self, sql: str, *args: Any) -> int | None:
        found = self._db.execute(sql, args).fetchone()
        return None if found is None or found[0] is None else int(found[0])
