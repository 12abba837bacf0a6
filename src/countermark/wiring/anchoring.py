"""The anchor of a deployment's log: made from configuration, fed from its journal, recorded by the lane's owner."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from countermark.gate import Parts, record_publication
from countermark.journal import HighWater, LogView, SqliteStore, read_high_water, write_high_water
from countermark.model.clock import SystemClock
from countermark.model.errors import ConfigError
from countermark.model.ports import Clock, Head
from countermark.wiring.config import Config
from countermark.wiring.custody import resolve_secret

if TYPE_CHECKING:
    from countermark.chain import Rpc, Signer
    from countermark.publish import ChainAnchor, Fees
    from countermark.wiring.anchor_settings import AnchorConfig


class JournalFacts:
    """What an anchor asks of the log, from any thread: each question opens the journal aside."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def size(self) -> int:
        store = self._open()
        try:
            return store.size()
        finally:
            store.close()

    def root_at(self, size: int) -> bytes:
        """Out of the signed head of that size, where there is one; else the records are hashed."""
        store = self._open()
        try:
            note = store.head_at(size)
            if note is not None:
                return _root(note)
            view = LogView(store)
            view.grow()
            return view.root(size)
        finally:
            store.close()

    def recorded(self, sequence: int, since: int) -> bool:
        store = self._open()
        try:
            found = (record for record in store.records(since) if record.kind == "anchor.published")
            return any(record.body["sequence"] == sequence for record in found)
        finally:
            store.close()

    def _open(self) -> SqliteStore:
        return SqliteStore(self._config.journal, readonly=True)


def anchor_of(config: Config, clock: Clock) -> ChainAnchor | None:
    """The destination that the configuration names; None when it names none, or no contract yet.

    Raises ``ConfigError`` when its node's address cannot be read.
    """
    from countermark.chain import address_bytes
    from countermark.publish import AnchorSettings, ChainAnchor, PendingFile, final_by_default

    one = config.anchor
    if one is None or not one.contract:
        return None
    address_bytes(one.contract)
    settings = AnchorSettings(
        one.chain_id,
        one.contract,
        config.origin,
        one.final or final_by_default(one.chain_id),
        one.every_s,
        fees_of(one),
    )
    return ChainAnchor(
        settings, rpc_of(config, one), lambda: signer_of(config, one), JournalFacts(config),
        PendingFile(config.anchor_file), clock,
    )  # fmt: skip


def rpc_of(config: Config, one: AnchorConfig) -> Rpc:
    """The node. Raises ``ConfigError``, which does not quote its address."""
    from countermark.chain import Rpc

    return Rpc(resolve_secret(one.rpc, config.root), one.chain_id, allowed=one.allowed)


def signer_of(config: Config, one: AnchorConfig) -> Signer:
    """The key, read when it is used. Raises ``ConfigError``."""
    from countermark.chain import Signer

    return Signer(resolve_secret(one.key, config.root))


def fees_of(one: AnchorConfig) -> Fees:
    """The most that is paid for a unit of gas."""
    from countermark.publish import GWEI, Fees

    return Fees(one.fee_max_gwei * GWEI, one.tip_max_gwei * GWEI)


def published_head(config: Config) -> Head:
    """The newest head in the high-water file: none later may be shown to anybody. Raises ``ConfigError``."""
    mark = read_high_water(config.high_water)
    if mark is None or mark.size == 0:
        raise ConfigError("nothing was recorded yet")
    store = SqliteStore(config.journal, readonly=True)
    try:
        note = store.head_at(mark.size)
    finally:
        store.close()
    if note is None or _root(note).hex() != mark.root:
        raise ConfigError("the journal is not the one whose head was published", hint="Open the deployment to see why.")
    return Head(mark.size, bytes.fromhex(mark.root), note)


def record_anchor(config: Config, kind: str, body: Mapping[str, Any]) -> bool:
    """Write the record in the place of an owner; False when a process owns the lane, which then does it itself."""
    from countermark.wiring.deployment import parts_of, take_lock

    lock = take_lock(config.lock)
    if lock is None:
        return False
    try:
        clock = SystemClock()
        parts: Parts = parts_of(config, {}, clock)
        writer = parts.open_writer()
        try:
            writer.rebuild()
            writer.now = clock.now_us()
            record_publication(writer, kind, body)
            head = writer.commit()
        finally:
            writer.store.close()
            writer.vault.close()
        write_high_water(config.high_water, HighWater(head.size, head.root.hex()))
    finally:
        os.close(lock)
    return True


def _root(note: bytes) -> bytes:
    """The root in a note of our own, whose signature whoever opens the gate has checked."""
    return base64.b64decode(note.split(b"\n", 3)[2])
