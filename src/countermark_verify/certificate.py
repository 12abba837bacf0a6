"""A bundle of records of which nothing has to be said, and what whoever follows the log needs to go on behind it.

A certificate is given only where the reader of single records would have no finding about what lies within the bundle.
Anything else, and everything that depends on what came before, is left to that reader: it alone says what is wrong.
"""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from countermark_verify.envelope import parse_record, writer
from countermark_verify.errors import Malformed
from countermark_verify.glance import glance
from countermark_verify.streams import names, of_a_run, required, stream_of
from countermark_verify.tree import HASH_BYTES, TILE_WIDTH, node_hash

_RECORD = b"countermark/v1/record\0"
_DIGEST = "sha256:"
_NONCE_BYTES = 16
# A stream: its letter and id; place and digest that its first record in the bundle names; its last place; which record.
_STREAM = struct.Struct(">c16sQ32sQH")
_HEAD = struct.Struct(">7I")
_NO_ID = bytes(16)

Look = Callable[[Sequence[bytes]], bytes]


@dataclass
class Certificate:
    """`kept`: the offsets of records that are none of a run: the log itself may depend on them."""

    first: int
    prev: str
    at: int
    until: int
    lane: str
    kept: list[int]
    payees: dict[str, str]  # stream -> the payee that it is of
    nonces: bytes = b""
    digests: bytes = b""
    leaves: bytes = b""
    top: bytes = b""  # the hash of all leaves, of a full bundle
    streams: bytes = b""
    aside: bytes = b""  # of each record, what was found out about it by itself

    @property
    def count(self) -> int:
        return len(self.leaves) // HASH_BYTES

    def leaf(self, offset: int) -> bytes:
        return self.leaves[offset * HASH_BYTES : (offset + 1) * HASH_BYTES]

    def digest(self, offset: int) -> str:
        return _DIGEST + self.digests[offset * HASH_BYTES : (offset + 1) * HASH_BYTES].hex()

    def links(self) -> Iterator[tuple[str, int, str, int, int]]:
        """Of each stream: name, place and digest that its first record names, last place, offset of the last record."""
        for letter, identity, place, prev, last, offset in _STREAM.iter_unpack(self.streams):
            name = "g" if letter == b"g" else f"{letter.decode()}.{identity.hex()}"
            yield name, place, _DIGEST + prev.hex(), last, offset

    def pack(self) -> bytes:
        """As plain bytes, for a pipe."""
        about = [self.first, self.prev, self.at, self.until, self.lane, self.kept, self.payees]
        parts = [json.dumps(about).encode(), self.nonces, self.digests, self.leaves, self.top, self.streams, self.aside]
        return _HEAD.pack(*map(len, parts)) + b"".join(parts)


def unpack(data: bytes) -> Certificate:
    """What `pack` made."""
    parts, at = [], _HEAD.size
    for size in _HEAD.unpack_from(data):
        parts.append(data[at : at + size])
        at += size
    return Certificate(*json.loads(parts[0]), *parts[1:])


def split(data: bytes, width: int) -> list[bytes] | None:
    """The entries of a bundle, when it has exactly these (docs/spec/pack.md)."""
    found, position, size = [], 0, len(data)
    for _ in range(width):
        start = position + 2
        if start > size:
            return None
        position = start + (data[start - 2] << 8 | data[start - 1])
        found.append(data[start:position])
    return found if position == size else None


def certify(first: int, width: int, data: bytes, look: Look | None = None) -> Certificate | None:
    """Follow the records of one bundle, the first of which has the seq `first`; None when one of them is not in order.

    `look` says what holds of each record by itself.
    """
    raws = split(data, width)
    if not raws:
        return None
    inside = _Inside(first)
    for raw in raws:
        if not inside.follow(raw):
            return None
    certificate = inside.certificate()
    if certificate is not None and look is not None:
        certificate.aside = look(raws)
    return certificate


