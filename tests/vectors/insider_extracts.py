"""Extracts that hide something, and epochs that do: by an insider who holds every key, against an auditor with a head.

The auditor verified the whole log up to that head, so that only what the extract leaves out or claims can be wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from build import Pack, canonical, head_of, stream, tree_hash
from cases import UNSET, Case, case, refuted, trust
from extracts import (
    DAY_US,
    MONDAY,
    TUESDAY,
    WEDNESDAY,
    Cut,
    agent_day,
    case_of,
    claims_of,
    close,
    cut,
    few,
    manifest_hashes,
    multiproof,
    proof_document,
    rows_of,
    week,
)
from lies import lie, put
from scribe import Story
from story import pack_of, pay, run_of, whole

PAYER_MONDAY = agent_day("payer", "2026-11-02", MONDAY)
CLERK_MONDAY = agent_day("clerk", "2026-11-02", MONDAY)
CLERK_TUESDAY = agent_day("clerk", "2026-11-03", TUESDAY)
INDEX = "records/index.json"
PROOF = "log/multiproof"


def whole_trust(story: Story, **more: Any) -> dict[str, Any]:
    return trust([head_of(story.log.leaves) | {"verified": True} | more])


def honest(scope: dict[str, Any], begin: Callable[[], Story] = whole) -> Case:
    story = week(begin)
    return Case(cut(story, scope).pack().write(), "verified", [], trust=whole_trust(story))


def forged(made: Cut, pack: Pack, *codes: str, seq: Any = UNSET) -> Case:
    return refuted(pack, *codes, seq=seq, trust=whole_trust(made.story))


# --- honest ones ---


@case
def extract_agent_day() -> Case:
    return honest(PAYER_MONDAY)


@case
def extract_agent_day_of_a_child() -> Case:
    return honest(CLERK_MONDAY)


@case
def extract_none() -> Case:
    return honest(CLERK_TUESDAY, few)


@case
def extract_none_of_a_stranger() -> Case:
    return honest(agent_day("nobody", "2026-11-02", MONDAY), few)


@case
def extract_case() -> Case:
    run = run_of(whole())
    return honest(case_of(run, MONDAY + DAY_US // 4, WEDNESDAY))


@case
def extract_period() -> Case:
    return honest({"kind": "period", "from": TUESDAY, "to": WEDNESDAY})


@case
def epochs_closed() -> Case:
    story = week(whole)
    return Case(pack_of(story).write(), "verified", [], trust=whole_trust(story))


# --- what an extract cannot establish ---


@case
def extract_facts_not_verified() -> Case:
    """Nobody verified the whole log: what facts add up to stays open."""
    story = week()
    data = cut(story, PAYER_MONDAY).pack().write()
    return Case(data, "incomplete", ["V13.extract"], trust=trust([head_of(story.log.leaves)]))


@case
def extract_of_an_open_day() -> Case:
    """No epoch reaches the end of Wednesday."""
    story = week()
    made = cut(story, agent_day("payer", "2026-11-04", WEDNESDAY))
    return Case(made.pack().write(), "incomplete", ["V18.open"], trust=whole_trust(story))


@case
def extract_of_another_size() -> Case:
    """The auditor's head is of an earlier size: nothing here can be compared with it."""
    story = week()
    data = cut(story, PAYER_MONDAY).pack().write()
    return Case(data, "incomplete", ["V07.extract"], trust=trust([head_of(story.log.leaves[:8])]))


# --- what is hidden ---


def without(kind: str, scope: dict[str, Any], *codes: str, last: bool = False) -> Case:
    """The extract without one record of the kind; its index and proof are honest about what is left."""
    made = cut(week(), scope)
    records = made.story.log.records
    found = [seq for seq in made.seqs if records[seq]["kind"] == kind]
    made.seqs.remove(found[-1] if last else found[0])
    return forged(made, made.pack(), *codes)


