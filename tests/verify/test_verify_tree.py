"""The streamed tree against the definition in RFC 6962 2.1."""

from __future__ import annotations

import hashlib

import pytest
from verify_bytes import merkle, tiles

from countermark_verify.container import tile_name, tile_position
from countermark_verify.tree import Tree, entry_names, leaf_hash

SIZES = (*range(20), 63, 64, 65, 255, 256, 257, 511, 512, 513, 700)


def leaves(count: int) -> list[bytes]:
    return [str(index).encode() for index in range(count)]


def test_the_root_at_every_size_is_the_defined_one() -> None:
    """Roots kept while leaves go by equal the recursive definition."""
    hashes = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves(max(SIZES))]
    tree = Tree(SIZES)
    for leaf in leaves(max(SIZES)):
        tree.append(leaf_hash(leaf))
    assert {size: tree.roots[size] for size in SIZES} == {size: merkle(hashes[:size]) for size in SIZES}


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 700])
def test_the_tiles_are_those_of_the_size(size: int) -> None:
    """Names and contents of hash tiles, and names of entry bundles, equal an independent cut of the tree."""
    tree = Tree()
    for leaf in leaves(size):
        tree.append(leaf_hash(leaf))
    expected = tiles(leaves(size))
    assert {name: content for name, _, _, content in tree.tiles()} == {
        name: content for name, content in expected.items() if "/entries/" not in name
    }
    assert [name for name, _ in entry_names(size)] == sorted(name for name in expected if "/entries/" in name)


@pytest.mark.parametrize(
    ("index", "path"), [(0, "000"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067"), (67, "067")]
)
def test_tile_paths_are_those_of_c2sp(index: int, path: str) -> None:
    """The index in groups of three digits, all but the last marked with x."""
    assert tile_name("entries", index, 256) == f"log/tile/entries/{path}"
    assert tile_position(f"log/tile/3/{path}.p/7") == ("3", index, 7)


@pytest.mark.parametrize(
    "name",
    [
        "log/tile/0/0",
        "log/tile/0/x000/001",
        "log/tile/0/000.p/256",
        "log/tile/0/000.p/0",
        "log/tile/0/000.p/07",
        "log/tile/64/000",
        "log/tile/00/000",
        "log/tile/0/x001/x002",
        "log/tile/0/../000",
        "log/tile/0/٠٠٠",
    ],
)
def test_a_path_has_one_spelling(name: str) -> None:
    """Other spellings of a position are no tile names."""
    assert tile_position(name) is None


def test_the_root_of_an_earlier_size_is_the_one_it_had() -> None:
    """Also across tiles of the second level, where leaves alone would be too many to hash again."""
    leaves = [leaf_hash(str(n).encode()) for n in range(66_000)]
    sizes = [*range(520), 1_023, 1_024, 1_025, 32_767, 65_535, 65_536, 65_537, 65_800, 66_000]
    tree = Tree(sizes)
    for leaf in leaves:
        tree.append(leaf)
    assert [tree.root_at(size) for size in sizes] == [tree.roots[size] for size in sizes]
