"""What chains of the EVM family share: Keccak-256, RLP, and the two forms in which a node writes numbers and bytes.

The libraries belong to the extra ``evm`` and are imported when something is computed, so that the room itself is light.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from countermark.model.errors import ConfigError, CountermarkError
from countermark.model.keccak import keccak as keccak

HASH_BYTES = 32
ADDRESS_BYTES = 20
DATA_BYTES_MAX = 1 << 20
RLP_ITEMS_MAX = 4_096
QUANTITY_BITS_MAX = 256

Rlp: TypeAlias = "bytes | Sequence[Rlp]"

_QUANTITY = re.compile(r"0x(0|[1-9a-f][0-9a-f]{0,63})")
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


class ChainError(CountermarkError):
    """A node's answer, or something built from it, is not what the chain's rules ask for."""

    code = "bad_chain_answer"


def rlp_encode(item: Rlp) -> bytes:
    """Recursive Length Prefix (Ethereum Yellow Paper, appendix B) of bytes and lists of them."""
    try:
        import rlp
    except ImportError:
        raise ConfigError("the extra evm is not installed", hint="Install countermark[evm].") from None
    return bytes(rlp.encode(item))


def rlp_decode(raw: bytes) -> Any:
    """Bytes, or a list, of exactly one RLP item in its one form. Raises ``ChainError``."""
    try:
        import rlp
    except ImportError:
        raise ConfigError("the extra evm is not installed", hint="Install countermark[evm].") from None
    if len(raw) > DATA_BYTES_MAX:
        raise ChainError(f"an RLP item is longer than {DATA_BYTES_MAX} bytes")
    try:
        return rlp.decode(raw, strict=True)
    except (rlp.exceptions.RLPException, RecursionError, ValueError, IndexError, TypeError):
        raise ChainError("not one RLP item in its one form") from None


def quantity(value: object) -> int:
    """A number as JSON-RPC writes it: ``0x`` and hex digits without leading zeros. Raises ``ChainError``."""
    if type(value) is not str or _QUANTITY.fullmatch(value) is None:
        raise ChainError("a node's number is not 0x and hex digits")
    return int(value, 16)


def data(value: object, size: int | None = None) -> bytes:
    """Bytes as JSON-RPC writes them; ``size`` is how many there have to be. Raises ``ChainError``."""
    if type(value) is not str or len(value) > 2 + 2 * DATA_BYTES_MAX or _DATA.fullmatch(value) is None:
        raise ChainError("a node's bytes are not 0x and pairs of hex digits")
    raw = bytes.fromhex(value[2:])
    if size is not None and len(raw) != size:
        raise ChainError(f"a node's answer has {len(raw)} bytes where there are {size}")
    return raw


def integer_bytes(value: int) -> bytes:
    """A number as RLP holds it: big-endian, the shortest, nothing for zero."""
    if value < 0 or value.bit_length() > QUANTITY_BITS_MAX:
        raise ChainError("a number is negative or has more than 256 bits")
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def integer_of(raw: bytes) -> int:
    """A number from RLP. Raises ``ChainError`` for one that is not in its shortest form."""
    if type(raw) is not bytes or len(raw) > HASH_BYTES or raw[:1] == b"\0":
        raise ChainError("a number is not in its shortest form")
    return int.from_bytes(raw, "big")
