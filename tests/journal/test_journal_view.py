"""A view of the journal takes what the lane hashed, reads what it did not, and is the same whichever it was."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from countermark.journal import STEP_RECORDS, LogView
from countermark.log import TILE_WIDTH, Frontier, TileRoots, consistency_proof, inclusion_proof, leaf_hash, root_of


class Kept:
    """As much of a journal as a view reads, and of the lane that writes it; ``read`` are the records that were read."""

    def __init__(self, kept_max: int = 4_096) -> None:
        self.tiles = TileRoots(kept_max)
        self.read: list[int] = []
        self._raws: list[bytes] = []
        self._frontier = Frontier()

    def commit(self, count: int, *, told: bool = True) -> None:
        """Append some records; without ``told`` what they completed is forgotten, as when a lane halts."""
        fresh = [b"record %d" % (len(self._raws) + n) for n in range(count)]
        roots = [root for root in map(self._frontier.append, map(leaf_hash, fresh)) if root is not None]
        self._raws += fresh
        if roots and told:
            self.tiles.put(len(self._raws) // TILE_WIDTH, roots)

    @property
    def leaves(self) -> list[bytes]:
        return [leaf_hash(raw) for raw in self._raws]

    def size(self) -> int:
        return len(self._raws)

    def raw(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        for seq in range(start, stop):
            self.read.append(seq)
            yield seq, self._raws[seq]


def view_of(kept: Kept) -> LogView:
    return LogView(kept, kept.tiles)  # type: ignore[arg-type]


@given(st.data())
def test_a_view_is_the_same_whatever_it_took_and_whatever_it_read(data: st.DataObject) -> None:
    """Batches of any size, some of them never told, a small or a large memory, a view that looks now and then: every
    root and proof is that of all leaves.
    """
    kept = Kept(data.draw(st.integers(1, 6)))
    view = view_of(kept)
    for _ in range(data.draw(st.integers(1, 12))):
        kept.commit(data.draw(st.sampled_from((1, 100, 255, 256, 300, 700))), told=data.draw(st.booleans()))
        if data.draw(st.booleans()):
            view.grow()
    view.grow()
    leaves = kept.leaves
    size = data.draw(st.integers(1, len(leaves)))
    old, seq = data.draw(st.integers(0, size)), data.draw(st.integers(0, size - 1))
    assert view.root(size) == root_of(leaves[:size])
    assert view.consistency(old, size) == consistency_proof(leaves, old, size)
    assert view.inclusion(seq, size) == inclusion_proof(leaves, seq, size)


def test_what_the_lane_hashed_is_not_read_again() -> None:
    """A view that began with the lane reads no record to grow, and for a proof those of the two tiles at its ends."""
    kept = Kept()
    view = view_of(kept)
    for _ in range(50):
        kept.commit(100)
        view.grow()
    assert kept.read == []
    old, new = 1_234, 4_999
    assert view.consistency(old, new) == consistency_proof(kept.leaves, old, new)
    ends = {old // TILE_WIDTH, new // TILE_WIDTH}
    assert {seq // TILE_WIDTH for seq in kept.read} == ends
    assert len(kept.read) <= 2 * TILE_WIDTH


def test_a_gap_is_read_from_the_journal_and_nothing_else() -> None:
    """Tiles that were there before the lane, that nobody told or that are forgotten are read, and then none again."""
    kept = Kept(kept_max=4)
    kept.commit(3 * TILE_WIDTH, told=False)  # before this process
    kept.commit(2 * TILE_WIDTH)
    view = view_of(kept)
    view.grow()
    assert set(kept.read) == set(range(5 * TILE_WIDTH)), "a step goes over all that is there"
    kept.read.clear()
    kept.commit(4 * TILE_WIDTH)
    view.grow()
    assert kept.read == []
    kept.commit(TILE_WIDTH, told=False)  # a lane that halted
    view.grow()
    kept.commit(TILE_WIDTH)
    view.grow()
    assert set(kept.read) == set(range(9 * TILE_WIDTH, 10 * TILE_WIDTH))
    kept.read.clear()
    kept.commit(6 * TILE_WIDTH)  # more than is kept
    view.grow()
    assert set(kept.read) == set(range(11 * TILE_WIDTH, 17 * TILE_WIDTH))
    assert view.root(17 * TILE_WIDTH) == root_of(kept.leaves)


def test_a_long_journal_is_read_in_steps() -> None:
    """Between two steps over what the lane does not know, others may ask."""
    kept = Kept()
    kept.commit(STEP_RECORDS + 2 * TILE_WIDTH + 5, told=False)
    view = view_of(kept)
    steps = 0
    while view.step():
        steps += 1
    assert (steps, len(kept.read)) == (2, STEP_RECORDS + 2 * TILE_WIDTH)
