"""Events of a contract: what a signature declares, and what a log proves and says.

A log is read out of its receipt, which is proved under the block's header; a node's word counts for nothing but for
which block is the chain's. Needs the extra ``evm``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from countermark.chain import (
    HASH_BYTES,
    ChainError,
    Header,
    Log,
    Rpc,
    check_proof,
    data,
    header_of,
    keccak,
    parse_receipt,
    prove,
    receipt_bytes,
    trie_root,
)
from countermark.model.canon import canon
from countermark.model.digest import EVENT, digest
from countermark.model.errors import ConfigError
from countermark.workflow.sources import KEY_CHARS_MAX
from countermark.workflow.triggers import RECEIPT, RECEIPT_CHECKED

EVENT_BYTES_MAX = 40_000  # of payload and evidence together
SIGNATURE_CHARS_MAX = 500
PARAMETERS_MAX = 16
INDEXED_MAX = 3  # the first topic is the signature's
TEXT_BYTES_MAX = 900
INTEGER_BITS_MAX = 48
WORD = 32

_SIGNATURE = re.compile(r"([A-Za-z_$][A-Za-z0-9_$]{0,63})\((.*)\)")
_PARAMETER = re.compile(r"([a-z0-9]{1,8})( indexed)? ([A-Za-z_][A-Za-z0-9_]{0,39})")
_SIZED = re.compile(r"(u?int|bytes)([1-9][0-9]{0,2})")
TYPES = "Known: address, bool, uintN, intN, bytesN, bytes, string."
_OWN = ("contract", "block", "transaction")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value that an event carries."""

    name: str
    type: str
    indexed: bool

    @property
    def dynamic(self) -> bool:
        """Whether the value has no fixed length."""
        return self.type in ("string", "bytes")


@dataclass(frozen=True, slots=True)
class ChainSource:
    """Events of one contract on one chain. ``signature`` is as in Solidity, with the names of the parameters.

    ``final`` is ``accepted``, ``safe``, ``finalized`` or a number of blocks; ``key`` the name of a parameter or
    ``""``; ``start`` the first block that is looked at, None for the one that is final when it is first watched.
    """

    name: str
    chain_id: int
    contract: str
    signature: str
    final: str | int
    key: str = ""
    start: int | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return read_signature(self.signature)[1]


def read_signature(text: str) -> tuple[str, tuple[Parameter, ...]]:
    """The event's name with its types (``Transfer(address,address,uint256)``) and its parameters.

    Raises ``ConfigError``.
    """
    found = _SIGNATURE.fullmatch(text) if len(text) <= SIGNATURE_CHARS_MAX else None
    parts = [] if found is None or not found[2] else found[2].split(", ")
    read = [_PARAMETER.fullmatch(part) for part in parts]
    if found is None or None in read or len(read) > PARAMETERS_MAX:
        raise ConfigError(
            "an event is declared with types and names",
            hint="For instance: Transfer(address indexed from, address indexed to, uint256 value)",
        )
    parameters = tuple(Parameter(one[3], one[1], one[2] is not None) for one in read if one is not None)
    for one in parameters:
        if not _known(one.type):
            raise ConfigError(f"the type {one.type} is not read here", hint=TYPES)
    names = [one.name for one in parameters]
    if len(set(names)) != len(names) or set(names) & set(_OWN) or sum(one.indexed for one in parameters) > INDEXED_MAX:
        raise ConfigError(
            f"an event's parameters have different names, none of {', '.join(_OWN)}, and at most three are indexed"
        )
    return f"{found[1]}({','.join(one.type for one in parameters)})", parameters


@lru_cache(maxsize=64)
def topic_of(signature: str) -> bytes:
    """The first topic of the events with this signature."""
    return keccak(read_signature(signature)[0].encode("ascii"))


def values_of(parameters: Sequence[Parameter], log: Log) -> dict[str, Any]:
    """What a log says, by name, as a payload has it (contract ABI). Raises ``ChainError``."""
    topics = list(log.topics[1:])
    plain = [one for one in parameters if not one.indexed]
    if len(topics) != sum(one.indexed for one in parameters) or len(log.data) < WORD * len(plain):
        raise ChainError("a log does not hold what its event declares")
    found: dict[str, Any] = {}
    place = 0
    for one in parameters:
        if one.indexed:
            word = topics.pop(0)
            found[one.name] = "0x" + word.hex() if one.dynamic else _value(one.type, word)
            continue
        word = log.data[place : place + WORD]
        found[one.name] = _tail(one.type, log.data, word) if one.dynamic else _value(one.type, word)
        place += WORD
    return found


