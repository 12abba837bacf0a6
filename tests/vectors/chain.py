"""A chain on paper: blocks with anchors in them, by the chains' own libraries (eth-account, rlp, trie).

Neither the product's capture nor the verifier has a part in it. Everything is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import rlp
from build import ORIGIN, b64, root_of
from Crypto.Hash import keccak as _keccak
from eth_account import Account
from scribe import Story
from trie.hexary import HexaryTrie

AVALANCHE, LOCAL = 43_114, 43_112
OWNER = Account.from_key("0x" + "17" * 32)
STRANGER = Account.from_key("0x" + "23" * 32)
CONTRACT = bytes.fromhex("a7c0" * 10)
OTHER = bytes.fromhex("b8d1" * 10)
ZERO_ROOT = bytes(32)
Change = Callable[[dict[str, Any]], Any]


def keccak(raw: bytes) -> bytes:
    found: bytes = _keccak.new(digest_bits=256, data=raw).digest()
    return found


def number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


@dataclass
class Block:
    """What stands in a block besides the anchor, and what of it an attacker changes before it is sealed."""

    height: int = 4_711
    chain_id: int = AVALANCHE
    avalanche: bool = True
    index: int = 3
    entries: int = 20
    account: Any = OWNER
    to: bytes = CONTRACT
    address: bytes = CONTRACT  # whose event the receipt holds
    event: str = "Anchored(bytes32,uint64,uint64,bytes32,bytes32)"
    origin: str = ORIGIN
    status: int = 1
    tx_chain_id: int = 0  # for a transaction that was signed for another chain
    header: Callable[[list[Any]], Any] = field(default=lambda fields: None)

    def words(self, one: dict[str, Any]) -> list[bytes]:
        return [
            keccak(self.origin.encode()), word(one["sequence"]), word(one["size"]), bytes.fromhex(one["root"]),
            bytes.fromhex(one["previous"]),
        ]  # fmt: skip

    def transaction(self, one: dict[str, Any]) -> bytes:
        call = keccak(b"anchor(bytes32,uint64,uint64,bytes32,bytes32)")[:4] + b"".join(self.words(one))
        fields = {
            "type": 2, "chainId": self.tx_chain_id or self.chain_id, "nonce": one["sequence"], "to": self.to,
            "value": 0, "data": call, "gas": 90_000, "maxFeePerGas": 50 * 10**9, "maxPriorityFeePerGas": 10**9,
        }  # fmt: skip
        return bytes(self.account.sign_transaction(fields).raw_transaction)

    def receipt(self, one: dict[str, Any]) -> bytes:
        words = self.words(one)
        log = [self.address, [keccak(self.event.encode()), *words[:2]], b"".join(words[2:])]
        return b"\x02" + rlp.encode([number(self.status), number(50_000), bytes(256), [log]])

    def sealed(self, one: dict[str, Any]) -> dict[str, Any]:
        """The members of the record that the chain gives."""
        others = [b"\x02" + rlp.encode([number(at), bytes(60)]) for at in range(self.entries)]
        transactions, receipts = list(others), [raw + bytes(20) for raw in others]
        transactions[self.index], receipts[self.index] = self.transaction(one), self.receipt(one)
        tx_trie, receipt_trie = trie_of(transactions), trie_of(receipts)
        fields: list[Any] = [
            bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 20, bytes([4]) * 32, tx_trie.root_hash,
            receipt_trie.root_hash, bytes(256), number(1), number(self.height), number(15_000_000), number(900_000),
            number(1_793_606_500), b"", bytes(32), bytes(8),
        ]  # fmt: skip
        if self.avalanche:
            fields += [bytes([5]) * 32, number(25 * 10**9), b"", b"", b"", b"", bytes(32), number(1_793_606_500_123)]
        else:
            fields += [number(25 * 10**9), bytes([6]) * 32]
        self.header(fields)
        header = rlp.encode(fields)
        key = rlp.encode(number(self.index))
        nodes = {"receipt": nodes_of(receipt_trie, key), "tx": nodes_of(tx_trie, key)}
        return {
            "tx": b64(transactions[self.index]), "receipt": b64(receipts[self.index]),
            "proof": {"index": self.index, **nodes}, "header": b64(header),
            "block": {"number": self.height, "hash": keccak(header).hex()}, "log_index": 0,
        }  # fmt: skip


def trie_of(entries: list[bytes]) -> Any:
    trie = HexaryTrie({})
    for index, entry in enumerate(entries):
        trie[rlp.encode(number(index))] = entry
    return trie


def nodes_of(trie: Any, key: bytes) -> list[str]:
    return [b64(rlp.encode(node)) for node in trie.get_proof(key)]


def anchor(
    story: Story, block: Block | None = None, *, size: int | None = None, sequence: int = 1,
    previous: bytes = ZERO_ROOT, root: bytes | None = None, alter: Change | None = None,
) -> int:  # fmt: skip
    """Record an anchor of the log as it is, or of its first `size` records. Answers its seq."""
    block = block or Block()
    size = len(story.log.leaves) if size is None else size
    head = root if root is not None else root_of(story.log.leaves[:size])
    one: dict[str, Any] = {
        "size": size, "root": head.hex(), "chain_id": block.chain_id, "contract": "0x" + block.to.hex(),
        "sequence": sequence, "previous": previous.hex(),
    }  # fmt: skip
    body = {**one, **block.sealed(one)}
    if alter is not None:
        alter(body)
    return story.add("anchor.published", "gate", [], body)


def chain_trust(*bodies: dict[str, Any], contract: bytes = CONTRACT, owner: Any = OWNER) -> list[dict[str, Any]]:
    """The auditor's `chains`: the blocks of these records pinned, and his contract with its owner."""
    blocks: dict[int, list[dict[str, Any]]] = {}
    for body in bodies:
        blocks.setdefault(body["chain_id"], []).append(dict(body["block"]))
    known = {"contract": "0x" + contract.hex(), "owner": owner.address}
    return [{"chain_id": chain, "blocks": found, "anchor": known} for chain, found in sorted(blocks.items())]
