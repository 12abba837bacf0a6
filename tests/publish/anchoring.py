"""A log of roots and an anchor of it on a real EVM, for the tests of anchors."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anvil_support import CHAIN_ID, KEYS

from countermark.chain import Rpc, Signer
from countermark.model.clock import SystemClock
from countermark.model.ports import Head
from countermark.publish.anchor import GWEI, AnchorSettings, ChainAnchor, Fees, PendingFile, deploy_anchor

ORIGIN = "countermark/acme/l0"
FEES = Fees(200 * GWEI, 2 * GWEI)


def root_of(size: int, name: str = "log") -> bytes:
    """A root as good as any: the chain does not judge it."""
    return hashlib.sha256(f"{name} {size}".encode()).digest()


@dataclass
class Log:
    """What ``LogFacts`` asks of a journal. ``name`` makes two logs of one length differ."""

    length: int = 0
    name: str = "log"
    sequences: set[int] = field(default_factory=set)

    def size(self) -> int:
        return self.length

    def root_at(self, size: int) -> bytes:
        return root_of(size, self.name)

    def recorded(self, sequence: int, since: int) -> bool:
        return sequence in self.sequences

    def head(self, size: int) -> Head:
        self.length = max(self.length, size)
        return Head(size, root_of(size, self.name), b"")


def deployed(url: str, key: str = KEYS[0]) -> str:
    """A new contract's address."""
    rpc = Rpc(url, CHAIN_ID)
    try:
        return deploy_anchor(rpc, Signer(key), FEES, SystemClock()).contract
    finally:
        rpc.close()


def settings(contract: str, **changes: Any) -> AnchorSettings:
    """Settings with short times."""
    one = AnchorSettings(CHAIN_ID, contract, ORIGIN, fees=FEES, poll_ms=20, bump_ms=200, wait_ms=5_000)
    return replace(one, **changes)


def anchor_to(
    url: str, one: AnchorSettings, log: Log, folder: Path, *, key: str = KEYS[0], chain_id: int = CHAIN_ID
) -> ChainAnchor:
    """A destination with its pending file in a folder."""
    return ChainAnchor(
        one,
        Rpc(url, chain_id, timeout_ms=5_000),
        lambda: Signer(key),
        log,
        PendingFile(folder / "anchor"),
        SystemClock(),
    )


if __name__ == "__main__":  # a process of its own, which a test kills at a crash point
    url, contract, folder, size = sys.argv[1:]
    log = Log(int(size))
    made = anchor_to(url, settings(contract), log, Path(folder)).publish(log.head(int(size)))
    print(json.dumps(made))
