"""Canonical bytes, keys, log and container for this room's packs, from docs/spec alone; no code of the verifier."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import zipfile
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ZERO = "sha256:" + "0" * 64
ORIGIN = "countermark/acme/l0"


def canon(value: Any) -> bytes:
    return rfc8785.dumps(value)


def digest(domain: str, data: bytes) -> str:
    return "sha256:" + hashlib.sha256(f"countermark/v1/{domain}".encode() + b"\0" + data).hexdigest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def key_of(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"test key {name}".encode()).digest())


def public(name: str) -> bytes:
    return key_of(name).public_key().public_bytes_raw()


def key_text(name: str) -> str:
    return "ed25519:" + b64(public(name))


def sign(name: str, domain: str, document: Any) -> dict[str, str]:
    message = f"countermark/v1/{domain}".encode() + b"\0" + canon(document)
    return {"key": key_text(name), "sig": b64(key_of(name).sign(message))}


def pseudonym(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}:{value}".encode()).hexdigest()[:32]


def verifier_key(name: str, key: bytes, kind: int = 1) -> str:
    data = bytes([kind]) + key
    key_id = hashlib.sha256(name.encode() + b"\n" + data).hexdigest()[:8]
    return f"{name}+{key_id}+{b64(data)}"


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def merkle(hashes: list[bytes]) -> bytes:
    """RFC 6962 2.1, as the text defines it: split at the largest power of two below n."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return node(merkle(hashes[:split]), merkle(hashes[split:]))


def tiles(raw: list[bytes]) -> dict[str, bytes]:
    members: dict[str, bytes] = {}

    def path(kind: str, index: int, width: int) -> str:
        text = f"{index // 1000:03d}{index % 1000:03d}" if index > 999 else f"{index:03d}"
        parts = [text[at : at + 3] for at in range(0, len(text), 3)]
        joined = "/".join([f"x{part}" for part in parts[:-1]] + parts[-1:])
        return f"log/tile/{kind}/{joined}" + (f".p/{width}" if width < 256 else "")

    for first in range(0, len(raw), 256):
        some = raw[first : first + 256]
        data = b"".join(struct.pack(">H", len(item)) + item for item in some)
        members[path("entries", first // 256, len(some))] = data
    level, hashes = 0, [hashlib.sha256(b"\0" + item).digest() for item in raw]
    while hashes:
        for first in range(0, len(hashes), 256):
            some_hashes = hashes[first : first + 256]
            members[path(str(level), first // 256, len(some_hashes))] = b"".join(some_hashes)
        full = len(hashes) // 256
        hashes, level = [merkle(hashes[n * 256 : n * 256 + 256]) for n in range(full)], level + 1
    return members


def note_line(name: str, key: bytes, kind: int, payload: bytes) -> str:
    key_id = hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + key).digest()[:4]
    return f"\N{EM DASH} {name} {b64(key_id + payload)}\n"


def head_text(raw: list[bytes]) -> str:
    return f"{ORIGIN}\n{len(raw)}\n{b64(merkle([hashlib.sha256(bytes(1) + item).digest() for item in raw]))}\n"


def checkpoint(raw: list[bytes], key: str) -> bytes:
    text = head_text(raw)
    return (text + "\n" + note_line(ORIGIN, public(key), 1, key_of(key).sign(text.encode()))).encode()


def cosignature(text: str, name: str, seconds: int = 1_760_000_000) -> str:
    message = f"cosignature/v1\ntime {seconds}\n{text}".encode()
    return note_line(f"{name}.example", public(name), 4, struct.pack(">Q", seconds) + key_of(name).sign(message))


def manifest(members: dict[str, bytes], predicate: dict[str, Any], key: str) -> bytes:
    subject = [
        {"name": name, "digest": {"sha256": hashlib.sha256(members[name]).hexdigest()}}
        for name in sorted(members)
        if name != "manifest.sigstore.json"
    ]
    statement = {"_type": "https://in-toto.io/Statement/v1", "subject": subject, "predicate": predicate}
    payload = canon(statement | {"predicateType": "urn:countermark:pack:v1"})
    kind = b"application/vnd.in-toto+json"
    signature = key_of(key).sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    envelope = {"payload": b64(payload), "payloadType": kind.decode()}
    envelope |= {"signatures": [{"keyid": ORIGIN, "sig": b64(signature)}]}
    bundle = {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": envelope}
    return canon(bundle | {"verificationMaterial": {"publicKey": {"hint": ORIGIN}, "tlogEntries": []}})


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o600 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()
