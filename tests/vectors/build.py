"""Primitives that encode evidence packs from docs/spec alone.

This module imports neither the product nor its verifier: only the standard library and `cryptography`. If an encoder
and a verifier that never saw each other agree on the bytes, the specification is sufficient; where they disagree, it
is not.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Json = Any
SEED = "countermark vectors 1"
ZERO = "sha256:" + "0" * 64
DEPLOYMENT = "acme"
LANE = "l0"
ORIGIN = f"countermark/{DEPLOYMENT}/{LANE}"


# --- bytes and digests (docs/spec/digests.md) -------------------------------------------------------------------------


def canonical(value: Json) -> bytes:
    """RFC 8785 bytes; equal to sorted compact JSON because keys are ASCII and numbers are integers."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def digest(domain: str, data: bytes) -> str:
    return "sha256:" + hashlib.sha256(f"countermark/v1/{domain}".encode() + b"\x00" + data).hexdigest()


def doc_digest(domain: str, value: Json) -> str:
    return digest(domain, canonical(value))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def seeded(label: str, length: int = 16) -> bytes:
    """Bytes that look random and are the same on every machine."""
    return hashlib.sha256(f"{SEED}/{label}".encode()).digest()[:length]


def pseudonym(kind: str, value: str) -> str:
    message = b"countermark/v1/pseudonym\x00" + kind.encode() + b"\x00" + value.encode()
    return hmac.new(seeded("pseudonym key", 32), message, hashlib.sha256).hexdigest()[:32]


def stream(letter: str, name: str) -> str:
    """The stream of an agent (`a`) or a run (`r`)."""
    return f"{letter}.{doc_digest('stream', [letter, name])[7:39]}"


