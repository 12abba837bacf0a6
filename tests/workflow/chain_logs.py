"""A contract that writes what it is told, on a real node; a watcher over it whose gate only remembers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anvil_support import ADDRESSES, CHAIN_ID, Anvil

from countermark.chain import Rpc, keccak
from countermark.model.errors import GateBusyError
from countermark.workflow.chain_events import ChainSource
from countermark.workflow.watcher import ChainWatcher, Position, PositionFile

SIGNATURE = "Transfer(address indexed from, address indexed to, uint256 value)"
TOPIC = keccak(b"Transfer(address,address,uint256)")
# Runtime: three topics and a word of data from the call's data, written by LOG3. In front of it what installs it.
RUNTIME = "602060606000376040356020356000356020" + "6000a300"
CODE = "0x" + f"60{len(RUNTIME) // 2:02x}80600b6000396000f3" + RUNTIME
PAYER, PAYEE = "0x" + "11" * 20, "0x" + "22" * 20


def word(value: str | int | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else bytes.fromhex(value[2:]) if isinstance(value, str) else None
    return value.to_bytes(32, "big") if raw is None else raw.rjust(32, b"\0")  # type: ignore[union-attr]


def deploy(node: Anvil) -> str:
    tx = node.ask("eth_sendTransaction", {"from": ADDRESSES[0], "data": CODE, "gas": hex(200_000)})
    return str(node.receipt(tx)["contractAddress"])


def pay(
    node: Anvil, contract: str, value: int, *, topic: bytes = TOPIC, to: str = PAYEE, mined: bool = True
) -> str:  # fmt: skip
    """Make the contract write a transfer. Returns the transaction, ``mined`` when a block holds it."""
    data = "0x" + (topic + word(PAYER) + word(to) + word(value)).hex()
    tx = str(node.ask("eth_sendTransaction", {"from": ADDRESSES[0], "to": contract, "data": data, "gas": hex(90_000)}))
    if mined:
        node.receipt(tx)
    return tx


class Watched:
    """A source, its position and what it has delivered. ``watcher`` begins anew, as after a restart."""

    def __init__(self, node: Anvil, folder: Path, contract: str, **more: Any) -> None:
        settings = {"final": "accepted", "key": "to", "start": 0, **more}
        self.source = ChainSource("usdc", CHAIN_ID, contract, SIGNATURE, **settings)
        self.open_rpcs: list[Rpc] = []
        self.node, self.path = node, folder / "sources" / "usdc"
        self.events: dict[str, Mapping[str, Any]] = {}
        self.calls = 0
        self.fail_at: set[int] = set()
        self.again()

    def again(self) -> ChainWatcher:
        file, rpc = PositionFile(self.path, self.source), Rpc(self.node.url, CHAIN_ID)
        self.open_rpcs.append(rpc)
        self.watcher = ChainWatcher(self.source, rpc, file, self.deliver, self.recorded)
        return self.watcher

    def deliver(self, body: Mapping[str, Any]) -> None:
        self.calls += 1
        if self.calls in self.fail_at:
            raise GateBusyError("the inbox is full")
        known = self.events.setdefault(body["event"], body)
        assert known["digest"] == body["digest"]

    def recorded(self) -> Position | None:
        numbers = [body["evidence"]["number"] for body in self.events.values()]
        return Position(max(numbers) - 1, "") if numbers else None

    def catch_up(self) -> None:
        while self.watcher.turn():
            pass

    def close(self) -> None:
        for rpc in self.open_rpcs:
            rpc.close()

    @property
    def values(self) -> list[int]:
        return [int(body["payload"]["value"]) for body in self.events.values()]
