"""From a final transaction to an outcome, with the proof that makes it checkable by somebody who asks no node of ours.

The header's hash is the block's; the header commits to all transactions and all receipts; two proofs lead to ours.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from countermark.chain import ChainError, Receipt, data, keccak, parse_receipt, prove, receipt_bytes
from countermark.connectors.evm.node import Mined, Node
from countermark.model.onchain import APPROVAL, NOTHING, TRANSFER, Call, scaled
from countermark.model.tool import ToolSpec
from countermark.model.values import Outcome

_EVENTS = {TRANSFER: b"Transfer(address,address,uint256)", APPROVAL: b"Approval(address,address,uint256)"}
_WORD = 32


class Proved(NamedTuple):
    """What a block says about a transaction: its receipt, and the evidence as it is recorded."""

    receipt: Receipt
    evidence: Mapping[str, Any]


def prove_mined(node: Node, mined: Mined, going: Callable[[], bool]) -> Proved:
    """Fetch the block, rebuild both its tries, and prove the transaction and its receipt under the header; give up when
    ``going`` no longer says to go on.

    Raises ``CountermarkError`` when the node's answers do not fit together.
    """
    block, header = node.block_of(mined)
    hashes = block.get("transactions")
    if type(hashes) is not list or mined.hash not in hashes:
        raise ChainError("the block does not name the transaction")
    index = hashes.index(mined.hash)
    raws = node.rpc.raw_transactions(block, going)
    if "0x" + keccak(raws[index]).hex() != mined.hash:
        raise ChainError("the node shows another transaction under this hash")
    receipts = [receipt_bytes(item) for item in node.rpc.receipts(block)]
    transactions_root, transaction = prove(raws, index)
    receipts_root, receipt = prove(receipts, index)
    if (transactions_root, receipts_root) != (header.transactions_root, header.receipts_root):
        raise ChainError("the block's transactions or receipts are not those that its header commits to")
    evidence = {
        "chain_id": node.chain_id,
        "block": {"number": mined.number, "hash": header.hash.hex()}, "header": _text(header.raw), "index": index,
        "transaction": [_text(one) for one in transaction], "receipt": [_text(one) for one in receipt],
    }  # fmt: skip
    return Proved(parse_receipt(receipts[index]), evidence)


def outcome_of(tool: ToolSpec, call: Call, mined: Mined, proved: Proved, code: str) -> Outcome:
    """The outcome of a final transaction that did what ``call`` says, or was reverted. ``code`` confirms."""
    common: dict[str, Any] = {
        "ref": mined.hash, "evidence": proved.evidence, "result": {"hash": mined.hash, "block": mined.number},
        "output": {"hash": mined.hash, "block": mined.number},
    }  # fmt: skip
    if not proved.receipt.succeeded:
        return Outcome("failed", "provider_refused", ref=mined.hash, evidence=proved.evidence)
    amount = tool.one("amount")
    if amount is None or tool.evm is None or not tool.currency:
        return Outcome("confirmed", code, **common)
    if tool.evm.shows == NOTHING:
        if not tool.evm.value:  # what a contract of its own did with the amount, no event that is known here says
            return Outcome("confirmed", code, **common)
        return Outcome("confirmed", code, amount=scaled(call.value, amount.unit), currency=tool.currency, **common)
    asked, shown = int.from_bytes(call.data[-_WORD:], "big"), shown_by(tool.evm.shows, call, proved.receipt)
    if shown is None:  # what a token does not say, nobody can settle a budget with
        return Outcome("unknown", "booked_differently", ref=mined.hash, evidence=proved.evidence)
    booked = code if shown == asked else "booked_differently"
    return Outcome("confirmed", booked, amount=scaled(shown, amount.unit), currency=tool.currency, **common)


def shown_by(shows: str, call: Call, receipt: Receipt) -> int | None:
    """What the token's events say was moved, or is allowed now, between exactly these two; None without such an event.

    Transfers add up; of several allowances the last one stands.
    """
    topics = (keccak(_EVENTS[shows]), bytes(12) + data(call.sender), call.data[4 : 4 + _WORD])
    found = [
        int.from_bytes(log.data, "big")
        for log in receipt.logs
        if log.address == data(call.to) and log.topics == topics and len(log.data) == _WORD
    ]
    if not found:
        return None
    return sum(found) if shows == TRANSFER else found[-1]


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
