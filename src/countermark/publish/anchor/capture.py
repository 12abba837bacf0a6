"""What is kept of an anchor's block, while nodes still have it: transaction, receipt, their proofs, the header.

A node's word counts for nothing here: the header is hashed, both proofs are made from the block's entries and checked
against the header, and the event is read and compared with the head that was to be anchored. What a node can still do
is to invent a whole block that is consistent in itself; that is what an auditor's checkpoint is for.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from countermark.chain import (
    HASH_BYTES,
    ChainError,
    Rpc,
    check_proof,
    data,
    header_of,
    parse_receipt,
    prove,
    quantity,
    receipt_bytes,
)
from countermark.model.canon import canon
from countermark.publish.anchor.contract import Anchored, origin_topic, read_event

BODY_BYTES_MAX = 32_768


def capture(
    rpc: Rpc, contract: str, origin: str, head: Anchored, raw: bytes, receipt: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of ``anchor.published`` for a transaction (its bytes) that stands in a block. Raises ``ChainError``."""
    block_hash = data(receipt.get("blockHash"), HASH_BYTES)
    block = rpc.block("0x" + block_hash.hex())
    if block is None:
        raise ChainError("the node does not have the block of its own receipt", retryable=True)
    header = header_of(rpc.chain_id, block)
    if header.hash != block_hash:
        raise ChainError("the node answers with another block than was asked for")
    index = quantity(receipt.get("transactionIndex"))
    entries = [receipt_bytes(one) for one in rpc.receipts(block)]
    receipt_root, receipt_nodes = prove(entries, index)
    tx_root, tx_nodes = prove(rpc.raw_transactions(block), index)
    if receipt_root != header.receipts_root or tx_root != header.transactions_root:
        raise ChainError("a block's entries do not give its header's roots")
    if check_proof(tx_root, index, tx_nodes) != raw:
        raise ChainError("another transaction stands at the place that the node names")
    at = _event_at(entries[index], contract, origin, head)
    body = {
        "size": head.size, "root": head.root.hex(), "chain_id": rpc.chain_id, "contract": contract.lower(),
        "sequence": head.sequence, "previous": head.previous.hex(), "tx": _b64(raw), "receipt": _b64(entries[index]),
        "proof": {"index": index, "receipt": _nodes(receipt_nodes), "tx": _nodes(tx_nodes)},
        "header": _b64(header.raw), "block": {"number": header.number, "hash": header.hash.hex()}, "log_index": at,
    }  # fmt: skip
    if len(canon(body)) > BODY_BYTES_MAX:
        raise ChainError(f"the evidence of an anchor is longer than {BODY_BYTES_MAX} bytes")
    return body


def is_body(found: Mapping[str, Any]) -> bool:
    """Whether this has the members that ``capture`` makes, for what was read back from a file."""
    proof, block = found.get("proof"), found.get("block")
    numbers = [found.get(name) for name in ("size", "chain_id", "sequence", "log_index")]
    texts = [found.get(name) for name in ("root", "contract", "previous", "tx", "receipt", "header")]
    if type(proof) is not dict or type(block) is not dict or len(found) != len(numbers) + len(texts) + 2:
        return False
    nodes = [proof.get("receipt"), proof.get("tx")]
    right = proof.keys() == {"index", "receipt", "tx"} and block.keys() == {"number", "hash"}
    numbers += [proof.get("index"), block.get("number")]
    texts += [block.get("hash"), *(node for part in nodes if type(part) is list for node in part)]
    return (
        right and all(type(part) is list for part in nodes) and all(type(one) is int for one in numbers)
        and all(type(one) is str for one in texts) and len(canon(found)) <= BODY_BYTES_MAX
    )  # fmt: skip


def _event_at(raw: bytes, contract: str, origin: str, head: Anchored) -> int:
    """Place of the event among the receipt's logs."""
    receipt = parse_receipt(raw)
    if not receipt.succeeded:
        raise ChainError("the contract refused the anchor", code="anchor_refused")
    for at, log in enumerate(receipt.logs):
        if log.address.hex() == contract[2:].lower() and read_event(log) == (origin_topic(origin), head):
            return at
    raise ChainError("the receipt holds no event of this anchor")


def _nodes(nodes: Sequence[bytes]) -> list[str]:
    return [_b64(node) for node in nodes]


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