class Block:
    """A block as a node shows it: its header, which hashes to its hash, and the proofs of its receipts."""

    def __init__(self, rpc: Rpc, block: Mapping[str, Any]) -> None:
        """Raises ``ChainError`` unless the receipts are those that the header commits to."""
        self.header: Header = header_of(rpc.chain_id, block)
        self._receipts = [receipt_bytes(one) for one in rpc.receipts(block)]
        if trie_root(self._receipts) != self.header.receipts_root:
            raise ChainError("a block's receipts do not give its header's root")

    def body_of(self, source: ChainSource, index: int, log_index: int) -> dict[str, Any]:
        """The body of ``event.received`` for one log of one transaction. Raises ``ChainError``."""
        root, nodes = prove(self._receipts, index)
        raw = check_proof(root, index, nodes)
        logs = parse_receipt(raw).logs
        if log_index >= len(logs) or not is_of(source, logs[log_index]):
            raise ChainError("a receipt does not hold the log that the node named")
        payload = {
            **_said(source, logs[log_index]), "contract": source.contract.lower(),
            "block": self.header.number, "transaction": index,
        }  # fmt: skip
        key = payload.get(source.key, "") if source.key else ""
        evidence = {
            "chain_id": source.chain_id, "contract": source.contract.lower(), "signature": source.signature,
            "header": _b64(self.header.raw), "receipt": _b64(raw), "proof": [_b64(node) for node in nodes],
            "index": index, "log_index": log_index, "number": self.header.number,
        }  # fmt: skip
        kept = len(canon([payload, evidence])) <= EVENT_BYTES_MAX
        if not kept:
            evidence.update(header=None, receipt=None, proof=None)
        return {
            "source": source.name, "event": f"{source.chain_id}:{self.header.hash.hex()}:{index}:{log_index}",
            "key": _key(key), "payload": payload, "digest": digest(EVENT, raw),
            "scheme": RECEIPT if kept else RECEIPT_CHECKED, "evidence": evidence,
        }  # fmt: skip

    def logs_of(self, source: ChainSource) -> list[tuple[int, int]]:
        """Transaction and place in its receipt of each log of the source in this block."""
        found = []
        for index, raw in enumerate(self._receipts):
            receipt = parse_receipt(raw)
            found += [(index, place) for place, log in enumerate(receipt.logs) if is_of(source, log)]
        return found


def block_of(rpc: Rpc, hash_: str) -> Block:
    """The block with this hash. Raises ``ChainError``, ``LostError`` and their like."""
    block = rpc.block(hash_)
    if block is None:
        raise ChainError("the node does not show a block that it named", retryable=True)
    found = Block(rpc, block)
    if found.header.hash != data(hash_, HASH_BYTES):
        raise ChainError("the node shows another block than it named")
    return found


def is_of(source: ChainSource, log: Log) -> bool:
    """Whether a log is the contract's, with the source's signature."""
    return log.address.hex() == source.contract[2:].lower() and log.topics[:1] == (topic_of(source.signature),)


def _said(source: ChainSource, log: Log) -> dict[str, Any]:
    """What a log says. One that does not hold what is declared says nothing: it must not stop those behind it."""
    try:
        return values_of(source.parameters, log)
    except ChainError:
        return {one.name: None for one in source.parameters}


def _known(kind: str) -> bool:
    if kind in ("address", "bool", "string", "bytes"):
        return True
    found = _SIZED.fullmatch(kind)
    if found is None:
        return False
    size = int(found[2])
    return size <= WORD if found[1] == "bytes" else size <= 256 and size % 8 == 0


def _value(kind: str, word: bytes) -> Any:
    if kind == "address":
        _zeros(word[:12])
        return "0x" + word[12:].hex()
    if kind == "bool":
        _zeros(word[:31] + bytes([word[31] >> 1]))
        return bool(word[31])
    if kind.startswith("bytes"):
        size = int(kind[5:])
        _zeros(word[size:])
        return "0x" + word[:size].hex()
    signed, bits = kind.startswith("int"), int(kind.removeprefix("u").removeprefix("int"))
    number = int.from_bytes(word, "big", signed=signed)
    if not (-(1 << bits - 1) <= number < 1 << bits - 1 if signed else number < 1 << bits):
        raise ChainError("a log holds a number that its type cannot hold")
    return number if bits <= INTEGER_BITS_MAX else str(number)


def _tail(kind: str, whole: bytes, word: bytes) -> str | None:
    """A value of no fixed length, at the offset that stands in its place; None for what a payload does not hold."""
    offset = int.from_bytes(word, "big")
    if offset + WORD > len(whole):
        raise ChainError("a log's value lies outside it")
    size = int.from_bytes(whole[offset : offset + WORD], "big")
    raw = whole[offset + WORD : offset + WORD + size]
    if len(raw) != size:
        raise ChainError("a log's value lies outside it")
    try:
        text = raw.decode("utf-8") if kind == "string" else "0x" + raw.hex()
    except UnicodeDecodeError:
        return None
    return text if len(text.encode("utf-8")) <= TEXT_BYTES_MAX else None


def _key(value: Any) -> str:
    text = value if type(value) is str else str(value) if type(value) is int else ""
    return text if len(text) <= KEY_CHARS_MAX and text.isprintable() else ""


def _zeros(part: bytes) -> None:
    if any(part):
        raise ChainError("a log holds bytes beside a value")


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
