"""Judges trees with aics-tlog, in a Python of its own: trees as JSON on standard input, problems as JSON on output."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import aics_tlog as tlog


def unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def judge(tree: dict[str, Any]) -> Iterator[str]:
    key = tlog.parse_vkey(tree["Vkey"])
    note = tlog.parse_note(tree["Note"])
    if not tlog.verify_note(note, [key]):
        yield "note: not signed by this key"
        return
    head = tlog.parse_checkpoint(note.text)
    tiles = {path: unb64(data) for path, data in tree["Tiles"].items()}
    reader = tlog.MemoryTileReader(tiles)
    verified = tlog.VerifiedTileReader(reader, head.size, head.root)
    verified.check_root()
    for text, leaf in tree["Leaves"].items():
        given = [unb64(one) for one in tree["Inclusion"][text]]
        if not tlog.verify_leaf_inclusion(unb64(leaf), int(text), head.size, given, head.root):
            yield "record: not included"
        if tlog.inclusion_proof_from_tiles(verified, int(text), head.size) != given:
            yield "record: another proof"
    for text, one in tree["Consistency"].items():
        given = [unb64(part) for part in one["Proof"]]
        if not tlog.verify_consistency(int(text), head.size, unb64(one["Root"]), head.root, given):
            yield "prefix: not consistent"
        if tlog.consistency_proof_from_tiles(verified, int(text), head.size) != given:
            yield "prefix: another proof"


def judged(tree: dict[str, Any]) -> list[str]:
    try:
        return list(judge(tree))
    except (ValueError, OSError, tlog.TileVerificationError) as error:
        return [f"{type(error).__name__}: {error}"]


json.dump([judged(tree) for tree in json.load(sys.stdin)], sys.stdout)
