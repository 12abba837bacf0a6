"""The envelope: position, chain, time and streams of each record, checked against the records before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from countermark.model.records import GENESIS, KINDS, Record
from countermark.model.streams import ACCOUNT, GENERAL, stream_of, subjects_of
from countermark.policy import State

Differs = Callable[[str, Any, Any], None]

_SIGNERS = {
    "policy.activated": ("activation", "activator"),
    "mandate.granted": ("mandate", "principal"),
    "mandate.revoked": ("revocation", "person"),
    "kill.cleared": ("clearance", "person"),
    "escalation.answered": ("approval", "person"),
    "lane.accepted": ("acceptance", "person"),
    "review.cleared": ("review", "person"),
    "key.removed": ("removal", "by"),
    "payee.changed": ("details", "person"),
    "hold.set": ("order", "person"),
}
_BY_AGENT = frozenset(("run.started", "run.ended", "action.refused", "request.signed"))
_NONCE = b'"nonce":"'


def author_of(record: Record) -> str:
    """Who a record of this kind and content is by (``docs/spec/record.md``)."""
    kind, body = record.kind, record.body
    if kind == "run.migrated":
        return f"person:{body['person']}"
    if kind in _BY_AGENT:
        return f"agent:{body['agent']}"
    if kind == "action.decided":
        return "gate" if body["escalation"] is not None else f"agent:{body['agent']}"
    signer = _SIGNERS.get(kind)
    return "gate" if signer is None else f"person:{body[signer[0]][signer[1]]}"


def _nonce(raw: bytes) -> bytes:
    """The envelope's nonce: in canonical bytes it follows the body, and no member after it has that name."""
    start = raw.rfind(_NONCE) + len(_NONCE)
    return raw[start : start + 32]


class Order:
    """``differs(what, expected, actual)`` is told of every pair; equal ones count as fine."""

    def __init__(self, differs: Differs) -> None:
        self._differs = differs
        self._stream_of: dict[tuple[str, str], str] = {}
        self._name_of: dict[str, tuple[str, str]] = {}
        self._kinds = frozenset(KINDS)
        self._nonces: set[bytes] = set()

    def check(self, record: Record, state: State) -> None:
        """Compare the envelope of ``record`` with where the lane stands."""
        if record.seq != state.size:
            self._differs("seq", state.size, record.seq)
        if record.prev != state.prev:
            self._differs("prev", state.prev, record.prev)
        if record.at < state.at:
            self._differs("at", f"not before {state.at}", record.at)
        if record.kind not in self._kinds:
            self._differs("kind", "a known kind", record.kind)
        nonce = _nonce(record.raw)
        if nonce in self._nonces:
            self._differs("nonce", "one that was never used", nonce.decode("ascii", "replace"))
        self._nonces.add(nonce)
        if (author := author_of(record)) != record.by:
            self._differs("by", author, record.by)
        subjects = subjects_of(record.kind, record.body) or [(GENERAL, "")]
        if not self._continued(subjects, record, state):
            self._differs("streams", self._expected(subjects, record, state),
                          {k: list(v) for k, v in record.streams.items()})  # fmt: skip

    def _continued(self, subjects: list[tuple[str, str]], record: Record, state: State) -> bool:
        """Whether each subject's known stream goes on here, and no other: nearly always."""
        streams = record.streams
        if len(streams) != len(subjects):
            return False
        for subject in subjects:
            name = self._stream_of.get(subject)
            place = None if name is None else streams.get(name)
            last = None if place is None or name is None else state.streams.get(name)
            if place is None or last is None or place != [last[0] + 1, last[1]]:
                return False
        return True

    def _expected(self, subjects: list[tuple[str, str]], record: Record, state: State) -> dict[str, list[Any]]:
        """The streams that the record stands in, each continued; of an account only the use of its name."""
        expected: dict[str, list[Any]] = {}
        for prefix, value in subjects:
            name = self._named(prefix, value, record)
            last = state.streams.get(name)
            expected[name] = [0, GENESIS] if last is None else [last[0] + 1, last[1]]
        return expected

    def _named(self, prefix: str, value: str, record: Record) -> str:
        """The stream of an agent, a run or an account: the one it had before, else the one this record opens."""
        subject = (prefix, value)
        if prefix != ACCOUNT:
            name = prefix if prefix == GENERAL else stream_of(prefix, value)
            self._stream_of[subject] = name
            return name
        known = self._stream_of.get(subject)
        if known is not None:
            return known
        for name in record.streams:
            if name.startswith(prefix + ".") and name not in self._name_of:
                self._stream_of[subject] = name
                self._name_of[name] = subject
                return name
        return f"{prefix}.(a stream of its own)"
