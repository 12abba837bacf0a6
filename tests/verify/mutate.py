"""Mutates an evidence pack and holds the verifier to two promises: no mutant is verified, no foreign exception leaves.

    python -m tests.verify.mutate PACK --trust FILE --count 100000 --seed 1

A quarter of the mutants are damaged files as they are. Half are packed again with good checksums and a manifest whose
digests fit (and whose signature therefore no longer does). A quarter are signed again with a foreign key, half of those
with a head of their own. Every mutant is drawn from the seed and its number alone, so that one can be drawn again.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import random
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark_verify import Trust, as_json, as_text, load_trust, verify

MANIFEST = "manifest.sigstore.json"
CHECKPOINT = "log/checkpoint"
FOREIGN = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a foreign key").digest())
SPLICE_BYTES_MAX = 64
DRAWS_MAX = 100


@dataclass(frozen=True)
class Mutant:
    """One damaged pack and how it came about."""

    number: int
    story: str
    data: bytes


class Broken(AssertionError):
    """The verifier broke a promise; the message says how to draw the mutant again."""


def flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    replacement = rng.choice((b"\0", b"\xff", b'"', b"{", b"[" * 40, b"9" * 20, b"\\ud800", b"-1", rng.randbytes(8)))
    return data[:at] + replacement + data[at + len(replacement) :]


def truncate(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] if rng.random() < 0.7 else data[at:]


def splice(rng: random.Random, data: bytes) -> bytes:
    """Delete, repeat or move a short stretch."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, SPLICE_BYTES_MAX)]
    at = rng.randrange(len(data))
    without = data[:start] + data[start + len(piece) :]
    return rng.choice((without, data[:at] + piece + data[at:], without[:at] + piece + without[at:]))


DAMAGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (flip, flip, overwrite, truncate, splice)


def damage_member(rng: random.Random, members: dict[str, bytes]) -> str:
    """Damage one member, or exchange, drop or invent whole ones; answers what was done."""
    names = sorted(members)
    name = rng.choice([item for item in names if members[item]])
    choice = rng.random()
    if choice < 0.8:
        how = rng.choice(DAMAGES)
        members[name] = how(rng, members[name])
        return f"{how.__name__} {name}"
    other = rng.choice(names)
    if choice < 0.9:
        members[name], members[other] = members[other], members[name]
        return f"swap {name} {other}"
    if choice < 0.95:
        del members[name]
        return f"drop {name}"
    invented = rng.choice(("log/tile/entries/009", "log/tile/1/000.p/3", "policy/" + "0" * 64 + ".json", "x"))
    members[invented] = members[name]
    return f"invent {invented}"


def swap_entries(rng: random.Random, members: dict[str, bytes]) -> str:
    """Reorder, drop or repeat whole records, or damage the text of one, keeping the bundle's framing."""
    name = rng.choice([item for item in sorted(members) if item.startswith("log/tile/entries/")])
    entries, data, at = [], members[name], 0
    while at + 2 <= len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        entries.append(data[at + 2 : end])
        at = end
    index, other = rng.randrange(len(entries)), rng.randrange(len(entries))
    how = rng.choice(("swap", "drop", "repeat", "edit", "edit", "digit"))
    if how == "swap":
        entries[index], entries[other] = entries[other], entries[index]
    elif how == "drop":
        del entries[index]
    elif how == "repeat":
        entries.insert(other, entries[index])
    elif how == "edit":
        entries[index] = rng.choice(DAMAGES)(rng, entries[index])[:65_535]
    else:
        digits = [place for place, byte in enumerate(entries[index]) if 48 <= byte <= 57]
        place = rng.choice(digits)
        digit = bytes([rng.randrange(48, 58)])
        entries[index] = entries[index][:place] + digit + entries[index][place + 1 :]
    members[name] = b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
    return f"{how} entry {index} of {name}"


def pack_again(original: bytes, members: dict[str, bytes]) -> bytes:
    """The members as a well-formed container that looks like the original's."""
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        model = archive.infolist()[0]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.create_version = model.create_system, model.create_version
            info.external_attr, info.extract_version = model.external_attr, model.extract_version
            archive.writestr(info, members[name])
    return buffer.getvalue()


