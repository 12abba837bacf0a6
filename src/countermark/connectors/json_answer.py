"""Reading a provider's JSON answer: nothing in it is deeper, larger or stranger than what can be passed on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from countermark.model.canon import INTEGER_ABS_MAX
from countermark.model.tool import ToolSpec, Value

DEPTH_MAX = 32

_TYPES = {"string": str, "integer": int, "boolean": bool}


def read_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object of an answer, numbers with a fraction as text; ``None`` if it is not one, or has a key twice."""
    try:
        value = json.loads(body.decode("utf-8"), parse_float=str, parse_constant=str, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    return value if type(value) is dict and plain(value, DEPTH_MAX) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def plain(value: Any, depth: int) -> bool:
    """Whether a decoded answer holds nothing that a record cannot: half characters, huge integers, deep nesting."""
    if type(value) is str:
        return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)
    if type(value) is int:
        return -INTEGER_ABS_MAX <= value <= INTEGER_ABS_MAX
    if type(value) is dict:
        return depth > 0 and all(plain(key, 0) and plain(item, depth - 1) for key, item in value.items())
    if type(value) is list:
        return depth > 0 and all(plain(item, depth - 1) for item in value)
    return True


def typed_outputs(tool: ToolSpec, document: Mapping[str, Any]) -> dict[str, Value]:
    """The declared outputs: members of the answer, by name, that have the declared type."""
    return {n: document[n] for n, kind in tool.outputs if n in document and type(document[n]) is _TYPES.get(kind)}
