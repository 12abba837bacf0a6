"""Closes epochs: from time to time a record says which streams had records, and where each ended (ADR 0013).

What it says is gathered aside, on a connection that only reads, a step at a time; the lane only looks whether it still
fits and adds the record. An epoch ends at a time, and holds exactly the records before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from countermark.gate.lane import Lane, Rank
from countermark.gate.writer import Writer
from countermark.journal import LogView, SqliteStore
from countermark.log import EpochManifest, TileRoots, touch
from countermark.model.digest import RECORD, digest
from countermark.model.errors import GateHaltedError
from countermark.model.streams import kind_of, streams_of, time_of
from countermark.policy import Closed, midnight_after

EPOCH_RECORDS_MAX = 500_000  # so that whoever gathers or checks an epoch needs no more memory than this takes
STEP_RECORDS = 2_000  # between two steps the interpreter is free for the lane
TRIES_MAX = 5
QUIET = ("epoch.", "head.", "anchor.")  # an epoch of nothing else is not worth a record

Aside = Callable[[Callable[[], Any]], Awaitable[Any]]
OpenReader = Callable[[], SqliteStore]


@dataclass(slots=True)
class Gathering:
    """One pass over the records from ``start`` on, up to the first that is not before ``until``, or up to ``stop``.

    ``position`` is where the pass stands, and at its end the number of records that the epoch reaches.
    """

    start: int
    stop: int
    until: int
    position: int = -1
    rows: dict[str, list[Any]] = field(default_factory=dict)
    busy: bool = False  # something else than ``QUIET`` was among them
    before: int = 0

    def __post_init__(self) -> None:
        self.position = self.start

    def step(self, store: SqliteStore) -> bool:
        """Go on over a part of the records; False when there is nothing more to see."""
        end = min(self.position + STEP_RECORDS, self.stop)
        for seq, raw in store.raw(self.position, end):
            at = time_of(raw)
            if at >= self.until or (seq - self.start >= EPOCH_RECORDS_MAX and at > self.before):
                self.until = min(self.until, at)
                return False
            touch(self.rows, streams_of(raw), digest(RECORD, raw))
            self.busy = self.busy or not kind_of(raw).startswith(QUIET)
            self.before = at
            self.position = seq + 1
        return self.position < self.stop


class Epochs:
    """The gate's job of closing epochs; ``aside`` runs work on a thread beside lane and loop."""

    def __init__(self, lane: Lane, aside: Aside, open_reader: OpenReader, tiles: TileRoots) -> None:
        self._lane = lane
        self._aside = aside
        self._open_reader = open_reader
        self._tiles = tiles
        self._view: LogView | None = None
        self._one = asyncio.Lock()
        self._quiet = 0  # no record below this one, and not in an epoch yet, is worth one

    async def turn(self) -> None:
        """Close every epoch whose day is over in the zone of the policy in force."""
        while await self._by_day():
            pass

    async def _by_day(self) -> bool:
        stand = await self._lane.ask(_standing)
        first = await self._aside(partial(self._first_busy, stand)) if stand.zone else None
        if first is None:
            return False
        until = midnight_after(first, stand.zone)
        return until <= stand.now and await self._close(until) is not None

    def _first_busy(self, stand: _Stand) -> int | None:
        """When something else than ``QUIET`` was first recorded since the last epoch."""
        self._quiet = max(self._quiet, stand.closed.size)
        for seq, raw in self._reader().raw(self._quiet, stand.size):
            if not kind_of(raw).startswith(QUIET):
                return time_of(raw)
            self._quiet = seq + 1
        return None

    async def close(self) -> dict[str, Any]:
        """Close what is not closed yet. Answers with how many epochs were, and the number of the newest."""
        number, newest = 0, None
        while (body := await self._close(None)) is not None:
            number, newest = number + 1, body["epoch"]
            if not body.pop("cut"):
                break
        return {"closed": number, "epoch": newest}

    async def _close(self, until: int | None) -> dict[str, Any] | None:
        """Close one epoch, before ``until`` or now; None when there is nothing to close.

        ``cut``: there were too many records, and it ends earlier.
        """
        async with self._one:
            for number in range(TRIES_MAX):
                stand = await self._lane.ask(_standing)
                # Where more is recorded at the same moment, that moment is left to the next epoch.
                mark = stand.at + (number == 0) if until is None else until
                found = Gathering(stand.closed.size, stand.size, mark)
                while await self._aside(partial(self._step, found)):
                    pass
                if not found.busy:
                    return None
                body = await self._aside(partial(self._body, found, stand.closed.number))
                if await self._lane.ask(partial(add_closed, body=body), rank=Rank.ORDER):
                    return {**body, "cut": found.until < mark}
        raise GateHaltedError("too much is being recorded to close an epoch now", hint="It is tried again.")

    def _step(self, found: Gathering) -> bool:
        """A part of the records, or else of the tree."""
        return found.step(self._reader()) or self._opened().step()

    def _body(self, found: Gathering, number: int) -> dict[str, Any]:
        manifest = EpochManifest(found.rows)
        return {
            "epoch": number, "from": found.start, "size": found.position, "until": found.until,
            "root": self._opened().root(found.position).hex(), "streams": manifest.streams,
            "manifest": manifest.root().hex(),
        }  # fmt: skip

    def _opened(self) -> LogView:
        """The reading connection, opened at its first use; on the aside thread alone."""
        if self._view is None:
            self._view = LogView(self._open_reader(), self._tiles)
        return self._view

    def _reader(self) -> SqliteStore:
        return self._opened().store

    def shut(self) -> None:
        """Let go of the reading connection; on the aside thread."""
        if self._view is not None:
            self._view.store.close()
            self._view = None


class _Stand(NamedTuple):
    """Where the lane stands: zone of the policy in force, the clock, what is closed, size, time of the last record."""

    zone: str
    now: int
    closed: Closed
    size: int
    at: int


def _standing(writer: Writer) -> _Stand:
    state = writer.state
    zone = "" if state.bundle is None else state.bundle.compiled.zone
    return _Stand(zone, writer.at, state.epoch, state.size, state.at)


def add_closed(writer: Writer, body: dict[str, Any]) -> bool:
    """Add the record if it still fits: the next epoch, and no record after its last one is earlier than its end."""
    state = writer.state
    if (body["epoch"], body["from"]) != (state.epoch.number, state.epoch.size) or body["size"] > state.size:
        return False
    if body["size"] == state.size:
        writer.now = max(writer.now, body["until"])  # by a microsecond, when nothing has happened since
    elif writer.record(body["size"]).at < body["until"]:
        return False
    writer.add("epoch.closed", body)
    return True
