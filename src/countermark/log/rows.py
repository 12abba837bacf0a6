"""The upper part of a tree, kept: roots of full tiles, level by level, so that a proof costs a few tiles.

Row n holds the roots of the full tiles of level n; whoever asks brings the leaf hashes of one tile where a proof ends
inside it. 1,000,000 leaves take 126 kB. Whoever appends to the tree knows these roots already, and leaves the newest
in a ``TileRoots`` for others to take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from countermark.log.tiles import TILE_WIDTH
from countermark.log.tree import EMPTY_ROOT, HASH_BYTES, root_of
from countermark.model.errors import ProofError

LEVEL_MAX = 7
ROOTS_KEPT_MAX = 4_096  # of as many tiles, so of a million leaves: 128 KiB

Leaves = Callable[[int, int], Sequence[bytes]]


class TileRows:
    """Grows by whole tiles of leaf hashes. ``leaves(low, high)`` of the proofs reads leaf hashes, at most a tile's."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: list[bytearray] = [bytearray()]

    @property
    def size(self) -> int:
        """How many leaves the rows cover: a multiple of 256."""
        return len(self._rows[0]) // HASH_BYTES * TILE_WIDTH

    def extend(self, hashes: Sequence[bytes]) -> None:
        """Add the leaf hashes from ``size`` on. Raises ``ProofError`` when they are not whole tiles."""
        if len(hashes) % TILE_WIDTH:
            raise ProofError("rows grow by whole tiles")
        self.add(b"".join(root_of(hashes[at : at + TILE_WIDTH]) for at in range(0, len(hashes), TILE_WIDTH)))

    def add(self, roots: bytes) -> None:
        """Add the roots of the full tiles of leaf hashes from ``size`` on, one after the other.

        They are taken as they are: whoever read them somewhere holds a root of these rows against a signed one.
        Raises ``ProofError`` when they are not whole hashes.
        """
        if len(roots) % HASH_BYTES:
            raise ProofError("a hash was cut")
        self._rows[0] += roots
        level, tile = 0, TILE_WIDTH * HASH_BYTES
        while level < LEVEL_MAX and len(self._rows[level]) >= tile:
            if len(self._rows) == level + 1:
                self._rows.append(bytearray())
            below, above = self._rows[level], self._rows[level + 1]
            while len(above) // HASH_BYTES * tile + tile <= len(below):
                first = len(above) // HASH_BYTES * tile
                above += root_of(_split(bytes(below[first : first + tile])))
            level += 1

    def tile(self, level: int, index: int, width: int) -> bytes | None:
        """A hash tile of level 1 or above; None when the rows do not have all of it."""
        first = index * TILE_WIDTH
        row = self._rows[level - 1] if level <= len(self._rows) else b""
        part = bytes(row[first * HASH_BYTES : (first + width) * HASH_BYTES])
        return part if len(part) == width * HASH_BYTES else None

    def root(self, size: int, leaves: Leaves) -> bytes:
        """Root of the first ``size`` leaves."""
        return self._root(0, size, leaves) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int, leaves: Leaves) -> list[bytes]:
        """Audit path of a leaf (RFC 9162 section 2.1.3.1)."""
        if not 0 <= index < size:
            raise ProofError("no such leaf in a tree of that size")
        path = []
        low, high = 0, size
        while high - low > 1:
            middle = low + _split_at(high - low)
            if index < middle:
                path.append(self._root(middle, high, leaves))
                high = middle
            else:
                path.append(self._root(low, middle, leaves))
                low = middle
        path.reverse()
        return path

    def consistency(self, old: int, new: int, leaves: Leaves) -> list[bytes]:
        """Proof that the tree of ``old`` leaves is a prefix of that of ``new`` (RFC 9162 section 2.1.4.1)."""
        if not 0 <= old <= new:
            raise ProofError("the sizes of a consistency proof do not fit the log")
        if old in (0, new):
            return []
        path = []
        low, high = 0, new
        while old != high:
            middle = low + _split_at(high - low)
            if old <= middle:
                path.append(self._root(middle, high, leaves))
                high = middle
            else:
                path.append(self._root(low, middle, leaves))
                low = middle
        if low:
            path.append(self._root(low, high, leaves))
        path.reverse()
        return path

    def _root(self, low: int, high: int, leaves: Leaves) -> bytes:
        """Root of a subtree as RFC 6962 splits them: ``low`` is a multiple of every tile's width that fits into it.

        Whole subtrees of the largest such width are nodes of one row, at most 255; what remains is smaller than one of
        them, and so its root is the last node of the same level.
        """
        level, width = 0, TILE_WIDTH
        if high - low < width:
            return root_of(leaves(low, high))
        while level + 1 < len(self._rows) and width * TILE_WIDTH <= high - low:
            level, width = level + 1, width * TILE_WIDTH
        row, first, stop = self._rows[level], low // width, high // width
        if stop * HASH_BYTES > len(row):
            raise ProofError("the rows do not reach that far")
        nodes = _split(bytes(row[first * HASH_BYTES : stop * HASH_BYTES]))
        if high % width:
            nodes.append(self._root(stop * width, high, leaves))
        return root_of(nodes)


class TileRoots:
    """The roots of the newest full tiles of a log, as its one owner has them: it puts, any thread takes, nobody waits.

    What is kept is replaced as a whole, so that whoever takes sees one state of it.
    """

    __slots__ = ("_kept", "_kept_max")

    def __init__(self, kept_max: int = ROOTS_KEPT_MAX) -> None:
        self._kept: tuple[int, bytes] = (0, b"")  # number of the first tile, and the roots from there on
        self._kept_max = kept_max

    def put(self, stop: int, roots: Sequence[bytes]) -> None:
        """Add the roots of the tiles before number ``stop``, all of whose leaves are durable; for the owner alone.

        Where they do not follow what is kept, that is dropped.
        """
        first, kept = self._kept
        start = stop - len(roots)
        if first + len(kept) // HASH_BYTES != start:
            first, kept = start, b""
        kept += b"".join(roots)
        over = max(0, len(kept) // HASH_BYTES - self._kept_max)
        self._kept = first + over, kept[over * HASH_BYTES :]

    def take(self, start: int, stop: int) -> bytes:
        """Roots of the tiles from number ``start`` on, before ``stop``: as many as are here, none after a gap."""
        first, kept = self._kept
        if start < first:
            return b""
        return kept[(start - first) * HASH_BYTES : max(0, stop - first) * HASH_BYTES]


def _split_at(count: int) -> int:
    """The largest power of two smaller than ``count``."""
    return 1 << (count - 1).bit_length() - 1


def _split(raw: bytes) -> list[bytes]:
    return [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]
