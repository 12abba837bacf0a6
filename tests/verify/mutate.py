"""Mutates an evidence pack and holds the verifier to two promises: no mutant is verified, no foreign exception leaves.

    python -m tests.verify.mutate PACK --trust FILE --count 100000 --seed 1

A quarter of the mutants are damaged files as they are. Half are packed again with good checksums and a manifest whose
digests fit (and whose signature therefore no longer does). A quarter are signed again with the operator's own key where
it is given (`--operator LABEL`, a key of the vectors), else with a foreign one; half of those have a head of their own,
over a tree that fits. Every mutant is drawn from the seed and its number alone, so that one can be drawn again.

Whoever has the operator's key may change what is words for people: the prose of the page, `README.txt`, lines in a head
by keys that nobody asks about; or leave out the page, the population, the disclosure of a request. Such a mutant may be
verified when everything that the verifier says of it is what it says of the pack itself.
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
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark_verify import Report, Trust, as_json, as_text, load_trust, verify
from countermark_verify.tree import Tree, leaf_hash

MANIFEST = "manifest.sigstore.json"
CHECKPOINT = "log/checkpoint"
FOREIGN = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a foreign key").digest())
README, PAGE, POPULATION = "README.txt", "index.html", "population.csv"
ENTRIES, RECORDS = "log/tile/entries/", "records/"
INDEX = "records/index.json"
DISCLOSURES = "disclosures.json"
WORDS = frozenset((README, PAGE, POPULATION, CHECKPOINT, MANIFEST))
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
    bundles = [item for item in sorted(members) if item.startswith((ENTRIES, RECORDS)) and item != INDEX]
    if not bundles:
        return damage_member(rng, members)
    name = rng.choice(bundles)
    entries = _entries(members[name], name)
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
    members[name] = _bundled(entries, name)
    return f"{how} entry {index} of {name}"


def _entries(data: bytes, name: str) -> list[bytes]:
    """The records of a bundle; those of an extract are deflated."""
    found, at = [], 0
    data = zlib.decompress(data, -zlib.MAX_WBITS) if name.startswith(RECORDS) else data
    while at + 2 <= len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        found.append(data[at + 2 : end])
        at = end
    return found


def _bundled(entries: list[bytes], name: str) -> bytes:
    data = b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
    if not name.startswith(RECORDS):
        return data
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return engine.compress(data) + engine.flush()


def edit_json(rng: random.Random, members: dict[str, bytes]) -> str:
    """Change one value of a document that is canonical JSON, or of a record, and keep it canonical: the lie of somebody
    who knows the formats.
    """
    names = [name for name in sorted(members) if name.endswith(".json") and name != MANIFEST]
    bundles = [name for name in sorted(members) if name.startswith((ENTRIES, RECORDS)) and name != INDEX]
    name = rng.choice(names + 3 * bundles)
    entries = _entries(members[name], name) if name in bundles else [members[name]]
    at = rng.randrange(len(entries))
    document = json.loads(entries[at])
    places = list(_places(document))
    if not places:
        return damage_member(rng, members)
    holder, key = rng.choice(places)
    holder[key] = _other(rng, holder[key])
    entries[at] = _dumps(document)[:65_535] if name in bundles else _dumps(document)
    members[name] = _bundled(entries, name) if name in bundles else entries[0]
    return f"another {key} in {name}"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every member and item of a document: its holder and its key."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _other(rng: random.Random, value: Any) -> Any:
    """Another value of the same type, mostly."""
    if rng.random() < 0.1:
        return rng.choice((None, True, 0, -1, "", [], {}, 2**53 - 1, "9" * 17))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, 0, 2 * value, 2**53 - 1))
    if isinstance(value, str) and value:
        at = rng.randrange(len(value))
        letters = "0123456789abcdef" if set(value[-8:]) <= set("0123456789abcdef") else "AZaz09.:-"
        return value[:at] + rng.choice(letters) + value[at + 1 :]
    if isinstance(value, list) and value:
        return rng.choice((value[1:], value[:-1], value[::-1], [*value, value[-1]]))
    return rng.choice(({}, [], "x", 1, None))


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


def rebuild(members: dict[str, bytes], key: Ed25519PrivateKey) -> None:
    """A log of the records that there are now, with its tiles, and a head that says so."""
    leaves = [leaf for name in sorted(members) if name.startswith(ENTRIES) for leaf in _entries(members[name], name)]
    if leaves:
        tree = Tree()
        for leaf in leaves:
            tree.append(leaf_hash(leaf))
        for name in [name for name in members if name.startswith("log/tile/")]:
            del members[name]
        for first in range(0, len(leaves), 256):
            some = leaves[first : first + 256]
            width = "" if len(some) == 256 else f".p/{len(some)}"
            members[f"{ENTRIES}{first // 256:03d}{width}"] = _bundled(some, ENTRIES)
        members |= {name: content for name, _, _, content in tree.tiles()}
        lines = members[CHECKPOINT].split(b"\n")
        members[CHECKPOINT] = b"\n".join([lines[0], b"%d" % tree.size, base64.b64encode(tree.root()), b"", b""])
    sign_head(members, key)


def repair_manifest(members: dict[str, bytes], original: bytes, key: Ed25519PrivateKey | None) -> None:
    """Digests that fit the members, and the head's size and root; the old signature, or one of another key."""
    document = json.loads(original)
    envelope = document["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["subject"] = [
        {"name": name, "digest": {"sha256": hashlib.sha256(members[name]).hexdigest()}}
        for name in sorted(members)
        if name != MANIFEST
    ]
    lines = members.get(CHECKPOINT, b"").split(b"\n")
    if key is not None and len(lines) > 2 and lines[1].isdigit() and len(lines[1]) < 16:
        root = lines[2].decode("ascii", "replace")
        statement["predicate"] |= {"size": int(lines[1]), "root": root}
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