@dataclass(slots=True)
class _Inside:
    """What has been followed so far."""

    first: int
    prev: str = ""
    at: int = -1
    until: int = -1
    lane: str = ""
    before: str = ""  # the digest of the record before
    agent: str = ""  # of the record before, as it is spelt, and its stream
    own: str = ""
    runs: dict[str, str] = field(default_factory=dict)  # a run, as it is spelt -> its stream
    hashes: list[str] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    nonces: list[str] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    payees: dict[str, str] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    # Stream -> place and digest that its first record names, its last place, that record's digest and offset.
    streams: dict[str, list[Any]] = field(default_factory=dict)

    def follow(self, raw: bytes) -> bool:
        """One record: it stands where it says, and goes on from the ones before it."""
        seen = glance(raw)
        if seen is None:
            links = self._whole(raw)
            if links is None:
                return False
        else:
            at, agent, run, _, lane, nonce, prev, seq, a, at_a, of_a, p, at_p, of_p, r, at_r, of_r, payee = seen
            if agent != self.agent:
                self.agent, self.own = agent, stream_of("a", agent[1:-1])
            if a != self.own or (r != self.runs.get(run) and r != self._run(run)):
                return False
            if not self._beside(int(seq), int(at), lane[1:-1], prev[1:-1]):
                return False
            self.nonces.append(nonce[1:-1])
            links = [(a, int(at_a), of_a), (r, int(at_r), of_r)]
            if p is not None:
                if payee == "null" or not self._payee(p, payee[1:-1]):
                    return False
                links.append((p, int(at_p), of_p))
            elif payee is not None and payee != "null":
                return False
        self.before = own = _DIGEST + sha256(_RECORD + raw).hexdigest()
        offset, streams = len(self.leaves), self.streams
        self.hashes.append(own)
        self.leaves.append(sha256(b"\0" + raw).digest())
        for stream, place, of in links:
            known = streams.get(stream)
            if known is None:
                streams[stream] = [place, of, place, own, offset]
            elif place == known[2] + 1 and of == known[3]:
                known[2], known[3], known[4] = place, own, offset
            else:
                return False
        return True

    def _run(self, run: str) -> str:
        self.runs[run] = stream = stream_of("r", run[1:-1])
        return stream

    def _beside(self, seq: int, at: int, lane: str, prev: str) -> bool:
        if not self.leaves:
            self.prev, self.at, self.lane = prev, at, lane
        elif prev != self.before or at < self.until or lane != self.lane:
            return False
        self.until = at
        return seq == self.first + len(self.leaves)

    def _payee(self, stream: str, name: str) -> bool:
        return self.payees.setdefault(stream, name) == name and self.named.setdefault(name, stream) == stream

    def _whole(self, raw: bytes) -> list[tuple[str, int, str]] | None:
        """The same of a record whose value has to be built."""
        try:
            record = parse_record(raw)
        except Malformed:
            return None
        seq, kind = record["seq"], record["kind"]
        if record["by"] != writer(kind, record["body"]) or (seq == 0 and kind != "gate.started"):
            return None
        if kind == "lane.succeeded" or not self._beside(seq, record["at"], record["lane"], record["prev"]):
            return None
        self.nonces.append(record["nonce"])
        if not of_a_run(kind):
            self.kept.append(len(self.leaves))
        expected, streams = names(record), record["streams"]
        found = {stream[0]: stream for stream in streams}
        if len(found) != len(streams) or not expected.keys() >= found.keys() >= required(expected):
            return None
        for letter, stream in found.items():
            name = expected[letter]
            if letter in "arw" and name and stream != stream_of(letter, name):
                return None
            if letter == "p" and name and not self._payee(stream, name):
                return None
        return [(stream, place, of) for stream, (place, of) in streams.items()]

    def certificate(self) -> Certificate | None:
        if len(set(self.nonces)) != len(self.nonces):
            return None
        packed = b"".join(
            _STREAM.pack(
                name[0].encode(), bytes.fromhex(name[2:]) or _NO_ID, place, bytes.fromhex(of[7:]), last, offset
            )
            for name, (place, of, last, _, offset) in self.streams.items()
        )
        full = len(self.leaves) == TILE_WIDTH and self.first % TILE_WIDTH == 0
        return Certificate(
            self.first, self.prev, self.at, self.until, self.lane, self.kept, self.payees,
            nonces=bytes.fromhex("".join(self.nonces)),
            digests=bytes.fromhex("".join(own[7:] for own in self.hashes)),
            leaves=b"".join(self.leaves),
            top=subtree(self.leaves) if full else b"",
            streams=packed,
        )  # fmt: skip


def subtree(row: list[bytes]) -> bytes:
    """The hash of a power of two leaves."""
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]
