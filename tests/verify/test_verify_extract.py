"""Multiproofs and the records of an extract, over choices that nobody chose and over what swells."""

from __future__ import annotations

import zlib
from pathlib import Path
from random import Random

import pytest

from countermark.log import EpochManifest, multiproof, root_of
from countermark_verify import extract as extracts
from countermark_verify import verifier, verify
from countermark_verify.canon import render
from countermark_verify.container import INDEX, MULTIPROOF
from countermark_verify.errors import Malformed
from countermark_verify.extract import Extract
from countermark_verify.multiproof import root_of_chosen
from countermark_verify.report import Ledger
from countermark_verify.tree import leaf_hash

VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "files"


def test_every_choice_of_leaves_leads_to_the_root() -> None:
    """Trees of 1 to 40 leaves, choices by chance: product and verifier agree, and one hash more or less is refused."""
    random = Random(18)
    for size in range(1, 41):
        hashes = [random.randbytes(32) for _ in range(size)]
        for _ in range(8):
            chosen = sorted(random.sample(range(size), random.randint(0, size)))
            proof = list(multiproof(chosen, size, lambda low, high, hashes=hashes: root_of(hashes[low:high])))
            leaves = [(index, hashes[index]) for index in chosen]
            assert root_of_chosen(leaves, size, proof) == root_of(hashes)
            with pytest.raises(Malformed):
                root_of_chosen(leaves, size, [*proof, bytes(32)])
            if proof:
                with pytest.raises(Malformed):
                    root_of_chosen(leaves, size, proof[:-1])


@pytest.mark.parametrize("places", [[1, 1], [2, 1], [-1], [5], [0, 9]])
def test_leaves_out_of_order_or_outside_the_tree_are_refused(places: list[int]) -> None:
    """Twice the same, descending, negative, beyond the size."""
    with pytest.raises(Malformed):
        root_of_chosen([(place, bytes(32)) for place in places], 5, [bytes(32)] * 4)


def test_a_walk_over_a_tree_that_is_said_to_be_huge_takes_no_time() -> None:
    """The size comes from a head, which may say anything."""
    with pytest.raises(Malformed):
        root_of_chosen([(0, bytes(32))], 2**53 - 1, [])
    assert len(root_of_chosen([(2**53 - 2, bytes(32))], 2**53 - 1, [bytes(32)] * 52)) == 32


def test_a_manifest_of_one_stream_proves_it_and_the_absence_of_others() -> None:
    """With one leaf the neighbours of another stream are that leaf, or the edge."""
    manifest = EpochManifest({"g": [0, 3, "sha256:" + "0" * 64]})
    for stream in ("a." + "0" * 32, "g", "r." + "0" * 32):
        document = manifest.proof(0, [stream])
        leaves = [(row[0], leaf_hash(render(row[1:]))) for row in document["rows"]]
        assert root_of_chosen(leaves, 1, []) == manifest.root()
        assert document["proof"] == []


def test_a_bundle_that_swells_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros deflate a thousandfold: no more than a bundle's bound is made of them, and the step says so."""
    monkeypatch.setattr(extracts, "ENTRIES_BYTES_MAX", 10_000)
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = engine.compress(bytes(1_000_000)) + engine.flush()
    members = {INDEX: render({"v": 1, "ranges": [[0, 1]]}), MULTIPROOF: b"", "records/000.p/1": bomb}
    ledger = Ledger()
    extract = Extract(ledger, {name: memoryview(data) for name, data in members.items()}, 1)
    assert list(extract.entries()) == []
    assert [finding.code for finding in ledger.steps["V05"].findings] == ["V05.size"]


def test_an_index_that_counts_more_than_a_pack_can_hold_is_refused() -> None:
    """A range costs nothing to write: its records are not counted one by one."""
    members = {INDEX: render({"v": 1, "ranges": [[0, 2**53 - 1]]}), MULTIPROOF: b""}
    ledger = Ledger()
    extract = Extract(ledger, {name: memoryview(data) for name, data in members.items()}, 1)
    assert [finding.code for finding in ledger.steps["V05"].findings] == ["V05.index"]
    assert list(extract.entries()) == []


def test_whoever_waits_is_told_how_far_the_reading_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundle by bundle, ascending; the report is the same."""
    monkeypatch.setattr(verifier, "PROGRESS_RECORDS", 2)
    seen: list[int] = []
    pack = (VECTORS / "honest-booked-differently.zip").read_bytes()
    assert verify(pack, None, progress=seen.append) == verify(pack)
    assert seen
    assert seen == list(range(0, 2 * len(seen), 2))
