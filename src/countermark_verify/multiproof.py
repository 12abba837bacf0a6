"""One proof for many leaves of a tree (docs/spec/pack.md): a single walk from the root.

A range without a chosen leaf takes the next hash; a range of chosen leaves only takes none; any other is split where
RFC 6962 splits it, the left part first. Every hash is taken, and none is left.
"""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

from countermark_verify.errors import Malformed

HASH_BYTES = 32


def root_of_chosen(leaves: Sequence[tuple[int, bytes]], size: int, proof: Sequence[bytes]) -> bytes:
    """The root over (index, leaf hash) pairs and the proof's hashes. Raises `Malformed`."""
    indexes = [index for index, _ in leaves]
    if any(a >= b for a, b in pairwise(indexes)):
        raise Malformed("has leaves that are not in ascending order")
    if not size or (indexes and not 0 <= indexes[0] <= indexes[-1] < size):
        raise Malformed("has a leaf outside the tree")
    walk = _Walk(leaves, proof)
    root = walk.root(0, size)
    if walk.taken != len(proof):
        raise Malformed("has more hashes than the walk takes")
    return root


def hashes_of(data: bytes) -> list[bytes]:
    """The hashes of a member that is nothing but hashes. Raises `Malformed`."""
    if len(data) % HASH_BYTES:
        raise Malformed("is not a row of hashes")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


class _Walk:
    def __init__(self, leaves: Sequence[tuple[int, bytes]], proof: Sequence[bytes]) -> None:
        self._leaves = leaves
        self._proof = proof
        self._next = 0  # of the chosen leaves
        self.taken = 0

    def root(self, low: int, high: int) -> bytes:
        """Depth is at most that of the tree: 53 levels."""
        if self._next == len(self._leaves) or self._leaves[self._next][0] >= high:
            if self.taken == len(self._proof):
                raise Malformed("has fewer hashes than the walk takes")
            self.taken += 1
            return self._proof[self.taken - 1]
        if high - low == 1:
            self._next += 1
            return self._leaves[self._next - 1][1]
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        left = self.root(low, middle)
        return hashlib.sha256(b"\1" + left + self.root(middle, high)).digest()
