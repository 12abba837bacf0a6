"""Fresh trees as a stranger gets them: head, tiles, leaves, proofs; and the same with one thing changed."""

from __future__ import annotations

import base64
import copy
import zipfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.log import (
    TILE_WIDTH,
    LogSigner,
    TileRows,
    leaf_hash,
    open_checkpoint,
    parse_entry_bundle,
    sign_checkpoint,
    tiles,
)

ORIGIN = "countermark/acme/l0"
SIZES = (1, 2, 3, 5, 8, 255, 256, 257, 511, 512, 513, 1_000, 4_097, 65_536, 65_793)
PROOFS = 12  # of each kind, for each tree

Tree = dict[str, Any]


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def tree_of(leaves: list[bytes], signer: LogSigner, rng: Random, note: bytes | None = None) -> Tree:
    """What is published of a log with these leaves, and proofs of some places and sizes, as the gate makes them."""
    size, hashes = len(leaves), [leaf_hash(leaf) for leaf in leaves]
    rows = TileRows()
    rows.extend(hashes[: size // TILE_WIDTH * TILE_WIDTH])

    def read(low: int, high: int) -> list[bytes]:
        return hashes[low:high]

    places = sorted({0, size - 1, *(rng.randrange(size) for _ in range(PROOFS))})
    earlier = sorted({1, size, *(rng.randrange(1, size + 1) for _ in range(PROOFS))})
    return {
        "Vkey": signer.vkey,
        "Note": (note or sign_checkpoint(signer, size, rows.root(size, read))).decode(),
        "Tiles": {path: b64(data) for path, data in tiles(hashes)},
        "Leaves": {str(at): b64(leaves[at]) for at in places},
        "Inclusion": {str(at): [b64(one) for one in rows.inclusion(at, size, read)] for at in places},
        "Consistency": {
            str(old): {
                "Root": b64(rows.root(old, read)),
                "Proof": [b64(one) for one in rows.consistency(old, size, read)],
            }
            for old in earlier
        },
    }


def fresh(seed: str) -> list[Tree]:
    """A tree of every size."""
    rng = Random(seed)
    signer = LogSigner(ORIGIN, Ed25519PrivateKey.generate())
    leaves = [rng.randbytes(rng.randrange(60)) for _ in range(max(SIZES))]
    return [tree_of(leaves[:size], signer, rng) for size in SIZES]


def of_pack(pack: Path, signer: LogSigner) -> Tree:
    """The tree of an exported pack: its own head and its own tiles."""
    with zipfile.ZipFile(pack) as file:
        names = [name for name in file.namelist() if name.startswith("log/tile/")]
        entries = sorted(name for name in names if "/entries/" in name)
        leaves = [leaf for name in entries for leaf in parse_entry_bundle(file.read(name))]
        note = file.read("log/checkpoint")
        found = tree_of(leaves, signer, Random(1), note)
        found["Tiles"] = {n.removeprefix("log/"): b64(file.read(n)) for n in names if n not in entries}
    assert open_checkpoint(note, [signer.vkey]).size == len(leaves)
    return found


def tampered(tree: Tree) -> Iterator[Tree]:
    """The tree with one thing changed: head, a tile, a leaf, a proof, the root of an earlier head."""
    size = int(tree["Note"].split("\n")[1])
    place, old = str(size - 1), next(text for text in tree["Consistency"] if 1 < int(text) < size)

    def changed() -> Tree:
        return copy.deepcopy(tree)

    def flipped(text: str) -> str:
        raw = bytearray(base64.b64decode(text))
        raw[-1] ^= 1
        return b64(raw)

    one = changed()
    one["Note"] = one["Note"].replace(f"\n{size}\n", f"\n{size - 1}\n")
    yield one
    one = changed()
    one["Vkey"] = LogSigner(ORIGIN, Ed25519PrivateKey.generate()).vkey
    yield one
    for path in tree["Tiles"]:
        one = changed()
        one["Tiles"][path] = flipped(one["Tiles"][path])
        yield one
    one = changed()
    one["Leaves"][place] = b64(b"another leaf")
    yield one
    one = changed()
    one["Inclusion"][place][0] = flipped(one["Inclusion"][place][0])
    yield one
    one = changed()
    del one["Inclusion"][place][-1]
    yield one
    one = changed()
    one["Consistency"][old]["Root"] = flipped(one["Consistency"][old]["Root"])
    yield one
    one = changed()
    one["Consistency"][old]["Proof"][-1] = flipped(one["Consistency"][old]["Proof"][-1])
    yield one