def _dumps(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def repair_manifest(members: dict[str, bytes], original: bytes, key: Ed25519PrivateKey | None) -> None:
    """Digests that fit the members; the old signature, or one of another key."""
    document = json.loads(original)
    envelope = document["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["subject"] = [
        {"name": name, "digest": {"sha256": hashlib.sha256(members[name]).hexdigest()}}
        for name in sorted(members)
        if name != MANIFEST
    ]
    payload = _dumps(statement)
    envelope["payload"] = base64.b64encode(payload).decode()
    if key is not None:
        kind = envelope["payloadType"].encode()
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        envelope["signatures"][0]["sig"] = base64.b64encode(key.sign(signed)).decode()
    members[MANIFEST] = _dumps(document)


def sign_head(members: dict[str, bytes], key: Ed25519PrivateKey) -> None:
    """The head's own text, signed by another key under the log's name."""
    text, _, _ = members[CHECKPOINT].partition(b"\n\n")
    origin = text.split(b"\n")[0]
    public = key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(origin + b"\n\x01" + public).digest()[:4]
    signature = base64.b64encode(key_id + key.sign(text + b"\n"))
    members[CHECKPOINT] = text + b"\n\n\xe2\x80\x94 " + origin + b" " + signature + b"\n"


def mutants(pack: bytes, count: int, seed: int, first: int = 0) -> Iterator[Mutant]:
    """`count` mutants, none of which equals the pack."""
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    for number in range(first, first + count):
        rng = random.Random(f"{seed}:{number}")
        for _ in range(DRAWS_MAX):
            story, data = _draw(rng, pack, members)
            if data != pack:
                yield Mutant(number, story, data)
                break


def _draw(rng: random.Random, pack: bytes, original: dict[str, bytes]) -> tuple[str, bytes]:
    lot = rng.random()
    if lot < 0.25:
        how = rng.choice(DAMAGES)
        return f"raw {how.__name__}", how(rng, pack)
    members = dict(original)
    story = rng.choice((damage_member, swap_entries))(rng, members)
    if members == original:
        return story, pack
    if lot < 0.75:
        if members.get(MANIFEST) == original[MANIFEST]:
            repair_manifest(members, original[MANIFEST], None)
        return f"repaired {story}", pack_again(pack, members)
    if rng.random() < 0.5:
        sign_head(members, FOREIGN) if CHECKPOINT in members else None
        story += ", foreign head"
    repair_manifest(members, original[MANIFEST], FOREIGN)
    return f"signed again {story}", pack_again(pack, members)


def check(mutant: Mutant, trust: Trust | None, seed: int) -> str:
    """The verdict on a mutant; raises `Broken` when a promise is broken."""
    name = f"mutant {mutant.number} of seed {seed} ({mutant.story})"
    try:
        report = verify(mutant.data, trust)
        as_json(report)
        as_text(report)
    except Exception as error:
        raise Broken(f"{name} raised {error!r}") from error
    if report.verdict == "verified":
        raise Broken(f"{name} was verified")
    if not any(step.findings for step in report.steps):
        raise Broken(f"{name} was {report.verdict} without a finding")
    return report.verdict


def run(pack: bytes, trust: Trust | None, count: int, seed: int, first: int = 0) -> Counter[str]:
    """How many mutants got which verdict."""
    return Counter(check(mutant, trust, seed) for mutant in mutants(pack, count, seed, first))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.verify.mutate", description=__doc__.splitlines()[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("--trust", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    options = parser.parse_args(argv)
    pack, trust = options.pack.read_bytes(), load_trust(options.trust)
    if verify(pack, trust).verdict != "verified":
        print("the pack itself is not verified, so that its mutants prove nothing", file=sys.stderr)
        return 64
    try:
        verdicts = run(pack, trust, options.count, options.seed, options.first)
    except Broken as error:
        print(error, file=sys.stderr)
        return 1
    print(f"seed {options.seed}: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