# --- keys and signatures ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """An Ed25519 key that is derived from its label."""

    label: str

    @property
    def private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(seeded(f"key/{self.label}", 32))

    @property
    def raw(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def text(self) -> str:
        return "ed25519:" + b64(self.raw)

    def sign_doc(self, domain: str, doc: Json) -> str:
        return b64(self.private.sign(f"countermark/v1/{domain}".encode() + b"\x00" + canonical(doc)))


def note_key_id(name: str, kind: int, key: Key) -> bytes:
    return hashlib.sha256(name.encode() + b"\x0a" + bytes([kind]) + key.raw).digest()[:4]


def verifier_key(name: str, key: Key, kind: int = 1) -> str:
    """A C2SP verifier key; kind 1 is a log's Ed25519 key, kind 4 a witness's cosignature key."""
    return f"{name}+{note_key_id(name, kind, key).hex()}+{b64(bytes([kind]) + key.raw)}"


# --- the log ----------------------------------------------------------------------------------------------------------

Alter = Callable[[dict[str, Json]], None]


@dataclass
class Log:
    """A lane: records in order, with their chain and their streams."""

    label: str
    lane: str = LANE
    leaves: list[bytes] = field(default_factory=list)
    records: list[dict[str, Json]] = field(default_factory=list)
    streams: dict[str, tuple[int, str]] = field(default_factory=dict)

    def append(
        self,
        kind: str,
        at: int,
        by: str,
        streams: list[str],
        body: dict[str, Json],
        envelope: Alter | None = None,
        raw: Callable[[bytes], bytes] | None = None,
    ) -> int:
        """Add a record; `envelope` may falsify the finished object, `raw` its bytes. Answers the record's position."""
        position = len(self.leaves)
        prev = digest("record", self.leaves[-1]) if self.leaves else ZERO
        places: dict[str, list[Any]] = {}
        for name in streams:
            last, last_digest = self.streams.get(name, (-1, ZERO))
            places[name] = [last + 1, last_digest]
        record: dict[str, Json] = {
            "v": 1,
            "lane": self.lane,
            "seq": position,
            "prev": prev,
            "kind": kind,
            "at": at,
            "nonce": seeded(f"nonce/{self.label}/{position}").hex(),
            "by": by,
            "streams": places,
            "body": body,
        }
        if envelope is not None:
            envelope(record)
        leaf = canonical(record)
        if raw is not None:
            leaf = raw(leaf)
        self.leaves.append(leaf)
        self.records.append(record)
        for name, (place, _) in record["streams"].items():
            self.streams[name] = (place, digest("record", leaf))
        return position

    def digest_of(self, seq: int) -> str:
        return digest("record", self.leaves[seq])


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def tree_hash(hashes: list[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962 section 2.1 over leaf hashes."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + tree_hash(hashes[:split]) + tree_hash(hashes[split:])).digest()


def root_of(leaves: list[bytes]) -> bytes:
    return tree_hash([leaf_hash(leaf) for leaf in leaves])


def tile_path(prefix: str, index: int, width: int) -> str:
    """The path of C2SP tlog-tiles: groups of three digits, x before all but the last; the width when partial."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03d}")
    suffix = "" if width == 256 else f".p/{width}"
    return f"{prefix}/{'/'.join(groups)}{suffix}"


def entry_bundles(leaves: list[bytes]) -> dict[str, bytes]:
    members = {}
    for start in range(0, len(leaves), 256):
        part = leaves[start : start + 256]
        data = b"".join(struct.pack(">H", len(leaf)) + leaf for leaf in part)
        members[tile_path("log/tile/entries", start // 256, len(part))] = data
    return members


def hash_tiles(leaves: list[bytes]) -> dict[str, bytes]:
    members = {}
    hashes = [leaf_hash(leaf) for leaf in leaves]
    level = 0
    while hashes:
        for start in range(0, len(hashes), 256):
            part = hashes[start : start + 256]
            members[tile_path(f"log/tile/{level}", start // 256, len(part))] = b"".join(part)
        full = len(hashes) // 256
        hashes = [tree_hash(hashes[i * 256 : (i + 1) * 256]) for i in range(full)]
        level += 1
    return members


# --- the head ---------------------------------------------------------------------------------------------------------


def note_text(size: int, root: bytes, origin: str = ORIGIN) -> bytes:
    return f"{origin}\n{size}\n{b64(root)}\n".encode()


def log_line(text: bytes, key: Key, name: str = ORIGIN) -> bytes:
    blob = note_key_id(name, 1, key) + key.private.sign(text)
    return f"\u2014 {name} {b64(blob)}\n".encode()


def cosignature_line(text: bytes, key: Key, name: str, time_s: int) -> bytes:
    """A line of C2SP tlog-cosignature: signature type 4, with the time inside the signed bytes."""
    message = f"cosignature/v1\ntime {time_s}\n".encode() + text
    blob = note_key_id(name, 4, key) + struct.pack(">Q", time_s) + key.private.sign(message)
    return f"\u2014 {name} {b64(blob)}\n".encode()


# --- the pack ---------------------------------------------------------------------------------------------------------

README = b"An evidence pack. Verify it offline with a trust file of your own.\n"
MANIFEST = "manifest.sigstore.json"
STATEMENT = "application/vnd.in-toto+json"


@dataclass
class Pack:
    """A pack in pieces: attacks alter the pieces, `write` puts them together and signs."""

    members: dict[str, bytes]
    predicate: dict[str, Json]
    log_key: Key
    name: str = ORIGIN

    def manifest(self, key: Key | None = None, alter: Callable[[dict[str, Json]], None] | None = None) -> bytes:
        names = sorted(name for name in self.members if name != MANIFEST)
        subject = [{"name": n, "digest": {"sha256": hashlib.sha256(self.members[n]).hexdigest()}} for n in names]
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subject,
            "predicateType": "urn:countermark:pack:v1",
            "predicate": self.predicate,
        }
        if alter is not None:
            alter(statement)
        payload = canonical(statement)
        # The pre-authentication encoding of DSSE v1.
        pae = b"DSSEv1 %d %s %d %s" % (len(STATEMENT), STATEMENT.encode(), len(payload), payload)
        envelope = {
            "payload": b64(payload),
            "payloadType": STATEMENT,
            "signatures": [{"keyid": self.name, "sig": b64((key or self.log_key).private.sign(pae))}],
        }
        document = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": self.name}, "tlogEntries": []},
            "dsseEnvelope": envelope,
        }
        return canonical(document)

    def sealed(self) -> Pack:
        self.members[MANIFEST] = self.manifest()
        return self

    def write(self) -> bytes:
        return zip_bytes(sorted(self.members.items()))


def make_pack(
    leaves: list[bytes],
    bundles: list[Json],
    log_key: Key,
    disclosures: dict[str, Json] | None = None,
    withheld: int = 0,
    lane: str = LANE,
) -> Pack:
    """A pack of exactly these leaves, with head, tiles and manifest by `log_key`."""
    disclosures = disclosures or {"v": 1, "fields": [], "requests": []}
    root = root_of(leaves)
    origin = f"countermark/{DEPLOYMENT}/{lane}"
    text = note_text(len(leaves), root, origin)
    members = {"log/checkpoint": text + b"\n" + log_line(text, log_key, origin)}
    members |= entry_bundles(leaves) | hash_tiles(leaves)
    for bundle in bundles:
        members[f"policy/{doc_digest('bundle', bundle)[7:]}.json"] = canonical(bundle)
    members["disclosures.json"] = canonical(disclosures)
    members["README.txt"] = README
    predicate = {
        "v": 1,
        "deployment": DEPLOYMENT,
        "lane": lane,
        "origin": origin,
        "size": len(leaves),
        "root": b64(root),
        "withheld": withheld,
        "erased": 0,
        "disclosed": len(disclosures["fields"]),
    }
    return Pack(members, predicate, log_key, origin).sealed()


def zip_bytes(members: list[tuple[str, bytes]], deflate: str | None = None) -> bytes:
    """A zip of stored members in the order given, dated 1980-01-01; `deflate` names one to compress, as an attack."""
    out, central = b"", b""
    for name, data in members:
        packed, method = data, 0
        if name == deflate:
            engine = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed, method = engine.compress(data) + engine.flush(), 8
        # version needed, flags, method, time, date (1980-01-01 is 0x0021), crc, sizes, lengths
        common = struct.pack(
            "<HHHHHIIIHH", 20, 0, method, 0, 0x21, zlib.crc32(data), len(packed), len(data), len(name), 0
        )
        central += b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, len(out))
        central += name.encode()
        out += b"PK\x03\x04" + common + name.encode() + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(central), len(out), 0)
    return out + central + b"PK\x05\x06" + end


# --- the trust file ---------------------------------------------------------------------------------------------------


def head_of(leaves: list[bytes], source: str = "kept by the auditor on paper") -> Json:
    return {"size": len(leaves), "root": b64(root_of(leaves)), "source": source}


def trust_file(people: dict[str, Any], heads: list[Json], log_keys: list[str], **more: Json) -> Json:
    return {"v": 1, "log": {"origin": ORIGIN, "keys": log_keys}, "people": people, "heads": heads, **more}
