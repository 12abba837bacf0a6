"""Making the anchor contract, once for a deployment and a chain. The account that pays for it owns it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from countermark.chain import ADDRESS_BYTES, ChainError, Rpc, Signer, checksummed, data, quantity
from countermark.model.ports import Clock
from countermark.publish.anchor.contract import check_code, creation_code, owner
from countermark.publish.anchor.sending import Fees, plan, send

WAIT_MS = 120_000
POLL_MS = 500


@dataclass(frozen=True, slots=True)
class Deployed:
    """A contract that was made: where it stands, whose it is, by which transaction, for how much gas."""

    contract: str
    owner: str
    tx: str
    gas: int


def deploy_anchor(rpc: Rpc, signer: Signer, fees: Fees, clock: Clock, *, wait_ms: int = WAIT_MS) -> Deployed:
    """Send the contract's creation and wait until it stands in a block. Raises ``CountermarkError``."""
    rpc.check_chain()
    signed = signer.sign(plan(rpc, signer, "", creation_code(), fees))
    send(rpc, signed)
    end, pause = clock.steady_us() + wait_ms * 1000, threading.Event()
    while (receipt := rpc.receipt(signed.hash)) is None or receipt.get("blockHash") is None:
        if clock.steady_us() >= end:
            raise ChainError(
                f"the transaction {signed.hash} is in no block yet", code="anchor_pending",
                hint="Look for it before deploying again: a second contract would cost again.",
            )  # fmt: skip
        pause.wait(POLL_MS / 1000)
    if quantity(receipt.get("status")) != 1:
        raise ChainError("the contract was not made", code="anchor_refused")
    contract = checksummed(data(receipt.get("contractAddress"), ADDRESS_BYTES))
    check_code(rpc, contract)
    return Deployed(contract, owner(rpc, contract), signed.hash, quantity(receipt.get("gasUsed")))
