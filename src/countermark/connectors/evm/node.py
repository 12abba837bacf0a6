"""A chain as one node shows it: what is final there, what a transaction would cost, and whether it would fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from countermark.chain import HASH_BYTES, ChainError, RefusedError, Rpc, data, header_of, quantity
from countermark.connectors.http_send import NotSentError
from countermark.model.onchain import NOTHING, Call

ACCEPTED, FINALIZED = "accepted", "finalized"
CONFIRMATIONS_MAX = 10_000
TIP_WEI = 10**9  # what is offered where a node suggests nothing
_TRUE = (1).to_bytes(32, "big")


class Mined(NamedTuple):
    """A transaction that stands in a block. ``final``: no rule of this chain lets the block be replaced any more."""

    hash: str
    block: str
    number: int
    final: bool


@dataclass(frozen=True, slots=True)
class Fees:
    """Wei for each unit of gas: at most, and of it to whoever makes the block."""

    fee_max: int
    tip_max: int


def cost_of(call: Call) -> int:
    """The most that a payment takes from its account, in wei."""
    return call.value + call.gas_max * call.fee_max


@dataclass(frozen=True, slots=True)
class Node:
    """``final`` is ``accepted`` (Avalanche: a block that a node shows is final), ``finalized`` (the node's own tag), or
    how many blocks, the transaction's included, have to stand on it.
    """

    rpc: Rpc
    final: str | int

    @property
    def chain_id(self) -> int:
        return self.rpc.chain_id

    def final_number(self) -> int:
        """The highest block that is final; -1 when there is none yet."""
        if self.final == FINALIZED:
            block = self.rpc.block(FINALIZED)
            return -1 if block is None else quantity(block.get("number"))
        latest = quantity(self.rpc.call("eth_blockNumber"))
        return latest if type(self.final) is not int else latest - self.final + 1

    def mined(self, tx: str) -> Mined | None:
        """Where a transaction stands now; None while it stands nowhere."""
        receipt = self.rpc.receipt(tx)
        if receipt is None or receipt.get("blockHash") is None:
            return None
        number, block = quantity(receipt.get("blockNumber")), receipt["blockHash"]
        data(block, HASH_BYTES)
        final = number <= self.final_number()
        if final:  # the receipt and the height are two answers: the block has to be the one at that height
            there = self.rpc.block(hex(number))
            final = there is not None and there.get("hash") == block
        return Mined(tx, block, number, final)

    def used_for_good(self, account: str, nonce: int) -> bool:
        """Whether the account's transaction of this number, whichever it is, stands in a final block."""
        number = self.final_number()
        return number >= 0 and self.rpc.transactions_of(account, hex(number)) > nonce

    def known(self, tx: str) -> bool:
        """Whether the node has seen a transaction, mined or not."""
        return self.rpc.call("eth_getTransactionByHash", tx) is not None

    def fees(self, call: Call) -> Fees:
        """What to offer now. Raises ``NotSentError`` (``fee_too_high``) when the chain asks more than was approved."""
        block = self.rpc.block("latest")
        if block is None:
            raise ChainError("the node shows no block")
        base = quantity(block.get("baseFeePerGas"))
        if base > call.fee_max:
            raise NotSentError("the chain asks a higher fee than was approved", "fee_too_high")
        try:
            tip = quantity(self.rpc.call("eth_maxPriorityFeePerGas"))
        except RefusedError:
            tip = TIP_WEI
        fee = min(2 * base + tip, call.fee_max)
        return Fees(fee, min(tip, fee))

    def check(self, call: Call, shows: str, promised: int = 0) -> None:
        """Whether it would work now, before anything is signed. Raises ``NotSentError`` with the reason.

        ``promised`` is what payments of the account that are on their way may still cost, in wei.
        """
        if call.data and data(self.rpc.call("eth_getCode", call.to, "latest")) == b"":
            raise NotSentError("there is no contract at this address", "no_contract")
        balance = quantity(self.rpc.call("eth_getBalance", call.sender, "latest"))
        if balance < promised + cost_of(call):
            raise NotSentError("the account has too little for the value and the highest fee", "insufficient_funds")
        tried = {"from": call.sender, "to": call.to, "value": hex(call.value), "gas": hex(call.gas_max)}
        if call.data:
            tried["data"] = "0x" + call.data.hex()
        try:
            answer = data(self.rpc.call("eth_call", tried, "latest"))
        except RefusedError:
            raise NotSentError("the call would be reverted", "would_revert") from None
        if shows != NOTHING and answer not in (b"", _TRUE):  # EIP-20: a token may say false instead of reverting
            raise NotSentError("the token says that it would not do it", "would_revert")

    def block_of(self, mined: Mined) -> tuple[Mapping[str, Any], Any]:
        """The block in which a transaction stands, and its header, whose bytes hash to the block's hash."""
        block = self.rpc.block(mined.block)
        if block is None:
            raise ChainError("the node does not show a block that it named")
        header = header_of(self.chain_id, block)
        if header.hash != data(mined.block, HASH_BYTES) or header.number != mined.number:
            raise ChainError("the node shows another block than it named")
        return block, header
