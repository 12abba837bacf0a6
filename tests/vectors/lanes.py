"""A restore on paper: the successor lane, what a provider moved since, and who opened it (docs/spec/record.md)."""

from __future__ import annotations

from typing import Any

from build import DEPLOYMENT, ZERO, Key, Pack, b64, doc_digest, make_pack, root_of, verifier_key
from bundle import person_key
from cases import LOG_KEYS, PEOPLE_KEYS
from fields import normal
from scribe import Alter, Story


def origin_of(lane: str) -> str:
    return f"countermark/{DEPLOYMENT}/{lane}"


def movement(
    story: Story, tool: str, ref: str, amount: int, alter: Alter | None = None, **texts: str
) -> dict[str, Any]:
    """A movement in the provider's list; `texts` are the parts of its business key."""
    draft = story.tool(tool)
    pairs = [[name, texts[name] if name == "payee" else normal(texts[name])] for name in sorted(draft["once_per"])]
    body = {
        "ref": ref,
        "key": "",
        "tool": tool,
        "terms": {"amount": amount, "currency": "EUR", "payee": texts.get("payee")},
        "pairs": pairs,
        "obligation": doc_digest("obligation", [draft["once_scope"], pairs]),
        "moved_at": story.now,
    }
    if alter is not None:
        alter(body)
    return body


def succeed(
    story: Story,
    found: list[dict[str, Any]],
    lost: int = 0,
    lane: str = "l1",
    known: bool = True,
    alter: Alter | None = None,
    written: list[dict[str, Any]] | None = None,
) -> int:
    """Restore here. `lost` records are declared; `written` are the movements that follow, else all of `found`."""
    size = len(story.log.leaves)
    before = story.log.records[-1]["lane"]
    digest = ZERO
    for body in found:
        digest = doc_digest("activity", [digest, body])
    body = {
        "lane": lane,
        "log_key": verifier_key(origin_of(lane), story.log_key),
        "predecessor": {
            "lane": before,
            "size": size,
            "root": root_of(story.log.leaves).hex(),
            "log_key": verifier_key(origin_of(before), story.log_key),
        },
        "known": {"size": size + lost, "root": root_of(story.log.leaves).hex() if lost == 0 else "ab" * 32}
        if known
        else None,
        "activity": {
            "since": story.now - 3_600_000_000,
            "until": story.now,
            "asked": ["bank"],
            "unasked": [],
            "found": len(found),
            "digest": digest,
        },
    }
    if alter is not None:
        alter(body)
    story.log.lane = lane
    seq = story.add("lane.succeeded", "gate", [], body)
    for item in found if written is None else written:
        story.add("lane.imported", "gate", [], item)
    return seq


def kill_of(story: Story, seq: int) -> str:
    """The id of the kill that a restore sets."""
    return "kill_" + story.log.digest_of(seq)[7:23]


def start(story: Story) -> int:
    """Start the gate in the story's present lane."""

    def named(body: dict[str, Any]) -> None:
        body["log_key"] = verifier_key(origin_of(story.log.lane), story.log_key)

    return story.start(named)


def accept(story: Story, seq: int, person: str, alter: Alter | None = None, key: Key | None = None) -> int:
    """Accept the restore at `seq`; `alter` falsifies the document before it is signed."""
    movements = sum(record["kind"] == "lane.imported" for record in story.log.records[seq:])
    doc = {
        "deployment": DEPLOYMENT,
        "lane": story.log.lane,
        "succession": story.log.digest_of(seq),
        "imported": movements,
        "bundle": story.bundle,
        "person": person,
    }
    if alter is not None:
        alter(doc)
    key = key or person_key(person)
    body = {"acceptance": doc, "key": key.text, "sig": key.sign_doc("acceptance", doc)}
    return story.add("lane.accepted", f"person:{person}", [], body)


def packed(story: Story, lane: str = "l1") -> Pack:
    return make_pack(story.log.leaves, story.bundles, story.log_key, lane=lane)


def trusting(story: Story, lane: str = "l1", *more: dict[str, Any]) -> dict[str, Any]:
    """The trust file of an auditor who knows the successor's key; `more` are heads of its predecessor."""
    head = {"size": len(story.log.leaves), "root": b64(root_of(story.log.leaves)), "source": "kept on paper"}
    key = verifier_key(origin_of(lane), story.log_key)
    keys = [key] if lane != "l0" else LOG_KEYS
    return {
        "v": 1,
        "log": {"origin": origin_of(lane), "keys": keys},
        "people": PEOPLE_KEYS,
        "heads": [head, *more],
    }
