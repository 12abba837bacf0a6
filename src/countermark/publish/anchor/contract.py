"""The anchor contract as its callers see it: code as it was compiled, calls, the state of one log, the event.

``Anchor.vy`` is the source; ``Anchor.bin`` and ``Anchor.runtime.bin`` are what Vyper 0.4.3 makes of it for the EVM
version cancun, and a test compiles again and compares. Every argument is one word of 32 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from countermark.chain import ChainError, Log, Rpc, checksummed, data, keccak
from countermark.model.errors import ConfigError

WORD = 32
NO_ROOT = bytes(WORD)
EVENT = "Anchored(bytes32,uint64,uint64,bytes32,bytes32)"

_ANCHOR = "anchor(bytes32,uint64,uint64,bytes32,bytes32)"
_HEADS = "heads(bytes32)"
_OWNER = "owner()"
_UINT64_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Anchored:
    """One head on the chain. ``previous`` is the root of the one before; zeros for the first, whose sequence is 1."""

    sequence: int
    size: int
    root: bytes
    previous: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """What the contract holds of a log: sequence, size and root of its last head; zeros when it has none."""

    sequence: int
    size: int
    root: bytes


def creation_code() -> bytes:
    """What a transaction without a receiver carries to make the contract."""
    return _code("Anchor.bin")


def runtime_code() -> bytes:
    """What stands at the contract's address."""
    return _code("Anchor.runtime.bin")


def origin_topic(origin: str) -> bytes:
    """A log's name on the chain: Keccak-256 of the first line of its checkpoints."""
    return keccak(origin.encode("utf-8"))


def event_topic() -> bytes:
    """The first topic of the event: Keccak-256 of its signature."""
    return keccak(EVENT.encode("ascii"))


def anchor_call(origin: str, head: Anchored) -> bytes:
    """The data of a transaction that anchors a head."""
    words = (origin_topic(origin), _number(head.sequence), _number(head.size), head.root, head.previous)
    return _selector(_ANCHOR) + b"".join(words)


def read_event(log: Log) -> tuple[bytes, Anchored]:
    """Origin and head of an event of the contract. Raises ``ChainError`` when it is another event."""
    if len(log.topics) != 3 or log.topics[0] != event_topic() or len(log.data) != 3 * WORD:
        raise ChainError("a log is not the event of an anchor")
    size, root, previous = (log.data[at : at + WORD] for at in range(0, 3 * WORD, WORD))
    return log.topics[1], Anchored(_uint64(log.topics[2]), _uint64(size), root, previous)


def standing(rpc: Rpc, contract: str, origin: str) -> Standing:
    """What the contract holds of a log now. Raises ``CountermarkError``."""
    raw = _ask(rpc, contract, _selector(_HEADS) + origin_topic(origin), 3 * WORD)
    return Standing(_uint64(raw[:WORD]), _uint64(raw[WORD : 2 * WORD]), raw[2 * WORD :])


def owner(rpc: Rpc, contract: str) -> str:
    """Whose anchors the contract takes. Raises ``CountermarkError``."""
    raw = _ask(rpc, contract, _selector(_OWNER), WORD)
    if any(raw[:12]):
        raise ChainError("the contract's owner is no address")
    return checksummed(raw[12:])


def check_code(rpc: Rpc, contract: str) -> None:
    """Whether exactly this contract stands at the address. Raises ``ConfigError``, or what asking raises."""
    if data(rpc.call("eth_getCode", contract, "latest")) != runtime_code():
        raise ConfigError(
            f"at {contract} stands no anchor contract of this version", code="not_the_contract",
            hint="Check chain and address, or deploy one: `countermark anchor deploy`.",
        )  # fmt: skip


def _ask(rpc: Rpc, contract: str, call: bytes, size: int) -> bytes:
    return data(rpc.call("eth_call", {"to": contract, "data": "0x" + call.hex()}, "latest"), size)


def _code(name: str) -> bytes:
    return bytes.fromhex((Path(__file__).parent / name).read_text("ascii").strip()[2:])


def _selector(signature: str) -> bytes:
    return keccak(signature.encode("ascii"))[:4]


def _number(value: int) -> bytes:
    if not 0 <= value <= _UINT64_MAX:
        raise ChainError("a number of an anchor does not fit 64 bits")
    return value.to_bytes(WORD, "big")


def _uint64(word: bytes) -> int:
    value = int.from_bytes(word, "big")
    if value > _UINT64_MAX:
        raise ChainError("a number of an anchor does not fit 64 bits")
    return value
