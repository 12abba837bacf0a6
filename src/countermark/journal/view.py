"""A committed log as proofs, tiles and roots see it: the journal read aside, with the upper part of its tree kept.

One thread's own. Nothing here waits for the lane: what is read is a committed state.
"""

from __future__ import annotations

from countermark.journal.sqlite import SqliteStore
from countermark.log import TILE_WIDTH, TileRows, leaf_hash

STEP_RECORDS = 16_384  # read in one go: between two of them a shorter question may pass


class LogView:
    """Roots, tiles and proofs of a journal that grows."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self._rows = TileRows()

    def step(self) -> bool:
        """Hash a part of what was recorded since the last time; False when all full tiles are there."""
        start = self._rows.size
        stop = min(self.store.size(), start + STEP_RECORDS) // TILE_WIDTH * TILE_WIDTH
        if stop <= start:
            return False
        self._rows.extend(self.leaves(start, stop))
        return True

    def grow(self) -> None:
        """Hash all that was recorded since the last time."""
        while self.step():
            pass

    def leaves(self, low: int, high: int) -> list[bytes]:
        """Leaf hashes, as far as there are any."""
        return [leaf_hash(raw) for _, raw in self.store.raw(low, min(high, self.store.size()))]

    def tile(self, level: int, index: int, width: int) -> bytes | None:
        """A hash tile; None when there is none (yet). Call ``grow`` before."""
        if level:
            return self._rows.tile(level, index, width)
        hashes = self.leaves(index * TILE_WIDTH, index * TILE_WIDTH + width)
        return b"".join(hashes) if len(hashes) == width else None

    def root(self, size: int) -> bytes:
        """Root of the first ``size`` records. Call ``grow`` before, here and below."""
        return self._rows.root(size, self.leaves)

    def inclusion(self, seq: int, size: int) -> list[bytes]:
        """Audit path of a record to the root at ``size``. Raises ``ProofError``."""
        return self._rows.inclusion(seq, size, self.leaves)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Proof that the log of ``old`` records is a prefix of that of ``new``. Raises ``ProofError``."""
        return self._rows.consistency(old, new, self.leaves)
