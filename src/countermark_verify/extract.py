"""An extract: chosen records of a log, each in its place (docs/spec/pack.md)."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from countermark_verify import canon
from countermark_verify.container import (
    CHECKPOINT,
    ENTRIES_BYTES_MAX,
    INDEX,
    MEMBERS_MAX,
    MULTIPROOF,
    PACK_BYTES_MAX,
    PROOF_BYTES_MAX,
)
from countermark_verify.errors import Malformed
from countermark_verify.multiproof import hashes_of, root_of_chosen
from countermark_verify.notes import Checkpoint, parse_checkpoint
from countermark_verify.report import Ledger
from countermark_verify.shape import const, fixed, integer, listing, record
from countermark_verify.tree import entry_names, leaf_hash
from countermark_verify.trust import Trust, TrustedHead

RANGES_MAX = 400_000
RECORDS_MAX = 256 * MEMBERS_MAX
_TILES = "log/tile/"
_INDEX = record({"v": const(1), "ranges": listing(fixed(integer(0), integer(1)), RANGES_MAX)})


@dataclass(frozen=True, slots=True)
class Row:
    """What V18 needs of a record that is there."""

    seq: int
    at: int
    streams: Mapping[str, Any]
    digest: str
    kind: str
    action: str
    run: str


class Extract:
    """The chosen records: their places, and in the end their leaves."""

    def __init__(self, ledger: Ledger, members: Mapping[str, memoryview], size: int) -> None:
        self._ledger = ledger
        self._members = members
        self._size = size
        self.leaves: list[tuple[int, bytes]] = []
        self.rows: list[Row] = []
        self._ranges: list[list[int]] = []
        self._left = PACK_BYTES_MAX
        if INDEX not in members or MULTIPROOF not in members:
            ledger.refute("V05.index", "an extract has an index of its records and a proof of their places")
            return
        try:
            self._ranges = _index(bytes(members[INDEX]))
        except Malformed as error:
            ledger.refute("V05.index", f"{INDEX} {error}")
        if any(name.startswith(_TILES) for name in members):
            ledger.refute("V05.index", "an extract has no tiles")

    def entries(self) -> Iterator[tuple[int, bytes]]:
        """Place and bytes of each record, as far as they can be read; the rest is refuted here."""
        places = (seq for low, high in self._ranges for seq in range(low, high))
        count = sum(high - low for low, high in self._ranges)
        names = [(f"records/{name.removeprefix(_TILES + 'entries/')}", width) for name, width in entry_names(count)]
        wanted = {INDEX, *(name for name, _ in names)}
        over = [name for name in self._members if name.startswith("records/") and name not in wanted]
        if over:
            self._ledger.refute("V05.size", "more records than the index has", None, count, over[0])
        for name, width in names:
            data = self._inflated(name)
            if data is None:
                return
            position = 0
            for _ in range(width):
                end = position + 2 + int.from_bytes(data[position : position + 2], "big")
                if position + 2 > len(data) or end > len(data):
                    self._ledger.refute("V05.size", f"{name} ends inside an entry")
                    return
                yield next(places), data[position + 2 : end]
                position = end
            if position != len(data):
                self._ledger.refute("V05.size", f"{name} has bytes after its last entry")
                return

    def _inflated(self, name: str) -> bytes | None:
        """A bundle of records; no longer than one can be, and all of them no longer than a pack."""
        member = self._members.get(name)
        if member is None:
            self._ledger.refute("V05.size", f"{name} is missing")
            return None
        engine = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = engine.decompress(member, min(ENTRIES_BYTES_MAX, self._left) + 1)
        except zlib.error:
            self._ledger.refute("V05.size", f"{name} is not deflated")
            return None
        self._left -= len(data)
        if not engine.eof or engine.unused_data or len(data) > ENTRIES_BYTES_MAX or self._left < 0:
            self._ledger.refute("V05.size", f"{name} does not end where its bundle ends, or is too long")
            return None
        return data

    def add(self, seq: int, raw: bytes) -> None:
        self.leaves.append((seq, leaf_hash(raw)))

    def note(self, seq: int, record: Mapping[str, Any], digest: str) -> None:
        body = record["body"]
        action = body.get("id", "") if record["streams"].keys() != {"g"} else ""
        self.rows.append(
            Row(seq, record["at"], record["streams"], digest, record["kind"], action, body.get("run") or "")
        )

    def v05_tree(self, head: Checkpoint | None) -> None:
        """The chosen leaves and the proof give the head's root."""
        self._ledger.ran("V05", len(self.leaves))
        if head is None or MULTIPROOF not in self._members:
            return
        try:
            root = root_of_chosen(self.leaves, head.size, hashes_of(bytes(self._members[MULTIPROOF])))
        except Malformed as error:
            self._ledger.refute("V05.proof", f"{MULTIPROOF} {error}")
            return
        if root != head.root:
            self._ledger.refute(
                "V05.root", "the records do not stand in the head's tree", None, head.root.hex(), root.hex()
            )

    def v07_trusted_heads(
        self, head: Checkpoint | None, trust: Trust | None, cosigned: bool, roots: Mapping[int, str]
    ) -> None:
        """A trusted head of exactly this size; others can be compared only where a closed epoch states a root."""
        refute, lack = self._ledger.refute, self._ledger.lack
        if trust is None or head is None or not (trust.heads or cosigned):
            lack("V07.no_trust", "no retained head and no witness quorum: a rewrite of this log would not show")
            return
        self._ledger.ran("V07", len(trust.heads) + len(trust.leaf_hashes))
        for item in trust.heads:
            known = head.root.hex() if item.size == head.size else roots.get(item.size, item.root.hex())
            if known != item.root.hex():
                message = f"the log is not the one of the head of size {item.size} ({item.source})"
                refute("V07.rewritten", message, None, item.root.hex(), known)
        for seq, leaf in self.leaves:
            place = seq - trust.leaf_from
            if 0 <= place < len(trust.leaf_hashes) and trust.leaf_hashes[place] != leaf:
                expected = trust.leaf_hashes[place].hex()
                refute("V07.rewritten", f"the record at seq {seq} is not the one retained", seq, expected, leaf.hex())
        if not cosigned and all(item.size != head.size for item in trust.heads):
            sizes = sorted({item.size for item in trust.heads})[:20]
            lack("V07.extract", "no trusted head has exactly this size, and only that one can be compared", None,
                 sizes, head.size)  # fmt: skip
        if (newest := max((item.size for item in trust.heads), default=0)) > head.size:
            lack("V07.truncated", "of a shorter log than a head that the auditor retained", None, newest, head.size)


