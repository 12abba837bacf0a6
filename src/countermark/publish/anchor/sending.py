"""Getting one transaction onto the chain: planned, written down, sent, sent again, its fee raised, found again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from countermark.chain import ChainError, RefusedError, Rpc, Signed, Signer, Transaction, bumped, quantity
from countermark.model.errors import ConfigError
from countermark.net import LostError

GAS_MAX = 3_000_000  # making the contract costs about a quarter of it, an anchor a twentieth
GAS_ROOM_PERCENT = 25
GWEI = 10**9


@dataclass(frozen=True, slots=True)
class Fees:
    """The most that is paid for a unit of gas, and to whoever makes the block; both in wei."""

    fee_max: int
    tip_max: int


def plan(rpc: Rpc, signer: Signer, to: str, call: bytes, fees: Fees, nonce: int | None = None) -> Transaction:
    """A transaction with the next nonce, enough gas and twice the present base fee.

    Raises ``ChainError`` with the code ``anchor_refused`` when the contract would refuse it: nothing is sent then.
    """
    target = {"to": to} if to else {}
    try:
        found = rpc.call("eth_estimateGas", {"from": signer.address, "data": "0x" + call.hex(), **target})
    except RefusedError as error:
        raise ChainError(f"the chain would refuse it: {error.said}", code="anchor_refused") from None
    gas = quantity(found) * (100 + GAS_ROOM_PERCENT) // 100
    if gas > GAS_MAX:
        raise ChainError(f"the node says that it needs {gas} units of gas")
    fee, tip = wanted(rpc, fees)
    if nonce is None:
        nonce = rpc.transactions_of(signer.address)
    return Transaction(rpc.chain_id, nonce, to, 0, call, gas, fee, tip)


def wanted(rpc: Rpc, fees: Fees) -> tuple[int, int]:
    """Fee and tip for now: twice the base fee of the newest block, and never above what is allowed."""
    newest = rpc.block("latest")
    if newest is None:
        raise ChainError("the node has no newest block")
    base = quantity(newest.get("baseFeePerGas"))
    if base > fees.fee_max:
        raise ChainError(
            f"a unit of gas costs {base} wei now, allowed are {fees.fee_max}", code="fee_too_high", retryable=True
        )
    fee = min(2 * base + fees.tip_max, fees.fee_max)
    return fee, min(fees.tip_max, fee)


def higher(rpc: Rpc, transaction: Transaction, fees: Fees) -> Transaction | None:
    """The same at a fee that replaces it; None when that is not allowed."""
    fee, _ = wanted(rpc, fees)
    return bumped(transaction, fee, fees.fee_max)


def send(rpc: Rpc, signed: Signed) -> None:
    """Hand the bytes to the node. That it has them already, or that the answer is lost, is no failure: the chain is
    asked what became of it. Raises ``CountermarkError`` for the rest.
    """
    try:
        said = rpc.call("eth_sendRawTransaction", "0x" + signed.raw.hex())
    except LostError:
        return
    except RefusedError as error:
        words = error.said.lower()
        if any(known in words for known in ("already known", "already imported", "nonce too low", "underpriced")):
            return
        if "insufficient funds" in words:
            raise ConfigError("the account cannot pay for the transaction", code="no_funds", retryable=True) from None
        raise
    if said != signed.hash:
        raise ChainError("the node says that it took another transaction")


def checked_signer(source: Callable[[], Signer], owner: str) -> Signer:
    """The key behind the reference, when it is the contract's owner. Raises ``ConfigError``."""
    signer = source()
    if signer.address != owner:
        raise ConfigError(
            f"the key is that of {signer.address}, the contract's owner is {owner}", code="not_the_owner",
            hint="Hand the contract over in its two steps, or use the owner's key.",
        )  # fmt: skip
    return signer
