"""The tree against published vectors, against RFC 6962 read as recursion, and against forgeries."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.log import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from countermark.model.errors import ProofError

SIZES_MAX = 600
# Inputs and roots of the test suite that Certificate Transparency implementations share.
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(b"leaf %d" % index) for index in range(SIZES_MAX)]


def naive_root(hashes: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return sha256(b"\1" + naive_root(hashes[:k]) + naive_root(hashes[k:])).digest()


def naive_path(index: int, hashes: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1."""
    if len(hashes) == 1:
        return []
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if index < k:
        return [*naive_path(index, hashes[:k]), naive_root(hashes[k:])]
    return [*naive_path(index - k, hashes[k:]), naive_root(hashes[:k])]


def naive_consistency(old: int, hashes: list[bytes], whole: bool = True) -> list[bytes]:
    """RFC 6962 section 2.1.2, SUBPROOF."""
    if old == len(hashes):
        return [] if whole else [naive_root(hashes)]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if old <= k:
        return [*naive_consistency(old, hashes[:k], whole), naive_root(hashes[k:])]
    return [*naive_consistency(old - k, hashes[k:], False), naive_root(hashes[:k])]


def test_known_roots() -> None:
    """The roots of the eight well-known inputs, and the empty root, are the published ones, both ways of computing."""
    frontier = Frontier()
    assert frontier.root().hex() == EMPTY_ROOT.hex() == ROOTS[0]
    for size, raw in enumerate(INPUTS, 1):
        frontier.append(leaf_hash(raw))
        assert frontier.root().hex() == ROOTS[size]
        assert root_of([leaf_hash(item) for item in INPUTS[:size]]).hex() == ROOTS[size]


def test_known_proofs() -> None:
    """The published proofs over the eight inputs: inclusion of index 5, consistency of 6 with 8."""
    hashes = [leaf_hash(item) for item in INPUTS]
    shared = [
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [item.hex() for item in inclusion_proof(hashes, 5, 8)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        *shared,
    ]
    assert [item.hex() for item in consistency_proof(hashes, 6, 8)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        *shared,
    ]


def test_frontier_equals_recursion_at_every_size() -> None:
    """From 0 to 600 leaves the frontier, the level-wise root and the recursive definition agree."""
    frontier = Frontier()
    for size in range(SIZES_MAX + 1):
        assert frontier.size == size
        assert frontier.root() == root_of(LEAVES[:size])
        if size % 7 == 0 or size & (size - 1) == 0:
            assert frontier.root() == naive_root(LEAVES[:size])
        if size < SIZES_MAX:
            frontier.append(LEAVES[size])


def test_frontier_survives_a_snapshot_at_every_size() -> None:
    """Dumped and loaded at any size, a frontier goes on to the same roots, and the original is not touched."""
    frontier = Frontier()
    for size in range(130):
        again = Frontier.load(size, frontier.dump())
        before = frontier.root()
        for leaf in LEAVES[size : size + 5]:
            again.append(leaf)
        assert again.root() == root_of(LEAVES[: size + 5])
        assert frontier.root() == before
        frontier.append(LEAVES[size])


def test_a_frontier_tells_the_root_of_each_tile_that_a_leaf_completes() -> None:
    """With each 256th leaf, also where it was loaded inside a tile, the root of those 256; with no other leaf any."""
    frontier = Frontier()
    for size, leaf in enumerate(LEAVES[:SIZES_MAX], 1):
        if size % 37 == 0:
            frontier = Frontier.load(size - 1, frontier.dump())
        expected = root_of(LEAVES[size - 256 : size]) if size % 256 == 0 else None
        assert frontier.append(leaf) == expected


@pytest.mark.parametrize(
    ("size", "peaks"),
    [(1, []), (0, ["00" * 32]), (3, ["00" * 32]), (-1, []), (True, ["00" * 32]), (1, ["AB" * 32]), (1, ["00" * 31])],
)
def test_a_wrong_snapshot_is_refused(size: int, peaks: list[str]) -> None:
    """Peaks that cannot belong to the size, or are no hashes, raise instead of giving some root."""
    with pytest.raises(ProofError):
        Frontier.load(size, peaks)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.data())
