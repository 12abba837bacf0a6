"""Drafts of ``tools.toml`` from what an MCP server lists: every tool denied, every argument still to be classified."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from countermark.connectors.mcp.definition import ARGUMENTS_MAX, Definition, visible
from countermark.model.tool import AMOUNT_MAX, STRING_CHARS_MAX

NESTING_MAX = 4
NAME_CHARS_MAX = 96
COMMENT_CHARS_MAX = 160
ENUM_MAX = 100

_KNOWN = ("string", "integer", "boolean")
_NOT_MAPPED = {
    "number": 'the server takes any number; say type = "integer" for whole ones (minor units), or drop it',
    "array": "lists cannot be passed on; drop it if it may be absent",
    "object": "an object without declared members cannot be passed on; drop it if it may be absent",
    "unknown": "the server does not declare one type; say which of string, integer, boolean it is, or drop it",
}


def draft(connector: str, definitions: Sequence[Definition]) -> str:
    """The text to add to ``tools.toml``. Foreign text stands only in quoted strings and one-line comments, visible."""
    taken: set[str] = set()
    parts = [f"[connector.{connector}]\n"]
    for one in definitions:
        name = _name(connector, one.name, taken)
        taken.add(name)
        parts.append("\n".join(_tool(connector, name, one)) + "\n")
    return "\n".join(parts)


def _name(connector: str, upstream: str, taken: set[str]) -> str:
    base = f"{connector}.{re.sub(r'[^A-Za-z0-9_.-]+', '_', upstream)}"[:NAME_CHARS_MAX]
    name, count = base, 2
    while name in taken:
        end = f"_{count}"
        name, count = base[: NAME_CHARS_MAX - len(end)] + end, count + 1
    return name


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # of visible text: then a JSON string is a TOML string


def _tool(connector: str, name: str, one: Definition) -> Iterator[str]:
    yield f"[tool.{_quoted(name)}]"
    if one.description:
        yield f"# the server says: {visible(one.description, COMMENT_CHARS_MAX)}"
    yield "denied = true                # take this line out when everything below is right"
    yield f"connector = {_quoted(connector)}"
    yield f"# class = {'': <20}# read, change or money"
    yield 'encoding = "mcp-v1"'
    yield f'endpoint = "POST mcp://{connector}/tools/call/{quote(one.name, safe="")}"'
    yield f'pin = "{one.digest}"'
    for arg, schema, required in _arguments(one.document["inputSchema"], "", True, 1):
        yield ""
        yield f"[tool.{_quoted(name)}.args.{_quoted(arg)}]"
        yield from _argument(schema, one.arguments.get(arg, ""), required)


def _arguments(
    schema: Mapping[str, Any], prefix: str, required: bool, depth: int
) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Arguments by their dotted names; objects with declared members are opened, up to ``NESTING_MAX`` deep."""
    properties, needed = schema.get("properties"), schema.get("required")
    if type(properties) is not dict:
        return
    for name, below in list(properties.items())[:ARGUMENTS_MAX]:
        shown = visible(name, NAME_CHARS_MAX)
        if type(below) is not dict or not shown:
            continue
        must = required and type(needed) is list and name in needed
        if _type(below) == "object" and below.get("properties") and depth < NESTING_MAX:
            yield from _arguments(below, f"{prefix}{shown}.", must, depth + 1)
        else:
            yield prefix + shown, below, must


def _type(schema: Mapping[str, Any]) -> str:
    """The one type of a value; ``X or null`` counts as X, an absent argument being the same as null."""
    found = schema.get("type")
    options = schema.get("anyOf")
    if found is None and type(options) is list:
        types = [option.get("type") for option in options if type(option) is dict and option.get("type") != "null"]
        found = types[0] if len(types) == 1 and len(options) <= 2 else None
    if type(found) is list:
        kept = [one for one in found if one != "null"]
        found = kept[0] if len(kept) == 1 else None
    return found if type(found) is str and (found in _KNOWN or found in _NOT_MAPPED) else "unknown"


def _argument(schema: Mapping[str, Any], text: str, required: bool) -> Iterator[str]:
    kind = _type(schema)
    if text:
        yield f"# the server says: {visible(text, COMMENT_CHARS_MAX)}"
    hint = f"   # {_NOT_MAPPED[kind]}" if kind in _NOT_MAPPED else ""
    yield f'type = "{kind}"{hint}'
    yield f"# class = {'': <20}# amount, currency, payee, reference or inert"
    yield f"required = {'true' if required else 'false'}"
    values = schema.get("enum")
    if kind == "string" and type(values) is list and 0 < len(values) <= ENUM_MAX and _texts(values):
        yield f"enum = [{', '.join(map(_quoted, values))}]"
    longest = schema.get("maxLength")
    if kind == "string" and type(longest) is int and 1 <= longest <= STRING_CHARS_MAX:
        yield f"chars_max = {longest}"
    for key in ("minimum", "maximum"):
        if kind == "integer" and type(schema.get(key)) is int and abs(schema[key]) <= AMOUNT_MAX:
            yield f"{key} = {schema[key]}"


def _texts(values: Sequence[object]) -> bool:
    """Whether an enumeration can be written down as it is, each value once."""
    return len(set(map(str, values))) == len(values) and all(
        type(value) is str and visible(value, STRING_CHARS_MAX) == value for value in values
    )
