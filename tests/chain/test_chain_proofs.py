"""Receipt proofs: made from a block's receipts, checked against the header's root."""

from __future__ import annotations

from typing import Any

import pytest
from anvil_support import ADDRESSES, anvil, needs_anvil

from countermark.chain import (
    ChainError,
    check_proof,
    data,
    header_of,
    parse_receipt,
    prove,
    quantity,
    receipt_bytes,
    rlp_encode,
    trie_root,
)  # fmt: skip


def _receipt(number: int, status: str = "0x1") -> dict[str, Any]:
    log = {"address": "0x" + "ab" * 20, "topics": ["0x" + "01" * 32], "data": "0x" + f"{number:064x}"}
    return {
        "type": "0x2", "status": status, "cumulativeGasUsed": hex(21_000 * (number + 1)),
        "logsBloom": "0x" + "00" * 256, "logs": [log],
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 17, 130])
def test_each_receipt_of_a_block_is_proved(count: int) -> None:
    """The proof leads from the root to exactly the receipt's bytes, whatever the size of the block."""
    entries = [receipt_bytes(_receipt(number)) for number in range(count)]
    for index in {0, count // 2, count - 1}:
        root, nodes = prove(entries, index)
        assert root == trie_root(entries)
        assert check_proof(root, index, nodes) == entries[index]


def test_a_proof_is_of_its_index_and_root_alone() -> None:
    """Another index, another root, a changed, a missing or a strange node: nothing is proved."""
    entries = [receipt_bytes(_receipt(number)) for number in range(20)]
    root, nodes = prove(entries, 5)
    wrong = [
        (root, 6, nodes), (root, 21, nodes), (bytes(32), 5, nodes), (root, 5, nodes[:-1]), (root, 5, ()),
        (root, 5, (*nodes[:-1], nodes[-1][:-1] + bytes([nodes[-1][-1] ^ 1]))), (root, 5, (b"\xc0",)),
        (root, 5, (rlp_encode([b"", b""]),)), (root, 5, tuple(nodes) * 9), (b"", 5, nodes),
    ]  # fmt: skip
    for bad_root, index, bad_nodes in wrong:
        with pytest.raises(ChainError):
            check_proof(bad_root, index, bad_nodes)
    with pytest.raises(ChainError):
        prove(entries, 20)


def test_a_receipt_is_read_as_it_was_written() -> None:
    """Type, status, gas and logs come back; an old receipt has no type byte."""
    read = parse_receipt(receipt_bytes(_receipt(3)))
    assert (read.type, read.succeeded, read.gas_used, len(read.logs)) == (2, True, 84_000, 1)
    assert read.logs[0].address == b"\xab" * 20
    old = parse_receipt(receipt_bytes({**_receipt(0, "0x0"), "type": "0x0"}))
    assert (old.type, old.succeeded) == (0, False)


@pytest.mark.parametrize(
    "change",
    [
        {"status": None}, {"status": "0x2"}, {"type": "0x80"}, {"logs": None}, {"logs": [{}]}, {"logs": ["x"]},
        {"logsBloom": "0x00"}, {"cumulativeGasUsed": 7},
        {"logs": [{"address": "0x" + "ab" * 20, "topics": ["0x" + "01" * 32] * 5, "data": "0x"}]},
    ],
)  # fmt: skip
def test_a_nodes_ill_formed_receipt_is_refused(change: dict[str, Any]) -> None:
    """Nothing that a node may answer becomes a receipt unless it has exactly the form of one."""
    with pytest.raises(ChainError):
        receipt_bytes({**_receipt(0), **change})


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\x02\xc0", b"\xc4\x01\x80\x80\xc0", b"\x02\xff", bytes(64)])
def test_bytes_that_are_no_receipt_are_refused(raw: bytes) -> None:
    """A receipt that leaves its form raises this project's own error."""
    with pytest.raises(ChainError):
        parse_receipt(raw)


@needs_anvil
@pytest.mark.slow
def test_a_real_blocks_header_receipts_and_transactions_are_as_its_hash_says() -> None:
    """On a real EVM with five transactions in a block: header hash, both roots, the proof of each receipt."""
    with anvil("--no-mining") as node:
        sent = [
            node.ask("eth_sendTransaction", {"from": ADDRESSES[0], "to": ADDRESSES[1], "value": hex(amount)})
            for amount in range(1, 6)
        ]
        node.mine()
        block = node.ask("eth_getBlockByNumber", "latest", False)
        header = header_of(43_112, block)
        assert set(block["transactions"]) == set(sent)
        receipts = [node.ask("eth_getTransactionReceipt", tx) for tx in block["transactions"]]
        entries = [receipt_bytes(receipt) for receipt in receipts]
        for receipt, entry in zip(receipts, entries, strict=True):
            index = quantity(receipt["transactionIndex"])
            root, nodes = prove(entries, index)
            assert root == header.receipts_root
            assert check_proof(header.receipts_root, index, nodes) == entry
        raws = [data(node.ask("eth_getRawTransactionByHash", tx)) for tx in block["transactions"]]
        assert trie_root(raws) == header.transactions_root
