"""Follows the events of a contract, block by final block, and hands each over once it is proved.

Near the end of the chain every block is read, each following from the one before, and its bloom filter says whether
the contract has written anything: so no answer of a node that is behind, or leaves logs out, passes a block over. What
is far behind is asked for by ranges. A block counts when the source's rule says that it is final; when a block that
counted is not the chain's any more, the source stops until people look.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from countermark.chain import HASH_BYTES, ChainError, RefusedError, Rpc, data, header_of, keccak, quantity
from countermark.model.errors import CountermarkError, StoreError
from countermark.net import LostError
from countermark.workflow.chain_events import Block, ChainSource, block_of, topic_of

RANGE_BLOCKS_MAX = 1_000  # asked for at once, where blocks are far behind
NEAR_BLOCKS = 64  # read one by one
LOGS_MAX = 10_000
POLL_S = 2.0
BACKOFF_S_MAX = 60.0
FILE_BYTES_MAX = 4_096

Deliver = Callable[[Mapping[str, Any]], Any]

log = logging.getLogger("countermark.workflow")


class ReplacedError(CountermarkError):
    """A block that was final by the source's rule is not the chain's any more."""

    code = "chain_replaced"


@dataclass(frozen=True, slots=True)
class Position:
    """The last block that was read to its end; ``hash`` is ``""`` where nothing was read yet."""

    number: int
    hash: str


class PositionFile:
    """Remembers how far a source was read. It is a cache: without it what was recorded says where to begin again.

    ``lane`` is that of the log: after a restore, what was read before may not be recorded any more.
    """

    def __init__(self, path: Path, source: ChainSource, lane: str = "") -> None:
        self._path = path
        self._of = {
            "lane": lane,
            "chain_id": source.chain_id,
            "contract": source.contract,
            "signature": source.signature,
        }

    def load(self) -> Position | None:
        """None when there is no file, or none about this source."""
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(FILE_BYTES_MAX))
            if type(found) is not dict or {name: found.get(name) for name in self._of} != self._of:
                return None
            number, hash_ = found.get("number"), found.get("hash")
        except (OSError, ValueError, RecursionError):
            return None
        return Position(number, hash_) if type(number) is int and type(hash_) is str else None

    def save(self, at: Position) -> None:
        """Replace the file in one step. Raises ``StoreError``."""
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                json.dump({**self._of, "number": at.number, "hash": at.hash}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            raise StoreError(f"the position of a chain's source cannot be written: {error.strerror}") from None


class ChainWatcher:
    """One source. ``deliver`` makes an event durable, once however often it is called, or raises.

    ``recorded`` says from where to read again when there is no file: before the block of the newest recorded event.
    """

    def __init__(
        self, source: ChainSource, rpc: Rpc, file: PositionFile, deliver: Deliver,
        recorded: Callable[[], Position | None] = lambda: None,
    ) -> None:  # fmt: skip
        self._source = source
        self._rpc = rpc
        self._file = file
        self._deliver = deliver
        self._recorded = recorded
        self._at: Position | None = None
        self._span = RANGE_BLOCKS_MAX
        self.fault = ""  # the code of what stands in the way now

    @property
    def name(self) -> str:
        """The source's name."""
        return self._source.name

    def close(self) -> None:
        """Let go of the node; ``run`` has ended."""
        self._rpc.close()

    def run(self, stop: Event, poll_s: float = POLL_S) -> None:
        """Follow the chain until told to stop, or until a final block is replaced."""
        wait_s = 0.0
        while not stop.wait(wait_s):
            try:
                wait_s = 0.0 if self.turn() else poll_s
                self.fault = ""
            except ReplacedError as error:
                self.fault = error.code
                log.error("the source %s is not followed any more: %s", self._source.name, error)
                return
            except CountermarkError as error:
                if error.code != self.fault:
                    log.warning("the source %s: %s", self._source.name, error)
                self.fault = error.code
                wait_s = min(max(2 * wait_s, poll_s), BACKOFF_S_MAX)

    def turn(self) -> bool:
        """Read what is final now, a bounded part of it; whether there is more.

        Raises:
            ReplacedError: a block that was read is not the chain's any more.
            CountermarkError: the node does not answer, or the gate does not take it: the same is done again later.
        """
        self._rpc.check_chain()
        final = self._final()
        if final < 0:
            return False
        at = self._at or self._begin(final)
        self._check(at)
        if final - at.number > NEAR_BLOCKS:
            at = self._far(at, min(final - NEAR_BLOCKS, at.number + self._span))
        else:
            for number in range(at.number + 1, final + 1):
                at = self._near(at, number)
        if at != self._at:
            self._file.save(at)
            self._at = at
        return at.number < final

    def _begin(self, final: int) -> Position:
        known = self._file.load() or self._recorded()
        if known is not None:
            return known
        start = self._source.start
        return self._position(final) if start is None else Position(start - 1, "")

    def _final(self) -> int:
        """The highest block that is final by the source's rule; -1 while there is none."""
        rule = self._source.final
        if rule in ("safe", "finalized"):
            block = self._rpc.block(str(rule))
            return -1 if block is None else quantity(block.get("number"))
        latest = quantity(self._rpc.call("eth_blockNumber"))
        return latest - rule + 1 if type(rule) is int else latest

    def _check(self, at: Position) -> None:
        if at.hash and self._position(at.number).hash != at.hash:
            raise ReplacedError(
                f"block {at.number} was final when it was read, and is another one now",
                hint="Compare the node with others. Its runs were started; delete the source's position to go on.",
            )

    def _position(self, number: int) -> Position:
        return Position(number, _hash(self._block(number)))

    def _block(self, number: int) -> Mapping[str, Any]:
        block = self._rpc.block(hex(number))
        if block is None:
            raise LostError("the node does not have a block that is final; it is behind")
        return block

    def _near(self, at: Position, number: int) -> Position:
        """Read one block, which follows from the one before."""
        block = self._block(number)
        header = header_of(self._rpc.chain_id, block)
        if header.number != number or (at.hash and "0x" + header.parent.hex() != at.hash):
            raise LostError("the node shows blocks that do not follow from each other")
        if self._may_hold(block):
            self._hand_over(Block(self._rpc, block))
        return Position(number, _hash(block))

    def _may_hold(self, block: Mapping[str, Any]) -> bool:
        """Whether the bloom filter of a block's logs (Yellow Paper 4.3.1), which its hash covers, leaves it open."""
        bloom = int.from_bytes(data(block.get("logsBloom"), 256), "big")
        contract = bytes.fromhex(self._source.contract[2:])
        return all(bloom & bits == bits for bits in map(_bloom, (contract, topic_of(self._source.signature))))

    def _far(self, at: Position, upto: int) -> Position:
        """Read a range of blocks that are long final; where a node finds it too long, a shorter one the next time."""
        asked = {
            "fromBlock": hex(at.number + 1), "toBlock": hex(upto), "address": self._source.contract,
            "topics": ["0x" + topic_of(self._source.signature).hex()],
        }  # fmt: skip
        try:
            found = self._rpc.call("eth_getLogs", asked)
        except RefusedError:
            if self._span == 1:
                raise
            self._span = max(1, self._span // 4)
            return at
        self._span = min(RANGE_BLOCKS_MAX, 2 * self._span)
        for number, hash_ in _blocks_of(found):
            if not at.number < number <= upto or self._position(number).hash != hash_:
                raise LostError("the node lists logs of a block that is not the chain's")
            self._hand_over(block_of(self._rpc, hash_))
        return self._position(upto)

    def _hand_over(self, block: Block) -> None:
        for index, place in block.logs_of(self._source):
            self._deliver(block.body_of(self._source, index, place))


def _bloom(value: bytes) -> int:
    """The bits that a value sets: at most three."""
    raw, bits = keccak(value), 0
    for place in (0, 2, 4):
        bits |= 1 << (int.from_bytes(raw[place : place + 2], "big") & 2_047)
    return bits


def _hash(block: Mapping[str, Any]) -> str:
    return "0x" + data(block.get("hash"), HASH_BYTES).hex()


def _blocks_of(found: object) -> list[tuple[int, str]]:
    """The blocks in which a node lists logs, in their order."""
    if type(found) is not list or len(found) > LOGS_MAX or any(type(one) is not dict for one in found):
        raise ChainError("a node's logs are no list, or too many")
    return sorted({(quantity(one.get("blockNumber")), _hash({"hash": one.get("blockHash")})) for one in found})