@case
def extract_outcome_left_out() -> Case:
    return without("action.settled", PAYER_MONDAY, "V18.hidden")


@case
def extract_denial_left_out() -> Case:
    made = cut(week(), CLERK_MONDAY)
    records = made.story.log.records
    last = [seq for seq in made.seqs if made.subject in records[seq]["streams"]][-1]
    made.seqs.remove(last)
    return forged(made, made.pack(), "V18.hidden")


@case
def extract_stop_left_out() -> Case:
    """A stop stands in the general stream, which every extract has without a gap."""
    return without("kill.set", PAYER_MONDAY, "V06.stream")


@case
def extract_policy_left_out() -> Case:
    return without("policy.activated", PAYER_MONDAY, "V06.stream", last=True)


@case
def extract_period_record_left_out() -> Case:
    return without("action.settled", {"kind": "period", "from": MONDAY, "to": WEDNESDAY}, "V18.hidden")


@case
def extract_none_though_there_are() -> Case:
    """Says that the clerk did nothing, and proves it with streams that are no neighbours."""
    made = cut(week(), CLERK_MONDAY)
    records = made.story.log.records
    made.seqs = [seq for seq in made.seqs if "g" in records[seq]["streams"]]
    claim = made.epochs[0]
    rows = rows_of(made.story, claim["from"], claim["size"])
    place = [row[0] for row in rows].index(made.subject)
    made.members["epochs/0.json"] = shown(rows, {place - 1, place + 1} & set(range(len(rows))), general=True)
    return forged(made, made.pack(), "V18.proof")


@case
def extract_none_with_one_neighbour() -> Case:
    made = cut(week(), CLERK_MONDAY)
    records = made.story.log.records
    made.seqs = [seq for seq in made.seqs if "g" in records[seq]["streams"]]
    claim = made.epochs[0]
    rows = rows_of(made.story, claim["from"], claim["size"])
    made.members["epochs/0.json"] = shown(rows, set(), general=True)
    return forged(made, made.pack(), "V18.proof")


@case
def extract_entry_cut_short() -> Case:
    """The entry in the manifest is said to end earlier than it does."""
    made = cut(week(), PAYER_MONDAY)
    claim = made.epochs[0]
    document = proof_document(0, rows_of(made.story, claim["from"], claim["size"]), (made.subject or "", "g"))
    next(row for row in document["rows"] if row[1] == made.subject)[3] -= 1
    made.members["epochs/0.json"] = canonical(document)
    return forged(made, made.pack(), "V18.proof")


def shown(rows: list[Any], places: set[int], general: bool = False, epoch: int = 0) -> bytes:
    """A proof of exactly these rows."""
    if general:
        places = places | {[row[0] for row in rows].index("g")}
    chosen = sorted(places)
    proof = [item.hex() for item in multiproof(chosen, manifest_hashes(rows))]
    return canonical({"v": 1, "epoch": epoch, "rows": [[place, *rows[place]] for place in chosen], "proof": proof})


# --- whose it is ---


@case
def extract_of_another_agent() -> Case:
    """Says that it is about the clerk, and shows the payer."""
    made = cut(week(), PAYER_MONDAY)
    made.scope = CLERK_MONDAY
    return forged(made, made.pack(), "V18.proof", "V18.scope")


@case
def extract_with_a_strangers_record() -> Case:
    made = cut(week(), CLERK_MONDAY)
    records = made.story.log.records
    payer = stream("a", "payer")
    other = next(seq for seq, record in enumerate(records) if payer in record["streams"])
    made.seqs = sorted({*made.seqs, other})
    return forged(made, made.pack(), "V18.scope")


@case
def extract_of_a_shorter_day() -> Case:
    made = cut(week(), PAYER_MONDAY)
    made.scope = PAYER_MONDAY | {"to": TUESDAY - 3_600_000_000}
    return forged(made, made.pack(), "V18.scope")


