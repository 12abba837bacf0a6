"""What waits to be told, in a database of its own beside the journal. It is no evidence: lost, it begins anew.

Messages and cursors are written in one transaction, so that whatever kills the process, each record is told at least
once from where a channel began. A message keeps its identity over every try.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from countermark.model.errors import StoreError
from countermark.notify.events import Event

APPLICATION_ID = 0x434D4B4E  # "CMKN"
SCHEMA = 1
QUEUED_MAX = 1_000  # of one channel; when it is full, the channel's cursor waits, and the log is the queue
KEPT_MAX = 1_000  # of one channel's delivered messages, and of its dead ones
LISTED_MAX = 1_000

_TABLES = """
create table cursor (channel text primary key, seq integer not null) strict, without rowid;
create table thread (escalation text primary key, raised integer not null, intent integer, final integer) strict;
create index thread_intent on thread (intent) where intent is not null;
create table message (id integer primary key, channel text not null, seq integer not null, event text not null,
  escalation text, doc blob not null, ladders blob not null, state text not null, tries integer not null,
  due integer not null, error text not null, unique (seq, channel)) strict;
create index message_waiting on message (channel, state, due);
create table ask (escalation text not null, ladder text not null, rung integer not null, seq integer not null,
  primary key (escalation, ladder, rung)) strict, without rowid;
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one channel. ``state``: ``queued``, ``sent`` or ``dead``; ``due`` in microseconds UTC."""

    id: int
    channel: str
    seq: int
    event: str
    escalation: str | None
    doc: Mapping[str, Any]
    state: str
    tries: int
    due: int
    error: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A rung that was asked, as long as nobody was reached."""

    escalation: str
    ladder: str
    rung: int
    seq: int


_INSERT = (
    "insert or ignore into message (channel, seq, event, escalation, doc, ladders, state, tries, due, error) "
    "values(?,?,?,?,?,?,'queued',0,?,'')"
)
_AGENT = "json_extract(cast(doc as text), '$.agent')"
_INDEX = "create index if not exists message_thread on message (escalation, channel, state, id)"
_COLUMNS = "id, channel, seq, event, escalation, doc, state, tries, due, error"