def test_inclusion_proofs_equal_the_recursion_and_verify(data: st.DataObject) -> None:
    """Every audit path is RFC 6962's and leads from its leaf to the root."""
    size = data.draw(st.integers(1, SIZES_MAX))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(LEAVES, index, size)
    assert proof == naive_path(index, LEAVES[:size])
    verify_inclusion(LEAVES[index], index, size, proof, root_of(LEAVES[:size]))


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.data())
def test_consistency_proofs_equal_the_recursion_and_verify(data: st.DataObject) -> None:
    """Every consistency proof is RFC 6962's and leads to both roots."""
    new = data.draw(st.integers(1, SIZES_MAX))
    old = data.draw(st.integers(1, new))
    proof = consistency_proof(LEAVES, old, new)
    assert proof == naive_consistency(old, LEAVES[:new])
    verify_consistency(old, new, root_of(LEAVES[:old]), root_of(LEAVES[:new]), proof)


def test_all_small_proofs_verify_and_no_other_claim_does() -> None:
    """For every size up to 20: each proof holds for its own index or size and for no other one."""
    for size in range(1, 21):
        root = root_of(LEAVES[:size])
        for index in range(size):
            proof = inclusion_proof(LEAVES, index, size)
            verify_inclusion(LEAVES[index], index, size, proof, root)
            for other in range(size):
                if other != index:
                    with pytest.raises(ProofError):
                        verify_inclusion(LEAVES[index], other, size, proof, root)
        for old in range(size + 1):
            verify_consistency(old, size, root_of(LEAVES[:old]), root, consistency_proof(LEAVES, old, size))
            for other in range(1, size):
                if other != old:
                    with pytest.raises(ProofError):
                        verify_consistency(
                            other, size, root_of(LEAVES[:old]), root, consistency_proof(LEAVES, old, size)
                        )


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.data())
def test_a_damaged_proof_is_refused(data: st.DataObject) -> None:
    """A flipped bit, a missing, an added or a swapped hash makes any proof fail."""
    new = data.draw(st.integers(3, 200))
    old = data.draw(st.integers(2, new - 1))
    index = data.draw(st.integers(0, new - 1))
    inclusion, consistency = inclusion_proof(LEAVES, index, new), consistency_proof(LEAVES, old, new)
    for proof, check in (
        (inclusion, lambda bad: verify_inclusion(LEAVES[index], index, new, bad, root_of(LEAVES[:new]))),
        (consistency, lambda bad: verify_consistency(old, new, root_of(LEAVES[:old]), root_of(LEAVES[:new]), bad)),
    ):
        at = data.draw(st.integers(0, len(proof) - 1))
        flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        bad_ones = [
            [*proof[:at], flipped, *proof[at + 1 :]],
            [*proof[:at], *proof[at + 1 :]],
            [*proof, LEAVES[0]],
            [LEAVES[0], *proof],
            [*proof[:at], proof[at][:31], *proof[at + 1 :]],
        ]
        if proof[::-1] != proof:
            bad_ones.append(proof[::-1])
        for bad in bad_ones:
            with pytest.raises(ProofError):
                check(bad)


def test_impossible_sizes_are_refused() -> None:
    """Proofs outside the log, a shrinking log and two roots of one size raise."""
    for index, size in ((0, 0), (5, 5), (-1, 5), (0, SIZES_MAX + 1)):
        with pytest.raises(ProofError):
            inclusion_proof(LEAVES, index, size)
    for old, new in ((6, 5), (-1, 5), (0, SIZES_MAX + 1)):
        with pytest.raises(ProofError):
            consistency_proof(LEAVES, old, new)
    five, six = root_of(LEAVES[:5]), root_of(LEAVES[:6])
    for old, new, old_root, new_root in ((6, 5, six, five), (5, 5, six, five), (0, 5, five, five), (-1, 5, five, five)):
        with pytest.raises(ProofError):
            verify_consistency(old, new, old_root, new_root, [])
    with pytest.raises(ProofError):
        verify_inclusion(LEAVES[0], 0, 0, [], EMPTY_ROOT)


def test_leaf_and_node_never_collide() -> None:
    """A leaf made of two hashes is not the node above them: the prefixes keep second preimages out."""
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != node_hash(LEAVES[0], LEAVES[1])
