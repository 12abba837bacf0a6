"""One record and its C2SP tlog-proof: is it in the log that the auditor knows (docs/spec/verify.md)?"""

import re
from dataclasses import dataclass
from pathlib import Path

from countermark_verify import notes, steps
from countermark_verify.canon import digest
from countermark_verify.crypto import decode64
from countermark_verify.envelope import parse_record, writer
from countermark_verify.errors import Malformed
from countermark_verify.notes import Checkpoint
from countermark_verify.report import Ledger, Report
from countermark_verify.tree import HASH_BYTES, leaf_hash, node_hash
from countermark_verify.trust import Trust

HEADER = "c2sp.org/tlog-proof@v1"
PROOF_BYTES_MAX = 1024**2
RECORD_BYTES_MAX = 65_535
HASHES_MAX = 64
STEPS = ("V01", "V03", "V04", "V05", "V07", "V08")
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,15})", re.ASCII)


@dataclass(frozen=True)
class Proof:
    index: int
    path: tuple[bytes, ...]
    head: Checkpoint


def verify_proof(proof: bytes | str | Path, record: bytes | str | Path, trust: Trust | None = None) -> Report:
    """Check that a record is in the log, against what the auditor trusts. Never raises for what the two files hold.

    `verified` takes a quorum of witnesses on the proof's head, or a retained head that is the same.
    """
    ledger = Ledger(STEPS)
    try:
        found = read_proof(_bytes(proof, PROOF_BYTES_MAX))
        raw = _bytes(record, RECORD_BYTES_MAX)
    except Malformed as error:
        ledger.unreadable = True
        ledger.refute("V01.proof", f"what is to be read {error}")
        return ledger.report({}, {}, {"size": None, "root": None, "origin": None})
    ledger.ran("V01", 2)
    head = found.head
    steps.v03_signed(ledger, head, trust)
    _record(ledger, raw, found.index)
    _included(ledger, raw, found)
    cosigned = steps.v08_witnesses(ledger, head, trust)
    agrees = _retained(ledger, head, trust, cosigned)
    pack = {"size": head.size, "root": steps.text64(head.root), "origin": head.origin, "seq": found.index}
    return ledger.report({"integrity": _axis(ledger, cosigned, agrees)}, {}, pack)


def read_proof(raw: bytes) -> Proof:
    """A tlog-proof in its one form; raises `Malformed`."""
    text, gap, note = raw.partition(b"\n\n")
    try:
        lines = text.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise Malformed("is not ASCII before its checkpoint") from error
    if not gap or lines[0] != HEADER:
        raise Malformed(f"does not begin with {HEADER}")
    if len(lines) > 1 and lines[1].startswith("extra "):
        decode64(lines[1].removeprefix("extra "))  # opaque and signed by nobody: read, and not used
        del lines[1]
    index = _INDEX.fullmatch(lines[1]) if len(lines) > 1 else None
    if index is None or len(lines) > 2 + HASHES_MAX:
        raise Malformed("has no index, or too many hashes")
    path = tuple(decode64(line) for line in lines[2:])
    if any(len(one) != HASH_BYTES for one in path):
        raise Malformed("has a hash that is not 32 bytes")
    return Proof(int(index[1]), path, notes.parse_checkpoint(note))


def root_from(leaf: bytes, index: int, size: int, path: tuple[bytes, ...]) -> bytes | None:
    """The root that an audit path leads to; None when it does not have this place's length (RFC 9162, 2.1.3.2)."""
    if index >= size:
        return None
    at, last, root = index, size - 1, leaf
    for one in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            root = node_hash(one, root)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            root = node_hash(root, one)
        at, last = at >> 1, last >> 1
    return root if last == 0 else None


def _bytes(given: bytes | str | Path, bytes_max: int) -> bytes:
    if isinstance(given, bytes):
        data = given
    else:
        try:
            with Path(given).open("rb") as file:
                data = file.read(bytes_max + 1)
        except (OSError, ValueError) as error:
            raise Malformed(f"cannot be read: {type(error).__name__}") from error
    if len(data) > bytes_max:
        raise Malformed(f"is longer than {bytes_max} bytes")
    return data


def _record(ledger: Ledger, raw: bytes, index: int) -> None:
    ledger.ran("V04", 1)
    try:
        record = parse_record(raw)
    except Malformed as error:
        ledger.refute("V04.record", f"the record {error}", index)
        return
    if record["seq"] != index:
        ledger.refute("V04.record", "the record names another place", index, index, record["seq"])
    if record["by"] != (by := writer(record["kind"], record["body"])):
        ledger.refute("V04.record", f"the record is not by {by}", index, by, record["by"])


def _included(ledger: Ledger, raw: bytes, found: Proof) -> None:
    ledger.ran("V05", 1)
    root = root_from(leaf_hash(raw), found.index, found.head.size, found.path)
    if root != found.head.root:
        message = f"the record ({digest('record', raw)}) is not at this place of the log that the head signs"
        shown = None if root is None else steps.text64(root)
        ledger.refute("V05.root", message, found.index, steps.text64(found.head.root), shown)


def _retained(ledger: Ledger, head: Checkpoint, trust: Trust | None, cosigned: bool) -> bool:
    """Does a retained head of the same size agree?"""
    same = [one for one in trust.heads if one.size == head.size] if trust and head.origin == trust.origin else []
    ledger.ran("V07", len(same))
    for one in same:
        if one.root != head.root:
            expected, actual = steps.text64(one.root), steps.text64(head.root)
            ledger.refute("V07.rewritten", f"not the head of this size ({one.source})", None, expected, actual)
    if not same and not cosigned:
        message = "no retained head has this size, no quorum cosigned it: it may be one of two histories"
        ledger.lack("V07.no_trust", message)
    return bool(same)


def _axis(ledger: Ledger, cosigned: bool, agrees: bool) -> dict[str, str]:
    if any(ledger.status(step) == "refuted" for step in STEPS):
        return {"level": "refuted", "shown": "the record is not in the log that was signed or retained"}
    if cosigned:
        return {"level": "witnessed", "shown": "independent witnesses cosigned a head of the log that holds the record"}
    if agrees:
        return {"level": "retained", "shown": "the auditor retained a head of the log that holds the record"}
    return {"level": "log", "shown": "the record is in a log that the deployment's own key signed"}
