"""Receipts and transactions of a block as Merkle-Patricia tries: their roots, and the proof of one entry.

A block's header commits to both. The proof of a receipt is made when the block is fresh, because nodes prune; who
checks it later needs the header and these nodes only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.chain.codec import (
    ADDRESS_BYTES,
    HASH_BYTES,
    ChainError,
    Rlp,
    data,
    integer_bytes,
    quantity,
    rlp_decode,
    rlp_encode,
)  # fmt: skip
from countermark.model.errors import ConfigError

ENTRIES_MAX = 10_000  # transactions of a block
NODES_MAX = 16
NODE_BYTES_MAX = 16_384
LOGS_MAX = 1_024
TOPICS_MAX = 4
TYPE_MAX = 0x7F  # EIP-2718: what a typed transaction's first byte may be
_BLOOM_BYTES = 256


@dataclass(frozen=True, slots=True)
class Log:
    """One event: the contract's address, up to four topics of 32 bytes, the data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt as the trie holds it; ``succeeded`` is its status."""

    type: int
    succeeded: bool
    gas_used: int  # of the block so far, this transaction included
    logs: tuple[Log, ...]


def receipt_bytes(receipt: Mapping[str, Any]) -> bytes:
    """The bytes of a node's receipt that the trie holds (EIP-658, 2718). Raises ``ChainError``."""
    kind = quantity(receipt.get("type", "0x0"))
    status = quantity(receipt.get("status"))
    logs = receipt.get("logs")
    if kind > TYPE_MAX or status > 1 or type(logs) is not list or len(logs) > LOGS_MAX:
        raise ChainError("a node's receipt has no form that is known here")
    body: list[Rlp] = [
        integer_bytes(status),
        integer_bytes(quantity(receipt.get("cumulativeGasUsed"))),
        data(receipt.get("logsBloom"), _BLOOM_BYTES),
        [_log_fields(log) for log in logs],
    ]
    return (bytes([kind]) if kind else b"") + rlp_encode(body)


def parse_receipt(raw: bytes) -> Receipt:
    """Read a receipt's bytes. Raises ``ChainError``."""
    if not raw:
        raise ChainError("a receipt is empty")
    kind = raw[0] if raw[0] <= TYPE_MAX else 0
    fields = rlp_decode(raw[1:] if kind else raw)
    if type(fields) is not list or len(fields) != 4 or fields[0] not in (b"", b"\x01") or type(fields[3]) is not list:
        raise ChainError("a receipt has no form that is known here")
    if type(fields[1]) is not bytes or type(fields[2]) is not bytes or len(fields[2]) != _BLOOM_BYTES:
        raise ChainError("a receipt has no form that is known here")
    return Receipt(
        kind, fields[0] == b"\x01", int.from_bytes(fields[1], "big"), tuple(_parsed_log(item) for item in fields[3])
    )


def trie_root(entries: Sequence[bytes]) -> bytes:
    """Root of the trie of a block's entries, in their order."""
    return bytes(_trie(entries).root_hash)


def prove(entries: Sequence[bytes], index: int) -> tuple[bytes, tuple[bytes, ...]]:
    """The trie's root and the nodes, each in RLP, that lead from it to the entry. Raises ``ChainError``."""
    if not 0 <= index < len(entries):
        raise ChainError("a block has no such entry")
    trie = _trie(entries)
    nodes = tuple(rlp_encode(node) for node in trie.get_proof(rlp_encode(integer_bytes(index))))
    if len(nodes) > NODES_MAX or any(len(node) > NODE_BYTES_MAX for node in nodes):
        raise ChainError("a proof is longer than what is kept")
    return bytes(trie.root_hash), nodes


def check_proof(root: bytes, index: int, nodes: Sequence[bytes]) -> bytes:
    """The entry that the nodes prove under ``root``. Raises ``ChainError`` when they prove none."""
    HexaryTrie = _library()
    if len(root) != HASH_BYTES or not 0 < len(nodes) <= NODES_MAX or any(len(node) > NODE_BYTES_MAX for node in nodes):
        raise ChainError("a proof has no nodes, or too many or too long ones")
    decoded = [rlp_decode(node) for node in nodes]
    try:
        value = bytes(HexaryTrie.get_from_proof(root, rlp_encode(integer_bytes(index)), decoded))
    except Exception as error:  # noqa: BLE001 - the library documents none; a hostile node makes it raise many kinds
        raise ChainError(f"the nodes do not lead from the root to the entry ({type(error).__name__})") from None
    if not value:
        raise ChainError("the nodes prove that there is no such entry")
    return value


def _trie(entries: Sequence[bytes]) -> Any:
    if len(entries) > ENTRIES_MAX:
        raise ChainError(f"a block has more than {ENTRIES_MAX} transactions")
    trie = _library()({})
    for index, entry in enumerate(entries):
        trie[rlp_encode(integer_bytes(index))] = entry
    return trie


def _library() -> Any:
    try:
        from trie.hexary import HexaryTrie
    except ImportError:
        raise ConfigError("the extra evm is not installed", hint="Install countermark[evm].") from None
    return HexaryTrie


def _log_fields(log: object) -> list[Rlp]:
    if not isinstance(log, Mapping):
        raise ChainError("a node's log is not an object")
    topics = log.get("topics")
    if type(topics) is not list or len(topics) > TOPICS_MAX:
        raise ChainError("a node's log has no topics, or more than four")
    return [data(log.get("address"), ADDRESS_BYTES), [data(item, HASH_BYTES) for item in topics], data(log.get("data"))]


def _parsed_log(item: object) -> Log:
    if type(item) is list and len(item) == 3:
        address, topics, payload = item
        if type(address) is bytes and len(address) == ADDRESS_BYTES and type(payload) is bytes:
            whole = type(topics) is list and len(topics) <= TOPICS_MAX
            if whole and all(type(topic) is bytes and len(topic) == HASH_BYTES for topic in topics):
                return Log(address, tuple(topics), payload)
    raise ChainError("a receipt's log has no form that is known here")
