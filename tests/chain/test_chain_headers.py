"""Headers: the bytes that hash to a block's hash, by chain."""

from __future__ import annotations

from typing import Any

import pytest

from countermark.chain import AVALANCHE, ETHEREUM, ChainError, codec_of, encode_header, header_of, keccak, parse_header


def _field(first: int, size: int) -> str:
    return "0x" + (bytes([first]) + bytes(size - 1)).hex()


# The block of coreth's own test of its header codec: every field has another value.
GOLDEN: dict[str, Any] = {
    "parentHash": _field(1, 32), "sha3Uncles": _field(2, 32), "miner": _field(3, 20), "stateRoot": _field(4, 32),
    "transactionsRoot": _field(5, 32), "receiptsRoot": _field(6, 32), "logsBloom": _field(7, 256),
    "difficulty": "0x8", "number": "0x9", "gasLimit": "0xa", "gasUsed": "0xb", "timestamp": "0xc", "extraData": "0x0d",
    "mixHash": _field(14, 32), "nonce": _field(15, 8), "extDataHash": _field(21, 32), "baseFeePerGas": "0x10",
    "extDataGasUsed": "0x16", "blockGasCost": "0x17", "blobGasUsed": "0x12", "excessBlobGas": "0x13",
    "parentBeaconBlockRoot": _field(20, 32), "timestampMilliseconds": "0x18", "minDelayExcess": "0x19",
    "hash": "0xbe13d7b6f1242dd87477eee76a46f9fa58311bf459e0d49cac6862b187b3fe9c",
}  # fmt: skip
# Ethereum's first block, which everybody knows.
GENESIS: dict[str, Any] = {
    "parentHash": _field(0, 32), "miner": _field(0, 20), "logsBloom": _field(0, 256), "difficulty": "0x400000000",
    "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
    "stateRoot": "0xd7f8974fb5ac78d9ac099b9ad5018bedc2ce0a72dad1827a1709da30580f0544",
    "transactionsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
    "receiptsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
    "number": "0x0", "gasLimit": "0x1388", "gasUsed": "0x0", "timestamp": "0x0", "mixHash": _field(0, 32),
    "extraData": "0x11bbe8db4e347b4e8c937c1c8370e4b5ed33adb3db69cbdb7a38e1e50b1b82fa", "nonce": "0x0000000000000042",
    "hash": "0xd4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3",
}  # fmt: skip


def test_avalanches_header_hashes_to_the_golden_hash() -> None:
    """All 24 fields of an Avalanche header, in its order, give the hash that Avalanche's own node gives."""
    header = header_of(43_114, GOLDEN)
    assert (header.codec, header.number, header.time_s) == (AVALANCHE, 9, 12)
    assert header.receipts_root == bytes([6]) + bytes(31)
    assert parse_header(AVALANCHE, header.raw) == header


def test_ethereums_first_block_hashes_to_its_hash() -> None:
    """A header from before every upgrade has fifteen fields."""
    header = header_of(1, GENESIS)
    assert (header.codec, header.number) == (ETHEREUM, 0)
    assert keccak(header.raw).hex() == GENESIS["hash"][2:]


@pytest.mark.parametrize("name", sorted(set(GOLDEN) - {"hash", "extDataHash"}))
def test_every_field_of_a_header_counts(name: str) -> None:
    """Whatever field a node changes or leaves out, the block is refused."""
    changed = GOLDEN[name][:-1] + ("1" if GOLDEN[name][-1] != "1" else "2")
    with pytest.raises(ChainError):
        header_of(43_114, {**GOLDEN, name: changed})
    with pytest.raises(ChainError):
        header_of(43_114, {key: value for key, value in GOLDEN.items() if key != name})


def test_a_known_chain_has_its_own_codec() -> None:
    """A block without Avalanche's field is no block of Avalanche's networks; a local network may be of either kind."""
    assert codec_of(43_112, GENESIS) == ETHEREUM
    assert codec_of(43_112, GOLDEN) == AVALANCHE
    with pytest.raises(ChainError, match="not of that chain"):
        codec_of(43_114, GENESIS)


@pytest.mark.parametrize(
    "raw", [b"", b"\x80", b"\xc0", b"\xf9\xff\xff", bytes(3_000), b"\xc1" * 600, b"\xd0" + b"\xc0" * 16]
)
def test_what_is_no_header_is_refused(raw: bytes) -> None:
    """Bytes that are no list of fields, that end early or nest, raise this project's own error."""
    with pytest.raises(ChainError):
        parse_header(ETHEREUM, raw)


@pytest.mark.parametrize("value", [None, 7, "7", "0x", "0x07", "0xZZ", "0X7", "-0x1", "0x1" + "0" * 64])
def test_a_number_in_another_form_is_refused(value: object) -> None:
    """A node's number has one form."""
    with pytest.raises(ChainError, match="number"):
        encode_header(ETHEREUM, {**GENESIS, "number": value})
