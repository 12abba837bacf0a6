"""Anchors changed at random by somebody who signs everything again: none is taken for the pinned one."""

from __future__ import annotations

import base64
import copy
import json
from random import Random
from typing import Any

from build import leaf_hash
from chain import chain_trust
from insider_anchors import anchored, bodies

from countermark_verify import parse_trust
from countermark_verify.anchors import Anchors
from countermark_verify.counts import Counts
from countermark_verify.report import Ledger
from countermark_verify.tree import Tree

SEED, MUTANTS = 20_261_129, 400


def _mutated(body: dict[str, Any], rng: Random) -> dict[str, Any]:
    """One text of bytes with some bits, its start or its end changed, or one number."""
    changed = copy.deepcopy(body)
    places = [(changed, name) for name in ("tx", "receipt", "header")]
    places += [
        (nodes, at) for nodes in (changed["proof"]["tx"], changed["proof"]["receipt"]) for at in range(len(nodes))
    ]
    if rng.random() < 0.1:
        changed[rng.choice(("log_index", "size", "sequence"))] += rng.choice((1, 7))
        return changed
    holder, at = rng.choice(places)
    raw = bytearray(base64.b64decode(holder[at]))
    kind = rng.randrange(4)
    if kind == 0:
        del raw[rng.randrange(len(raw)) :]
    elif kind == 1:
        raw += rng.randbytes(3)
    else:
        for _ in range(kind):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    holder[at] = base64.b64encode(bytes(raw)).decode()
    return changed


def _judge(body: dict[str, Any], leaves: list[bytes], position: int, trust: Any) -> tuple[str, str]:
    ledger, tree, counts = Ledger(), Tree(), Counts(disclosed=0, lines=False)
    for leaf in leaves[: position + 1]:
        tree.append(leaf_hash(leaf))
    judge = Anchors(ledger, tree, trust, counts)
    start = json.loads(leaves[0])
    judge.check(0, start)
    judge.check(position, {"kind": "anchor.published", "lane": start["lane"], "body": body})
    return ledger.status("V17"), counts.anchored


def test_a_changed_anchor_is_refuted_and_raises_no_level() -> None:
    """Four hundred mutants of one anchor, the block pinned: each is refuted, and nothing else is ever raised."""
    story = anchored()
    position = next(r["seq"] for r in story.log.records if r["kind"] == "anchor.published")
    body = bodies(story)[0]
    log = {"origin": "countermark/acme/l0", "keys": []}
    trust = parse_trust(json.dumps({"v": 1, "log": log, "chains": chain_trust(body)}).encode())
    assert _judge(body, story.log.leaves, position, trust)[0] == "ok"
    rng = Random(SEED)
    for number in range(MUTANTS):
        found = _judge(_mutated(body, rng), story.log.leaves, position, trust)
        assert found == ("refuted", ""), (SEED, number)
