"""The lane's pen: seals records, folds them into the state at once, and gathers what the next commit must write."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson

from countermark.gate import caches
from countermark.gate.caches import Pace, StoreKeys, StoreStreams
from countermark.gate.prepare import Pseudonyms
from countermark.gate.rotation import signers_of
from countermark.journal import Vault
from countermark.log import TILE_WIDTH, Frontier, LogSigner, TileRoots, leaf_hash, open_checkpoint
from countermark.model.crash import crash_point
from countermark.model.errors import CountermarkError, SignatureError, StoreError
from countermark.model.ports import Batch, Cache, Head, Store
from countermark.model.records import GENESIS, Record, seal
from countermark.model.sealing import label_of
from countermark.model.streams import ACCOUNT, GENERAL, RUN, stream_of, subjects_of
from countermark.policy import Bundle, State

BUNDLES_CACHED_MAX = 16
STREAM_NAMES_CACHED_MAX = 16_384
DEFINITIONS_CACHED_MAX = 1_024
SAMPLES = 64
YOUNG = 20_000  # records, which is what one or two saves cover
_DAMAGE = (KeyError, IndexError, TypeError, ValueError, AttributeError)  # what reading on over altered bytes raises

_AUTHORITY = frozenset(
    (
        "kill.set",
        "kill.cleared",
        "mandate.granted",
        "mandate.accepted",
        "mandate.revoked",
        "policy.activated",
        "lane.accepted",
        "key.enrolled",
        "key.removed",
        "payee.changed",
    )
)

log = logging.getLogger("countermark.writer")


class Writer:
    """One owner: the lane thread. ``add`` cannot be undone; an exception in it halts the lane."""

    def __init__(
        self, store: Store, vault: Vault, signer: LogSigner, pseudonym: Pseudonyms, lane: str,
        tiles: TileRoots | None = None,
    ) -> None:  # fmt: skip
        """``tiles`` gets the root of each tile of the log that is full and durable."""
        self.store = store
        self.vault = vault
        self.lane = lane
        self.pseudonym = pseudonym
        self.signer = signer
        self.keys = StoreKeys(store)
        self.bundles: dict[str, Bundle] = {}
        self.streams = StoreStreams(store)
        self.state = self._fresh()
        self.frontier = Frontier()
        self._tiles = TileRoots() if tiles is None else tiles
        self._full: list[bytes] = []  # roots of the tiles that this batch completes
        self.batch = Batch()
        self.pace = Pace()
        self._kept = 0  # how many changes were there when they could not be saved
        self._names = lru_cache(maxsize=STREAM_NAMES_CACHED_MAX)(self._stream_names)
        self.now = 0
        self.authority_changed = False
        self._defined: set[str] = set()

    def defined(self, definition: str) -> bool:
        """Whether a definition with this digest was recorded."""
        if definition not in self._defined:
            if self.state.keys.get("wf:" + definition) is None:
                return False
            if len(self._defined) >= DEFINITIONS_CACHED_MAX:
                self._defined.clear()
            self._defined.add(definition)
        return True

    def bundle(self, digest: str) -> Bundle:
        """A bundle by digest, from memory or the store; kept so that activation and recovery find it."""
        found = self.bundles.get(digest)
        if found is None:
            raw = self.store.bundle(digest)
            if raw is None:
                raise KeyError(digest)
            found = Bundle.from_document(orjson.loads(raw))
            if found.digest != digest:
                raise StoreError("a stored policy bundle is not the one its digest names", hint="Restore a backup.")
            if len(self.bundles) >= BUNDLES_CACHED_MAX:
                self.bundles.clear()
            self.bundles[digest] = found
        return found

    @property
    def at(self) -> int:
        """Time of the next record: never before the previous one (microseconds)."""
        return max(self.state.at, self.now)

    def history(self) -> Iterator[Record]:
        """Every record so far: committed ones, then those of this batch."""
        first = self.batch.records[0].seq if self.batch.records else self.state.size
        yield from self.store.records(0, min(first, self.state.size))
        yield from self.batch.records

    def record(self, seq: int) -> Record:
        """A record by seq, committed or still in this batch."""
        if self.batch.records and seq >= self.batch.records[0].seq:
            return self.batch.records[seq - self.batch.records[0].seq]
        return self.store.record(seq)

    def _fresh(self) -> State:
        return State(self.keys, self.bundle, self.streams, lambda seq: self.record(seq).body)

    def _streams(self, kind: str, body: dict[str, Any]) -> dict[str, list[Any]]:
        out: dict[str, list[Any]] = {}
        fresh = stream_of(RUN, body["run"]) if kind == "run.started" else ""  # its name was drawn just now
        for name in self._names(*subjects_of(kind, body)):
            last = None if name == fresh else self.streams.get(name)
            out[name] = [0, GENESIS] if last is None else [last[0] + 1, last[1]]
        return out

    def _stream_names(self, *subjects: tuple[str, str]) -> tuple[str, ...]:
        if not subjects:
            return (GENERAL,)
        return tuple(
            "p." + self.pseudonym("account", value) if letter == ACCOUNT else stream_of(letter, value)
            for letter, value in subjects
        )

    def add(self, kind: str, body: dict[str, Any], *, by: str = "gate") -> Record:
        """Seal a record, fold it, queue it for the commit."""
        state = self.state
        record = seal(
            lane=self.lane, seq=state.size, prev=state.prev, kind=kind, at=max(state.at, self.now),
            nonce=self.pseudonym.salt(), by=by, streams=self._streams(kind, body), body=body,
        )  # fmt: skip
        self.batch.records.append(record)
        self.batch.size += len(record.raw)
        full = self.frontier.append(leaf_hash(record.raw))
        if full is not None:
            self._full.append(full)
        state.apply(record, self.history)
        if kind in _AUTHORITY:
            self.authority_changed = True
        return record

    def seal_values(self, record: Record, subject: str, plain: bytes) -> None:
        """Encrypt what belongs to ``record`` but must not stand in it; written by the same transaction."""
        name = self.state.erasures.key_of(subject)
        self.batch.sealed.append((record.seq, name, self.vault.seal(name, label_of(record.body), plain)))

    def unseal(self, seq: int) -> dict[str, Any] | None:
        """The values sealed with the record at ``seq``: None when there are none or they were erased."""
        for pending, subject, blob in self.batch.sealed:
            if pending == seq:
                return self._opened(subject, seq, blob)
        row = self.store.sealed(seq)
        return None if row is None else self._opened(row[0], seq, row[1])

    def _opened(self, subject: str, seq: int, blob: bytes) -> dict[str, Any] | None:
        plain = self.vault.open(subject, label_of(self.record(seq).body), blob)
        if plain is None:
            return None
        value: dict[str, Any] = orjson.loads(plain)
        return value

    def opening(self) -> dict[str, Any]:
        """What a start records of the log it found."""
        return {"recovered": self.state.size, "log_key": signers_of(self.signer, self.state, self.at)[0].vkey}

    def succeed(self, signer: LogSigner, lane: str) -> None:
        """Go on as the successor lane: later records and heads carry its name."""
        self.signer, self.lane = signer, lane

    def commit(self) -> Head:
        """Write the batch: vault keys first, then one transaction with the signed head, which is returned."""
        batch, self.batch = self.batch, Batch()
        size = self.state.size
        root = self.frontier.root()
        first, also = signers_of(self.signer, self.state, self.at)
        batch.head = (size, first.sign_checkpoint(size, root, also))
        self.vault.flush()
        self.store.commit(batch)
        if self._full:
            self._tiles.put(size // TILE_WIDTH, self._full)
            self._full = []
        if batch.erased:
            crash_point("erasure.recorded")
            self.vault.destroy(batch.erased)
            crash_point("erasure.destroyed")
        self.pace.count(len(batch.records), batch.size)
        return Head(size, root, batch.head[1])

    def cache(self) -> None:
        """Write what shortens the next start, when it is due; only between batches. Raises ``StoreError``."""
        due = self.pace.due(self.state.size)
        if due or self._dirty():
            self._save(self._snapshot() if due else None)

    def _dirty(self) -> bool:
        return self._changed() >= caches.DIRTY_MAX + self._kept

    def _changed(self) -> int:
        return max(len(self.streams.dirty), len(self.keys.dirty))

    def _save(self, snapshot: bytes | None = None) -> None:
        self._kept = self._changed()  # should this fail, then not again with every batch
        self.store.save(Cache(self.state.size, self.keys.dirty, self.streams.dirty, snapshot))
        crash_point("lane.cached")
        self._kept = 0
        self.streams.saved()
        self.keys.saved()

    def _snapshot(self) -> bytes | None:
        self.pace.restart()
        doc = {"state": self.state.dump(), "frontier": self.frontier.dump()}
        raw = orjson.dumps(doc, option=orjson.OPT_SORT_KEYS)
        self.pace.last_bytes = len(raw)
        if len(raw) > caches.SNAPSHOT_BYTES_MAX:
            log.warning("a snapshot of %d bytes was not written: the next start reads more records", len(raw))
            return None
        return raw

    def rebuild(self) -> int:
        """Fold snapshot and tail, then destroy every key that a record says is gone; returns the records folded.

        Also a vault that somebody put back loses those keys before anything is served (docs/erasure.md).

        Raises:
            StoreError: as ``_rebuild``, or the vault cannot be written.
        """
        folded = self._rebuild()
        self.vault.destroy(list(self.state.erasures.destroyed()))
        return folded

    def _rebuild(self) -> int:
        """Fold snapshot and tail; returns the number of records folded.

        A snapshot is a cache: when its tree does not lead to the newest signed head, everything is folded anew.

        Raises:
            StoreError: a record is missing or damaged, or the log is not the one its newest head signed.
        """
        found = self.store.snapshot()
        if found is not None:
            try:
                self._sample(found[0], self.store.cached())
                doc = orjson.loads(found[1])
                self.pace.last_bytes = len(found[1])
                self.state.load(doc["state"])
                self.frontier = Frontier.load(self.state.size, doc["frontier"])
                folded = self._fold_tail()
                if self._signed():
                    return folded
            except (*_DAMAGE, CountermarkError) as error:
                log.warning("the snapshot is of no use, everything is folded anew: %s", error)
            self.keys, self.streams = StoreKeys(self.store), StoreStreams(self.store)
            self.state, self.frontier = self._fresh(), Frontier()
        self.store.forget()
        crash_point("lane.forgotten")
        folded = self._fold_tail()
        if not self._signed():
            raise StoreError(
                "the log is not the one its newest head signed", hint="The journal was altered: restore a backup."
            )
        return folded

    def _sample(self, size: int, cached: int) -> None:
        """Look at some records below a snapshot, half of them young: each is there, and the tables know it.

        Shows what was lost by the page or as a whole, not a row that somebody edited. Raises ``StoreError``.
        """
        if not size <= cached <= self.store.size():
            raise StoreError("keys and streams are not those of the snapshot")
        for number in range(min(SAMPLES, size)):
            seq = secrets.randbelow(size) if number % 2 else size - 1 - secrets.randbelow(min(size, YOUNG))
            record = self.store.record(seq)
            if record.kind == "action.decided":
                key = "id:" + record.body["id"]
                if self.store.keys((key,)).get(key, -1) < seq:
                    raise StoreError(f"the keys of record {seq} are missing")
            for name, place in record.streams.items():
                known = self.store.stream(name)
                if known is None or known[0] < place[0]:
                    raise StoreError(f"a stream of record {seq} is missing")

    def _fold_tail(self) -> int:
        start, cached = self.state.size, self.store.cached()
        for record in self.store.records(start):
            if record.prev != self.state.prev:
                raise StoreError(f"record {record.seq} does not follow its predecessor", hint="Restore a backup.")
            self.frontier.append(leaf_hash(record.raw))
            try:
                self.state.apply(record, lambda stop=record.seq: self.store.records(0, stop))  # type: ignore[misc]
            except _DAMAGE:
                raise StoreError(f"record {record.seq} is damaged", hint="Restore a backup.") from None
            self.pace.count(1, len(record.raw))
            if self._dirty():
                self._let_go(cached)
        return self.state.size - start

    def _let_go(self, cached: int) -> None:
        """Keep memory small while folding. Up to ``cached`` the tables have it all: writing would set them back.

        Where a save fails, nothing is wrong with the snapshot or the records: they are folded on.
        """
        if self.state.size <= cached:
            self.streams.saved()
            self.keys.saved()
            return
        try:
            self._save()
        except StoreError as error:
            log.warning("keys and streams stay in memory: %s", error)

    def _signed(self) -> bool:
        head = self.store.head()
        if head is None:
            return self.state.size == 0
        try:
            checkpoint = open_checkpoint(head[1], self.signer.vkeys)
        except SignatureError:
            return False
        return checkpoint.size == self.state.size and checkpoint.root == self.frontier.root()
