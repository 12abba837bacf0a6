"""Holds, disclosures and erasures, on paper (docs/spec/record.md)."""

from __future__ import annotations

from typing import Any

from build import DEPLOYMENT, Key, doc_digest
from bundle import person_key, plain_bundle
from hindsight import BOTH, four_eyes
from scribe import Alter, Story

DAY_S = 86_400
KEEP_S = 30 * DAY_S
ZERO = "sha256:" + "0" * 64
HOLD = "hold_" + "1" * 16


def kept(keep_s: int | None = KEEP_S, tools: dict[str, int] | None = None, note: str = "kept") -> dict[str, Any]:
    """A bundle that says how long sealed values are kept."""
    bundle = plain_bundle(note)
    bundle["compiled"]["retention"] = {"keep_s": keep_s, "tools": [list(row) for row in sorted((tools or {}).items())]}
    return bundle


def theirs(story: Story, subject: str) -> list[int]:
    """The seqs of a subject's decisions whose sealed values are still there."""

    def of(seq: int) -> str:
        body = story.log.records[seq]["body"]
        return body["subject"] if "subject" in body else body["terms"]["payee"] or f"agent:{body['agent']}"

    return [seq for seq in dict.fromkeys(row["seq"] for row in story.sealed) if of(seq) == subject]


def erase(
    story: Story,
    subject: str = "aurora",
    people: tuple[str, ...] = BOTH,
    keys: dict[str, Key] | None = None,
    sign: Alter | None = None,
    alter: Alter | None = None,
    keep_s: int = KEEP_S,
    generation: int = 0,
    really: bool = True,
) -> int:
    """Two people erase what a subject has; `sign` falsifies what they sign, `alter` the record."""
    seqs = [seq for seq in theirs(story, subject) if seq not in story.erased]
    digest = ZERO
    for seq in seqs:
        digest = doc_digest("subject", [digest, story.log.digest_of(seq)])
    doc = {
        "v": 1,
        "deployment": DEPLOYMENT,
        "subject": subject,
        "generation": generation,
        "records": len(seqs),
        "values": sum(row["seq"] in seqs for row in story.sealed),
        "digest": digest,
        "reason": "the person asked for it",
    }
    if sign is not None:
        sign(doc)
    until = (story.log.records[seqs[-1]]["at"] if seqs else 0) + keep_s * 1_000_000
    body = {"erasure": doc, "retention": {"keep_s": keep_s, "until": until}}
    body["signed"] = four_eyes("erasure", doc, people, keys or {})
    if alter is not None:
        alter(body)
    if really:
        story.erased.update(seqs)
    return story.add("data.erased", "gate", [], body)


def hold(
    story: Story,
    kind: str = "all",
    value: str = "",
    name: str = HOLD,
    person: str = "controller",
    key: Key | None = None,
    sign: Alter | None = None,
) -> int:
    """Somebody puts a legal hold on something."""
    doc = {
        "v": 1,
        "deployment": DEPLOYMENT,
        "hold": name,
        "scope": {"kind": kind, "value": value},
        "reason": "a lawsuit",
        "person": person,
    }
    if sign is not None:
        sign(doc)
    key = key or person_key(person)
    body = {"order": doc, "key": key.text, "sig": key.sign_doc("hold", doc)}
    return story.add("hold.set", f"person:{person}", [], body)


def release(
    story: Story,
    name: str = HOLD,
    people: tuple[str, ...] = BOTH,
    keys: dict[str, Key] | None = None,
    sign: Alter | None = None,
) -> int:
    """Two people end a hold."""
    doc = {"v": 1, "deployment": DEPLOYMENT, "hold": name, "reason": "it is over"}
    if sign is not None:
        sign(doc)
    body = {"hold": name, "release": doc, "signed": four_eyes("release", doc, people, keys or {})}
    return story.add("hold.cleared", "gate", [], body)


def disclosed(story: Story, fields: list[str], count: int, size: int | None = None, reader: str = "uid:1000") -> int:
    """Somebody is shown values in a pack."""
    body = {
        "reader": reader,
        "to": "auditors",
        "reason": "the yearly audit",
        "fields": fields,
        "size": len(story.log.leaves) if size is None else size,
        "count": count,
    }
    return story.add("data.disclosed", "gate", [], body)
