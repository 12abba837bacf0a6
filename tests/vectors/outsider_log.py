"""Attacks on the log and its head: tree, rewriting, truncation, witnesses (V03, V05, V07, V08)."""

from __future__ import annotations

from typing import Any

from build import (
    LANE,
    Key,
    cosignature_line,
    entry_bundles,
    head_of,
    leaf_hash,
    log_line,
    make_pack,
    note_text,
    root_of,
    verifier_key,
)
from cases import (
    PEOPLE_KEYS,
    TINY_ENTRIES,
    UNSET,
    Case,
    case,
    leaves,
    refuted,
    tiny,
    tiny_story,
    tiny_trust,
    trust,
)
from scribe import FLAGGED
from story import opened, pack_of, pay, restarts, small

# --- the head and the tree (V03, V05) ---


@case
def checkpoint_foreign_key() -> Case:
    pack, text = tiny(), note_text(6, root_of(tiny_story().log.leaves))
    pack.members["log/checkpoint"] = text + b"\n" + log_line(text, Key("foreign"))
    return refuted(pack.sealed(), "V03.signature", trust=tiny_trust())


@case
def checkpoint_signature_of_another_head() -> Case:
    pack, text = tiny(), note_text(6, root_of(tiny_story().log.leaves))
    other = note_text(5, root_of(tiny_story().log.leaves[:5]))
    pack.members["log/checkpoint"] = text + b"\n" + log_line(other, Key("log"))
    return refuted(pack.sealed(), "V03.signature", trust=tiny_trust())


@case
def wrong_origin() -> Case:
    origin = f"countermark/other/{LANE}"
    pack, text = tiny(), note_text(6, root_of(tiny_story().log.leaves), origin)
    pack.members["log/checkpoint"] = text + b"\n" + log_line(text, Key("log"), origin)
    pack.predicate["origin"] = origin
    return refuted(pack.sealed(), "V03.origin", seq=UNSET, trust=tiny_trust())


@case
def predicate_other_size() -> Case:
    pack = tiny()
    pack.predicate["size"] = 7
    return refuted(pack.sealed(), "V03.mismatch", trust=tiny_trust())


@case
def log_key_not_trusted() -> Case:
    story = tiny_story(log_key=Key("log of somebody else"))
    codes = ("V02.signature", "V03.signature", "V03.mismatch")
    return refuted(pack_of(story), *codes, seq=0, trust=trust([head_of(story.log.leaves)]))


def _tiny_leaves() -> list[bytes]:
    return tiny_story().log.leaves


def _with_entries(changed: list[bytes], *codes: str, seq: Any) -> Case:
    """The honest head and hash tiles over other records; the manifest is signed again."""
    pack = tiny()
    (data,) = entry_bundles(changed).values()
    pack.members[TINY_ENTRIES] = data
    return refuted(pack.sealed(), *codes, seq=seq, trust=tiny_trust())


@case
def amount_changed_tree_kept() -> Case:
    return _with_entries(tiny_story(11_000).log.leaves, "V05.root", seq=4)


@case
def record_deleted() -> Case:
    kept = _tiny_leaves()
    del kept[4]
    return _with_entries(kept, "V05.root", "V05.size", seq=4)


@case
def record_inserted() -> Case:
    more = _tiny_leaves()
    more.insert(4, more[3])
    return _with_entries(more, "V05.root", "V05.size", seq=4)


@case
def records_swapped() -> Case:
    swapped = _tiny_leaves()
    swapped[3], swapped[4] = swapped[4], swapped[3]
    return _with_entries(swapped, "V05.root", seq=3)


@case
def records_cut_head_kept() -> Case:
    return _with_entries(_tiny_leaves()[:5], "V05.root", "V05.size", seq=UNSET)


def _rebuilt(changed: list[bytes], seq: int) -> Case:
    """Other records under a tree, a head and a manifest of their own, and the auditor trusts that head."""
    pack = make_pack(changed, tiny_story().bundles, Key("log"))
    return refuted(pack, "V06.seq", seq=seq, trust=trust([head_of(changed)]))


@case
def records_swapped_tree_rebuilt() -> Case:
    swapped = _tiny_leaves()
    swapped[3], swapped[4] = swapped[4], swapped[3]
    return _rebuilt(swapped, 3)


@case
def record_deleted_tree_rebuilt() -> Case:
    kept = _tiny_leaves()
    del kept[4]
    return _rebuilt(kept, 4)


@case
def hash_tile_altered() -> Case:
    pack = tiny()
    tile = bytearray(pack.members["log/tile/0/000.p/6"])
    tile[3 * 32] ^= 1
    pack.members["log/tile/0/000.p/6"] = bytes(tile)
    return refuted(pack.sealed(), "V05.tile", seq=UNSET, trust=tiny_trust())


@case
def hash_tile_missing() -> Case:
    pack = tiny()
    del pack.members["log/tile/0/000.p/6"]
    return refuted(pack.sealed(), "V05.tile", seq=UNSET, trust=tiny_trust())


