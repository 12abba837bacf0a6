"""Drafts of the tools of a chain. Which chain, account, contract and unit the bundle declares for each.

Sources: EIP-20 for the functions of a token; an invoice's number goes on no chain, it makes the business key.
"""

from __future__ import annotations

from countermark.model.onchain import APPROVAL, ENCODING, TRANSFER, OnChain
from countermark.model.tool import ArgClass, ArgSpec, ToolClass, ToolSpec

TIMEOUT_MS = 30_000  # for one attempt to become final; then the fee is raised, or the gate asks later
DISPATCH_S = 180
SETTLE_LAG_S = 300
KEY_TTL_S = 86_400  # the nonce of an intent is its own for ever; longer than any intent may be dispatched

_ADDRESS = r"0x[0-9a-fA-F]{40}"
_OUTPUTS = (("block", "integer"), ("hash", "string"))


def _address(name: str, class_: ArgClass) -> ArgSpec:
    return ArgSpec(name, "string", class_, name, pattern=_ADDRESS, chars_max=42)


def _amount(name: str) -> ArgSpec:
    return ArgSpec(name, "string", "amount", name, chars_max=78, unit=1)


_BESIDE = (
    ArgSpec("invoice", "string", "reference", "invoice", required=False, chars_max=200),
    ArgSpec("part", "string", "reference", "part", required=False, chars_max=200),
)


def _tool(name: str, class_: ToolClass, evm: OnChain, *args: ArgSpec) -> ToolSpec:
    return ToolSpec(
        name=f"evm.{name}", connector="evm", class_=class_, args=(*args, *_BESIDE), recovery="idempotent",
        encoding=ENCODING, key_ttl_s=KEY_TTL_S, timeout_ms=TIMEOUT_MS, settle_lag_s=SETTLE_LAG_S,
        dispatch_within_s=DISPATCH_S, endpoint="POST evm://", outputs=_OUTPUTS, evm=evm,
    )  # fmt: skip


DRAFTS = (
    _tool("native.transfer", "money", OnChain(0, "", to="to", value="value"), _address("to", "payee"),
          _amount("value")),
    _tool("erc20.transfer", "money",
          OnChain(0, "", function="transfer(address,uint256)", inputs=("to", "amount"), shows=TRANSFER),
          _address("to", "payee"), _amount("amount")),
    # What somebody else may take counts as if it were taken: in full, when it is allowed, and once more each time.
    _tool("erc20.approve", "money",
          OnChain(0, "", function="approve(address,uint256)", inputs=("spender", "amount"), shows=APPROVAL),
          _address("spender", "payee"), _amount("amount")),
    _tool("erc20.revoke", "change", OnChain(0, "", function="approve(address,uint256)", inputs=("spender", "=0")),
          _address("spender", "payee")),
    _tool("contract.call", "change", OnChain(0, "")),
)  # fmt: skip
"""Giving up an allowance frees no budget: what was allowed may have been taken."""
