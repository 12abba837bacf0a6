"""Tools on a chain (docs/spec/requests.md, `evm-v1`): their declaration, and the call that arguments make."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark_verify import canon
from countermark_verify.errors import Malformed
from countermark_verify.shape import const, integer, listing, record, text

ENCODING = "evm-v1"
_ADDRESS = r"0x[0-9a-fA-F]{40}"
_WORD = 32
_NUMBER = re.compile(r"0|[1-9][0-9]{0,77}")
_SIZED = re.compile(r"(uint|bytes)([1-9][0-9]{0,2})")
_BASE_UNITS = re.compile(r"[1-9][0-9]{0,77}")

EVM = record(
    {
        "chain_id": integer(1),
        "sender": text(_ADDRESS),
        "contract": text(_ADDRESS + "|"),
        "to": text(r"[A-Za-z0-9_.$-]{0,64}"),
        "function": text(r"([A-Za-z_$][A-Za-z0-9_$]{0,63}\(([a-z0-9]{1,8}(,[a-z0-9]{1,8}){0,15})?\))?"),
        "selector": text(r"([0-9a-f]{8})?"),
        "inputs": listing(text(r"=?[A-Za-z0-9_.$-]{1,78}"), 16),
        "value": text(r"[A-Za-z0-9_.$-]{0,64}"),
        "gas_max": integer(21_000),
        "fee_max": integer(1),
        "shows": const("", "transfer", "approval"),
    }
)


@dataclass(frozen=True)
class Call:
    """What every transaction of one intent has in common."""

    to: bytes
    value: int
    data: bytes


def types_of(spec: Mapping[str, Any]) -> list[str]:
    """The types of the function's inputs."""
    inside = spec["function"].partition("(")[2][:-1]
    return inside.split(",") if inside else []


def counted(item: Mapping[str, Any], value: Any) -> int | None:
    """A text of base units in the units that limits count, rounded up; None when it is no such text."""
    if type(value) is not str or _BASE_UNITS.fullmatch(value) is None or int(value) >> 256:
        return None
    return -(-int(value) // int(item["unit"]))


def check_tool(name: str, tool: dict[str, Any]) -> None:
    """Raises `Malformed` for a declaration that contradicts itself."""
    spec = tool.get("evm")
    if (spec is None) == (tool["encoding"] == ENCODING):
        raise Malformed(f"has a tool {name} that is half of one on a chain")
    for item in tool["args"]:
        if "unit" in item and (spec is None or item["class"] != "amount" or item["type"] != "string"):
            raise Malformed(f"has a tool {name} with a unit of what is no amount of base units")
    if spec is None:
        return
    if tool["endpoint"] != f"POST evm://{spec['chain_id']}/{spec['sender']}" or tool["headers"]:
        raise Malformed(f"has a tool {name} whose endpoint is not its chain and its account")
    if bool(spec["contract"]) == bool(spec["to"]) or bool(spec["function"]) != bool(spec["selector"]):
        raise Malformed(f"has a tool {name} that says twice, or never, whom it calls")
    by_alias = {item["alias"]: item for item in tool["args"]}
    named = [one for one in (*spec["inputs"], spec["to"], spec["value"]) if one and not one.startswith("=")]
    for alias in named:
        item = by_alias.get(alias)
        if item is None or not item["required"] or item["sensitive"]:
            raise Malformed(f"has a tool {name} whose call takes something else than required, clear arguments")
    for item in tool["args"]:
        if item["class"] == "amount" and ("unit" not in item or item["alias"] not in named):
            raise Malformed(f"has a tool {name} whose amount is no part of its call")
    tried = {one: _filler(kind) for one, kind in zip(spec["inputs"], types_of(spec), strict=False)}
    if len(types_of(spec)) != len(spec["inputs"]) or None in tried.values():
        raise Malformed(f"has a tool {name} whose function does not fit its inputs")
    call_of({**spec, "value": "", "to": "", "contract": spec["contract"] or spec["sender"]}, tried)


def call_of(spec: Mapping[str, Any], values: Mapping[str, Any]) -> Call:
    """The call of argument values by alias. Raises `Malformed` for a value that its type cannot hold."""
    words = [
        _word(kind, one[1:] if one.startswith("=") else values.get(one))
        for one, kind in zip(spec["inputs"], types_of(spec), strict=True)
    ]
    to = spec["contract"] or values.get(spec["to"])
    if type(to) is not str or re.fullmatch(_ADDRESS, to) is None:
        raise Malformed("goes to no address")
    value = _number(values.get(spec["value"])) if spec["value"] else 0
    return Call(bytes.fromhex(to[2:]), value, bytes.fromhex(spec["selector"]) + b"".join(words))


def body_of(spec: Mapping[str, Any], values: Mapping[str, Any]) -> bytes:
    """The body of the request."""
    call = call_of(spec, values)
    return canon.render(
        {
            "chain_id": spec["chain_id"],
            "data": "0x" + call.data.hex(),
            "fee_max": spec["fee_max"],
            "from": spec["sender"],
            "gas_max": spec["gas_max"],
            "to": spec["contract"] or values[spec["to"]],
            "value": str(call.value),
        }
    )


def _filler(kind: str) -> Any:
    """A value that fits a type; None for a type that is not known here."""
    found = _SIZED.fullmatch(kind)
    if kind in ("address", "bool"):
        return "0x" + "00" * 20 if kind == "address" else False
    if found is None or int(found[2]) > (_WORD if found[1] == "bytes" else 256):
        return None
    if found[1] == "bytes":
        return "0x" + "00" * int(found[2])
    return "0" if int(found[2]) % 8 == 0 else None


def _number(value: Any) -> int:
    if type(value) is int and value >= 0:
        return value
    if type(value) is not str or _NUMBER.fullmatch(value) is None or int(value) >> 256:
        raise Malformed("holds what is no number of base units")
    return int(value)


def _word(kind: str, value: Any) -> bytes:
    """One input in the contract ABI."""
    if kind == "address" and type(value) is str and re.fullmatch(_ADDRESS, value):
        return bytes(12) + bytes.fromhex(value[2:])
    if kind == "bool" and (type(value) is bool or value in ("true", "false")):
        return int(value in (True, "true")).to_bytes(_WORD, "big")
    if (found := _SIZED.fullmatch(kind)) is not None:
        size = int(found[2])
        if found[1] == "uint" and type(value) is not bool and not (number := _number(value)) >> size:
            return number.to_bytes(_WORD, "big")
        if found[1] == "bytes" and type(value) is str and re.fullmatch(rf"0x[0-9a-f]{{{2 * size}}}", value):
            return bytes.fromhex(value[2:]).ljust(_WORD, b"\0")
    raise Malformed(f"holds what is no {kind}")
