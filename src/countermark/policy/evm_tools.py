"""Tools on a chain in ``tools.toml``: what no agent says, from the chain and the paying account to the highest fee."""

from __future__ import annotations

import re
from dataclasses import replace

from countermark.model.errors import CountermarkError
from countermark.model.keccak import ADDRESS, address_bytes, is_reserved, keccak
from countermark.model.onchain import ENCODING as ENCODING
from countermark.model.onchain import FIXED, FUNCTION, INPUTS_MAX, OnChain, call_of, check_type
from countermark.model.tool import ArgSpec, ToolSpec
from countermark.policy.toml import Table

CONNECTOR = "evm"
CHAIN_ID_MAX = 2**53 - 1
DECIMALS_MAX = 36
GAS_MAX = 30_000_000
FEE_MAX = 10**15  # wei for each unit of gas: a million gwei, far above what any chain has asked

# Functions by which a token's money moves, or may be moved by others: an author who calls them a change would let them
# pass every limit. Giving up an allowance is a change.
_MOVING = (
    "approve",
    "transfer",
    "transferFrom",
    "increaseAllowance",
    "safeTransferFrom",
    "setApprovalForAll",
    "permit",
)
_KEYS = ("chain_id", "from", "contract", "decimals", "digits", "function", "inputs", "value", "gas_max", "fee_max")
_INPUT = re.compile(r"[a-z][a-z0-9_]{0,39}|=[A-Za-z0-9]{1,78}")


def onchain(table: Table, tool: ToolSpec) -> ToolSpec:
    """The tool with what its subtable ``evm`` declares; what is wrong goes to the findings."""
    if tool.connector != CONNECTOR:
        table.error("encoding", "bad_value", f"{ENCODING} is the encoding of the connector {CONNECTOR}")
    for key in ("endpoint", "headers", "answers", "resolve"):
        if key in table:
            table.error(
                key, "bad_value", f"{key!r} is not for a tool on a chain", "Its subtable evm says what it does."
            )
    if "evm" not in table:
        table.error("", "missing_key", f"{table.label} needs a subtable 'evm'",
                    "It names chain_id, from, gas_max and fee_max; a token's contract, decimals, digits.")  # fmt: skip
        return tool
    below = table.table("evm")
    below.only(*_KEYS)
    drafted = tool.evm if tool.evm is not None else OnChain(0, "")
    spec = replace(
        drafted,
        chain_id=below.integer("chain_id", low=1, high=CHAIN_ID_MAX),
        sender=_address(below, "from"),
        contract="" if drafted.to else _address(below, "contract"),
        gas_max=below.integer("gas_max", low=21_000, high=GAS_MAX),
        fee_max=below.integer("fee_max", low=1, high=FEE_MAX),
    )
    if not drafted.to and not drafted.function:
        spec = _declared(below, spec)
    else:
        for key in ("function", "inputs", "value"):
            if key in below:
                below.error(key, "bad_value", f"{key!r} is fixed by the draft of this tool",
                            'Say like = "evm.contract.call" to declare a function yourself.')  # fmt: skip
    if drafted.to and "contract" in below:
        below.error("contract", "bad_value", "the coin itself has no contract")
    spec = replace(spec, selector=_selector(below, spec.function))
    args = _scaled(below, tool, spec)
    tool = replace(
        tool, args=args, evm=spec, endpoint=f"POST evm://{spec.chain_id}/{spec.sender}", headers=(), answers=None
    )
    _check(below, tool, spec)
    return tool


def _address(table: Table, key: str) -> str:
    text = table.text(key, form=ADDRESS, form_hint="Write 0x and 40 hex digits, as the wallet shows it.")
    if not text:
        return ""
    try:
        if is_reserved(address_bytes(text)):
            table.error(key, "bad_value", f"{key!r} is an address that nobody has")
    except CountermarkError as error:
        table.error(key, "bad_value", f"{key!r}: {error.message}", error.hint)
    return text