@case
def hash_tile_of_level_1_altered() -> Case:
    story = restarts()
    pack = pack_of(story)
    tile = bytearray(pack.members["log/tile/1/000.p/1"])
    tile[0] ^= 1
    pack.members["log/tile/1/000.p/1"] = bytes(tile)
    return refuted(pack.sealed(), "V05.tile", seq=UNSET, trust=trust([head_of(story.log.leaves)]))


# --- trusted heads (V07) ---


def _heads() -> list[Any]:
    return [head_of(leaves()[:4]), head_of(leaves())]


def _tiny_heads() -> list[Any]:
    return [head_of(tiny_story().log.leaves)]


@case
def rewritten_with_own_key() -> Case:
    pack = pack_of(small(first_amount=11_000))
    return refuted(pack, "V07.rewritten", seq=UNSET, trust=trust(_heads()))


@case
def rewritten_located_by_leaf_hashes() -> Case:
    kept = {"from": 2, "hashes": [leaf_hash(leaf).hex() for leaf in leaves()[2:]]}
    pack = pack_of(small(first_amount=11_000))
    return refuted(pack, "V07.rewritten", seq=4, trust=trust(_heads(), leaf_hashes=kept))


@case
def fork_of_the_last_record() -> Case:
    # Two views of one size: the last settlement says 13,000 here and 14,000 in the log whose head was retained.
    story = small()
    del story.log.leaves[10:]
    payout = story.actions[-1]
    story.now -= 1_000_000
    for name, place in story.log.records[9]["streams"].items():
        story.log.streams[name] = (place[0], story.log.digest_of(9))
    story.settle(payout, amount=13_000, via="lookup")
    return refuted(pack_of(story), "V07.rewritten", seq=UNSET, trust=trust(_heads()))


@case
def older_backup_put_back() -> Case:
    # The database of record 6 was restored and the gate went on: the same head size is reached with another history.
    story = opened("whole")
    story.settle(pay(story, 1001, 12_000))
    story.log.label = "after the restore"
    for number in range(1501, 1504):
        story.settle(pay(story, number, 20_000, "borealis", FLAGGED))
    return refuted(pack_of(story), "V07.rewritten", seq=UNSET, trust=trust(_heads()))


@case
def tail_truncated() -> Case:
    story = tiny_story()
    pack = make_pack(story.log.leaves[:4], story.bundles, story.log_key)
    return Case(pack.write(), "incomplete", ["V07.truncated"], trust=tiny_trust())


@case
def records_after_the_head() -> Case:
    story = tiny_story()
    story.settle(pay(story, 2))
    return Case(pack_of(story).write(), "incomplete", ["V07.later"], UNSET, tiny_trust())


@case
def no_head_retained() -> Case:
    return Case(tiny().write(), "incomplete", ["V07.no_trust"], trust=trust([]))


@case
def no_log_key_trusted() -> Case:
    return Case(tiny().write(), "incomplete", ["V02.no_trust"], trust=trust(_tiny_heads(), keys=[]))


@case
def no_key_of_the_activator() -> Case:
    shown = trust(_tiny_heads())
    shown["people"] = {name: key for name, key in PEOPLE_KEYS.items() if name != "activator"}
    return Case(tiny().write(), "incomplete", ["V09.no_key"], UNSET, trust=shown)


# --- witnesses (V08) ---

WITNESSES = [("witness.one.example/w", "one"), ("witness.two.example/w", "two"), ("witness.acme.example/w", "acme")]


def _witnessed(*names: str, spoil: bool = False, quorum: int = 2, heads: bool = False) -> tuple[bytes, dict[str, Any]]:
    kept = tiny_story().log.leaves
    pack, text = tiny(), note_text(6, root_of(kept))
    signed = note_text(5, root_of(kept[:5])) if spoil else text
    lines = [cosignature_line(signed, Key(name), name, 1_793_700_000) for name in names]
    pack.members["log/checkpoint"] += b"".join(lines)
    keys = [{"key": verifier_key(name, Key(name), 4), "operator": operator} for name, operator in WITNESSES]
    witnesses = {"quorum": quorum, "keys": keys}
    return pack.sealed().write(), trust(_tiny_heads() if heads else [], witnesses=witnesses)


@case
def honest_witnessed() -> Case:
    data, shown = _witnessed(WITNESSES[0][0], WITNESSES[1][0])
    return Case(data, "verified", [], trust=shown)


@case
def witness_quorum_short() -> Case:
    data, shown = _witnessed(WITNESSES[0][0], heads=True)
    return Case(data, "incomplete", ["V08.quorum"], trust=shown)


@case
def witness_run_by_the_operator() -> Case:
    data, shown = _witnessed(WITNESSES[0][0], WITNESSES[2][0], heads=True)
    return Case(data, "incomplete", ["V08.quorum"], trust=shown)


@case
def witness_line_of_another_head() -> Case:
    data, shown = _witnessed(WITNESSES[0][0], spoil=True, quorum=1, heads=True)
    return Case(data, "refuted", ["V08.cosignature"], trust=shown)