@case
def extract_in_another_zone() -> Case:
    made = cut(week(), PAYER_MONDAY)
    made.scope = PAYER_MONDAY | {"zone": "UTC"}
    return forged(made, made.pack(), "V18.scope")


@case
def extract_case_from_its_middle() -> Case:
    """A run's case that leaves out Monday, on which it began."""
    story = week()
    made = cut(story, case_of(run_of(story), TUESDAY, WEDNESDAY))
    return forged(made, made.pack(), "V18.scope")


@case
def extract_case_without_its_action() -> Case:
    story = week()
    made = cut(story, case_of(run_of(story), MONDAY, WEDNESDAY, "act_" + "0" * 32))
    return forged(made, made.pack(), "V18.scope")


# --- places and proofs ---


def changed(change: Callable[[dict[str, bytes]], None], *codes: str) -> Case:
    made = cut(week(), PAYER_MONDAY)
    return forged(made, made.pack(change), *codes)


def index(ranges: list[list[int]]) -> bytes:
    return canonical({"v": 1, "ranges": ranges})


@case
def extract_index_out_of_order() -> Case:
    ranges = cut(week(), PAYER_MONDAY).ranges()
    return changed(lambda m: m.update({INDEX: index([ranges[1], ranges[0], *ranges[2:]])}), "V05.index")


@case
def extract_index_with_an_empty_range() -> Case:
    ranges = cut(week(), PAYER_MONDAY).ranges()
    end = ranges[-1][1] + 5
    return changed(lambda m: m.update({INDEX: index([*ranges, [end, end]])}), "V05.index")


@case
def extract_index_in_two_halves() -> Case:
    """The same choice with another index: one choice has one."""
    low, high = (ranges := cut(week(), PAYER_MONDAY).ranges())[0]
    halves = [[low, high - 1], [high - 1, high], *ranges[1:]]
    return changed(lambda m: m.update({INDEX: index(halves)}), "V05.index")


@case
def extract_index_shifted() -> Case:
    """The last record is said to stand one place later."""
    ranges = cut(week(), PAYER_MONDAY).ranges()
    low, high = ranges[-1]
    moved = [[low, high - 1], [high, high + 1]] if high - low > 1 else [[high, high + 1]]
    return changed(lambda m: m.update({INDEX: index([*ranges[:-1], *moved])}), "V05.proof", "V06.seq")


@case
def extract_index_with_more_than_there_is() -> Case:
    ranges = cut(week(), PAYER_MONDAY).ranges()
    end = ranges[-1][1]
    return changed(lambda m: m.update({INDEX: index([*ranges, [end + 1, end + 2]])}), "V05.size")


@case
def extract_proof_with_one_hash_more() -> Case:
    return changed(lambda m: m.update({PROOF: m[PROOF] + b"\x00" * 32}), "V05.proof")


@case
def extract_proof_with_one_hash_less() -> Case:
    return changed(lambda m: m.update({PROOF: m[PROOF][:-32]}), "V05.proof")


@case
def extract_proof_with_half_a_hash() -> Case:
    return changed(lambda m: m.update({PROOF: m[PROOF] + b"\x00" * 16}), "V05.proof")


@case
def extract_proof_changed() -> Case:
    return changed(lambda m: m.update({PROOF: bytes([m[PROOF][0] ^ 1]) + m[PROOF][1:]}), "V05.root")


@case
def extract_without_index() -> Case:
    return changed(lambda m: m.update({INDEX: b"[]"}), "V05.index")


def bundles_changed(change: Callable[[bytes], bytes]) -> Case:
    return changed(
        lambda m: m.update({name: change(m[name]) for name in m if name.startswith("records/0")}), "V05.size"
    )


@case
def extract_records_not_deflated() -> Case:
    return bundles_changed(lambda data: b"\x07" + data)


@case
def extract_records_cut_off() -> Case:
    return bundles_changed(lambda data: data[:-1])


@case
def extract_with_bytes_after_its_records() -> Case:
    return bundles_changed(lambda data: data + b"\x00")


