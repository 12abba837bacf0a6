"""What an MCP server says about its tools: hostile text, bounded, and pinned by a digest over all of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import orjson

from countermark.model.digest import MCP_TOOL, digest
from countermark.model.errors import CountermarkError

TOOLS_MAX = 256
NAME_CHARS_MAX = 128
DESCRIPTION_CHARS_MAX = 2_000
ARGUMENT_CHARS_MAX = 500
DEFINITION_BYTES_MAX = 65_536
MESSAGE_DEPTH_MAX = 32
INTEGER_BITS_MAX = 63
ARGUMENTS_MAX = 64

_UNPINNED = frozenset(("_meta", "icons"))  # bookkeeping and pictures: neither tells a model what a tool does
# Characters that Unicode calls letters or marks, and that nobody sees: they hide words from people, not from models.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


class UpstreamError(CountermarkError):
    """An MCP server cannot be used: it does not start, does not answer, or what it says is not MCP."""

    code = "upstream_error"


@dataclass(frozen=True, slots=True)
class Definition:
    """A tool as its server lists it. ``description`` and ``arguments`` (name -> text) hold only visible characters."""

    name: str
    digest: str
    description: str
    arguments: Mapping[str, str]
    document: Mapping[str, Any] = field(repr=False)


def visible(text: object, chars_max: int) -> str:
    """What of a foreign text may reach a terminal, a file or a model's prompt: visible characters, bounded."""
    if type(text) is not str:
        return ""
    kept = (char if char.isprintable() else " " for char in text[: 2 * chars_max])
    return _UNSEEN.sub("", " ".join("".join(kept).split()))[:chars_max].strip()


def read_message(raw: bytes) -> dict[str, Any]:
    """One JSON object that somebody else wrote: no key twice, nothing deep, huge or infinite.

    Raises:
        UpstreamError: it is something else.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite,
            parse_int=_integer,
        )  # fmt: skip
    except (ValueError, RecursionError):
        raise UpstreamError("the MCP server said something that is not JSON") from None
    if type(value) is not dict or not _plain(value, MESSAGE_DEPTH_MAX):
        raise UpstreamError("the MCP server said something that is no message")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _integer(text: str) -> int:
    number = int(text)  # bounded by CPython's own limit on digits
    if number.bit_length() > INTEGER_BITS_MAX:
        raise ValueError(text)
    return number


def _plain(value: Any, depth: int) -> bool:
    if type(value) is str:
        return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)
    if type(value) is dict:
        return depth > 0 and all(_plain(key, 0) and _plain(item, depth - 1) for key, item in value.items())
    if type(value) is list:
        return depth > 0 and all(_plain(item, depth - 1) for item in value)
    return True


def read_definitions(items: object) -> list[Definition]:
    """The tools of one page of ``tools/list``. Raises ``UpstreamError``."""
    if type(items) is not list or len(items) > TOOLS_MAX:
        raise UpstreamError(f"the MCP server lists no tools, or more than {TOOLS_MAX} at once")
    return [_definition(item) for item in items]


def _definition(item: object) -> Definition:
    if type(item) is not dict:
        raise UpstreamError("the MCP server lists something that is no tool")
    name, schema = item.get("name"), item.get("inputSchema")
    if type(name) is not str or not 1 <= len(name) <= NAME_CHARS_MAX or visible(name, NAME_CHARS_MAX) != name:
        raise UpstreamError(f"the MCP server lists a tool whose name is not 1 to {NAME_CHARS_MAX} visible characters")
    if type(schema) is not dict:
        raise UpstreamError("the MCP server lists a tool without a schema of its arguments")
    raw = orjson.dumps({k: v for k, v in item.items() if k not in _UNPINNED}, option=orjson.OPT_SORT_KEYS)
    if len(raw) > DEFINITION_BYTES_MAX:
        raise UpstreamError(f"the MCP server describes a tool in more than {DEFINITION_BYTES_MAX} bytes")
    description = visible(item.get("description"), DESCRIPTION_CHARS_MAX)
    return Definition(name, digest(MCP_TOOL, raw), description, dict(_texts(schema, "", 0)), item)


def _texts(schema: Mapping[str, Any], prefix: str, depth: int) -> list[tuple[str, str]]:
    """What the server says about each argument, nested ones by their dotted names."""
    properties = schema.get("properties")
    if type(properties) is not dict or depth > 3:
        return []
    found: list[tuple[str, str]] = []
    for name, below in list(properties.items())[:ARGUMENTS_MAX]:
        if type(below) is dict:
            found.append((prefix + name, visible(below.get("description"), ARGUMENT_CHARS_MAX)))
            found += _texts(below, prefix + name + ".", depth + 1)
    return found
