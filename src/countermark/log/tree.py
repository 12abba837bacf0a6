"""The Merkle tree of RFC 6962 / RFC 9162 with SHA-256: frontier, roots, proofs.

Hashes are 32 bytes. Functions that take ``hashes`` take the leaf hashes in order; making a proof costs one pass over
them. Verifying raises ``ProofError`` and returns nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

from countermark.model.errors import ProofError

HASH_BYTES = 32
TILE_HEIGHT = 8  # levels of the tree in a tile of C2SP tlog-tiles
EMPTY_ROOT = sha256(b"").digest()  # RFC 9162 section 2.1.1: MTH({}) = HASH()

_HEX = re.compile(r"[0-9a-f]{64}")


def leaf_hash(raw: bytes) -> bytes:
    """Hash of a leaf: SHA-256(0x00 || raw)."""
    return sha256(b"\0" + raw).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\1" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: enough to append and to know the root, about one hash a leaf.

    It holds the roots of the perfect subtrees that make up ``size`` leaves, largest first: one for each bit that is
    set in ``size``.
    """

    __slots__ = ("_peaks", "_size")

    def __init__(self) -> None:
        self._peaks: list[bytes] = []
        self._size = 0

    @property
    def size(self) -> int:
        return self._size

    def append(self, leaf: bytes) -> bytes | None:
        """Add one leaf hash; returns the root of the tile of 256 leaves that it completes, None where it does not.

        It is on the lane's hot path, so it trusts its caller for the 32 bytes.
        """
        peaks = self._peaks
        carry = self._size
        self._size = carry + 1
        height, tile = 0, None
        while carry & 1:
            leaf = sha256(b"\1" + peaks.pop() + leaf).digest()
            carry >>= 1
            height += 1
            if height == TILE_HEIGHT:
                tile = leaf
        peaks.append(leaf)
        return tile

    def root(self) -> bytes:
        """Root of the leaves so far, by folding the peaks from the right."""
        peaks = self._peaks
        if not peaks:
            return EMPTY_ROOT
        root = peaks[-1]
        for peak in reversed(peaks[:-1]):
            root = sha256(b"\1" + peak + root).digest()
        return root

    def dump(self) -> list[str]:
        """The peaks as hex, largest subtree first; together with ``size`` they are the whole state."""
        return [peak.hex() for peak in self._peaks]

    @classmethod
    def load(cls, size: int, peaks: Iterable[str]) -> Frontier:
        """Inverse of ``dump``. Raises ``ProofError`` when the peaks cannot belong to ``size`` leaves."""
        found = list(peaks)
        if type(size) is not int or size < 0 or len(found) != size.bit_count():
            raise ProofError("a frontier has another number of peaks than its size needs")
        if any(type(peak) is not str or _HEX.fullmatch(peak) is None for peak in found):
            raise ProofError("a frontier's peak is not 64 lower-case hex digits")
        frontier = cls()
        frontier._peaks = [bytes.fromhex(peak) for peak in found]
        frontier._size = size
        return frontier


def pair_up(hashes: Sequence[bytes]) -> list[bytes]:
    """The level above an even number of nodes."""
    hash_ = sha256
    return [hash_(b"\1" + a + b).digest() for a, b in zip(hashes[::2], hashes[1::2], strict=True)]


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Root of a list of leaf hashes. A last node without a sibling moves up unchanged, as RFC 6962's split implies."""
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        single = [level.pop()] if len(level) & 1 else []
        level = pair_up(level) + single
    return level[0]


def split(count: int) -> int:
    """The largest power of two smaller than ``count`` (``count`` >= 2): where RFC 6962 splits a tree."""
    return 1 << (count - 1).bit_length() - 1


def inclusion_proof(hashes: Sequence[bytes], index: int, size: int) -> list[bytes]:
    """Audit path of leaf ``index`` in the tree of the first ``size`` leaves (RFC 9162 section 2.1.3.1)."""
    if not 0 <= index < size <= len(hashes):
        raise ProofError("no such leaf in a tree of that size")
    path = []
    low, high = 0, size
    while high - low > 1:
        middle = low + split(high - low)
        if index < middle:
            path.append(root_of(hashes[middle:high]))
            high = middle
        else:
            path.append(root_of(hashes[low:middle]))
            low = middle
    path.reverse()
    return path


def consistency_proof(hashes: Sequence[bytes], old: int, new: int) -> list[bytes]:
    """Proof that the tree of ``old`` leaves is a prefix of the tree of ``new`` (RFC 9162 section 2.1.4.1).

    It is empty when ``old`` is 0 or equals ``new``.
    """
    if not 0 <= old <= new <= len(hashes):
        raise ProofError("the sizes of a consistency proof do not fit the log")
    if old in (0, new):
        return []
    path = []
    low, high = 0, new
    while old != high:
        middle = low + split(high - low)
        if old <= middle:
            path.append(root_of(hashes[middle:high]))
            high = middle
        else:
            path.append(root_of(hashes[low:middle]))
            low = middle
    if low:  # the old tree's own root is known to whoever checks; a subtree within it is not
        path.append(root_of(hashes[low:high]))
    path.reverse()
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check an audit path, RFC 9162 section 2.1.3.2.

    Args:
        leaf: the leaf's hash; ``leaf_hash`` makes it.

    Raises:
        ProofError: the path does not lead from the leaf to the root.
    """
    _check_hashes(leaf, root, *proof)
    if not 0 <= index < size:
        raise ProofError("the index lies outside the tree")
    node, last, found = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise ProofError("an inclusion proof is too long")
        if node & 1 or node == last:
            found = node_hash(step, found)
            while node and not node & 1:
                node >>= 1
                last >>= 1
        else:
            found = node_hash(found, step)
        node >>= 1
        last >>= 1
    if last != 0:
        raise ProofError("an inclusion proof is too short")
    if found != root:
        raise ProofError("an inclusion proof does not lead to the root")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree with ``new_root`` extends the one with ``old_root``, RFC 9162 section 2.1.4.2.

    Raises:
        ProofError: it does not, or the proof has another form than its sizes need.
    """
    _check_hashes(old_root, new_root, *proof)
    if not 0 <= old <= new:
        raise ProofError("a log cannot shrink")
    if old in (0, new):
        if proof:
            raise ProofError("this consistency proof must be empty")
        if old_root != (new_root if old == new else EMPTY_ROOT):
            raise ProofError("two heads of one size have different roots")
        return
    # A perfect old tree is itself a node of the new one, so its root opens the path.
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise ProofError("a consistency proof is too short")
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    found_old = found_new = path[0]
    for step in path[1:]:
        if last == 0:
            raise ProofError("a consistency proof is too long")
        if node & 1 or node == last:
            found_old, found_new = node_hash(step, found_old), node_hash(step, found_new)
            while node and not node & 1:
                node >>= 1
                last >>= 1
        else:
            found_new = node_hash(found_new, step)
        node >>= 1
        last >>= 1
    if last != 0:
        raise ProofError("a consistency proof is too short")
    if found_old != old_root:
        raise ProofError("a consistency proof does not lead to the old root")
    if found_new != new_root:
        raise ProofError("a consistency proof does not lead to the new root")


def _check_hashes(*hashes: bytes) -> None:
    if any(type(item) is not bytes or len(item) != HASH_BYTES for item in hashes):
        raise ProofError(f"a hash is not {HASH_BYTES} bytes")
