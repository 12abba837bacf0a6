"""The pack writer, read back with nothing but struct, json and the signature primitive."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.audit import PackError, pack, write_pack, zipped
from countermark.log import LogSigner, leaf_hash, parse_entry_bundle, root_of, sign_checkpoint
from countermark.model.canon import canon
from countermark.model.digest import BUNDLE, digest
from countermark.model.errors import CountermarkError
from countermark.model.records import GENESIS, seal

ORIGIN = "countermark/acme/l0"
KEY = Ed25519PrivateKey.from_private_bytes(b"\5" * 32)
SIGNER = LogSigner(ORIGIN, KEY)
POLICY = canon({"v": 1, "source": [], "compiled": {}})
POLICY_DIGEST = digest(BUNDLE, POLICY)
SHOWN = {
    "fields": [
        {"seq": 9, "alias": "iban", "salt": "0" * 32, "value": "b"},
        {"seq": 2, "alias": "name", "salt": "0" * 32, "value": "é"},
        {"seq": 2, "alias": "iban", "salt": "0" * 32, "value": 7},
    ],
    "requests": [{"seq": 5, "salt": "1" * 32}, {"seq": 2, "salt": "1" * 32}],
}


def make_records(count: int) -> list[bytes]:
    """A lane of well-formed records; seq 1 activates the policy."""
    prev, found = GENESIS, []
    for seq in range(count):
        kind, body = "gate.stopped", {"reason": "x"}
        if seq == 1:
            kind, body = "policy.activated", {"activation": {"bundle": POLICY_DIGEST}}  # type: ignore[dict-item]
        record = seal(
            lane="l0", seq=seq, prev=prev, kind=kind, at=seq, nonce="0" * 32, by="gate", streams={}, body=body
        )
        prev = record.digest
        found.append(record.raw)
    return found


RECORDS = make_records(600)


def arguments(records: list[bytes], **changes: Any) -> dict[str, Any]:
    root = root_of([leaf_hash(raw) for raw in records])
    return {
        "deployment": "acme", "lane": "l0", "records": records, "signer": SIGNER,
        "checkpoint": sign_checkpoint(SIGNER, len(records), root),
        "bundles": {POLICY_DIGEST: POLICY} if len(records) > 1 else {}, "disclosures": SHOWN,
        "withheld": 4, "erased": 1, **changes,
    }  # fmt: skip


def written(path: Path, records: list[bytes], **changes: Any) -> bytes:
    write_pack(path, **arguments(records, **changes))
    return path.read_bytes()


def members_of(raw: bytes) -> dict[str, bytes]:
    """Read a zip by its bytes alone, refusing all that ``docs/spec/pack.md`` does not allow."""
    found: dict[str, bytes] = {}
    directory = b""
    at = 0
    while raw[at : at + 4] == b"PK\3\4":
        version, flags, method, time, date, crc, packed, size, name_size, extra = struct.unpack_from(
            "<5H3I2H", raw, at + 4
        )
        assert (version, flags, method, time, date, extra) == (20, 0, 0, 0, (1 << 5) | 1, 0)
        assert packed == size
        name = raw[at + 30 : at + 30 + name_size]
        data = raw[at + 30 + name_size : at + 30 + name_size + size]
        assert zlib.crc32(data) == crc
        assert not found or name.decode("ascii") > max(found)
        directory += struct.pack(
            "<4s4B4H3I5H2I", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, (1 << 5) | 1, crc, size, size, name_size, 0, 0, 0, 0,
            0o100644 << 16, at,
        ) + name  # fmt: skip
        found[name.decode("ascii")] = data
        at += 30 + name_size + size
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(found), len(found), len(directory), at, 0)
    assert raw[at:] == directory + end
    return found


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 600])
def test_the_members_are_those_of_the_specification(tmp_path: Path, count: int) -> None:
    """All records, all tiles, the head, the policy, the disclosures, the text and the manifest, and nothing else."""
    records = RECORDS[:count]
    members = members_of(written(tmp_path / "p.zip", records))
    full, rest = divmod(count, 256)
    partial = [f"{full:03d}.p/{rest}"] if rest else []
    row = [f"{index:03d}" for index in range(full)] + partial
    expected = {"README.txt", "disclosures.json", "log/checkpoint", "manifest.sigstore.json"}
    expected |= {f"log/tile/{level}/{name}" for level in ("0", "entries") for name in row}
    expected |= {f"log/tile/1/000.p/{full}"} if full else set()
    expected |= {f"policy/{POLICY_DIGEST[7:]}.json"} if count > 1 else set()
    assert members.keys() == expected
    entries = [raw for name in row for raw in parse_entry_bundle(members[f"log/tile/entries/{name}"])]
    assert entries == records
    assert b"".join(members[f"log/tile/0/{name}"] for name in row) == b"".join(leaf_hash(raw) for raw in records)


def test_the_manifest_is_signed_over_every_member(tmp_path: Path) -> None:
    """The Sigstore bundle, the DSSE signature, the statement's subjects and its predicate, each member exactly."""
    members = members_of(written(tmp_path / "p.zip", RECORDS))
    raw = members.pop("manifest.sigstore.json")
    manifest = json.loads(raw)
    assert canon(manifest, bytes_max=1 << 26) == raw
    envelope = manifest.pop("dsseEnvelope")
    assert manifest == {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": ORIGIN}, "tlogEntries": []},
    }
    payload = base64.b64decode(envelope["payload"])
    assert envelope.keys() == {"payload", "payloadType", "signatures"}
    assert [item["keyid"] for item in envelope["signatures"]] == [ORIGIN]
    kind = envelope["payloadType"].encode()
    pae = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])
    KEY.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), pae)
    statement = json.loads(payload)
    assert canon(statement) == payload
    assert statement == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": name, "digest": {"sha256": sha256(members[name]).hexdigest()}}
            for name in sorted(members, key=str.encode)
        ],
        "predicateType": "urn:countermark:pack:v1",
        "predicate": {
            "v": 1, "deployment": "acme", "lane": "l0", "origin": ORIGIN, "size": 600,
            "root": base64.b64encode(root_of([leaf_hash(item) for item in RECORDS])).decode(),
            "withheld": 4, "erased": 1, "disclosed": 3,
        },
    }  # fmt: skip


