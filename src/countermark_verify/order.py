"""V06: the lane's order and the order within every stream (docs/spec/record.md)."""

from typing import Any

from countermark_verify.canon import ZERO
from countermark_verify.certificate import Certificate
from countermark_verify.report import Ledger
from countermark_verify.streams import GENERAL, names, required, stream_of

_NEW: tuple[int, str, int] = (-1, ZERO, -1)


class Order:
    """Follows seq, prev, at and streams; continues from each record as it stands, so that one break is named once."""

    def __init__(self, ledger: Ledger, *, whole: bool = True) -> None:
        """`whole`: nothing is left out; else only neighbours are compared, and the general stream has no gap."""
        self._ledger = ledger
        self._whole = whole
        self._position = -1
        self.newest = ZERO  # digest of the record that was checked last
        self._at = 0
        self._lane: str | None = None
        self._nonces: set[bytes] = set()
        # Stream -> its last seq, the digest and the position of the record that has it.
        self._streams: dict[str, tuple[int, str, int]] = {}
        self._unread: list[tuple[int, str]] = []
        self._name_of: dict[str, str] = {}
        self._stream_of: dict[str, str] = {}

    def unreadable(self, position: int, digest: str) -> None:
        """A record that cannot be read still has bytes, and so a digest that the next one must name.

        Which streams it stands in cannot be told: each may go on from it.
        """
        self.newest = digest
        self._position = position
        self._unread.append((position, digest))

    def check(self, position: int, record: dict[str, Any], digest: str) -> None:
        refute = self._ledger.refute
        self._ledger.ran("V06", 1)
        if record["seq"] != position:
            refute("V06.seq", "the record has another seq than its place", position, position, record["seq"])
        beside = self._whole or position == self._position + 1
        if beside and record["prev"] != self.newest:
            refute("V06.prev", "prev is not the digest of the record before", position, self.newest, record["prev"])
        if record["at"] < self._at:
            refute("V06.at", "the time falls", position, self._at, record["at"])
        if self._lane is None:
            self._lane = record["lane"]
        elif record["kind"] == "lane.succeeded":
            self._lane = record["lane"]  # whether it may is another check's to say
        elif record["lane"] != self._lane:
            refute("V06.seq", "the record is of another lane", position, self._lane, record["lane"])
        if (nonce := bytes.fromhex(record["nonce"])) in self._nonces:
            refute("V04.record", "the nonce was used before", position, None, record["nonce"])
        self._nonces.add(nonce)
        self.newest = digest
        self._position = position
        self._at = record["at"]
        self._check_streams(position, record, digest)

    def take(self, certificate: Certificate) -> bool:
        """Go on behind a bundle of which nothing has to be said, where it fits to what came before; else do nothing."""
        before = self._position + 1, certificate.prev, self._lane in (None, certificate.lane)
        if before != (certificate.first, self.newest, True) or certificate.at < self._at or not self._whole:
            return False
        nonces = {certificate.nonces[at : at + 16] for at in range(0, len(certificate.nonces), 16)}
        if not self._nonces.isdisjoint(nonces):
            return False
        for stream, name in certificate.payees.items():
            known = self._name_of.get(stream, f"p:{name}"), self._stream_of.get(f"p:{name}", stream)
            if known != (f"p:{name}", stream):
                return False
        moved = {}
        for stream, place, prev, last, offset in certificate.links():
            before_it = self._streams.get(stream, _NEW)
            if place != before_it[0] + 1 or prev != before_it[1]:
                return False
            moved[stream] = last, certificate.digest(offset), certificate.first + offset
        self._streams.update(moved)
        self._nonces |= nonces
        for stream, name in certificate.payees.items():
            self._name_of[stream], self._stream_of[f"p:{name}"] = f"p:{name}", stream
        self._ledger.ran("V06", certificate.count)
        self._position, self.newest = (
            certificate.first + certificate.count - 1,
            certificate.digest(certificate.count - 1),
        )
        self._at, self._lane = certificate.until, certificate.lane
        return True

    def _check_streams(self, position: int, record: dict[str, Any], digest: str) -> None:
        refute = self._ledger.refute
        expected = names(record)
        found = {stream[0]: stream for stream in record["streams"]}
        if len(found) != len(record["streams"]) or found.keys() != required(expected):
            refute(
                "V06.stream",
                "the record does not stand in the streams of its kind",
                position,
                sorted(required(expected)),
                sorted(record["streams"]),
            )
        for stream, (seq, prev) in record["streams"].items():
            last_seq, last, last_position = self._streams.get(stream, _NEW)
            if not self._whole and stream != GENERAL and seq > last_seq + 1:
                pass  # an extract leaves records out; whose stream must go on is V18's to say
            elif (seq, prev) != (last_seq + 1, last) and not self._bridged(seq - last_seq - 1, prev, last_position):
                if seq != last_seq + 1:
                    refute("V06.stream", f"a gap or a repetition in {stream}", position, last_seq + 1, seq)
                if prev != last:
                    refute("V06.stream", f"another previous record in {stream}", position, last, prev)
            self._streams[stream] = (seq, digest, position)
            name = expected.get(stream[0])
            if stream[0] == "p" and name:
                self._check_name(position, stream, f"p:{name}")
            elif stream[0] in "arw" and name and stream != (own := stream_of(stream[0], name)):
                refute("V06.stream", f"not the stream of {name!a}", position, own, stream)

    def _bridged(self, missing: int, prev: str, since: int) -> bool:
        """Can unreadable records after the position `since` be the stream's `missing` ones, `prev` the last of them?"""
        between = [digest for position, digest in self._unread if position > since]
        return prev in between and 1 <= missing <= between.index(prev) + 1

    def _check_name(self, position: int, stream: str, name: str) -> None:
        if self._name_of.setdefault(stream, name) != name:
            self._ledger.refute("V06.stream", f"{stream} is of two names", position, self._name_of[stream], name)
        if self._stream_of.setdefault(name, stream) != stream:
            self._ledger.refute("V06.stream", f"{name} has two streams", position, self._stream_of[name], stream)
