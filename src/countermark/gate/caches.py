"""What the lane remembers of its own journal: keys and streams look-ups, and when a snapshot is due.

Nothing here is evidence. A snapshot only shortens the next start, so it is written after a batch was answered, seldom
enough to cost a small part of what the records cost, and not at all when it would be large.
"""

from __future__ import annotations

from collections import OrderedDict

from countermark.model.ports import Store

SNAPSHOT_RECORDS = 10_000  # at least so many records from one snapshot to the next
SNAPSHOT_RECORDS_YOUNG = 2_000  # or so many, in a log of less than
YOUNG_RECORDS = 64_000
SNAPSHOT_PART = 8  # and at least so many bytes of records for each byte of the last snapshot
SNAPSHOT_BYTES_MAX = 32 << 20  # a larger one is not written: a start then folds from the one before
DIRTY_MAX = 20_000  # keys or streams that changed since they were last written
STREAMS_CLEAN_MAX = 20_000


class StoreKeys:
    """Identity and obligation keys: those that changed since the last ``saved``, else what the store says."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fetched: dict[str, int] = {}
        self._asked: set[str] = set()
        self.dirty: dict[str, int | None] = {}

    def fetch(self, keys: set[str]) -> None:
        """Look up at once what the messages of a batch will ask for one by one."""
        self._asked = keys
        self._fetched = self._store.keys(keys) if keys else {}

    def get(self, key: str) -> int | None:
        if key in self.dirty:
            return self.dirty[key]
        if key in self._asked:
            return self._fetched.get(key)
        return self._store.keys((key,)).get(key)

    def put(self, key: str, seq: int | None) -> None:
        self.dirty[key] = seq

    def saved(self) -> None:
        """What was dirty stands in the store now; what was fetched before it did is of no use any more."""
        self.dirty, self._asked = {}, set()


class StoreStreams:
    """Streams: those touched since the last ``saved``, then those used lately, then what the store says."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clean: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self.dirty: dict[str, tuple[int, str]] = {}

    def get(self, name: str) -> tuple[int, str] | None:
        place = self.dirty.get(name)
        if place is not None:
            return place
        place = self._clean.get(name)
        if place is None:
            return self._store.stream(name)  # not kept: whoever asks for it is about to put its next place
        self._clean.move_to_end(name)
        return place

    def put(self, name: str, place: tuple[int, str]) -> None:
        self.dirty[name] = place

    def saved(self) -> None:
        """What was dirty stands in the store now."""
        self._clean.update(self.dirty)
        self.dirty = {}
        while len(self._clean) > STREAMS_CLEAN_MAX:
            self._clean.popitem(last=False)


class Pace:
    """When the next snapshot is due."""

    def __init__(self) -> None:
        self._records = 0
        self._bytes = 0
        self.last_bytes = 0  # of the newest snapshot, whether or not it was written

    def count(self, records: int, size: int) -> None:
        """So many records of so many bytes were added."""
        self._records += records
        self._bytes += size

    def due(self, size: int) -> bool:
        """Whether enough was written since the last snapshot, for its size and that of the log (records).

        What is saved with it holds the lane up, so it is little at a time: some milliseconds. In a long log nearly
        every key changes a page of its own, and as little would take nearly as long: there it is seldom instead.
        """
        enough = min(SNAPSHOT_RECORDS, SNAPSHOT_RECORDS_YOUNG) if size < YOUNG_RECORDS else SNAPSHOT_RECORDS
        return self._records >= enough and self._bytes >= self.last_bytes * SNAPSHOT_PART

    def restart(self) -> None:
        """A snapshot is being made; when it fails, the next one is not due at once either."""
        self._records = self._bytes = 0
