"""One proof for many leaves of a tree, and the manifest of an epoch, a small tree of its own (``docs/spec/pack.md``).

The proof is one walk from the root: a range without a chosen leaf gives its hash; a range of chosen leaves only gives
none; any other is split as RFC 6962 section 2.1 does, the left part first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from countermark.log.tree import leaf_hash, root_of, split
from countermark.model.errors import ProofError

Row = tuple[str, int, int, str]  # stream, its first and last place within the epoch, digest of the record at the last


def multiproof(chosen: Sequence[int], size: int, root: Callable[[int, int], bytes]) -> Iterator[bytes]:
    """The hashes that lead from the ``chosen`` leaves (ascending) to the root of ``size`` leaves.

    ``root(low, high)`` is the root over a range of leaves. Raises ``ProofError``: a leaf outside the tree, or twice.
    """
    ascending = all(a < b for a, b in pairwise(chosen))
    if not ascending or (chosen and not 0 <= chosen[0] <= chosen[-1] < size):
        raise ProofError("the chosen leaves are not ascending leaves of the tree")
    ranges = [(0, size, 0, len(chosen))] if size else []
    while ranges:
        low, high, first, stop = ranges.pop()
        if first == stop:
            yield root(low, high)
        elif stop - first < high - low:
            middle = low + split(high - low)
            cut = bisect_left(chosen, middle, first, stop)
            ranges += ((middle, high, cut, stop), (low, middle, first, cut))


def touch(rows: dict[str, list[Any]], streams: Mapping[str, Sequence[Any]], digest: str) -> None:
    """A record stands in these streams: it is the last of each so far."""
    for name, place in streams.items():
        row = rows.get(name)
        if row is None:
            rows[name] = [place[0], place[0], digest]
        else:
            row[1], row[2] = place[0], digest


class EpochManifest:
    """The streams that have records in an epoch, sorted, as a tree: what proves where a stream ends, or that it has
    none.
    """

    def __init__(self, rows: Mapping[str, Sequence[Any]]) -> None:
        """``rows``: stream -> first place, last place, digest of the last record, as ``touch`` gathers them."""
        self._names = sorted(rows)
        self._rows = rows
        self._hashes = [leaf_hash(_leaf(name, *rows[name])) for name in self._names]

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return len(self._names)

    def root(self) -> bytes:
        """The tree's root."""
        return root_of(self._hashes)

    def proof(self, epoch: int, streams: Iterable[str]) -> dict[str, Any]:
        """The document that proves the entry of each stream, or by its neighbours that it has none."""
        chosen: set[int] = set()
        for name in streams:
            place = bisect_left(self._names, name)
            if place < len(self._names) and self._names[place] == name:
                chosen.add(place)
            else:
                chosen |= {place - 1, place} & set(range(len(self._names)))
        order = sorted(chosen)
        hashes = multiproof(order, len(self._names), lambda low, high: root_of(self._hashes[low:high]))
        return {
            "v": 1, "epoch": epoch,
            "rows": [[place, self._names[place], *self._rows[self._names[place]]] for place in order],
            "proof": [item.hex() for item in hashes],
        }  # fmt: skip


def _leaf(name: str, first: int, last: int, digest: str) -> bytes:
    """Canonical bytes of a row: names and digests are ASCII without anything to escape."""
    return f'["{name}",{first},{last},"{digest}"]'.encode("ascii")
