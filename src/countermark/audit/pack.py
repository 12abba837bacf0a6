"""The evidence pack: one stored zip that an auditor verifies offline (``docs/spec/pack.md``).

The same log, size and disclosure give the same bytes. Members are made twice, once for their digests in the manifest
and once for the file, so that memory holds one of them at a time besides the records themselves.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from countermark.audit.zipped import MEMBER_BYTES_MAX, PackError, write_zip
from countermark.log import (
    TILE_WIDTH,
    LogSigner,
    entry_bundle,
    leaf_hash,
    open_checkpoint,
    root_of,
    tile_path,
    tiles,
)
from countermark.model.canon import canon
from countermark.model.digest import BUNDLE, digest
from countermark.model.records import read

MANIFEST = "manifest.sigstore.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:countermark:pack:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

_FIELD = frozenset(("seq", "alias", "salt", "value"))
_REQUEST = frozenset(("seq", "salt"))

Members = dict[str, Callable[[], bytes]]


def write_pack(
    path: Path,
    *,
    deployment: str,
    lane: str,
    records: Sequence[bytes],
    checkpoint: bytes,
    signer: LogSigner,
    bundles: Mapping[str, bytes],
    disclosures: Mapping[str, Any],
    withheld: int,
    erased: int,
    people: Mapping[str, bytes] | None = None,
) -> None:
    """Write the pack of all ``records``, whole or not at all; a file at ``path`` is replaced.

    Args:
        records: canonical bytes of the lane's records from seq 0.
        checkpoint: the signed head of exactly these records; cosignature lines may follow the log's.
        bundles: digest -> canonical bytes, for each bundle that a ``policy.activated`` record names.
        disclosures: ``{"fields": [...], "requests": [...]}``; they are sorted here.
        withheld, erased: how many sensitive values the deployment holds back, and how many are gone.
        people: ``index.html`` and ``population.csv``, where the pack has them.

    Raises:
        PackError: the parts contradict each other, exceed a bound, or the file cannot be written.
        SignatureError: the checkpoint is not signed by ``signer``'s key.
        EncodingError: a disclosure or a record is outside its profile.
    """
    origin = f"countermark/{deployment}/{lane}"
    hashes = [leaf_hash(raw) for raw in records]
    root = root_of(hashes)
    head = open_checkpoint(checkpoint, signer.vkeys)
    if not records or (head.origin, head.size, head.root) != (origin, len(records), root):
        raise PackError("the checkpoint is not the head of exactly these records")
    if head.extensions:
        raise PackError("the checkpoint has more lines than origin, size and root")
    _check_bundles(records, bundles)
    shown = shown_of(disclosures)
    predicate = {
        "v": 1, "deployment": deployment, "lane": lane, "origin": origin, "size": len(records),
        "root": base64.b64encode(root).decode("ascii"), "withheld": withheld, "erased": erased,
        "disclosed": len(shown["fields"]),
    }  # fmt: skip
    raw_shown = canon(shown, bytes_max=MEMBER_BYTES_MAX)
    members: Members = {
        "README.txt": constant(_readme(origin, len(records)).encode("utf-8")),
        "disclosures.json": constant(raw_shown),
        "log/checkpoint": constant(checkpoint),
    }
    for name, tile in tiles(hashes):
        members[f"log/{name}"] = constant(tile)
    for start in range(0, len(records), TILE_WIDTH):
        width = min(TILE_WIDTH, len(records) - start)
        name = tile_path("entries", start // TILE_WIDTH, width)
        members[f"log/{name}"] = partial(entries, records, start)
    for name, raw in bundles.items():
        members[f"policy/{name.removeprefix('sha256:')}.json"] = constant(raw)
    members |= {name: constant(raw) for name, raw in (people or {}).items()}
    write_members(path, members, predicate, signer)


def write_members(path: Path, members: Members, predicate: Mapping[str, Any], signer: LogSigner) -> None:
    """Sign a manifest over the members, and write them with it. Raises ``PackError``."""
    members[MANIFEST] = constant(_manifest(members, predicate, signer))
    _write(path, members)


def constant(raw: bytes) -> Callable[[], bytes]:
    """A member that is kept in memory."""
    return lambda: raw


def entries(records: Sequence[bytes], start: int) -> bytes:
    """The bundle of records from ``start`` on."""
    return entry_bundle(records[start : start + TILE_WIDTH])


def _check_bundles(records: Sequence[bytes], bundles: Mapping[str, bytes]) -> None:
    """The bundles are those that the activations name, no more and no fewer, each with its digest."""
    # Within a JSON string the quotes would be escaped, so this finds every activation without parsing all records.
    mark = b'"kind":"policy.activated"'
    activations = [read(raw) for raw in records if mark in raw]
    named = {record.body["activation"]["bundle"] for record in activations if record.kind == "policy.activated"}
    if named != bundles.keys():
        raise PackError("the policy bundles are not exactly those that the records activate")
    for name, raw in bundles.items():
        if digest(BUNDLE, raw) != name:
            raise PackError(f"the policy bundle {name} has another digest")


def shown_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The document of disclosures, sorted. Raises ``PackError``."""
    if given.keys() - {"v"} != {"fields", "requests"} or given.get("v", 1) != 1:
        raise PackError("disclosures hold exactly fields and requests")
    fields, requests = given["fields"], given["requests"]
    if any(item.keys() != _FIELD for item in fields) or any(item.keys() != _REQUEST for item in requests):
        raise PackError("a disclosed field or request has other members than the format says")
    return {
        "v": 1,
        "fields": sorted(fields, key=lambda item: (item["seq"], item["alias"])),
        "requests": sorted(requests, key=lambda item: item["seq"]),
    }


