"""Epochs and extracts, written from docs/spec/record.md and docs/spec/pack.md alone."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from build import (
    DEPLOYMENT,
    LANE,
    ORIGIN,
    README,
    Pack,
    b64,
    canonical,
    digest,
    doc_digest,
    entry_bundles,
    leaf_hash,
    log_line,
    note_text,
    root_of,
    stream,
    tree_hash,
)
from bundle import plain_bundle
from scribe import START_US, Alter, Story
from story import child, next_line, opened, pay

DAY_US = 86_400_000_000
# The bundle's zone, Europe/Zurich, is at +01:00 in November; the story begins on Monday the 2nd at 09:00 there.
MONDAY = START_US - 9 * 3_600_000_000
TUESDAY, WEDNESDAY = MONDAY + DAY_US, MONDAY + 2 * DAY_US
ZONE = "Europe/Zurich"

Row = list[Any]  # stream, first place, last place, digest of the last record


def rows_of(story: Story, low: int, high: int) -> list[Row]:
    """The manifest of the records from `low` to before `high`."""
    rows: dict[str, Row] = {}
    for seq in range(low, high):
        for name, (place, _) in story.log.records[seq]["streams"].items():
            row = rows.setdefault(name, [name, place, place, ""])
            row[2:] = [place, digest("record", story.log.leaves[seq])]
    return sorted(rows.values())


def manifest_hashes(rows: Iterable[Row]) -> list[bytes]:
    return [leaf_hash(canonical(row)) for row in rows]


def claims_of(story: Story) -> list[dict[str, Any]]:
    return [record["body"] for record in story.log.records if record["kind"] == "epoch.closed"]


def close(story: Story, until: int | None = None, alter: Alter | None = None, rows: list[Row] | None = None) -> int:
    """Close an epoch over what was recorded before `until`, or over everything."""
    claims = claims_of(story)
    low = claims[-1]["size"] if claims else 0
    until = story.now + 1 if until is None else until
    size = bisect_left([record["at"] for record in story.log.records], until)
    rows = rows_of(story, low, size) if rows is None else rows
    body = {
        "epoch": len(claims),
        "from": low,
        "size": size,
        "until": until,
        "root": root_of(story.log.leaves[:size]).hex(),
        "streams": len(rows),
        "manifest": tree_hash(manifest_hashes(rows)).hex(),
    }
    if alter is not None:
        alter(body)
    return story.add("epoch.closed", "gate", [], body)


def few() -> Story:
    """A morning of two agents, with a stop and a second policy between their payments."""
    story = opened("few", bundle=plain_bundle())
    story.settle(pay(story, 1))
    clerk = child(story)
    story.settle(pay(story, 2, 9_000, run=clerk))
    story.clear(story.kill("agent", "clerk"))
    story.activate(plain_bundle("second"))
    pay(story, 3, 60_000, run=clerk, answer=("deny", "mandate", "mandate_limit", [story.runs[clerk][1]]))
    story.settle(pay(story, 4))
    return story


def week(begin: Callable[[], Story] = few) -> Story:
    """A Monday, and a quiet Tuesday; both are closed on Wednesday."""
    story = begin()
    story.now = max(story.now, TUESDAY + DAY_US // 2)
    story.start()
    story.now = WEDNESDAY + DAY_US // 3
    close(story, TUESDAY)
    close(story, WEDNESDAY)
    story.add("gate.stopped", "gate", [], {"reason": "closed"})
    return story


def multiproof(chosen: Sequence[int], hashes: Sequence[bytes], low: int = 0) -> list[bytes]:
    """One walk from the root: the hashes of the ranges that hold no chosen leaf."""
    if not any(low <= seq < low + len(hashes) for seq in chosen):
        return [tree_hash(list(hashes))]
    if len(hashes) == 1:
        return []
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    return multiproof(chosen, hashes[:split], low) + multiproof(chosen, hashes[split:], low + split)


def proof_document(epoch: int, rows: list[Row], streams: Iterable[str]) -> dict[str, Any]:
    """What shows where each stream ends in an epoch, or by its neighbours that it is not there."""
    names = [row[0] for row in rows]
    chosen: set[int] = set()
    for name in streams:
        place = bisect_left(names, name)
        chosen |= {place} if name in names else {place - 1, place} & set(range(len(names)))
    places = sorted(chosen)
    proof = multiproof(places, manifest_hashes(rows))
    shown = [[place, *rows[place]] for place in places]
    return {"v": 1, "epoch": epoch, "rows": shown, "proof": [item.hex() for item in proof]}


def deflated(data: bytes) -> bytes:
    """RFC 1951 without compression, so that it is the same on every machine: stored blocks."""
    out = b""
    for start in range(0, max(len(data), 1), 65_535):
        part = data[start : start + 65_535]
        final = start + 65_535 >= len(data)
        out += struct.pack("<BHH", final, len(part), len(part) ^ 0xFFFF) + part
    return out


@dataclass
class Cut:
    """What an extract is made of: attacks change it before, or its members after."""

    story: Story
    scope: dict[str, Any]
    subject: str | None
    seqs: list[int]
    epochs: list[dict[str, Any]]
    members: dict[str, bytes] = field(default_factory=dict)

    def ranges(self) -> list[list[int]]:
        found: list[list[int]] = []
        for seq in self.seqs:
            if found and found[-1][1] == seq:
                found[-1][1] += 1
            else:
                found.append([seq, seq + 1])
        return found

    def pack(self, change: Callable[[dict[str, bytes]], None] | None = None, size: int | None = None) -> Pack:
        """The extract; `change` alters members before the manifest is signed."""
        story = self.story
        leaves = story.log.leaves
        there = [row for row in story.sealed if row["seq"] in self.seqs and row["seq"] not in story.erased]
        shown = [row for row in there if row["alias"] == "memo"]
        erased = sum(row["seq"] in self.seqs and row["seq"] in story.erased for row in story.sealed)
        requests = [row for row in story.request_salts if row["seq"] in self.seqs and row["seq"] not in story.erased]
        fields = sorted(shown, key=lambda row: (row["seq"], row["alias"]))
        text = note_text(len(leaves), root_of(leaves))
        members = {
            "log/checkpoint": text + b"\n" + log_line(text, story.log_key) + next_line(story),
            "log/multiproof": b"".join(multiproof(self.seqs, [leaf_hash(leaf) for leaf in leaves])),
            "records/index.json": canonical({"v": 1, "ranges": self.ranges()}),
            "disclosures.json": canonical({"v": 1, "fields": fields, "requests": requests}),
            "README.txt": README,
        }
        for name, data in entry_bundles([leaves[seq] for seq in self.seqs]).items():
            members[name.replace("log/tile/entries", "records")] = deflated(data)
        for bundle in story.bundles:
            members[f"policy/{doc_digest('bundle', bundle)[7:]}.json"] = canonical(bundle)
        if self.subject is not None:
            for claim in self.epochs:
                rows = rows_of(story, claim["from"], claim["size"])
                document = proof_document(claim["epoch"], rows, (self.subject, "g"))
                members[f"epochs/{claim['epoch']}.json"] = canonical(document)
        members |= self.members
        if change is not None:
            change(members)
        predicate = {
            "v": 1,
            "deployment": DEPLOYMENT,
            "lane": LANE,
            "origin": ORIGIN,
            "size": len(leaves),
            "root": b64(root_of(leaves)),
            "withheld": len(there) - len(fields),
            "erased": erased,
            "disclosed": len(fields),
            "scope": self.scope,
        }
        return Pack(members, predicate, story.log_key).sealed()


def cut(story: Story, scope: dict[str, Any]) -> Cut:
    """The honest extract of a scope."""
    subject = None
    if scope["kind"] != "period":
        subject = stream("a", scope["agent"]) if scope["kind"] == "agent" else stream("r", scope["run"])
    claims = claims_of(story)
    last = next((claim["epoch"] for claim in claims if claim["until"] >= scope["to"]), len(claims) - 1)
    window = [claim for claim in claims[: last + 1] if claim["until"] > scope["from"]]
    low, high = (window[0]["from"], window[-1]["size"]) if window else (0, 0)
    records = story.log.records
    within = [seq for seq in range(low, high) if subject is None or subject in records[seq]["streams"]]
    own = [records[seq]["body"] for seq in within]
    actions, runs = {body.get("id") for body in own} - {None}, {body.get("run") for body in own} - {None}
    seqs = set(within)
    for seq, record in enumerate(records):
        body = record["body"]
        about = body.get("id") in actions or (record["kind"] in ("run.started", "run.ended") and body["run"] in runs)
        if "g" in record["streams"] or ((subject is None or subject in record["streams"]) and about):
            seqs.add(seq)
    return Cut(story, scope, subject, sorted(seqs), window)


def agent_day(agent: str, day: str, begin: int) -> dict[str, Any]:
    return {"kind": "agent", "agent": agent, "day": day, "zone": ZONE, "from": begin, "to": begin + DAY_US}


def case_of(run: str, begin: int, end: int, action: str | None = None) -> dict[str, Any]:
    return {"kind": "case", "run": run, "action": action, "from": begin, "to": end}