class Outbox:
    """Thread-safe. Raises ``StoreError``."""

    def __init__(self, path: Path) -> None:
        """Open, or make it where there is none."""
        self._lock = threading.Lock()
        try:
            os.close(
                os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            )  # nobody else's to read, from the first
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the outbox {path.name} cannot be opened: {error}") from None

    def _prepare(self) -> None:
        db = self._db
        db.execute("pragma journal_mode=wal")
        # After a power cut the newest transactions may be missing, whole: the log is read again from there, and what
        # was sent meanwhile is sent once more. So no fsync here competes with those of the lane.
        db.execute("pragma synchronous=normal")
        db.execute("begin immediate")  # of two that begin at once, one makes the tables
        (found,), (schema,) = (
            db.execute("pragma application_id").fetchone(),
            db.execute("pragma user_version").fetchone(),
        )
        (tables,) = db.execute("select count(*) from sqlite_master").fetchone()
        if tables == 0:
            for statement in filter(str.strip, _TABLES.split(";")):
                db.execute(statement)
            db.execute(f"pragma application_id={APPLICATION_ID}")
            db.execute(f"pragma user_version={SCHEMA}")
        elif (found, schema) != (APPLICATION_ID, SCHEMA):
            db.execute("rollback")
            raise sqlite3.DatabaseError("it is not an outbox of this version")
        db.execute(_INDEX)
        db.execute("commit")

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("begin immediate")
                yield self._db
                self._db.execute("commit")
            except sqlite3.Error as error:
                raise StoreError(f"the outbox cannot be written: {error}", hint="Free disk space.") from None
            finally:
                self._undo()

    def _undo(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("rollback")
        except sqlite3.Error:  # closed meanwhile; there is nothing left to undo
            return

    def _all(self, sql: str, *args: object) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(sql, args).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"the outbox cannot be read: {error}") from None

    def begin(self, channels: Sequence[str], size: int) -> None:
        """Know these channels: a new one begins at ``size``, the log's end. Messages to others become dead."""
        marks = ",".join("?" * len(channels))
        with self._write() as db:
            db.executemany("insert or ignore into cursor values(?,?)", [(name, size) for name in channels])
            db.execute("update cursor set seq=? where seq>?", (size, size))  # an outbox of a longer log than this one
            db.execute(f"delete from cursor where channel not in ({marks})", channels)  # noqa: S608
            db.execute(
                f"update message set state='dead', error='there is no such channel any more' "  # noqa: S608
                f"where state='queued' and channel not in ({marks})", channels,
            )  # fmt: skip

    def cursors(self) -> dict[str, int]:
        """Channel -> seq of the first record that it was not told of, for channels that have room."""
        rows = self._all(
            "select channel, seq from cursor c where "
            "(select count(*) from message m where m.channel=c.channel and m.state='queued') < ?", QUEUED_MAX,
        )  # fmt: skip
        return dict(rows)

    def raised(self, escalation: str) -> int | None:
        """Seq of the record that raised it; None when no channel knows it yet."""
        rows = self._all("select raised from thread where escalation=?", escalation)
        return rows[0][0] if rows else None

    def of_intent(self, intent: int) -> str | None:
        """The escalation whose approval led to this intent."""
        rows = self._all("select escalation from thread where intent=?", intent)
        return rows[0][0] if rows else None

    def follow(self, escalation: str, raised: int) -> None:
        """Remember what raised an escalation, before the events after it are made."""
        with self._write() as db:
            db.execute("insert or ignore into thread values(?,?,null,null)", (escalation, raised))

    def intend(self, escalation: str, intent: int) -> None:
        """Remember which intent an approval led to."""
        with self._write() as db:
            db.execute("update thread set intent=? where escalation=?", (intent, escalation))

    def put(self, event: Event, to: Mapping[str, Collection[str]], now_us: int) -> None:
        """Queue an event; ``to``: channel -> the ladders of the event that it serves. Again it changes nothing."""
        doc, served = orjson.dumps(event.doc), set[str]()
        with self._write() as db:
            for channel, ladders in to.items():
                row = (channel, event.seq, event.name, event.escalation, doc, orjson.dumps(sorted(ladders)), now_us)
                if db.execute(_INSERT, row).rowcount:
                    served.update(ladders)
            asks = [(event.escalation, k, rung, event.seq) for k, rung in event.asks.items() if k in served]
            db.executemany("insert or ignore into ask values(?,?,?,?)", asks)
            if event.final:
                db.execute("update thread set final=? where escalation=?", (event.seq, event.escalation))
            if event.name not in ("asked", "climbed", "answered"):
                db.execute("delete from ask where escalation=?", (event.escalation,))

    def advance(self, channels: Collection[str], seq: int) -> None:
        """These channels were told of everything before ``seq``. What nobody is told of any more is forgotten."""
        with self._write() as db:
            db.executemany("update cursor set seq=max(seq,?) where channel=?", [(seq, name) for name in channels])
            db.execute("delete from thread where final < (select min(seq) from cursor)")
            for state in ("sent", "dead"):
                db.execute(
                    "delete from message where id in (select id from (select id, row_number() over "
                    "(partition by channel order by id desc) as place from message where state=?) where place>?)",
                    (state, KEPT_MAX),
                )

    def due(self, channel: str, now_us: int, wait_us_max: int) -> Message | None:
        """The next message to send: the oldest of each escalation first, so that a thread is told in its order.

        A stop goes before all else, and then the agent with the fewest messages, so that one that has people asked
        without end keeps nobody else's question waiting.

        One that is due later than any pause could be belongs to a clock that was ahead: it is due now.
        """
        rows = self._all(
            f"with load as materialized (select {_AGENT} as agent, count(*) as queued from message "  # noqa: S608
            f"where channel=?1 and state='queued' group by 1) select {_COLUMNS} from message m "
            f"left join load on load.agent is {_AGENT} where channel=?1 and state='queued' and (due<=?2 or due>?3) "
            "and not exists (select 1 from message o where o.channel=m.channel and o.state='queued' "
            "and o.escalation=m.escalation and o.id<m.id) "
            "order by escalation is not null, load.queued, id limit 1", channel, now_us, now_us + wait_us_max,
        )  # fmt: skip
        return _message(rows[0]) if rows else None

    def sent(self, message: Message) -> None:
        """It was delivered, so that its rungs were reached."""
        with self._write() as db:
            db.execute("update message set state='sent', tries=tries+1, error='' where id=?", (message.id,))
            (ladders,) = db.execute("select ladders from message where id=?", (message.id,)).fetchone()
            reached = [(message.seq, ladder) for ladder in orjson.loads(ladders)]
            db.executemany("delete from ask where seq=? and ladder=?", reached)

    def failed(self, message: Message, error: str, due: int | None, *, tried: bool = True) -> None:
        """A try failed. ``due``: when to try again, None for never. Without ``tried`` it is not counted as one."""
        with self._write() as db:
            db.execute(
                "update message set state=?, tries=tries+?, due=?, error=? where id=?",
                (
                    "dead" if due is None else "queued",
                    int(tried),
                    message.due if due is None else due,
                    error,
                    message.id,
                ),
            )

    def unreached(self, tries: int, seq: int | None = None) -> list[Ask]:
        """Rungs that were asked (by the record at ``seq``, or by any) and that no channel has reached.

        Every channel that serves the ladder has failed for good, or ``tries`` times.
        """
        found = []
        asks = self._all("select escalation, ladder, rung, seq from ask where ?1 is null or seq=?1", seq)
        for escalation, ladder, rung, at in asks:
            rows = self._all("select state, tries, ladders from message where seq=?", at)
            serving = [(state, count) for state, count, ladders in rows if ladder in orjson.loads(ladders)]
            if serving and all(state == "dead" or (state == "queued" and count >= tries) for state, count in serving):
                found.append(Ask(escalation, ladder, rung, at))
        return found

    def told(self, ask: Ask) -> None:
        """The gate knows that a rung could not be reached."""
        key = (ask.escalation, ask.ladder, ask.rung)
        with self._write() as db:
            db.execute("delete from ask where escalation=? and ladder=? and rung=?", key)

    def listed(self, state: str | None = None) -> list[Message]:
        """The newest messages, of one state or of all, the newest first."""
        rows = self._all(
            f"select {_COLUMNS} from message where ?1 is null or state=?1 order by id desc limit {LISTED_MAX}",  # noqa: S608
            state,
        )
        return [_message(row) for row in rows]

    def counts(self) -> dict[tuple[str, str], int]:
        """How many messages there are, by channel and state."""
        rows = self._all("select channel, state, count(*) from message group by channel, state")
        return {(channel, state): count for channel, state, count in rows}

    def retry(self, ids: Collection[int] | None, channels: Collection[str], now_us: int) -> int:
        """Queue dead messages again, all or those with these ids, to channels that there are. Returns how many."""
        marks = ",".join("?" * len(channels))
        with self._write() as db:
            rows = db.execute(f"select id from message where state='dead' and channel in ({marks})", tuple(channels))  # noqa: S608
            chosen = [(now_us, one) for (one,) in rows.fetchall() if ids is None or one in ids]
            db.executemany("update message set state='queued', tries=0, due=? where id=?", chosen)
        return len(chosen)

    def close(self) -> None:
        """Close; whoever still uses it gets a ``StoreError``."""
        with self._lock:
            self._db.close()


def _message(row: Sequence[Any]) -> Message:
    one, channel, seq, event, escalation, doc, state, tries, due, error = row
    return Message(one, channel, seq, event, escalation, orjson.loads(doc), state, tries, due, error)
