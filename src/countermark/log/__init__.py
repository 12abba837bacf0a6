"""Floor 2: the Merkle log — tree, proofs, tiles, signed heads. Bytes in, bytes out; no files, no clock."""

from countermark.log.notes import (
    Checkpoint,
    LogSigner,
    VerifierKey,
    open_checkpoint,
    open_note,
    parse_vkey,
    sign_checkpoint,
    vkey,
)
from countermark.log.tiles import TILE_WIDTH, entry_bundle, entry_bundles, parse_entry_bundle, tile_path, tiles
from countermark.log.tree import (
    EMPTY_ROOT,
    HASH_BYTES,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "TILE_WIDTH",
    "Checkpoint",
    "Frontier",
    "LogSigner",
    "VerifierKey",
    "consistency_proof",
    "entry_bundle",
    "entry_bundles",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "open_checkpoint",
    "open_note",
    "parse_entry_bundle",
    "parse_vkey",
    "root_of",
    "sign_checkpoint",
    "tile_path",
    "tiles",
    "verify_consistency",
    "verify_inclusion",
    "vkey",
]