def _declared(table: Table, spec: OnChain) -> OnChain:
    """Function, inputs and value of a contract's call."""
    function = table.text("function", form=FUNCTION, form_hint='Write "name(address,uint256)", types without spaces.')
    inputs = table.texts("inputs", ())
    if len(inputs) > INPUTS_MAX or not all(_INPUT.fullmatch(one) for one in inputs):
        table.error("inputs", "bad_value", "'inputs' lists aliases of arguments, or \"=VALUE\" for what is fixed")
        inputs = ()
    return replace(spec, function=function, inputs=inputs, value=table.text("value", ""))


def _selector(table: Table, function: str) -> str:
    if not function:
        return ""
    try:
        return keccak(function.encode("ascii"))[:4].hex()
    except CountermarkError as error:
        table.error("function", "missing_extra", error.message, error.hint)
        return ""


def _scaled(table: Table, tool: ToolSpec, spec: OnChain) -> tuple[ArgSpec, ...]:
    """The arguments, with the unit of the one that is the amount: 10^(decimals - digits) base units."""
    if tool.one("amount") is None:
        return tool.args
    decimals = table.integer("decimals", high=DECIMALS_MAX)
    digits = table.integer("digits", high=DECIMALS_MAX)
    if digits > decimals:
        table.error("digits", "bad_value", "limits cannot count in finer units than the token has",
                    "digits is at most decimals.")  # fmt: skip
    unit = 10 ** max(decimals - digits, 0)
    return tuple(replace(arg, type="string", unit=unit) if arg.class_ == "amount" else arg for arg in tool.args)


def _check(table: Table, tool: ToolSpec, spec: OnChain) -> None:
    if len(spec.types) != len(spec.inputs) or not all(map(check_type, spec.types)):
        table.error("inputs", "bad_value", "the function's types and its inputs do not fit together",
                    "One input for each type: address, bool, uint8 to uint256, bytes1 to bytes32.")  # fmt: skip
        return
    used = [name for name in (*spec.inputs, spec.to, spec.value) if name and not name.startswith(FIXED)]
    for name in used:
        arg = tool.by_alias.get(name)
        if arg is None or not arg.required:
            table.error("inputs", "unknown_alias", f"{name!r} is no required argument's alias")
        elif arg.sensitive:
            table.error("inputs", "bad_value", f"{name!r} cannot be sensitive: a chain shows it to everybody for ever")
    amount = tool.one("amount")
    if amount is not None and amount.alias not in used:
        table.error("inputs", "bad_amount", "the amount is no part of the call, so limits would count something else")
    value = tool.by_alias.get(spec.value)
    if value is not None and value.class_ != "amount":
        table.error("value", "bad_amount", "what is sent along of the coin is the amount")
    name = spec.function.partition("(")[0]
    if name in _MOVING and tool.class_ != "money" and not any(one.startswith(FIXED) for one in spec.inputs):
        table.error("function", "bad_class", f"{name} moves a token's money or lets others do so",
                    'Say class = "money" and which argument is the amount.')  # fmt: skip
    if tool.recovery != "idempotent":
        table.error("recovery", "bad_value", "on a chain one nonce makes one payment: recovery is idempotent")
    _check_fixed(table, spec)


def _check_fixed(table: Table, spec: OnChain) -> None:
    """What the bundle fixes fits its type: tried with values that fit everywhere else."""
    tried: dict[str, object] = {}
    for name, kind in zip(spec.inputs, spec.types, strict=True):
        size = int(kind[5:]) if kind.startswith("bytes") else 20
        tried[name] = "0" if kind.startswith("uint") else False if kind == "bool" else "0x" + "00" * size
    try:
        call_of(replace(spec, value=""), tried)
    except CountermarkError as error:
        table.error("inputs", "bad_value", f"a fixed input does not fit: {error.message}")
