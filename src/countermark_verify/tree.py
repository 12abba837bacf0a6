"""The Merkle tree of RFC 6962 / 9162, streamed: roots at chosen sizes and the tiles of C2SP tlog-tiles."""

import hashlib
from collections.abc import Iterable

from countermark_verify.container import tile_name

HASH_BYTES = 32
TILE_WIDTH = 256
_TILE_HEIGHT = 8
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """Append leaves one by one; roots of the sizes named at the start are kept as they go by."""

    def __init__(self, sizes: Iterable[int] = ()) -> None:
        self.size = 0
        self.roots: dict[int, bytes] = {0: EMPTY_ROOT}
        self._wanted = frozenset(sizes)
        self._stack: list[tuple[int, bytes]] = []
        # One byte string per tile level: the hashes of levels 0, 8, 16, ... one after the other.
        self._tiles: list[bytearray] = []

    def append(self, leaf: bytes) -> None:
        self._keep(0, leaf)
        self._fold(0, leaf)
        self.size += 1
        if self.size in self._wanted:
            self.roots[self.size] = self.root()

    def _fold(self, level: int, top: bytes) -> None:
        """One more complete subtree of this level, beside those that are there."""
        while self._stack and self._stack[-1][0] == level:
            top = node_hash(self._stack.pop()[1], top)
            level += 1
            if level % _TILE_HEIGHT == 0:
                self._keep(level // _TILE_HEIGHT, top)
        self._stack.append((level, top))

    def extend(self, leaves: bytes, top: bytes) -> None:
        """Append these; `top` is the hash of all of them where they are a whole tile's, so that it need not be made."""
        count = len(leaves) // HASH_BYTES
        if (
            not top
            or self.size % TILE_WIDTH
            or not self._wanted.isdisjoint(range(self.size + 1, self.size + count + 1))
        ):
            for at in range(0, len(leaves), HASH_BYTES):
                self.append(leaves[at : at + HASH_BYTES])
            return
        self._keep(0, leaves)
        self._keep(1, top)
        self._fold(_TILE_HEIGHT, top)
        self.size += count

    def _keep(self, tile_level: int, value: bytes) -> None:
        while len(self._tiles) <= tile_level:
            self._tiles.append(bytearray())
        self._tiles[tile_level] += value

    def root(self) -> bytes:
        if not self._stack:
            return EMPTY_ROOT
        root = self._stack[-1][1]
        for _, left in reversed(self._stack[:-1]):
            root = node_hash(left, root)
        return root

    def root_at(self, size: int) -> bytes:
        """The root that the tree had at an earlier size: of its complete subtrees, the largest first."""
        root, end = b"", size
        for level in range(size.bit_length()):
            if size >> level & 1:
                end -= 1 << level
                left = self._subtree(level, end)
                root = node_hash(left, root) if root else left
        return root or EMPTY_ROOT

    def _subtree(self, level: int, first: int) -> bytes:
        """The hash of the `2 ** level` leaves from `first`, out of the nearest level that is kept."""
        kept = level // _TILE_HEIGHT
        start, count = first >> kept * _TILE_HEIGHT, 1 << level % _TILE_HEIGHT
        held = self._tiles[kept][start * HASH_BYTES : (start + count) * HASH_BYTES]
        row = [bytes(held[at : at + HASH_BYTES]) for at in range(0, len(held), HASH_BYTES)]
        while len(row) > 1:
            row = [node_hash(*row[at : at + 2]) for at in range(0, len(row), 2)]
        return row[0]

    def leaf(self, seq: int) -> bytes:
        return bytes(self._tiles[0][seq * HASH_BYTES : (seq + 1) * HASH_BYTES])

    def tiles(self) -> Iterable[tuple[str, int, int, bytes]]:
        """(member name, tile level, index, content) of every hash tile that this size has."""
        for level, hashes in enumerate(self._tiles):
            count = len(hashes) // HASH_BYTES
            for index in range((count + TILE_WIDTH - 1) // TILE_WIDTH):
                first = index * TILE_WIDTH
                width = min(TILE_WIDTH, count - first)
                content = bytes(hashes[first * HASH_BYTES : (first + width) * HASH_BYTES])
                yield tile_name(str(level), index, width), level, index, content


def entry_names(size: int) -> Iterable[tuple[str, int]]:
    """(member name, entries in it) of the entry bundles of a log of this size."""
    for first in range(0, size, TILE_WIDTH):
        width = min(TILE_WIDTH, size - first)
        yield tile_name("entries", first // TILE_WIDTH, width), width