def test_disclosures_are_canonical_and_sorted(tmp_path: Path) -> None:
    """By seq, then alias, whatever the order given; and the same pack comes of it."""
    raw = written(tmp_path / "p.zip", RECORDS)
    shown = json.loads(members_of(raw)["disclosures.json"])
    assert [(item["seq"], item["alias"]) for item in shown["fields"]] == [(2, "iban"), (2, "name"), (9, "iban")]
    assert [item["seq"] for item in shown["requests"]] == [2, 5]
    turned = {"v": 1, **{name: list(reversed(items)) for name, items in SHOWN.items()}}
    assert written(tmp_path / "q.zip", RECORDS, disclosures=turned) == raw


def test_two_packs_are_byte_identical(tmp_path: Path) -> None:
    """The same log, size and disclosure give the same bytes, under any name and over an older file."""
    first = written(tmp_path / "a.zip", RECORDS)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "other-name.zip").write_bytes(b"an older file")
    assert written(tmp_path / "b" / "other-name.zip", RECORDS) == first


def test_cosignatures_stay_on_the_head(tmp_path: Path) -> None:
    """A witness's line after the log's is kept byte for byte."""
    witness = LogSigner("witness.example/w1", Ed25519PrivateKey.from_private_bytes(b"\6" * 32))
    note = arguments(RECORDS)["checkpoint"]
    note += "— witness.example/w1 ".encode() + base64.b64encode(witness.key_id + witness.sign(b"x")) + b"\n"
    assert members_of(written(tmp_path / "p.zip", RECORDS, checkpoint=note))["log/checkpoint"] == note


def test_the_text_tells_a_person_how_to_verify(tmp_path: Path) -> None:
    """The readme names the log, its size and the command, in ASCII lines that a terminal can show."""
    text = members_of(written(tmp_path / "p.zip", RECORDS))["README.txt"].decode("ascii")
    assert ORIGIN in text
    assert "600" in text
    assert "countermark-verify PACK --trust FILE" in text
    assert max(map(len, text.splitlines())) <= 100


OTHER = LogSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\6" * 32))
ROOT = root_of([leaf_hash(raw) for raw in RECORDS])


def signed_text(text: str) -> bytes:
    """A note over any text with the log's right signature."""
    line = base64.b64encode(SIGNER.key_id + SIGNER.sign(text.encode())).decode()
    return f"{text}\n— {ORIGIN} {line}\n".encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"records": RECORDS[:-1]},
        {"records": RECORDS[:-1] + RECORDS[:1]},
        {"records": [], "checkpoint": sign_checkpoint(SIGNER, 0, root_of([])), "bundles": {}},
        {"deployment": "other"},
        {"lane": "l1"},
        {"signer": OTHER},
        {"checkpoint": sign_checkpoint(OTHER, 600, ROOT)},
        {"checkpoint": sign_checkpoint(SIGNER, 599, ROOT)},
        {"checkpoint": b""},
        {"checkpoint": signed_text(f"{ORIGIN}\n600\n{base64.b64encode(ROOT).decode()}\nmore\n")},
        {"bundles": {}},
        {"bundles": {POLICY_DIGEST: POLICY + b" "}},
        {"bundles": {POLICY_DIGEST: POLICY, digest(BUNDLE, b"{}"): b"{}"}},
        {"disclosures": {"fields": []}},
        {"disclosures": {"fields": [], "requests": [], "more": []}},
        {"disclosures": {"v": 2, "fields": [], "requests": []}},
        {"disclosures": {"fields": [{"seq": 1, "alias": "a", "salt": "x"}], "requests": []}},
        {"disclosures": {"fields": [{"seq": 1, "alias": "a", "salt": "x", "value": 1.5}], "requests": []}},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_parts_that_contradict_each_other_make_no_pack(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A pack that would be refuted is not written, and an older file stays."""
    path = tmp_path / "p.zip"
    path.write_bytes(b"older")
    with pytest.raises(CountermarkError):
        write_pack(path, **{**arguments(RECORDS), **changes})
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, a bound that is passed half-way, or a missing directory: no file, no temporary file, our error."""
    path = tmp_path / "p.zip"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    given = arguments(RECORDS, disclosures={"fields": [], "requests": []})
    for name, value in (("MEMBER_BYTES_MAX", 1 << 14), ("PACK_BYTES_MAX", 1 << 16), ("MEMBERS_MAX", 5)):
        with monkeypatch.context() as patch:
            patch.setattr(zipped, name, value)
            with pytest.raises(PackError):
                write_pack(path, **given)
    with monkeypatch.context() as patch:
        patch.setattr(pack.os, "fsync", full)
        with pytest.raises(PackError, match="No space left"):
            write_pack(path, **given)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PackError):
        written(tmp_path / "absent" / "p.zip", RECORDS)
