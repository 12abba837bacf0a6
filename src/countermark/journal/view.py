"""A committed log as proofs, tiles and roots see it: the journal read aside, with the upper part of its tree kept.

One thread's own. Nothing here waits for the lane: what is read is a committed state. In the process of the lane the
roots of full tiles are taken from it, and the journal is read for those alone that it has not, such as the old ones.
"""

from __future__ import annotations

from countermark.journal.sqlite import SqliteStore
from countermark.log import TILE_WIDTH, TileRoots, TileRows, leaf_hash

STEP_RECORDS = 16_384  # read in one go: between two of them a shorter question may pass


class LogView:
    """Roots, tiles and proofs of a journal that grows."""

    def __init__(self, store: SqliteStore, tiles: TileRoots | None = None) -> None:
        """``tiles`` is where the owner of this journal leaves the roots of full tiles that are durable."""
        self.store = store
        self._tiles = TileRoots() if tiles is None else tiles
        self._rows = TileRows()

    def step(self) -> bool:
        """Take, or hash, a part of what was recorded since the last time; False when all full tiles are there."""
        start = self._rows.size
        full = self.store.size() // TILE_WIDTH
        roots = self._tiles.take(start // TILE_WIDTH, full)
        if roots:
            self._rows.add(roots)
            return True
        stop = min(full * TILE_WIDTH, start + STEP_RECORDS)
        if stop <= start:
            return False
        self._rows.extend(self.leaves(start, stop))
        return True

    def grow(self) -> None:
        """Take, or hash, all that was recorded since the last time."""
        while self.step():
            pass

    def add(self, roots: bytes) -> None:
        """Take the roots of the next full tiles from somewhere else; who brings them holds ``root`` against a head.

        Raises ``ProofError`` when they are not whole hashes.
        """
        self._rows.add(roots)

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
