"""The log as others may see it, C2SP tlog-tiles: signed head, hash tiles; and reading the journal aside.

Entries do not leave the house: a leaf's nonce keeps its hash from leaking what stands in it. Everything here reads
committed snapshots on a connection and a thread of its own, so that neither lane nor loop waits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from countermark.journal import STEP_RECORDS, LogView, SqliteStore
from countermark.log import TILE_WIDTH, TileRoots, tile_path
from countermark.model.errors import GateBusyError, GateHaltedError
from countermark.model.records import read
from countermark.publish import NewestHead
from countermark.wiring import Config

WAITING_MAX = 32

_TILE = re.compile(r"([0-7])/((?:x[0-9]{3}/){0,4}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
_T = TypeVar("_T")


class LogReader:
    """Questions to the journal, one after the other on one thread."""

    def __init__(self, config: Config, name: str, tiles: TileRoots) -> None:
        """``tiles`` are the gate's: what it hashed is not hashed again."""
        self._path = config.journal
        self._tiles = tiles
        self._store: SqliteStore | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"countermark-{name}")
        self._waiting = 0
        self._seen: LogView | None = None
        self._newest = NewestHead()

    async def run(self, work: Callable[[SqliteStore], _T]) -> _T:
        """Run a question on the reading thread. Raises ``GateBusyError`` when too many wait, or what it raises."""
        if self._waiting >= WAITING_MAX:
            raise GateBusyError("too many are reading the log; nothing was recorded", hint="Ask again, later.")
        self._waiting += 1
        try:
            future = self._thread.submit(self._asked, work)
        except RuntimeError:
            self._waiting -= 1
            raise GateHaltedError("the server is stopping", hint="Ask again, later.") from None
        try:
            return await asyncio.wrap_future(future)
        finally:
            self._waiting -= 1

    def _asked(self, work: Callable[[SqliteStore], _T]) -> _T:
        if self._store is None:
            self._store = SqliteStore(self._path, readonly=True)
        return work(self._store)

    def close(self) -> None:
        """Finish what is being read, then let go of the journal."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._store is not None:
            self._store.close()

    async def checkpoint(self) -> bytes | None:
        """A C2SP tlog-checkpoint note: the newest head that witnesses cosigned, as the log recorded it, else the newest
        signed one. None before the first record.
        """
        return await self.run(self._newest.read)

    async def tile(self, path: str) -> bytes | None:
        """The hash tile at ``LEVEL/INDEX[.p/WIDTH]``; None when there is none (yet)."""
        match = _TILE.fullmatch(path)
        if match is None:
            return None
        level, width = int(match[1]), int(match[3] or TILE_WIDTH)
        index = int(match[2].replace("x", "").replace("/", ""))
        if width > TILE_WIDTH or tile_path(level, index, width) != f"tile/{path}":
            return None
        await self._grow()
        return await self.run(lambda store: self._tile(store, level, index, width))

    async def proof(self, seqs: Sequence[int]) -> dict[str, Any]:
        """The newest head and, for each seq, its path to that head's root (RFC 9162 section 2.1.3)."""
        await self._grow()
        return await self.run(lambda store: self._proof(store, seqs))

    async def run_start(self, run: str) -> dict[str, Any] | None:
        """Agent and mandate of a run that has ended: from the record that started it."""
        mark, at = b'"' + run.encode("ascii") + b'"', 0
        size = await self.run(lambda store: store.size())
        while at < size:
            found = await self.run(lambda store, at=at: _started(store, mark, at))  # type: ignore[misc]
            if found is not None:
                return dict(found)
            at += STEP_RECORDS
        return None

    async def _grow(self) -> None:
        """Hash what was recorded since the last time, up to the last full tile, in steps."""
        while await self.run(self._step):
            pass

    def _step(self, store: SqliteStore) -> bool:
        return self._view(store).step()

    def _tile(self, store: SqliteStore, level: int, index: int, width: int) -> bytes | None:
        return self._view(store).tile(level, index, width)

    def _view(self, store: SqliteStore) -> LogView:
        if self._seen is None:
            self._seen = LogView(store, self._tiles)
        return self._seen

    def _proof(self, store: SqliteStore, seqs: Sequence[int]) -> dict[str, Any]:
        head = store.head()
        view = self._view(store)
        view.grow()  # after the head was read, so that it reaches that far
        if head is None or any(seq >= head[0] for seq in seqs):
            raise GateHaltedError("the head over this record is not there yet", hint="Ask again.")
        size, note = head
        proofs = [{"seq": seq, "path": [node.hex() for node in view.inclusion(seq, size)]} for seq in seqs]
        return {"checkpoint": note.decode("utf-8"), "proofs": proofs}


def _started(store: SqliteStore, mark: bytes, at: int) -> dict[str, Any] | None:
    for _, raw in store.raw(at, min(at + STEP_RECORDS, store.size())):
        if mark in raw:
            record = read(raw)
            if record.kind == "run.started":
                return {"agent": record.body["agent"], "mandate": record.body["mandate"]}
    return None
