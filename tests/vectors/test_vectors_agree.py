"""The verifier and re-performance are two readings of one specification: they agree on histories that nobody chose."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

import pytest
from build import b64, doc_digest, make_pack, root_of, verifier_key
from cases import PEOPLE_KEYS
from forge import forged, renewed
from insider_ap2 import honest as accepted
from insider_callers import callers
from insider_effects import chained
from insider_erasures import erased
from insider_hindsight import hindsight, reopened
from insider_ladders import ladders
from insider_lanes import honest
from insider_monitor import monitored
from insider_payees import payees
from insider_people import enrolled, stood_in
from insider_sealed import gone
from insider_signed import signed
from insider_witnesses import witnessed
from insider_workflows import delegated
from lanes import origin_of
from scribe import Story
from story_order import booked
from story_wide import observed

from countermark.audit import reperform
from countermark.model.errors import CountermarkError
from countermark.model.records import Record, read
from countermark.policy import Bundle
from countermark_verify import Report, parse_trust, verify

STORIES: dict[str, Callable[[], Story]] = {
    "accepted": accepted,
    "booked": booked,
    "callers": callers,
    "chained": chained,
    "delegated": delegated,
    "enrolled": enrolled,
    "erased": erased,
    "hindsight": hindsight,
    "ladders": ladders,
    "monitored": monitored,
    "observed": observed,
    "payees": payees,
    "reopened": reopened,
    "sealed": gone,
    "restored": lambda: honest("restored"),
    "signed": signed,
    "stood-in": stood_in,
    "witnessed": witnessed,
}
HISTORIES = 40  # of each story, in the slow tests
HISTORIES_FAST = 8
# Steps that both repeat.
REPEATED = ("V03", "V04", "V06", "V08", "V09", "V10", "V11", "V12", "V13", "V14", "V19")
# Where they differ, and why: what has no shape of its kind (the gate's code never reads it); bounds of a mandate's form
# that the specification leaves to whoever writes one; the keys of the auditor, whom re-performance does not ask; and a
# mandate before any policy, of which the verifier says that it cannot be established.
FORMS = ("mandate.granted mandate", "gate.started log_key", "policy.activated left out")


def judged(leaves: list[bytes], story: Story) -> Report:
    """The verifier's report, with a trust file that holds the forged history's own head."""
    lane = story.log.records[-1]["lane"]
    head = {"size": len(leaves), "root": b64(root_of(leaves)), "source": "taken from the falsified log"}
    log = {"origin": origin_of(lane), "keys": [verifier_key(origin_of(lane), story.log_key)]}
    trust = {"v": 1, "log": log, "people": PEOPLE_KEYS, "heads": [head]}
    pack = make_pack(leaves, story.bundles, story.log_key, lane=lane)
    gone = sum(row["seq"] in story.erased for row in story.sealed)
    pack.predicate |= {"erased": gone, "withheld": len(story.sealed) - gone}
    return verify(pack.sealed().write(), parse_trust(json.dumps(trust).encode()))


def sound(leaves: list[bytes], story: Story) -> bool:
    """Whether re-performance finds nothing."""
    bundles = {doc_digest("bundle", bundle): Bundle.from_document(bundle) for bundle in story.bundles}
    records: list[Record] = []
    try:
        records = [read(leaf) for leaf in leaves]
    except CountermarkError:
        return False
    return reperform(records, bundles.__getitem__).ok


@pytest.mark.parametrize("name", STORIES)
def test_the_honest_history_is_sound_to_both(name: str) -> None:
    """Before anything is bent, neither finds anything."""
    story = STORIES[name]()
    assert judged(story.log.leaves, story).verdict == "verified"
    assert sound(story.log.leaves, story)


@pytest.mark.parametrize("name", STORIES)
def test_what_is_only_signed_and_chained_anew_is_sound_to_both(name: str) -> None:
    """Else every lie below would be found by the signatures that the forger forgot."""
    story = STORIES[name]()
    leaves = renewed(story)
    assert leaves != story.log.leaves
    assert judged(leaves, story).verdict == "verified"
    assert sound(leaves, story)


@pytest.mark.parametrize("name", STORIES)
def test_both_find_the_same_lies(name: str) -> None:
    """Of histories bent at random, signed and chained anew, re-performance refutes exactly those the verifier does."""
    _agree(name, range(HISTORIES_FAST))


@pytest.mark.slow
@pytest.mark.parametrize("name", STORIES)
def test_both_find_the_same_lies_in_more_histories(name: str) -> None:
    """The same with further ones; a quarter and more of them are lies."""
    assert _agree(name, range(HISTORIES_FAST, HISTORIES)) > (HISTORIES - HISTORIES_FAST) / 4


def _agree(name: str, seeds: range) -> int:
    """How many histories both refuted; there is no other difference between the two."""
    story = STORIES[name]()
    differing, refuted = [], 0
    for seed in seeds:
        leaves, lie = forged(story, Random(f"{name} {seed}"))
        report = judged(leaves, story)
        found = [item for step in report.steps if step.status == "refuted" for item in step.findings]
        found = [item for item in found if item.code.startswith(REPEATED)]
        if lie.startswith(FORMS) or any("does not have the" in item.message for item in found):
            continue
        refuted += bool(found)
        if bool(found) == sound(leaves, story):
            differing.append((seed, lie, [(item.code, item.seq) for item in found]))
    assert differing == []
    return refuted