def verified(head: Checkpoint | None, trust: Trust | None) -> bool:
    """The auditor verified the whole log up to exactly this head."""
    return (
        head is not None
        and trust is not None
        and any(item.verified and (item.size, item.root) == (head.size, head.root) for item in trust.heads)
    )


def comparable(members: Mapping[str, memoryview], trust: Trust | None, *, whole: bool) -> tuple[TrustedHead, ...]:
    """The auditor's heads that are of the history in this pack.

    Of a whole log V07 refutes any that is not. In an extract only one of exactly its size can be compared, and those
    before one up to which the auditor verified the whole log; any other may be of another history.
    """
    if trust is None or whole:
        return trust.heads if trust is not None else ()
    try:
        head = parse_checkpoint(bytes(members[CHECKPOINT]))
    except Malformed:
        return ()
    if verified(head, trust):
        return tuple(item for item in trust.heads if item.size <= head.size)
    return tuple(item for item in trust.heads if (item.size, item.root) == (head.size, head.root))


def _index(raw: bytes) -> list[list[int]]:
    """Ranges `[from, to)` that ascend and do not touch, so that a choice has one index. Raises `Malformed`."""
    document: Any = canon.parse(raw, PROOF_BYTES_MAX, 3 * RANGES_MAX)
    if reason := _INDEX(document):
        raise Malformed(f"does not have the shape of an index{reason}")
    ranges: list[list[int]] = document["ranges"]
    end = -1
    for low, high in ranges:
        if low <= end or high <= low:
            raise Malformed("has ranges that do not ascend, are empty or touch")
        end = high
    if sum(high - low for low, high in ranges) > RECORDS_MAX:
        raise Malformed("names more records than a pack can hold")
    return ranges


def only_whole(ledger: Ledger, members: Mapping[str, memoryview]) -> None:
    """A pack without a scope has nothing of an extract."""
    for name in members:
        if name == MULTIPROOF or name.startswith(("records/", "epochs/")):
            ledger.refute("V05.index", f"{name} without a scope")
