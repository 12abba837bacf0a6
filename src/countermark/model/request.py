"""From an action to the exact provider request: pure, and rebuilt by the verifier (``docs/spec/requests.md``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

import orjson

from countermark.model.errors import ArgumentError
from countermark.model.onchain import call_of, encode_call
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Request

_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]*")  # RFC 3986 section 2.3
_PLACE = re.compile(r"\{([a-z][a-z0-9_]{0,39})\}")
_NOT_IN_PATH = re.compile(r"\.*|(?s:.*)[/\\%\x00-\x1f\x7f-\x9f](?s:.*)")  # servers differ in how they read these
NAMES_REMEMBERED_MAX = 1_024
KEY_FIELD = "metadata[countermark_key]"  # where a form-encoded provider keeps our key, so that a lookup finds it


def text_of(value: Value) -> str:
    """A value as form text: booleans in lower case, integers in decimal."""
    if type(value) is bool:
        return "true" if value else "false"
    return str(value)


def _form(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join([f"{_quoted_name(name)}={_quoted(value)}" for name, value in sorted(pairs)])


@lru_cache(maxsize=NAMES_REMEMBERED_MAX)
def path_aliases(endpoint: str) -> tuple[str, ...]:
    """The aliases of the arguments that stand in the path of ``METHOD URL``, in their order."""
    return tuple(_PLACE.findall(endpoint.partition("?")[0]))


@lru_cache(maxsize=NAMES_REMEMBERED_MAX)
def _quoted_name(name: str) -> str:
    return _quoted(name)


def _quoted(text: str) -> str:
    return text if _UNRESERVED.fullmatch(text) is not None else quote(text, safe="")


def encode_form(args: Mapping[str, Value], key: str) -> bytes:
    """``form-v1``: arguments and the key field, sorted by name, percent-encoded (RFC 3986 unreserved kept)."""
    pairs = [(name, text_of(value)) for name, value in args.items()]
    pairs.append((KEY_FIELD, key))
    return _form(pairs).encode("ascii")


def encode_bare_form(args: Mapping[str, Value]) -> bytes:
    """``form-bare-v1``: arguments alone; for calls that change an object, which keeps the key of what made it."""
    return _form((name, text_of(value)) for name, value in args.items()).encode("ascii")


def encode_query(args: Mapping[str, Value]) -> str:
    """``query-v1``: arguments alone, encoded as in ``form-v1``, with a leading ``?`` unless there are none."""
    text = _form((name, text_of(value)) for name, value in args.items())
    return "?" + text if text else ""


def encode_json(args: Mapping[str, Value]) -> bytes:
    """``json-v1``: a JSON array of ``[name, value]`` pairs sorted by name, without white space."""
    return orjson.dumps([[name, args[name]] for name in sorted(args)])


def encode_mcp(endpoint: str, args: Mapping[str, Value], key: str) -> bytes:
    """``mcp-v1``: a JSON-RPC ``tools/call`` in canonical form; a dot in an argument's name opens an object.

    The tool's name is the last segment of the endpoint; ``key`` is the request's id.
    """
    params = {"arguments": nested(args), "name": unquote(endpoint.rpartition("/")[2])}
    document = {"id": key, "jsonrpc": "2.0", "method": "tools/call", "params": params}
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def encode_object(args: Mapping[str, Value]) -> bytes:
    """``object-v1``: a JSON object, canonical; a dot in an argument's name opens an object."""
    return orjson.dumps(nested(args), option=orjson.OPT_SORT_KEYS)


def nested(args: Mapping[str, Value]) -> dict[str, Any]:
    """One object of all arguments: ``amount.value`` is member ``value`` of the object ``amount``."""
    root: dict[str, Any] = {}
    for name, value in args.items():
        *outer, last = name.split(".")
        place = root
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = value
    return root


def prepare(tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
    """The request of ``args`` for ``tool``. ``key`` becomes the ``Idempotency-Key`` header, except for a query.

    ``{alias}`` in the endpoint's path takes the argument of that alias, percent-encoded, out of query and body.

    Raises:
        ArgumentError: the tool names an encoding that is not known, or a value cannot stand in a path.
    """
    method, _, url = tool.endpoint.partition(" ")
    if "{" in url:
        url, args = _with_path(tool, url, args)
    if tool.encoding == "query-v1":  # a read: no body, so no content type, and nothing that a key could protect
        return Request(method, url + encode_query(args), tool.headers, b"")
    if tool.encoding == "form-v1":
        body, content = encode_form(args, key), "application/x-www-form-urlencoded"
    elif tool.encoding == "form-bare-v1":
        body, content = encode_bare_form(args), "application/x-www-form-urlencoded"
    elif tool.encoding == "json-v1":
        body, content = encode_json(args), "application/json"
    elif tool.encoding == "object-v1":
        body, content = encode_object(args), "application/json"
    elif tool.encoding == "mcp-v1":
        body, content = encode_mcp(tool.endpoint, args, key), "application/json"
    elif tool.encoding == "evm-v1" and tool.evm is not None:
        by_alias = {tool.by_name[name].alias: value for name, value in args.items()}
        body, content = encode_call(call_of(tool.evm, by_alias)), "application/json"
    else:
        raise ArgumentError(f"unknown encoding {tool.encoding}", code="unknown_tool")
    headers = (*tool.headers, ("Content-Type", content), ("Idempotency-Key", key))
    return Request(method, url, headers, body)


def _with_path(tool: ToolSpec, url: str, args: Mapping[str, Value]) -> tuple[str, Mapping[str, Value]]:
    """The URL with its path arguments filled in, and the arguments that are left."""
    left = dict(args)
    for alias in path_aliases(tool.endpoint):
        name = tool.by_alias[alias].name
        if name not in left:
            raise ArgumentError(f"{name} is required", field=name, code="missing_argument")
        text = text_of(left.pop(name))
        if _NOT_IN_PATH.fullmatch(text) is not None:
            raise ArgumentError(f"{name} cannot stand in a path", field=name)
        url = url.replace("{" + alias + "}", _quoted(text))
    return url, left