def _manifest(members: Members, predicate: Mapping[str, Any], signer: LogSigner) -> bytes:
    """The in-toto statement over all members, in a DSSE envelope, in a Sigstore bundle v0.3 (managed key)."""
    subject = [
        {"name": name, "digest": {"sha256": sha256(members[name]()).hexdigest()}} for name in sorted(members)
    ]  # names are ASCII, so their order as text is their order in bytes
    statement = canon(
        {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": PREDICATE_TYPE, "predicate": predicate},
        bytes_max=MEMBER_BYTES_MAX // 2,
    )
    # DSSE v1: the pre-authentication encoding covers the payload's type and length as well.
    pae = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode("ascii"), len(statement), statement)
    return canon(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": signer.name}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(statement).decode("ascii"),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [
                    {"keyid": signer.name, "sig": base64.b64encode(signer.sign(pae)).decode("ascii")},
                ],
            },
        },
        bytes_max=MEMBER_BYTES_MAX,
    )


def _write(path: Path, members: Members) -> None:
    """Write beside the target, sync, rename: a reader finds the old file, the new one, or none."""
    path = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            write_zip(file, members)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        temporary = None
        _sync_directory(path.parent)
    except OSError as error:
        raise PackError(f"the pack {path} cannot be written: {error.strerror}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _readme(origin: str, size: int) -> str:
    return f"""\
COUNTERMARK EVIDENCE PACK

Log:      {origin}
Records:  {size}, from seq 0 to seq {size - 1}, every one in the order in which it was written

This file holds what a gate wrote down before and after each action of the agents
that it governs: who granted what to whom, which policy was in force, what was
decided and why, who approved, what was done and what came of it.

HOW TO CHECK IT

You need the program countermark-verify, which shares no code with the gate, and a
trust file of your own. No network is used.

    countermark-verify PACK --trust FILE

The trust file says whom you believe: the log's key, the keys of people, and a head of
this log that you kept or that independent witnesses signed. Take these from where you
got them, never from this pack: a pack can only vouch for itself. Without a trust file
the answer is INCOMPLETE.

    exit 0  verified      everything that was checked holds, and fits what you trust
    exit 1  refuted       something does not fit; the report says what and where
    exit 2  incomplete    something cannot be established; the report says what
    exit 3  unreadable    this is no pack

WHAT IS INSIDE

    manifest.sigstore.json   a digest of every other member, signed by the log's key
    log/checkpoint           the signed head of the log
    log/tile/entries/        all records, 256 to a file
    log/tile/                the hash tree over them
    policy/                  every policy that was ever in force
    disclosures.json         values that the records hold only as salted digests
    index.html               the same for people: open it in a browser
    population.csv           one line for each action
    README.txt               this text

Values that are not disclosed stay digests. The manifest counts those that are
withheld and those that are erased.
"""
