"""Tiles and entry bundles as C2SP tlog-tiles describes them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.log import (
    entry_bundle,
    entry_bundles,
    leaf_hash,
    parse_entry_bundle,
    root_of,
    tile_path,
    tiles,
)
from countermark.model.errors import EncodingError


@pytest.mark.parametrize(
    ("level", "index", "width", "path"),
    [
        (0, 0, 256, "tile/0/000"),
        (0, 273, 112, "tile/0/273.p/112"),
        (1, 999, 256, "tile/1/999"),
        (0, 1000, 256, "tile/0/x001/000"),
        (0, 1_234_067, 256, "tile/0/x001/x234/067"),
        ("entries", 1_234_067, 8, "tile/entries/x001/x234/067.p/8"),
    ],
)
def test_tile_paths(level: int, index: int, width: int, path: str) -> None:
    """Paths have groups of three digits, an x before all but the last, and the width of a partial tile."""
    assert tile_path(level, index, width) == path  # type: ignore[arg-type]


@pytest.mark.parametrize(("level", "index", "width"), [(-1, 0, 256), (8, 0, 256), (0, -1, 256), (0, 0, 0), (0, 0, 257)])
def test_impossible_tiles_are_refused(level: int, index: int, width: int) -> None:
    """There is no path for a level, index or width that no tile has."""
    with pytest.raises(EncodingError):
        tile_path(level, index, width)


def test_the_tiles_of_the_specification_s_example() -> None:
    """70,000 leaves have the tiles that C2SP lists: 273 + 112 wide, 1 + 17 wide, 1 wide."""
    found = dict(tiles([leaf_hash(b"%d" % index) for index in range(70_000)]))
    assert len(found) == 273 + 1 + 1 + 1 + 1
    partial = {"tile/0/273.p/112": 112, "tile/1/001.p/17": 17, "tile/2/000.p/1": 1}
    for path, raw in found.items():
        assert len(raw) == 32 * partial.get(path, 256)
    assert partial.keys() <= found.keys()
    assert {"tile/0/000", "tile/0/272", "tile/1/000"} <= found.keys()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 600])
def test_tiles_hold_the_levels_of_the_tree(size: int) -> None:
    """Level 0 is the leaf hashes; a hash of level 1 is the root of the 256 leaves below it."""
    hashes = [leaf_hash(b"%d" % index) for index in range(size)]
    found = dict(tiles(hashes))
    level0 = b"".join(raw for path, raw in sorted(found.items()) if path.startswith("tile/0/"))
    level1 = b"".join(raw for path, raw in sorted(found.items()) if path.startswith("tile/1/"))
    assert level0 == b"".join(hashes)
    assert level1 == b"".join(root_of(hashes[at : at + 256]) for at in range(0, size - size % 256, 256))
    assert len(found) == -(-size // 256) + (1 if size >= 256 else 0)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=600))
def test_entry_bundles_give_back_the_entries(records: list[bytes]) -> None:
    """Parsing all bundles in order gives exactly the entries, 256 to a bundle."""
    found = list(entry_bundles(records))
    assert [raw for _, part in found for raw in parse_entry_bundle(part)] == records
    assert [path for path, _ in found] == [
        tile_path("entries", at // 256, min(256, len(records) - at)) for at in range(0, len(records), 256)
    ]


def test_the_longest_entry_fits_and_a_longer_one_is_refused() -> None:
    """65,535 bytes is the most that a uint16 counts."""
    assert parse_entry_bundle(entry_bundle([b"x" * 65_535])) == [b"x" * 65_535]
    with pytest.raises(EncodingError):
        entry_bundle([b"x" * 65_536])
    with pytest.raises(EncodingError):
        entry_bundle([b""] * 257)


@pytest.mark.parametrize("raw", [b"", b"\0", b"\0\1", b"\0\2a", b"\0\1ab", b"\0\0" * 257])
def test_a_broken_bundle_is_refused(raw: bytes) -> None:
    """A bundle that is empty, cut off anywhere or too full raises."""
    with pytest.raises(EncodingError):
        parse_entry_bundle(raw)
