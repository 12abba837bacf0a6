"""Attacks on the file itself: container, manifest, bundles, disclosures, counts (V01, V02, V09, V12, V15)."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

from build import (
    MANIFEST,
    Key,
    Pack,
    head_of,
    make_pack,
    zip_bytes,
)
from bundle import plain_bundle
from cases import (
    TINY_ENTRIES,
    UNSET,
    Case,
    case,
    refuted,
    tiny,
    tiny_story,
    tiny_trust,
    trust,
    unreadable,
)
from fields import payment
from scribe import ALLOWED, Story
from story import PAYOUT, disclosures_of, opened, pack_of, run_of

# --- the container (V01) ---


@case
def not_a_zip() -> Case:
    return unreadable(b"This is no evidence pack.\n" * 40)


@case
def empty_file() -> Case:
    return unreadable(b"")


@case
def empty_zip() -> Case:
    return unreadable(zip_bytes([]))


@case
def member_unknown() -> Case:
    pack = tiny()
    pack.members["notes.txt"] = b"not a member of a pack\n"
    return unreadable(pack.sealed().write())


@case
def member_climbs_out() -> Case:
    pack = tiny()
    pack.members["../../tmp/evil"] = b"x"
    return unreadable(pack.sealed().write())


@case
def member_duplicate() -> Case:
    members = sorted(tiny().members.items())
    return unreadable(zip_bytes(sorted([*members, ("README.txt", b"the other one\n")], key=lambda m: m[0])))


@case
def member_compressed() -> Case:
    return unreadable(zip_bytes(sorted(tiny().members.items()), deflate="README.txt"))


@case
def members_unsorted() -> Case:
    return unreadable(zip_bytes(sorted(tiny().members.items(), reverse=True)))


@case
def trailing_bytes() -> Case:
    return unreadable(tiny().write() + b"\x00")


@case
def leading_bytes() -> Case:
    return unreadable(b"#!/bin/sh\n" + tiny().write())


@case
def zip_comment() -> Case:
    return unreadable(tiny().write()[:-2] + struct.pack("<H", 2) + b"hi")


@case
def zip_cut_short() -> Case:
    return unreadable(tiny().write()[:-40])


@case
def zip_two_names() -> Case:
    # The local header calls the member README.txt, the directory too in `honest`; here the local one differs.
    data = tiny().write()
    return unreadable(data.replace(b"README.txt", b"README.tXt", 1))


@case
def zip_wrong_checksum() -> Case:
    data = tiny().write()
    return unreadable(data.replace(b"An evidence pack.", b"An evidence sack.", 1))


# --- the manifest (V02) ---


@case
def flipped_byte_in_record() -> Case:
    # The nonce of record 4 changes by one digit; the container's checksums fit, nothing is signed again.
    pack, original = tiny(), tiny_story().log.leaves[4]
    at = original.index(b'"nonce":"') + 9
    changed = original[:at] + (b"0" if original[at : at + 1] != b"0" else b"1") + original[at + 1 :]
    pack.members[TINY_ENTRIES] = pack.members[TINY_ENTRIES].replace(original, changed)
    return refuted(pack, "V02.digest", seq=UNSET, trust=tiny_trust())


@case
def manifest_foreign_key() -> Case:
    pack = tiny()
    pack.members[MANIFEST] = pack.manifest(key=Key("foreign"))
    return refuted(pack, "V02.signature", trust=tiny_trust())


@case
def manifest_wrong_digest() -> Case:
    pack = tiny()

    def alter(statement: dict[str, Any]) -> None:
        statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(b"something else").hexdigest()

    pack.members[MANIFEST] = pack.manifest(alter=alter)
    return refuted(pack, "V02.digest", trust=tiny_trust())


@case
def manifest_not_canonical() -> Case:
    pack = tiny()
    pack.members[MANIFEST] = pack.members[MANIFEST].replace(b":", b": ", 1)
    return refuted(pack, "V02", trust=tiny_trust())


@case
def member_not_listed() -> Case:
    pack = tiny()
    pack.members[MANIFEST] = pack.manifest(alter=lambda statement: statement["subject"].pop(0))
    return refuted(pack, "V02.members", trust=tiny_trust())


@case
def member_missing() -> Case:
    pack = tiny()
    del pack.members["README.txt"]
    return refuted(pack, "V02.members", trust=tiny_trust())


# --- bundles, disclosures, counts (V09, V12, V15) ---


def _bundle_member(pack: Pack) -> str:
    return next(name for name in pack.members if name.startswith("policy/"))


@case
def bundle_missing() -> Case:
    pack = tiny()
    del pack.members[_bundle_member(pack)]
    return refuted(pack.sealed(), "V09.bundle", seq=1, trust=tiny_trust())


@case
def bundle_altered() -> Case:
    pack = tiny()
    name = _bundle_member(pack)
    pack.members[name] = pack.members[name].replace(b'"maximum":1000000000', b'"maximum":9000000000')
    return refuted(pack.sealed(), "V09.bundle", seq=1, trust=tiny_trust())


def _sealed() -> Story:
    """One payout with a sealed memo and a sealed reason, at record 4."""
    story = opened("sealed", bundle=plain_bundle(tools=[PAYOUT]))
    args = payment(15_000, "borealis", "INV-1", memo="for the roof of the old town hall")
    story.settle(story.decide(run_of(story), "call-1", PAYOUT, args, ALLOWED, reason="due today"))
    return story


def _disclosing(document: dict[str, Any], *codes: str, seq: int) -> Case:
    story = _sealed()
    pack = make_pack(story.log.leaves, story.bundles, Key("log"), document, withheld=1)
    return refuted(pack, *codes, seq=seq, trust=trust([head_of(story.log.leaves)]))


def _disclosed(**change: Any) -> dict[str, Any]:
    document, _ = disclosures_of(_sealed(), ("memo",))
    fields: Any = document["fields"]
    return document | {"fields": [fields[0] | change]}


@case
def disclosure_wrong_value() -> Case:
    return _disclosing(_disclosed(value="for the roof of the new town hall"), "V12.disclosure", seq=4)


@case
def disclosure_wrong_record() -> Case:
    return _disclosing(_disclosed(seq=5), "V12.disclosure", seq=5)


@case
def disclosure_wrong_request_salt() -> Case:
    document = _disclosed() | {"requests": [{"seq": 4, "salt": "00" * 16}]}
    return _disclosing(document, "V12.request", "V12.disclosure", seq=4)


@case
def withheld_count_wrong() -> Case:
    story = _sealed()
    pack = pack_of(story, ())
    pack.predicate["withheld"] = 1  # the memo; the agent's reason is withheld too, and not counted
    return refuted(pack.sealed(), "V15.count", trust=trust([head_of(story.log.leaves)]))


@case
def disclosed_count_wrong() -> Case:
    pack = tiny()
    pack.predicate["disclosed"] = 5
    return refuted(pack.sealed(), "V15.count", trust=tiny_trust())


@case
def payload_rewritten_in_place() -> Case:
    # The signed statement is swapped for one that fits a changed member; the signature stays what it was.
    pack = tiny()
    old = pack.members[MANIFEST]
    pack.members["README.txt"] = b"Everything here is fine.\n"
    new = pack.manifest()
    mark = b'"sig":"'
    keep = old[old.index(mark) + len(mark) :][:88]
    base64.b64decode(keep, validate=True)
    start = new.index(mark) + len(mark)
    pack.members[MANIFEST] = new[:start] + keep + new[start + 88 :]
    return refuted(pack, "V02.signature", trust=tiny_trust())
