"""Every honest history, cut into every case and agent's day that it has: each extract is verified."""

from __future__ import annotations

import json
from typing import Any

import pytest
from build import b64, root_of, verifier_key
from cases import PEOPLE_KEYS
from extracts import DAY_US, agent_day, case_of, close, cut
from generate import HONEST
from insider_people import ALL_KEYS
from scribe import START_US, Story
from story import whole
from story_order import BOTH_KEYS

from countermark_verify import parse_trust, verify

MONDAY = START_US - 9 * 3_600_000_000
STORIES = {"whole": whole, **HONEST}


def scopes_of(story: Story) -> list[dict[str, Any]]:
    """Each run; each agent's first day; the first day and what follows, whole."""
    runs = [r["body"] | {"at": r["at"]} for r in story.log.records if r["kind"] == "run.started"]
    found = [case_of(run["run"], run["at"], story.now) for run in runs]
    found += [agent_day(agent, "2026-11-02", MONDAY) for agent in sorted({run["agent"] for run in runs} | {"nobody"})]
    return [*found, {"kind": "period", "from": MONDAY + DAY_US // 2, "to": MONDAY + DAY_US}]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STORIES))
def test_every_part_of_an_honest_history_is_verified(name: str) -> None:
    """No step takes for a lie what an extract only leaves out."""
    story = STORIES[name]()
    if story.log.lane != "l0":
        pytest.skip("a successor lane's pack is made elsewhere")
    if any(record["kind"] == "key.rotated" for record in story.log.records):
        pytest.skip("a start under a key that was handed over is made elsewhere (insider_downgrades)")
    story.now = max(story.now, MONDAY + DAY_US)
    story.start()
    story.now += 1_000_000
    if story.log.records[0]["at"] < MONDAY + DAY_US:
        close(story, MONDAY + DAY_US)
    close(story)
    keys = PEOPLE_KEYS | {"honest-people-with-new-keys": BOTH_KEYS, "honest-enrolled-alone": ALL_KEYS}.get(name, {})
    head = {"size": len(story.log.leaves), "root": b64(root_of(story.log.leaves)), "source": "kept", "verified": True}
    log = {"origin": "countermark/acme/l0", "keys": [verifier_key("countermark/acme/l0", story.log_key)]}
    trust = parse_trust(json.dumps({"v": 1, "log": log, "people": keys, "heads": [head]}).encode())
    for scope in scopes_of(story):
        if scope["kind"] == "case":
            scope["to"] = max(scope["from"] + 1, scope["to"] - 2_000_000)
        report = verify(cut(story, scope).pack().write(), trust)
        found = [(finding.code, finding.message, finding.seq) for step in report.steps for finding in step.findings]
        if [code for code, _, _ in found] == ["V21.withheld"]:  # an extract is cut here without what was disclosed
            assert (report.verdict, "sealed" in name) == ("incomplete", True), (name, scope)
            continue
        assert (report.verdict, found) == ("verified", []), scope
