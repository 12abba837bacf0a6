"""The kept rows of a tree give the same roots, proofs and tiles as the leaf hashes themselves."""

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.log import (
    HASH_BYTES,
    TILE_WIDTH,
    Frontier,
    TileRoots,
    TileRows,
    consistency_proof,
    inclusion_proof,
    root_of,
    tiles,
)
from countermark.model.errors import ProofError

LEAVES = [sha256(b"%d" % number).digest() for number in range(3 * 256 + 17)]
WIDE = [sha256(b"w%d" % number).digest() for number in range(256 * 256 + 600)]  # a full tile of level 1 and more


def rows_of(leaves: list[bytes]) -> TileRows:
    rows = TileRows()
    rows.extend(leaves[: len(leaves) // TILE_WIDTH * TILE_WIDTH])
    return rows


def reader(leaves: list[bytes], asked: list[int]):  # type: ignore[no-untyped-def]
    def read(low: int, high: int) -> Sequence[bytes]:
        asked.append(high - low)
        return leaves[low:high]

    return read


@given(st.data())
def test_rows_prove_what_the_leaves_prove(data: st.DataObject) -> None:
    """Root, inclusion and consistency from the rows are those of RFC 9162 over all leaves, at every size."""
    size = data.draw(st.integers(1, len(LEAVES)))
    rows, read = rows_of(LEAVES), reader(LEAVES, [])
    assert rows.root(size, read) == root_of(LEAVES[:size])
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    assert rows.inclusion(index, size, read) == inclusion_proof(LEAVES, index, size)
    assert rows.consistency(old, size, read) == consistency_proof(LEAVES, old, size)


@pytest.mark.parametrize("size", [65_536, 65_537, 65_792, 66_136])
def test_a_proof_over_a_full_tile_of_level_one_reads_few_leaves(size: int) -> None:
    """Beyond 65,536 leaves the higher row is used: same proof, and at most three tiles of leaves are read for it."""
    asked: list[int] = []
    rows, read = rows_of(WIDE), reader(WIDE, asked)
    for index in (0, 255, 256, 40_000, size - 1):
        asked.clear()
        assert rows.inclusion(index, size, read) == inclusion_proof(WIDE, index, size)
        assert sum(asked) <= 3 * TILE_WIDTH
    for old in (1, 257, 65_535, 65_536):
        assert rows.consistency(old, size, read) == consistency_proof(WIDE, old, size)


def test_rows_hold_the_tiles_of_the_upper_levels() -> None:
    """Every hash tile of level 1 and above that the leaves give is what the rows give, and no other is."""
    rows = rows_of(WIDE)
    expected = dict(tiles(WIDE))
    assert rows.tile(1, 0, 256) == expected["tile/1/000"]
    assert rows.tile(1, 1, 2) == expected["tile/1/001.p/2"]
    assert rows.tile(2, 0, 1) == expected["tile/2/000.p/1"]
    assert rows.tile(1, 1, 3) is None
    assert rows.tile(3, 0, 1) is None


def roots_of(leaves: list[bytes]) -> list[bytes]:
    """Roots of the full tiles, as whoever appends the leaves is told them."""
    frontier = Frontier()
    return [root for root in map(frontier.append, leaves) if root is not None]


@given(st.data())
def test_rows_that_took_roots_are_those_that_hashed_leaves(data: st.DataObject) -> None:
    """Whichever tiles were taken and whichever hashed: the same rows, and proofs that are those of all leaves."""
    rows = TileRows()
    roots = roots_of(LEAVES)
    while (first := rows.size // TILE_WIDTH) < len(roots):
        stop = data.draw(st.integers(first + 1, len(roots)))
        if data.draw(st.booleans()):
            rows.add(b"".join(roots[first:stop]))
        else:
            rows.extend(LEAVES[first * TILE_WIDTH : stop * TILE_WIDTH])
    assert rows._rows == rows_of(LEAVES)._rows
    size = data.draw(st.integers(1, len(LEAVES)))
    old = data.draw(st.integers(0, size))
    assert rows.root(size, reader(LEAVES, [])) == root_of(LEAVES[:size])
    assert rows.consistency(old, size, reader(LEAVES, [])) == consistency_proof(LEAVES, old, size)


def test_taken_roots_reach_the_upper_rows() -> None:
    """Over 65,536 leaves the roots alone give the rows above them too."""
    rows = TileRows()
    rows.add(b"".join(roots_of(WIDE)))
    assert rows._rows == rows_of(WIDE)._rows
    with pytest.raises(ProofError):
        rows.add(b"short")


@given(st.data())
def test_what_is_taken_is_what_was_put_last_and_without_a_gap(data: st.DataObject) -> None:
    """Of any roots put, batch by batch and with batches left out, those are given that follow each other up to the
    newest, at most as many as are kept; whoever asks from before them gets none, from behind them none either.
    """
    roots, kept_max = [bytes([n]) * HASH_BYTES for n in range(60)], data.draw(st.integers(1, 12))
    there, at, first = TileRoots(kept_max), 0, 0
    while at < len(roots):
        count = data.draw(st.integers(1, 15))
        batch = roots[at : at + count]
        at += len(batch)
        if data.draw(st.integers(0, 4)):
            there.put(at, batch)
        else:
            first = at  # a gap: what was put before is of no use to whoever comes to its end
        oldest, newest = max(first, at - kept_max), at if first != at else 0
        start, stop = data.draw(st.integers(0, 61)), data.draw(st.integers(0, 61))
        if newest:
            expected = roots[start : min(stop, newest)] if start >= oldest else []
            assert there.take(start, stop) == b"".join(expected)


def test_rows_refuse_a_part_of_a_tile_and_sizes_that_do_not_fit() -> None:
    """What is no whole tile, an index outside, a shrinking log and a size beyond the rows each raise."""
    rows = TileRows()
    with pytest.raises(ProofError):
        rows.extend(LEAVES[:255])
    read = reader(LEAVES, [])
    for work in (
        lambda: rows.inclusion(5, 5, read), lambda: rows.consistency(3, 2, read), lambda: rows.root(600, read),
    ):  # fmt: skip
        with pytest.raises(ProofError):
            work()
