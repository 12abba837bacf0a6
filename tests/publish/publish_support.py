"""A log in memory, whole enough for a view of it, and the heads that it or somebody with its key signs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.journal import LogView, SqliteStore
from countermark.log import (
    Cosignature,
    Cosigner,
    LogSigner,
    TileRoots,
    consistency_proof,
    leaf_hash,
    read_checkpoint,
    read_cosignatures,
    root_of,
    with_lines,
)
from countermark.model.errors import CountermarkError
from countermark.model.ports import Head
from countermark.publish import WitnessError
from countermark.publish.exchange import SIZE_TYPE, Submission, text_of
from countermark.publish.witness import NOTHING_HELD, Held, judge

ORIGIN = "countermark/acme/l0"


def key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))


class MemoryLog:
    """Records as bytes. ``changed`` is the seq of one that was rewritten."""

    def __init__(self, size: int, *, changed: int = -1, origin: str = ORIGIN, number: int = 1) -> None:
        self.signer = LogSigner(origin, key(number))
        self.raws = [b"X" if n == changed else b"record %d" % n for n in range(size)]
        self.tiles = TileRoots()  # into which whoever plays the lane puts

    def grow(self, count: int) -> None:
        self.raws += [b"record %d" % n for n in range(len(self.raws), len(self.raws) + count)]

    def head(self, size: int | None = None) -> Head:
        leaves = [leaf_hash(raw) for raw in self.raws[:size]]
        root = root_of(leaves)
        return Head(len(leaves), root, self.signer.sign_checkpoint(len(leaves), root))

    def submission(self, old: int, size: int | None = None) -> Submission:
        head = self.head(size)
        leaves = [leaf_hash(raw) for raw in self.raws]
        proof = consistency_proof(leaves, old, head.size) if old <= head.size else []
        return Submission(old, tuple(proof), head.note)

    def store(self) -> LoggedStore:
        """A journal with these records, which counts those that are read."""
        return LoggedStore(self)

    def view(self) -> LogView:
        return LogView(self.store(), self.tiles)


class LoggedStore(SqliteStore):
    """As much of a journal as a view reads; ``read`` are the records that were read."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.read: list[int] = []

    def size(self) -> int:
        return len(self._log.raws)

    def head(self) -> tuple[int, bytes] | None:
        return (len(self._log.raws), self._log.head().note) if self._log.raws else None

    def raw(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        for seq, raw in enumerate(self._log.raws[start:stop], start):
            self.read.append(seq)
            yield seq, raw

    def close(self) -> None:
        pass


class MemoryWitness:
    """A witness without disk or network, as a client sees one. ``fault`` is raised instead of an answer; ``hold``
    keeps its answers back until it is set.
    """

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.cosigner = Cosigner(f"key.{name}", key(1_000 + number))
        self.held = NOTHING_HELD
        self.asked: list[Submission] = []
        self.fault: CountermarkError | None = None
        self.lies: int | None = None  # the size that it claims to have
        self.hold = threading.Event()
        self.hold.set()

    def line(self, url: str = "https://w.example") -> str:
        return f"witness {self.name} {self.cosigner.vkey} {url}\n"

    def add(self, submission: Submission, timeout_ms: int) -> Cosignature | int:
        self.hold.wait(10)
        self.asked.append(submission)
        if self.fault is not None:
            raise self.fault
        if self.lies is not None:
            return self.lies
        head = read_checkpoint(submission.note)
        refusal = judge(submission, head, self.held)
        if refusal is not None:
            if refusal.reply.media == SIZE_TYPE and self.held.size != submission.old:
                return self.held.size
            raise WitnessError("seen another log", code="witness_other_log")
        self.held = Held(head.size, head.root, submission.note)
        line = self.cosigner.cosign(text_of(submission.note), 1_790_000_000)
        return read_cosignatures(with_lines(submission.note, [line]), [self.cosigner.key])[0]

    def close(self) -> None:
        pass
