"""Which runs are in memory and which are rows, kept as the journal says: every durable record comes by here once."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any

from countermark.model.driving import RUN_MARK
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.ports import Store
from countermark.model.records import Record
from countermark.workflow.folding import Folder
from countermark.workflow.live import FOLDED, RETRY_US, RETRY_US_MAX, Live
from countermark.workflow.projection import Projection, Row
from countermark.workflow.registry import Registry
from countermark.workflow.sealing import Seals

LIVE_MAX = 512  # runs in memory at once; more wait their turn in rows
FLUSH_ROWS = 1_000
ELSEWHERE = "`runs list` shows them; what an agent did in a run of its own, `countermark explain RUN` says."
DUE_PAGE = 200
_QUIET = frozenset(("run.started", "compute.executed", "step.waiting", "escalation.raised", "escalation.climbed"))

log = logging.getLogger("countermark.workflow")


class Roster:
    """Used on the gate's loop. ``go_on`` is called with a run to which something happened."""

    def __init__(self, store: Store, rows: Projection, go_on: Callable[[Live], None], seals: Seals) -> None:
        self.store = store
        self.seals = seals
        self.rows = rows
        self.registry = Registry(store, rows, seals)
        self.folder = Folder(store, rows, seals, self.registry)
        self.live: dict[str, Live] = {}
        self._go_on = go_on
        self._ready: deque[str] = deque()  # rows that something happened to
        self._queued: set[str] = set()
        self._out: set[str] = set()  # rows that are to stay rows for now
        self._seen = 0  # records heard of
        self._flushed = (0, 0)
        self._lost: int | None = None  # the first record that could not be taken
        self._again_at, self._again_us = 0, RETRY_US  # when all from there on is read again
        self._now = 0
        self._stuck: dict[str, tuple[str, int]] = {}  # rows that could not go on: why, and the next pause
        self._patience: dict[str, int] = {}  # of rows that could not be loaded: how long until the next try

    # --- what the journal says

    def catch_up(self) -> None:
        """Take what was recorded since the rows were written; runs that moved, or never were rows, become ready."""
        size, digest = self.rows.head
        if size and (size > self.store.size() or self._digest(size) != digest):
            log.warning("the rows of runs are made anew: they are of another journal")
            self.rows.forget()
        self._read(max(self.rows.position, 0))
        self.flush()
        for run in self.rows.ready():
            self.enqueue(run)

    def _digest(self, size: int) -> str:
        return sha256(self.store.record(size - 1).raw).hexdigest()

    def hear(self) -> None:
        """Take what is recorded and was not told, as after a halt of the lane."""
        if self.store.size() > self._seen:
            self._read(self._seen)

    def _read(self, start: int) -> None:
        """Take the records from ``start`` on, some perhaps once more."""
        self._seen, whole = max(self._seen, self.store.size()), False
        try:
            with self.rows.together():
                whole = not sum(not self._one(record) for record in _worth(self.store, start, self._seen))
        finally:
            if not whole:  # what failed may have taken back what stood before it
                self._lose(start)

    def _lose(self, seq: int) -> None:
        self._lost = seq if self._lost is None else min(self._lost, seq)

    def _first_row(self, record: Record) -> Row:
        run, workflow = record.body["run"], record.body["workflow"]
        group = self.registry.group_in(self.registry.definition(workflow["definition"]), record)
        return Row(
            run, workflow["name"], workflow["definition"], record.body["agent"], group, record.seq, 0, "ready"
        )  # fmt: skip

    def take(self, records: Sequence[Record], first: int, seen: int) -> None:
        """What concerns runs of definitions of the durable records from ``first`` to ``seen``."""
        if first > self._seen:
            self._read(self._seen)
        for record in records:
            if record.seq >= self._seen:
                self._one(record)
        self._seen = max(self._seen, seen)
        if self.rows.kept_back >= FLUSH_ROWS:
            self.flush()
        self.pump()

    def _one(self, record: Record) -> bool:
        try:
            self._index(record)
            self._deliver(record)
        except Exception as error:  # those behind it concern other runs
            self._missed(record, error)
            return False
        return True

    def _missed(self, record: Record, error: Exception) -> None:
        """A record could not be taken: its run is folded anew, and all from here on is read again later."""
        log.error("the record %d of runs was not taken: %s", record.seq, error, exc_info=error)
        self._lose(record.seq)
        live = self.live.get(str(record.body.get("run", "")))
        if live is not None:
            live.broken = True
            self._go_on(live)

    def flush(self) -> None:
        """Write rows that were kept back; what is only in memory will be read from the journal again."""
        first = min((live.started for live in self.live.values() if live.started >= 0), default=self._seen)
        if self._lost is not None:
            first = min(first, self._lost)
        if (first, self._seen) != self._flushed or self.rows.kept_back:
            self.rows.flush(first, (self._seen, self._digest(self._seen)) if self._seen else None)
            self._flushed = (first, self._seen)

    def _index(self, record: Record) -> None:
        if record.kind == "workflow.defined":
            self.rows.define(record.body["digest"], record.body["document"]["name"], record.seq)
        elif record.kind == "event.received":
            for run in self.rows.event(record.body["source"], record.body["key"], record.seq):
                self._wake(run, record)
        elif record.kind == "run.ended" and self.rows.children:
            parent = self.rows.parent(record.body["run"])
            if parent is not None:
                self._wake(parent, record)

    def _wake(self, run: str, record: Record) -> None:
        if run not in self.live and self.rows.append(run, record.seq):
            self.enqueue(run)

    def _deliver(self, record: Record) -> None:
        run = str(record.body.get("run", ""))
        own = self.live.get(run)
        for live in self._concerned(run, record):
            new = live.fold(record) and (live.broken or record.kind not in _QUIET)
            if new and not (live is own and record.kind == "run.ended"):
                self._go_on(live)
        if own is not None and record.kind == "run.ended":
            self._ended(own, record)
        elif own is None and run.startswith(RUN_MARK):
            self._of_row(run, record)

    def _of_row(self, run: str, record: Record) -> None:
        """A record of a run that is not driven now."""
        rows, seq = self.rows, record.seq
        if record.kind == "run.ended":
            if (row := rows.row(run)) is not None:
                self._over(row, record)
            return
        if not rows.append(run, seq):
            if record.kind != "run.started":
                return
            rows.park(self._first_row(record), [seq], (), ())
        elif record.kind == "step.waiting":
            rows.waits(run, record.body["for"])
        elif record.kind == "run.migrated":
            rows.migrate(run, record.body["to"])
        self.enqueue(run)

    def _over(self, row: Row, record: Record) -> None:
        following = self.rows.end(row, str(record.body["workflow"]["status"]), record.seq)
        if following is not None:
            self.enqueue(following)

    def _concerned(self, run: str, record: Record) -> list[Live]:
        found = [self.live[run]] if run in self.live else []
        if record.kind == "event.received":
            what = (record.body["source"], record.body["key"])
            found += [live for live in self.live.values() if what in live.waits.values()]
        elif record.kind == "run.ended":
            found += [live for live in self.live.values() if run in live.children]
        return found

    def _ended(self, live: Live, record: Record) -> None:
        row, answer = self.row_of(live, None, "ready"), self.folder.result(record) if live.waiters else {}
        if live.row:
            self._over(row, record)
        else:
            self.rows.done(row, record.body["workflow"]["status"], record.seq)
        self.live.pop(live.run, None)
        live.answer(answer)
        live.machine.forget()

    # --- from rows to memory and back

    def enqueue(self, run: str) -> None:
        """Something happened to a run that is a row: it is driven when its turn comes."""
        if run not in self._queued and run not in self.live:
            self._queued.add(run)
            self._ready.append(run)

    async def hold(self, run: str) -> Callable[[], None]:
        """Let nobody plan for a run, until what is returned is called: no plan may overtake its cancellation."""
        while (live := self.live.get(run)) is not None:
            await live.lock.acquire()
            if self.live.get(run) is live:
                return live.lock.release
            live.lock.release()
        self.keep_out(run)
        return lambda: self.let_in(run)

    def keep_out(self, run: str) -> None:
        """A run that is no run in memory does not become one."""
        self._out.add(run)

    def let_in(self, run: str) -> None:
        """It may again, and is looked at."""
        self._out.discard(run)
        self.enqueue(run)
        self.pump()

    def due(self, now_us: int) -> None:
        """Runs whose time has come, and what was not told, or could not be taken."""
        self._now = now_us
        if self._lost is not None and not _waits(self._again_at, now_us):
            self._again_at, self._again_us = now_us + self._again_us, min(2 * self._again_us, RETRY_US_MAX)
            lost, self._lost = self._lost, None
            self._read(lost)
            self._again_us = RETRY_US if self._lost is None else self._again_us
        if len(self._ready) < DUE_PAGE:
            for run in self.rows.due(now_us, DUE_PAGE + len(self._ready) + len(self.live)):
                self.enqueue(run)
        for live in list(self.live.values()):
            if live.retry_at:
                if not _waits(live.retry_at, now_us):
                    live.retry_at = 0
                    self._go_on(live)
            elif 0 < live.due <= now_us:
                live.due = 0
                self._go_on(live)
        self.pump()

    def pump(self) -> None:
        """Take as many rows into memory as there is room for."""
        while self._ready and self._room():
            run = self._ready.popleft()
            self._queued.discard(run)
            try:
                live = None if run in self.live else self._load(run)
            except Exception as error:  # others go on; this one is tried again a little later
                fault = not isinstance(error, CountermarkError)
                log.error("the run %s cannot go on: %s", run, error, exc_info=fault)
                self._patience[run] = wait_us = min(2 * self._patience.get(run, RETRY_US // 2), RETRY_US_MAX)
                self.rows.delay(run, self._now + wait_us, "ready")
                continue
            self._patience.pop(run, None)
            if live is not None:
                self._go_on(live)

    def _room(self) -> bool:
        """Whether one more may be in memory; where none may, one that cannot go on now gives its place away."""
        if len(self.live) < LIVE_MAX:
            return True
        stuck = next((live for live in self.live.values() if live.stuck), None)
        if stuck is not None:
            self._stuck[stuck.run] = (stuck.fault, stuck.patience_us)
            self.park(stuck, stuck.retry_at)
        return stuck is not None

    def fault(self, run: str) -> str:
        """Why a run cannot go on now; "" when nothing is in its way."""
        live = self.live.get(run)
        return self._stuck.get(run, ("", 0))[0] if live is None else live.fault

    def _load(self, run: str) -> Live | None:
        row = self.rows.row(run)
        if row is None or run in self._out:
            return None
        if row.group is not None and self.rows.ahead(row.name, row.group, row.started):
            self.rows.delay(run, None, "queued")
            return None
        return self._take_in(row)

    def _take_in(self, row: Row) -> Live:
        live = Live(row.run, row.agent, self.registry.definition(row.definition), row.group)
        self.folder.fold_anew(live, self.rows.seqs(row.run))
        live.fault, live.patience_us = self._stuck.pop(row.run, (live.fault, live.patience_us))
        live.row = True
        self.live[row.run] = live
        return live

    def behind(self, run: str) -> str:
        """The run that is to be over before this one may go on, since both are of one group; "" when none is."""
        row = self.rows.row(run)
        ahead = self.rows.ahead(row.name, row.group, row.started) if row is not None and row.group is not None else ()
        return ahead[0] if ahead else ""

    def held(self, run: str) -> tuple[Live, bool]:
        """An open run in memory, whatever its turn, and whether it was a row. Raises ``ArgumentError``."""
        live, row = self.live.get(run), self.rows.row(run)
        if live is not None:
            return live, False
        if row is None:
            raise ArgumentError("no such open run of a definition", field="run", code="unknown_run")
        return self._take_in(row), True

    def shown(self, run: str) -> dict[str, Any]:
        """What is known of a run: ``{"run","status","until","outputs"}``. Raises ``ArgumentError``.

        Of one that is over ``undone`` and ``left`` too; with ``erased``, true, when values of a sealed run are gone.
        """
        if run in self.live:
            return {"run": run, "status": "running", "until": None, "outputs": {}}
        row = self.rows.row(run)
        if row is not None:
            return {"run": run, "status": "waiting", "until": row.due or None, "outputs": {}}
        seq = self.rows.over(run)
        if seq is None:
            raise ArgumentError("no such run of a definition", field="run", code="unknown_run", hint=ELSEWHERE)
        return self.folder.result(self.store.record(seq))

    def looked_at(self, run: str) -> Live:
        """A run as its records say it is, for whoever looks: nothing drives it. Raises ``ArgumentError``."""
        records = self.records_of(run)
        started = next(one for one in records if one.kind == "run.started" and one.body["run"] == run)
        definition = self.registry.definition(started.body["workflow"]["definition"])
        live = Live(run, started.body["agent"], definition, None)
        self.folder.fold(live, records)
        return live

    def records_of(self, run: str) -> list[Record]:
        """Every record that a run's state is made of, also of one that is over. Raises ``ArgumentError``."""
        live, row = self.live.get(run), self.rows.row(run)
        if live is not None or row is not None:
            seqs = live.seqs if live is not None else self.rows.seqs(run)
            return [self.store.record(seq) for seq in sorted(seqs)]
        over = self.rows.ended_row(run)
        if over is None:
            raise ArgumentError("no such run of a definition", field="run", code="unknown_run", hint=ELSEWHERE)
        mark = run.encode()
        raws = self.store.raw(int(over["started"]), int(over["ended"]) + 1)
        return [self.store.record(seq) for seq, raw in raws if mark in raw]

    def row_of(self, live: Live, due: int | None, state: str) -> Row:
        """What is kept of a run that is not driven for now."""
        return Row(live.run, live.name, live.definition.digest, live.agent, live.group, live.started, due, state)

    def park(self, live: Live, due: int | None) -> None:
        """A run becomes a row."""
        self.rows.park(self.row_of(live, due, "waiting"), live.seqs, live.waits.values(), live.children)
        self.live.pop(live.run, None)
        live.answer({"run": live.run, "status": "waiting", "until": due, "outputs": {}})


def concerns(record: Record) -> bool:
    """Whether a record says anything about a run of a definition."""
    kind = record.kind
    return kind in ("workflow.defined", "event.received", "run.ended") or (
        kind in FOLDED and str(record.body.get("run", "")).startswith(RUN_MARK)
    )


_MARKS = (RUN_MARK.encode(), b'"workflow.defined"', b'"event.received"', b'"run.ended"')


def _waits(until: int, now: int) -> bool:
    """Whether a time is still to come; one that lies too far ahead is of a clock that was set back."""
    return now < until <= now + RETRY_US_MAX


def _worth(store: Store, start: int, stop: int) -> Iterator[Record]:
    """The records of a part that concern runs of definitions; most of a journal need not be parsed."""
    for seq, raw in store.raw(start, stop):
        if any(mark in raw for mark in _MARKS):
            record = store.record(seq)
            if concerns(record):
                yield record