@case
def extract_with_tiles() -> Case:
    return changed(lambda m: m.update({"log/tile/0/000.p/1": b"\x00" * 32}), "V05.index")


@case
def records_without_a_scope() -> Case:
    story = week()
    pack = pack_of(story)
    pack.members[INDEX] = index([[0, 1]])
    return refuted(pack.sealed(), "V05.index", seq=UNSET, trust=whole_trust(story))


@case
def extract_epoch_not_proved() -> Case:
    return changed(lambda m: m.pop("epochs/0.json") and None, "V18.members")


@case
def extract_epoch_of_no_use() -> Case:
    return changed(lambda m: m.update({"epochs/1.json": m["epochs/0.json"]}), "V18.members")


@case
def extract_manifest_of_another_epoch() -> Case:
    """Tuesday is proved with Monday's manifest, in which the clerk has records; and Monday with Tuesday's."""
    made = cut(week(), CLERK_MONDAY)
    tuesday = claims_of(made.story)[1]
    rows = rows_of(made.story, tuesday["from"], tuesday["size"])
    made.members["epochs/0.json"] = canonical(proof_document(0, rows, (stream("a", "clerk"), "g")))
    made.seqs = [seq for seq in made.seqs if "g" in made.story.log.records[seq]["streams"]]
    return forged(made, made.pack(), "V18.proof")


@case
def extract_node_as_a_leaf() -> Case:
    """Two rows of the manifest are shown as one leaf: their node."""
    made = cut(week(), PAYER_MONDAY)
    claim = made.epochs[0]
    rows = rows_of(made.story, claim["from"], claim["size"])
    document = proof_document(0, rows, (made.subject or "", "g"))
    document["rows"] = document["rows"][1:]
    document["proof"] = [tree_hash(manifest_hashes(rows[:2])).hex(), *document["proof"]]
    made.members["epochs/0.json"] = canonical(document)
    return forged(made, made.pack(), "V18.proof")


# --- epochs that lie, in a whole pack ---


def tidy_rows(story: Story) -> list[Any]:
    return rows_of(story, 0, len(story.log.leaves))


@lie("V18.manifest")
def epoch_with_a_hidden_stream(story: Story) -> int:
    story.settle(pay(story, 1))
    rows = [row for row in tidy_rows(story) if not row[0].startswith("a.")]
    return close(story, rows=rows)


@lie("V18.manifest")
def epoch_with_a_stream_twice(story: Story) -> int:
    story.settle(pay(story, 1))
    rows = tidy_rows(story)
    return close(story, rows=[rows[0], *rows])


@lie("V18.manifest")
def epoch_not_sorted(story: Story) -> int:
    story.settle(pay(story, 1))
    return close(story, rows=tidy_rows(story)[::-1])


@lie("V18.manifest")
def epoch_stream_cut_short(story: Story) -> int:
    story.settle(pay(story, 1))
    rows = tidy_rows(story)
    rows[0][2] -= 1
    return close(story, rows=rows)


@lie("V18.manifest")
def epoch_counts_one_stream_less(story: Story) -> int:
    return close(story, alter=put("streams", value=2))


@lie("V18.root")
def epoch_of_another_root(story: Story) -> int:
    return close(story, alter=put("root", value="ab" * 32))


@lie("V18.chain")
def epoch_left_out(story: Story) -> int:
    close(story)
    return close(story, alter=put("epoch", value=2))


@lie("V18.chain")
def epoch_over_the_one_before(story: Story) -> int:
    close(story)
    return close(story, alter=put("from", value=0))


@lie("V18.chain")
def epoch_of_what_is_not_there(story: Story) -> int:
    return close(story, alter=put("size", value=50))


@lie("V18.until")
def epoch_that_ends_too_late(story: Story) -> int:
    story.settle(pay(story, 1))
    close(story, until=story.now - 500_000, alter=put("until", value=story.now + 1))
    return len(story.log.leaves) - 2
