"""What a tool of the connector ``evm`` does on a chain, and the exact call that its arguments make (``evm-v1``).

Everything here is arithmetic on texts: no hash is computed, so that a verifier without libraries rebuilds a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from countermark.model.errors import ArgumentError, CountermarkError

ENCODING = "evm-v1"
UINT_MAX = 2**256 - 1
INPUTS_MAX = 16
FIXED = "="  # what an input starts with that the bundle fixes, not an argument: "=0"
NOTHING, TRANSFER, APPROVAL = "", "transfer", "approval"
SHOWS = (NOTHING, TRANSFER, APPROVAL)
FUNCTION = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,63}\((?:[a-z0-9]{1,8}(?:,[a-z0-9]{1,8}){0,15})?\)")

_NUMBER = re.compile(r"0|[1-9][0-9]{0,77}")
_SIZED = re.compile(r"(uint|bytes)([1-9][0-9]{0,2})")
_WORD_BYTES = 32


@dataclass(frozen=True, slots=True)
class OnChain:
    """One kind of call, as the bundle declares it; an agent chooses arguments only.

    ``contract`` is whom it calls, ``""`` when the coin itself is sent to the argument of alias ``to``. ``function`` is
    the contract's, with its types (``transfer(address,uint256)``), ``selector`` its first four bytes of Keccak-256 in
    hex; ``inputs`` are the aliases of the arguments that it takes, in its order, or ``=TEXT`` for what is fixed.
    ``value`` is the alias of the argument that says how much of the coin goes along, or ``""``. ``gas_max`` and
    ``fee_max`` (wei for each unit of gas) bound what one transaction may cost. ``shows`` is the event by which a token
    says what it did: ``transfer``, ``approval`` or ``""``.
    """

    chain_id: int
    sender: str
    contract: str = ""
    to: str = ""
    function: str = ""
    selector: str = ""
    inputs: tuple[str, ...] = ()
    value: str = ""
    gas_max: int = 0
    fee_max: int = 0
    shows: str = NOTHING

    @property
    def types(self) -> tuple[str, ...]:
        """The types of the function's inputs."""
        inside = self.function.partition("(")[2][:-1]
        return tuple(inside.split(",")) if inside else ()

    def document(self) -> dict[str, object]:
        """JSON form, as it stands in a compiled bundle."""
        return {
            "chain_id": self.chain_id, "sender": self.sender, "contract": self.contract, "to": self.to,
            "function": self.function, "selector": self.selector, "inputs": list(self.inputs), "value": self.value,
            "gas_max": self.gas_max, "fee_max": self.fee_max, "shows": self.shows,
        }  # fmt: skip


def onchain_from(doc: Mapping[str, Any]) -> OnChain:
    """Inverse of ``OnChain.document``."""
    return OnChain(**{**doc, "inputs": tuple(doc["inputs"])})


@dataclass(frozen=True, slots=True)
class Call:
    """What one action does on its chain, whatever nonce and fees its transactions get. ``data`` are bytes."""

    chain_id: int
    sender: str
    to: str
    value: int
    data: bytes
    gas_max: int
    fee_max: int


def call_of(spec: OnChain, values: Mapping[str, object]) -> Call:
    """The call that argument values by alias make. Raises ``ArgumentError`` for a value that its type cannot hold."""
    words = [_word(kind, name, _value(name, values)) for name, kind in zip(spec.inputs, spec.types, strict=True)]
    data = bytes.fromhex(spec.selector) + b"".join(words)
    value = number_of(values.get(spec.value, ""), spec.value) if spec.value else 0
    to = spec.contract or str(values.get(spec.to, ""))
    return Call(spec.chain_id, spec.sender, to, value, data, spec.gas_max, spec.fee_max)


def encode_call(call: Call) -> bytes:
    """The body of an ``evm-v1`` request: what every transaction of this intent has in common, canonical."""
    document = {
        "chain_id": call.chain_id, "data": "0x" + call.data.hex(), "fee_max": call.fee_max, "from": call.sender,
        "gas_max": call.gas_max, "to": call.to, "value": str(call.value),
    }  # fmt: skip
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def read_call(body: bytes) -> Call:
    """Inverse of ``encode_call``, for bytes that it made. Raises ``CountermarkError``."""
    try:
        doc = orjson.loads(body)
        return Call(doc["chain_id"], doc["from"], doc["to"], int(doc["value"]), bytes.fromhex(doc["data"][2:]),
                    doc["gas_max"], doc["fee_max"])  # fmt: skip
    except (ValueError, KeyError, TypeError):
        raise CountermarkError("this is no call on a chain", code="bad_encoding") from None


def number_of(value: object, field: str) -> int:
    """A whole number from 0 to 2^256 - 1, in decimal without leading zeros. Raises ``ArgumentError``."""
    if type(value) is int and value >= 0:
        return value
    if type(value) is not str or _NUMBER.fullmatch(value) is None or int(value) > UINT_MAX:
        raise ArgumentError(f"{field} must be a whole number in decimal", field=field,
                            hint="Base units as a text, for instance \"1000000\".")  # fmt: skip
    return int(value)


def scaled(units: int, unit: int) -> int:
    """Base units as the units that limits count, rounded up: against whoever spends."""
    return -(-units // unit)


def check_type(kind: str) -> bool:
    """Whether an input's type is one that is written here: address, bool, uint8 to uint256, bytes1 to bytes32."""
    if kind in ("address", "bool"):
        return True
    found = _SIZED.fullmatch(kind)
    if found is None:
        return False
    size = int(found[2])
    return size <= _WORD_BYTES if found[1] == "bytes" else size <= 256 and size % 8 == 0


def _value(name: str, values: Mapping[str, object]) -> object:
    if name.startswith(FIXED):
        return name[1:]
    if name not in values:
        raise ArgumentError(f"{name} is required", field=name, code="missing_argument")
    return values[name]


def _word(kind: str, name: str, value: object) -> bytes:
    """One input in the contract ABI: 32 bytes, numbers to the right, bytes to the left."""
    if kind == "address" and type(value) is str and re.fullmatch(r"0x[0-9a-fA-F]{40}", value):
        return bytes(12) + bytes.fromhex(value[2:])
    if kind == "bool" and (type(value) is bool or value in ("true", "false")):
        return (value is True or value == "true").to_bytes(_WORD_BYTES, "big")
    found = _SIZED.fullmatch(kind)
    if found is not None and found[1] == "uint" and type(value) is not bool:
        number = number_of(value, name)
        if number < 1 << int(found[2]):
            return number.to_bytes(_WORD_BYTES, "big")
    if found is not None and found[1] == "bytes" and type(value) is str:
        size = int(found[2])
        if re.fullmatch(rf"0x[0-9a-f]{{{2 * size}}}", value):
            return bytes.fromhex(value[2:]).ljust(_WORD_BYTES, b"\0")
    raise ArgumentError(f"{name.lstrip(FIXED)[:64]} is no {kind}", field=name if not name.startswith(FIXED) else "")