def mutants(
    pack: bytes, count: int, seed: int, first: int = 0, key: Ed25519PrivateKey | None = None
) -> Iterator[Mutant]:  # fmt: skip
    """`count` mutants, none of which equals the pack."""
    members = _members(pack)
    for number in range(first, first + count):
        rng = random.Random(f"{seed}:{number}")
        for _ in range(DRAWS_MAX):
            story, data = _draw(rng, pack, members, key or FOREIGN)
            if data != pack:
                yield Mutant(number, story, data)
                break


def _draw(
    rng: random.Random, pack: bytes, original: dict[str, bytes], key: Ed25519PrivateKey
) -> tuple[str, bytes]:  # fmt: skip
    lot = rng.random()
    if lot < 0.25:
        how = rng.choice(DAMAGES)
        return f"raw {how.__name__}", how(rng, pack)
    members = dict(original)
    story = rng.choice((damage_member, swap_entries, edit_json))(rng, members)
    if members == original:
        return story, pack
    if lot < 0.75:
        if members.get(MANIFEST) == original[MANIFEST]:
            repair_manifest(members, original[MANIFEST], None)
        return f"repaired {story}", pack_again(pack, members)
    if rng.random() < 0.5 and CHECKPOINT in members:
        rebuild(members, key)
        story += ", another head"
    repair_manifest(members, original[MANIFEST], key)
    return f"signed again {story}", pack_again(pack, members)


def check(mutant: Mutant, trust: Trust | None, seed: int, itself: tuple[bytes, Report] | None = None) -> str:
    """The verdict on a mutant; raises `Broken` when a promise is broken. `itself`: the pack and what is said of it."""
    name = f"mutant {mutant.number} of seed {seed} ({mutant.story})"
    try:
        report = verify(mutant.data, trust)
        as_json(report)
        as_text(report)
    except Exception as error:
        raise Broken(f"{name} raised {error!r}") from error
    if report.verdict == "verified":
        if itself is None or not only_words(mutant.data, report, *itself):
            raise Broken(f"{name} was verified")
        return "only words"
    if not any(step.findings for step in report.steps):
        raise Broken(f"{name} was {report.verdict} without a finding")
    return report.verdict


def only_words(data: bytes, report: Report, pack: bytes, before: Report) -> bool:
    """Nothing but words for people was changed, and everything that the verifier says is as it was."""
    was, now = _members(pack), _members(data)
    changed = {name for name in was.keys() | now.keys() if _meant(name, was) != _meant(name, now)}
    said = (report.axes, report.counts, report.pack) == (before.axes, before.counts, before.pack)
    head = was[CHECKPOINT].partition(b"\n\n")[0] == now[CHECKPOINT].partition(b"\n\n")[0]
    if DISCLOSURES in changed and _fewer_requests(was.get(DISCLOSURES), now.get(DISCLOSURES)):
        changed.remove(DISCLOSURES)
    return said and head and changed <= WORDS and now.get(POPULATION) in (None, was.get(POPULATION))


def _fewer_requests(was: bytes | None, now: bytes | None) -> bool:
    """Some salts of requests are withheld, which is the operator's to do, and nothing else is said."""
    if was is None or now is None:
        return False
    before, after = json.loads(was), json.loads(now)
    kept = [one for one in before["requests"] if one in after["requests"]]
    return after == before | {"requests": kept}


def _meant(name: str, members: dict[str, bytes]) -> Any:
    """Deflate has many forms of the same records."""
    data = members.get(name)
    return _entries(data, name) if data is not None and name.startswith(RECORDS) and name != INDEX else data


def _members(pack: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def run(
    pack: bytes, trust: Trust | None, count: int, seed: int, first: int = 0, key: Ed25519PrivateKey | None = None
) -> Counter[str]:  # fmt: skip
    """How many mutants got which verdict."""
    itself = None if key is None else (pack, verify(pack, trust))
    return Counter(check(mutant, trust, seed, itself) for mutant in mutants(pack, count, seed, first, key))


def operator_key(label: str) -> Ed25519PrivateKey:
    """A key of the vectors, which are public: `log` is their operator's."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"countermark vectors 1/key/{label}".encode()).digest())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.verify.mutate", description=__doc__.splitlines()[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("--trust", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--operator", help="label of the key of the vectors that signs again")
    options = parser.parse_args(argv)
    key = None if options.operator is None else operator_key(options.operator)
    pack, trust = options.pack.read_bytes(), load_trust(options.trust)
    if verify(pack, trust).verdict != "verified":
        print("the pack itself is not verified, so that its mutants prove nothing", file=sys.stderr)
        return 64
    try:
        verdicts = run(pack, trust, options.count, options.seed, options.first, key)
    except Broken as error:
        print(error, file=sys.stderr)
        return 1
    print(f"seed {options.seed}: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
