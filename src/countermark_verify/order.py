"""V06: the lane's order and the order within every stream (docs/spec/record.md)."""

from typing import Any

from countermark_verify.canon import ZERO
from countermark_verify.report import Ledger

_STREAMED = ("action.", "run.", "escalation.", "request.")


class Order:
    """Follows seq, prev, at and streams; continues from each record as it stands, so that one break is named once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._prev = ZERO
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
        self._prev = digest
        self._unread.append((position, digest))

    def check(self, position: int, record: dict[str, Any], digest: str) -> None:
        refute = self._ledger.refute
        self._ledger.ran("V06", 1)
        if record["seq"] != position:
            refute("V06.seq", "the record has another seq than its place", position, position, record["seq"])
        if record["prev"] != self._prev:
            refute("V06.prev", "prev is not the digest of the record before", position, self._prev, record["prev"])
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
        self._prev = digest
        self._at = record["at"]
        self._check_streams(position, record, digest)

    def _check_streams(self, position: int, record: dict[str, Any], digest: str) -> None:
        refute = self._ledger.refute
        expected = _names(record)
        found = {stream[0]: stream for stream in record["streams"]}
        if len(found) != len(record["streams"]) or not expected.keys() >= found.keys() >= _required(expected):
            refute(
                "V06.stream",
                "the record does not stand in the streams of its kind",
                position,
                sorted(_required(expected)),
                sorted(record["streams"]),
            )
        for stream, (seq, prev) in record["streams"].items():
            last_seq, last, last_position = self._streams.get(stream, (-1, ZERO, -1))
            if (seq, prev) != (last_seq + 1, last) and not self._bridged(seq - last_seq - 1, prev, last_position):
                if seq != last_seq + 1:
                    refute("V06.stream", f"a gap or a repetition in {stream}", position, last_seq + 1, seq)
                if prev != last:
                    refute("V06.stream", f"another previous record in {stream}", position, last, prev)
            self._streams[stream] = (seq, digest, position)
            if name := expected.get(stream[0]):
                self._check_name(position, stream, f"{stream[0]}:{name}")

    def _bridged(self, missing: int, prev: str, since: int) -> bool:
        """Can unreadable records after the position `since` be the stream's `missing` ones, `prev` the last of them?"""
        between = [digest for position, digest in self._unread if position > since]
        return prev in between and 1 <= missing <= between.index(prev) + 1

    def _check_name(self, position: int, stream: str, name: str) -> None:
        if self._name_of.setdefault(stream, name) != name:
            self._ledger.refute("V06.stream", f"{stream} is of two names", position, self._name_of[stream], name)
        if self._stream_of.setdefault(name, stream) != stream:
            self._ledger.refute("V06.stream", f"{name} has two streams", position, self._stream_of[name], stream)


def _names(record: dict[str, Any]) -> dict[str, str]:
    """Stream class -> the name it stands for; a refused action may have names that are unknown ("")."""
    if not record["kind"].startswith(_STREAMED):
        return {}
    body = record["body"]
    names = {"a": body["agent"], "r": body["run"]}
    payee = body.get("terms", {}).get("payee")
    if payee is not None:
        names["p"] = payee
    return names


def _required(names: dict[str, str]) -> set[str]:
    return {letter for letter, name in names.items() if name}
