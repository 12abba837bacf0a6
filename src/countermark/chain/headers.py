"""Block headers: from a node's answer to the RLP whose Keccak-256 is the block's hash.

The first fifteen fields are those of every chain of the family. What follows them depends on the chain: Avalanche's
C-Chain has fields of its own, and ``extDataHash``, which never fails there, tells the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark.chain.codec import (
    ADDRESS_BYTES,
    HASH_BYTES,
    ChainError,
    data,
    integer_bytes,
    integer_of,
    keccak,
    quantity,
    rlp_decode,
    rlp_encode,
)  # fmt: skip

AVALANCHE = "avalanche"
ETHEREUM = "ethereum"
# C-Chain of the main network and of the test network Fuji. A local network is of either kind: its blocks say which.
AVALANCHE_CHAINS = frozenset((43_114, 43_113))

HEADER_BYTES_MAX = 2_048
EXTRA_BYTES_MAX = 1_024  # Avalanche writes its fee window there; Ethereum allows 32 bytes

_NUMBER = 0
_FREE = -1
_BLOOM_BYTES = 256
_NONCE_BYTES = 8

# Name in a node's answer -> bytes of the field, _NUMBER for an integer, _FREE for bytes of any length.
_COMMON: Mapping[str, int] = {
    "parentHash": HASH_BYTES, "sha3Uncles": HASH_BYTES, "miner": ADDRESS_BYTES, "stateRoot": HASH_BYTES,
    "transactionsRoot": HASH_BYTES, "receiptsRoot": HASH_BYTES, "logsBloom": _BLOOM_BYTES, "difficulty": _NUMBER,
    "number": _NUMBER, "gasLimit": _NUMBER, "gasUsed": _NUMBER, "timestamp": _NUMBER, "extraData": _FREE,
    "mixHash": HASH_BYTES, "nonce": _NONCE_BYTES,
}  # fmt: skip
# Each list is optional from some field on: a chain that has not had an upgrade yet ends before its fields.
_FURTHER: Mapping[str, Mapping[str, int]] = {
    # coreth's customtypes.HeaderSerializable; golden hash in tests/chain/test_chain_headers.py.
    AVALANCHE: {
        "extDataHash": HASH_BYTES, "baseFeePerGas": _NUMBER, "extDataGasUsed": _NUMBER, "blockGasCost": _NUMBER,
        "blobGasUsed": _NUMBER, "excessBlobGas": _NUMBER, "parentBeaconBlockRoot": HASH_BYTES,
        "timestampMilliseconds": _NUMBER, "minDelayExcess": _NUMBER,
    },
    # EIP-1559, 4895, 4844, 4788, 7685.
    ETHEREUM: {
        "baseFeePerGas": _NUMBER, "withdrawalsRoot": HASH_BYTES, "blobGasUsed": _NUMBER, "excessBlobGas": _NUMBER,
        "parentBeaconBlockRoot": HASH_BYTES, "requestsHash": HASH_BYTES,
    },
}  # fmt: skip
_REQUIRED = {AVALANCHE: 1, ETHEREUM: 0}


@dataclass(frozen=True, slots=True)
class Header:
    """What an anchor or a payment needs of a block. ``time_s`` is the block's own time in seconds since 1970."""

    codec: str
    hash: bytes
    parent: bytes
    number: int
    time_s: int
    transactions_root: bytes
    receipts_root: bytes
    raw: bytes


def codec_of(chain_id: int, block: Mapping[str, Any]) -> str:
    """Which fields this chain's headers have. Raises ``ChainError`` when a known chain's block has others."""
    found = AVALANCHE if "extDataHash" in block else ETHEREUM
    if chain_id in AVALANCHE_CHAINS and found != AVALANCHE:
        raise ChainError(f"a block of chain {chain_id} has no extDataHash: the node is not of that chain")
    return found


def header_of(chain_id: int, block: Mapping[str, Any]) -> Header:
    """The header of a node's block, whose bytes hash to what the node says. Raises ``ChainError``."""
    codec = codec_of(chain_id, block)
    raw = encode_header(codec, block)
    header = parse_header(codec, raw)
    if header.hash != data(block.get("hash"), HASH_BYTES):
        raise ChainError("a block's header does not hash to the block's hash", hint="Fields that are not known here?")
    return header


def encode_header(codec: str, block: Mapping[str, Any]) -> bytes:
    """RLP of a block's header. Raises ``ChainError`` for a field that is missing or ill-formed."""
    fields = [_field(name, block.get(name), kind) for name, kind in _COMMON.items()]
    further = list(_FURTHER[codec].items())
    present = [block.get(name) is not None for name, _ in further]
    count = present.index(False) if False in present else len(present)
    if any(present[count:]) or count < _REQUIRED[codec]:
        raise ChainError("a block lacks a field in the middle of its header")
    fields += [_field(name, block[name], kind) for name, kind in further[:count]]
    raw = rlp_encode(fields)
    if len(raw) > HEADER_BYTES_MAX:
        raise ChainError(f"a header is longer than {HEADER_BYTES_MAX} bytes")
    return raw


def parse_header(codec: str, raw: bytes) -> Header:
    """Read a header's RLP, every field in its form. Raises ``ChainError``."""
    if len(raw) > HEADER_BYTES_MAX:
        raise ChainError(f"a header is longer than {HEADER_BYTES_MAX} bytes")
    fields = rlp_decode(raw)
    kinds = {**_COMMON, **_FURTHER[codec]}
    least = len(_COMMON) + _REQUIRED[codec]
    if type(fields) is not list or not least <= len(fields) <= len(kinds):
        raise ChainError("a header has too few or too many fields")
    values: dict[str, Any] = {}
    for (name, kind), field in zip(kinds.items(), fields, strict=False):
        values[name] = _parsed(name, field, kind)
    return Header(
        codec, keccak(raw), values["parentHash"], values["number"], values["timestamp"], values["transactionsRoot"],
        values["receiptsRoot"], raw,
    )  # fmt: skip


def _field(name: str, value: object, kind: int) -> bytes:
    try:
        if kind == _NUMBER:
            return integer_bytes(quantity(value))
        raw = data(value, None if kind == _FREE else kind)
    except ChainError as error:
        raise ChainError(f"a block's {name}: {error.message}") from None
    if len(raw) > EXTRA_BYTES_MAX:
        raise ChainError(f"a block's {name} is longer than {EXTRA_BYTES_MAX} bytes")
    return raw


def _parsed(name: str, field: object, kind: int) -> int | bytes:
    if type(field) is not bytes:
        raise ChainError(f"a header's {name} is a list")
    if kind == _NUMBER:
        return integer_of(field)
    if len(field) > EXTRA_BYTES_MAX if kind == _FREE else len(field) != kind:
        raise ChainError(f"a header's {name} has {len(field)} bytes")
    return field
