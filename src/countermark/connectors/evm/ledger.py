"""Which nonce belongs to which intent, and which transactions were ever signed for it: durable before anything is sent.

One account's transactions are numbered by the chain, and of several with one number at most one takes effect. So an
intent that keeps its number cannot pay twice, however often it is sent; and one whose number nobody remembers could.
This file is that memory. It is written and flushed before a byte of a transaction leaves, never after. See ADR 0012.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from countermark.model.errors import StoreError

ATTEMPTS_MAX = 64  # transactions of one intent
OPEN_MAX = 64  # intents of one account whose transactions are on their way

_SCHEMA = """
create table if not exists born (at integer not null);
create table if not exists nonce (
    chain integer not null, account text not null, nonce integer not null, key text not null unique,
    settled integer not null default 0, primary key (chain, account, nonce)) strict;
create table if not exists attempt (
    key text not null, number integer not null, hash text not null unique, fee text not null, tip text not null,
    cancels integer not null default 0, primary key (key, number)) strict;
"""


class Attempt(NamedTuple):
    """A transaction that was signed, and may have been sent. Fees are wei for each unit of gas."""

    hash: str
    fee_max: int
    tip_max: int
    cancels: bool  # a person's: it moves nothing and takes the payment's number


class Slot(NamedTuple):
    """An intent's number on its chain, and what was signed under it, oldest first."""

    key: str
    nonce: int
    settled: bool
    attempts: tuple[Attempt, ...]


class Ledger:
    """The file. Safe to use from many threads; two processes wait for each other.

    ``new_at``: what to remember as the time of its making when it has to be made, microseconds; intents older than
    that are unknown to it, whatever became of them.
    """

    def __init__(self, path: Path, new_at: Callable[[], int]) -> None:
        """Nothing is opened yet: a deployment may be worked on by people who never pay on a chain."""
        self._path = path
        self._new_at = new_at
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def make(self) -> None:
        """Make the file now if there is none, so that from now on its absence means that it was lost."""
        with self._work():
            return

    @property
    def born_at(self) -> int:
        """When the file was made; 0 when no intent can be older."""
        with self._work() as db:
            return int(db.execute("select at from born").fetchone()[0])

    def find(self, key: str) -> Slot | None:
        """What is known about an intent."""
        with self._work() as db:
            return _slot(db, key)

    def take(self, key: str, chain: int, account: str, sent: int, first: Callable[[int], Attempt]) -> Slot | None:
        """Give an intent the lowest number that is free, and remember its first transaction; durable on return.

        ``sent`` is how many transactions the chain has of the account; ``first`` makes the transaction of a number.
        None when too many intents of the account are on their way, or one below waits that nobody resends.
        """
        with self._work() as db:
            if (found := _slot(db, key)) is not None:
                return found
            rows = db.execute("select nonce, settled from nonce where chain = ? and account = ? and nonce >= ?",
                              (chain, account, sent)).fetchall()  # fmt: skip
            if sum(1 for _, settled in rows if not settled) >= OPEN_MAX:
                return None
            taken = {nonce for nonce, _ in rows}
            nonce = next(number for number in range(sent, sent + len(taken) + 1) if number not in taken)
            attempt = first(nonce)
            db.execute("insert into nonce (chain, account, nonce, key) values (?, ?, ?, ?)",
                       (chain, account, nonce, key))  # fmt: skip
            _add(db, key, attempt)
            return _slot(db, key)

    def add(self, key: str, attempt: Attempt) -> None:
        """Remember another transaction of an intent; durable on return."""
        with self._work() as db:
            _add(db, key, attempt)

    def release(self, key: str) -> None:
        """Forget an intent of whose one transaction nothing left this process: its number is free again."""
        with self._work() as db:
            db.execute("delete from attempt where key = ?", (key,))
            db.execute("delete from nonce where key = ?", (key,))

    def settle(self, key: str) -> None:
        """The number was used, for good."""
        with self._work() as db:
            db.execute("update nonce set settled = 1 where key = ?", (key,))

    def open(self, chain: int, account: str) -> list[Slot]:
        """The intents of an account whose numbers are not known to be used, lowest first."""
        with self._work() as db:
            rows = db.execute(
                "select key from nonce where chain = ? and account = ? and not settled order by nonce", (chain, account)
            ).fetchall()
            return [slot for (key,) in rows if (slot := _slot(db, key)) is not None]

    def close(self) -> None:
        """Let go of the file; it is opened again when it is needed."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _work(self) -> Iterator[sqlite3.Connection]:
        """One transaction, flushed to disk on the way out. Raises ``StoreError``."""
        with self._lock:
            try:
                db = self._connection or self._open()
                db.execute("begin immediate")
                try:
                    yield db
                except BaseException:
                    db.execute("rollback")
                    raise
                db.execute("commit")
            except sqlite3.Error as error:
                raise StoreError(f"the record of nonces cannot be used ({type(error).__name__})",
                                 hint="Nothing is signed without it.") from None  # fmt: skip

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = not self._path.exists()
        db = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        db.execute("pragma synchronous = extra")  # the directory too, when the rollback journal goes
        db.execute("pragma journal_mode = delete")
        if new:
            self._path.chmod(0o600)
        db.execute("begin immediate")
        for statement in _SCHEMA.split(";\n"):
            db.execute(statement)
        if db.execute("select count(*) from born").fetchone()[0] == 0:
            db.execute("insert into born (at) values (?)", (self._new_at(),))
        db.execute("commit")
        self._connection = db
        return db


def _add(db: sqlite3.Connection, key: str, attempt: Attempt) -> None:
    number = db.execute("select count(*) from attempt where key = ?", (key,)).fetchone()[0]
    if number >= ATTEMPTS_MAX:
        raise StoreError(f"{ATTEMPTS_MAX} transactions were signed for one intent", hint="People settle it: resolve.")
    db.execute(
        "insert or ignore into attempt (key, number, hash, fee, tip, cancels) values (?, ?, ?, ?, ?, ?)",
        (key, number, attempt.hash, str(attempt.fee_max), str(attempt.tip_max), int(attempt.cancels)),
    )


def _slot(db: sqlite3.Connection, key: str) -> Slot | None:
    row = db.execute("select nonce, settled from nonce where key = ?", (key,)).fetchone()
    if row is None:
        return None
    rows = db.execute("select hash, fee, tip, cancels from attempt where key = ? order by number", (key,)).fetchall()
    attempts = tuple(Attempt(hash_, int(fee), int(tip), bool(cancels)) for hash_, fee, tip, cancels in rows)
    return Slot(key, row[0], bool(row[1]), attempts)
