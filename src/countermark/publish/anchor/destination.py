"""Heads on a chain: one at a time, at most every so often, recorded when the chain holds them for final.

Nothing here is remembered but the pending file; what was anchored is asked of the contract each time. So a process may
die anywhere: the next one finds the pending transaction by its nonce and its hash, or sees in the contract that there
is none, and the contract's sequence keeps one head from being anchored twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from countermark.chain import (
    AVALANCHE_CHAINS,
    HASH_BYTES,
    ChainError,
    RefusedError,
    Rpc,
    Signed,
    Signer,
    SignerSource,
    Transaction,
    data,
    quantity,
)
from countermark.model.clock import US
from countermark.model.crash import crash_point
from countermark.model.errors import ConfigError, CountermarkError, StoreError
from countermark.model.ports import Clock, Head
from countermark.net import LostError, NotSentError
from countermark.publish.anchor.capture import capture, is_body
from countermark.publish.anchor.contract import Anchored, Standing, anchor_call, check_code, owner, standing
from countermark.publish.anchor.pending import Pending, PendingFile
from countermark.publish.anchor.sending import GAS_MAX, GWEI, Fees, checked_signer, higher, plan, send

KIND = "anchor.published"
ACCEPTED = "accepted"
FINALIZED = "finalized"
DEPTH_MAX = 10_000
FEES = Fees(200 * GWEI, 2 * GWEI)

log = logging.getLogger("countermark.anchor")


class BehindAnchorError(CountermarkError):
    """The contract holds a head that is not one of this log: more was anchored, or another history."""

    code = "behind_anchor"


class LogFacts(Protocol):
    """What an anchor needs to know of the log. Each call may come from another thread."""

    def size(self) -> int:
        """How many records are committed."""
        ...

    def root_at(self, size: int) -> bytes:
        """The root of the first ``size`` records."""
        ...

    def recorded(self, sequence: int, since: int) -> bool:
        """Whether a record from seq ``since`` on tells of the anchor with this sequence number."""
        ...


@dataclass(frozen=True, slots=True)
class AnchorSettings:
    """Which contract, how often, at what cost, and when a block is final there.

    ``final`` is ``accepted`` (a block that is shown is final, as on Avalanche), ``finalized`` (the chain marks its
    final blocks) or a number of blocks on top.
    """

    chain_id: int
    contract: str
    origin: str
    final: str | int = ACCEPTED
    every_s: int = 3_600
    fees: Fees = FEES
    poll_ms: int = 1_000
    bump_ms: int = 30_000  # without a place in a block, before the fee is raised
    wait_ms: int = 60_000  # in one go; afterwards the gate asks again


def final_by_default(chain_id: int) -> str:
    """What finality means on a chain when the configuration does not say it."""
    return ACCEPTED if chain_id in AVALANCHE_CHAINS else FINALIZED


class ChainAnchor:
    """A ``Destination``: the anchor contract on one chain."""

    name = "anchor"

    def __init__(
        self, settings: AnchorSettings, rpc: Rpc, signer: SignerSource, facts: LogFacts, file: PendingFile,
        clock: Clock,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._rpc = rpc
        self._signer = signer
        self._facts = facts
        self._file = file
        self._clock = clock
        self._end = threading.Event()
        self._recorded = 0  # the newest sequence number that is known to stand in the log

    def check(self) -> None:
        """Refuse to open a gate whose log the contract has seen more of, or another history of.

        A node that does not answer keeps no gate shut: the same is asked again before each anchor.
        """
        try:
            self._rpc.check_chain()
            self.compare(standing(self._rpc, self.settings.contract, self.settings.origin))
        except (NotSentError, LostError, RefusedError, ChainError) as error:
            if isinstance(error, NotSentError) and error.reason == "wrong_chain":
                raise ConfigError(error.message, code="wrong_chain") from None
            log.warning("the anchor contract could not be asked: %s", error)

    def compare(self, found: Standing) -> None:
        """Whether what the contract holds is a head of this log. Raises ``BehindAnchorError``."""
        if found.sequence == 0:
            return
        size = self._facts.size()
        if found.size > size:
            raise BehindAnchorError(
                f"the anchor contract holds a head of {found.size} records, this log has {size}",
                hint="An older copy was put back, the end was cut off, or somebody else holds the owner's key.",
            )
        if self._facts.root_at(found.size) != found.root:
            raise BehindAnchorError(
                f"the anchor contract holds another head of {found.size} records than this log", code="anchor_fork",
                hint="This log is not the one that was anchored, or somebody else holds the owner's key.",
            )  # fmt: skip

    def due(self, head: Head, busy: bool, now_us: int) -> bool:
        """When something is under way, and otherwise every ``every_s`` when there is something new."""
        pending = self._mine(self._file.read())
        if pending is None:
            return busy
        if not self._is_recorded(pending):
            return True
        waits = 0 <= now_us - pending.began < self.settings.every_s * US  # a time to come was a wrong clock's
        return busy and head.size > pending.size and not waits

    def publish(self, head: Head) -> tuple[str, Mapping[str, Any]] | None:
        """Go on with the anchor under way, else begin one of this head; its record once it is final.

        Raises ``ChainError`` with the code ``anchor_pending`` when it is not final yet, or what failed.
        """
        with self._file.locked():
            pending = self._mine(self._file.read())
            if pending is None or self._is_recorded(pending):
                self._rpc.check_chain()
                pending = self._begin(head)
                if pending is None:
                    return None
            else:
                self._check_own(pending)
                if pending.body is None:
                    self._rpc.check_chain()
            return KIND, pending.body or self._settle(pending)

    def show(self) -> tuple[str, Standing]:
        """The contract's owner, and what it holds of this log. Raises ``BehindAnchorError`` for what is not ours."""
        self._rpc.check_chain()
        check_code(self._rpc, self.settings.contract)
        found = standing(self._rpc, self.settings.contract, self.settings.origin)
        self.compare(found)
        return owner(self._rpc, self.settings.contract), found

    def close(self) -> None:
        """Stop waiting, and let go of the connections."""
        self._end.set()
        self._rpc.close()

    def _mine(self, pending: Pending | None) -> Pending | None:
        """A pending anchor of this contract and log; one of another configuration is left to be forgotten."""
        here = (self.settings.chain_id, self.settings.contract, self.settings.origin)
        if pending is None or (pending.chain_id, pending.contract, pending.origin) != here:
            return None
        return pending

    def _check_own(self, pending: Pending) -> None:
        """Whether the head in the file is one of this log: the file is no place where somebody else says what is signed
        with the owner's key, nor at what price. Raises ``StoreError``.
        """
        one, body = self.settings, pending.body
        highest = max((fee for fee, _ in pending.attempts), default=0)
        right = 0 < pending.size <= self._facts.size() and self._facts.root_at(pending.size).hex() == pending.root
        if body is not None:
            right = right and is_body(body) and (body["size"], body["root"]) == (pending.size, pending.root)
        elif highest > one.fees.fee_max or not 0 < pending.gas <= GAS_MAX or not pending.attempts:
            right = False
        if not right:
            raise StoreError("the pending anchor is not one of this log, or costs more than is allowed",
                             hint="Delete its file: the contract knows what was anchored.")  # fmt: skip

    def _is_recorded(self, pending: Pending) -> bool:
        if pending.body is None:
            return False
        if self._recorded < pending.sequence and self._facts.recorded(pending.sequence, pending.size):
            self._recorded = pending.sequence
        return self._recorded >= pending.sequence

    def _begin(self, head: Head) -> Pending | None:
        """Plan, write down, send. None when the contract holds this head already."""
        one = self.settings
        check_code(self._rpc, one.contract)
        found = standing(self._rpc, one.contract, one.origin)
        self.compare(found)
        if found.size >= head.size:
            return None
        signer = checked_signer(self._signer, owner(self._rpc, one.contract))
        anchored = Anchored(found.sequence + 1, head.size, head.root, found.root)
        planned = plan(self._rpc, signer, one.contract, anchor_call(one.origin, anchored), one.fees)
        pending = Pending(
            one.chain_id, one.contract, one.origin, head.size, head.root.hex(), found.root.hex(), anchored.sequence,
            signer.address, planned.nonce, planned.gas, ((planned.fee_max, planned.tip_max),), self._clock.now_us(),
        )  # fmt: skip
        self._file.write(pending)
        crash_point("anchor.planned")
        send(self._rpc, signer.sign(planned))
        crash_point("anchor.sent")
        return pending

    def _settle(self, pending: Pending) -> Mapping[str, Any]:
        """Wait until it is final, and keep its evidence."""
        signer, clock = self._signer(), self._clock
        if signer.address != pending.sender:  # the owner's key has changed since: the contract says what is next
            self._file.forget()
            raise ChainError(
                "the key is another one now: the anchor begins anew", code="anchor_pending", retryable=True
            )
        end = clock.steady_us() + self.settings.wait_ms * 1000
        raise_at = clock.steady_us() + self.settings.bump_ms * 1000
        while True:
            signed, receipt = self._find(signer, pending)
            if signed is not None and receipt is not None:
                if self._final(receipt):
                    return self._keep(pending, signed, receipt)
            elif clock.steady_us() >= raise_at:
                pending = self._raise_fee(signer, pending)
                raise_at = clock.steady_us() + self.settings.bump_ms * 1000
            else:
                self._again(signer, pending)
            if clock.steady_us() >= end or self._end.wait(self.settings.poll_ms / 1000):
                raise ChainError("the anchor is sent and not final yet", code="anchor_pending", retryable=True)

    def _find(self, signer: Signer, pending: Pending) -> tuple[Signed | None, Mapping[str, Any] | None]:
        """The attempt that stands in a block, and its receipt."""
        for fee, tip in reversed(pending.attempts):
            signed = signer.sign(self._transaction(pending, fee, tip))
            receipt = self._rpc.receipt(signed.hash)
            if receipt is not None and receipt.get("blockHash") is not None:
                return signed, receipt
        return None, None

    def _transaction(self, pending: Pending, fee: int, tip: int) -> Transaction:
        anchored = Anchored(
            pending.sequence, pending.size, bytes.fromhex(pending.root), bytes.fromhex(pending.previous)
        )
        call = anchor_call(pending.origin, anchored)
        return Transaction(pending.chain_id, pending.nonce, pending.contract, 0, call, pending.gas, fee, tip)

    def _final(self, receipt: Mapping[str, Any]) -> bool:
        """Whether the block is one that stays, as this chain defines it."""
        number, block_hash = quantity(receipt.get("blockNumber")), data(receipt.get("blockHash"), HASH_BYTES)
        there = self._rpc.block(hex(number))
        if there is None or data(there.get("hash"), HASH_BYTES) != block_hash:
            return False  # it was in a block that no longer stands
        final = self.settings.final
        if final == ACCEPTED:
            return True
        newest = self._rpc.block(FINALIZED if final == FINALIZED else "latest")
        depth = 0 if type(final) is not int else final
        return newest is not None and quantity(newest.get("number")) >= number + depth

    def _keep(self, pending: Pending, signed: Signed, receipt: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the evidence while the node has it, and write it down before anybody is told."""
        one = self.settings
        anchored = Anchored(
            pending.sequence, pending.size, bytes.fromhex(pending.root), bytes.fromhex(pending.previous)
        )
        try:
            body = capture(self._rpc, one.contract, one.origin, anchored, signed.raw, receipt)
        except ChainError as error:
            if error.code == "anchor_refused":
                self._file.forget()  # the contract knows better what is next: begin anew
            raise
        self._file.write(replace(pending, body=body))
        crash_point("anchor.captured")
        return body

    def _again(self, signer: Signer, pending: Pending) -> None:
        """Nothing stands in a block: hand the newest attempt in again, unless its nonce went to something else."""
        if self._rpc.transactions_of(signer.address) > pending.nonce:
            if self._find(signer, pending)[1] is not None:
                return  # it has just come into a block
            self._file.forget()
            found = standing(self._rpc, self.settings.contract, self.settings.origin)
            self.compare(found)
            raise ChainError(
                f"the nonce {pending.nonce} went to another transaction: the anchor begins anew",
                code="anchor_pending", retryable=True,
            )  # fmt: skip
        try:
            send(self._rpc, signer.sign(self._transaction(pending, *pending.attempts[-1])))
        except RefusedError as error:  # at this fee, for one: it is raised when it has waited long enough
            log.info("the node does not take the anchor again: %s", error.said)

    def _raise_fee(self, signer: Signer, pending: Pending) -> Pending:
        """A replacement under the same nonce; the same again where that would cost more than is allowed."""
        found = higher(self._rpc, self._transaction(pending, *pending.attempts[-1]), self.settings.fees)
        if found is None:
            log.warning("the anchor is stuck: its fee is as high as the configuration allows")
            self._again(signer, pending)
            return pending
        pending = pending.also(found.fee_max, found.tip_max)
        self._file.write(pending)
        send(self._rpc, signer.sign(found))
        return pending
