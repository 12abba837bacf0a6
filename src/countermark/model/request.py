"""From an action to the exact provider request: pure, and rebuilt by the verifier (``docs/spec/requests.md``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote

import orjson

from countermark.model.errors import ArgumentError
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Request

_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]*")  # RFC 3986 section 2.3
NAMES_REMEMBERED_MAX = 1_024
KEY_FIELD = "metadata[countermark_key]"  # where a form-encoded provider keeps our key, so that a lookup finds it


def text_of(value: Value) -> str:
    """A value as form text: booleans in lower case, integers in decimal."""
    if value is True:
        return "true"
    if value is False:
        return "false"
    return str(value)


def _form(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join([f"{_quoted_name(name)}={_quoted(value)}" for name, value in sorted(pairs)])


@lru_cache(maxsize=NAMES_REMEMBERED_MAX)
def _quoted_name(name: str) -> str:
    return _quoted(name)


def _quoted(text: str) -> str:
    return text if _UNRESERVED.fullmatch(text) is not None else quote(text, safe="")


def encode_form(args: Mapping[str, Value], key: str) -> bytes:
    """``form-v1``: arguments and the key field, sorted by name, percent-encoded (RFC 3986 unreserved kept)."""
    return _form([*((name, text_of(value)) for name, value in args.items()), (KEY_FIELD, key)]).encode("ascii")


def encode_query(args: Mapping[str, Value]) -> str:
    """``query-v1``: arguments alone, encoded as in ``form-v1``, with a leading ``?`` unless there are none."""
    text = _form((name, text_of(value)) for name, value in args.items())
    return "?" + text if text else ""


def encode_json(args: Mapping[str, Value]) -> bytes:
    """``json-v1``: a JSON array of ``[name, value]`` pairs sorted by name, without white space."""
    return orjson.dumps([[name, args[name]] for name in sorted(args)])


def prepare(tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
    """The request of ``args`` for ``tool``. ``key`` becomes the ``Idempotency-Key`` header, except for a query.

    Raises:
        ArgumentError: the tool names an encoding that is not known.
    """
    method, _, url = tool.endpoint.partition(" ")
    if tool.encoding == "query-v1":  # a read: no body, so no content type, and nothing that a key could protect
        return Request(method, url + encode_query(args), tool.headers, b"")
    if tool.encoding == "form-v1":
        body, content = encode_form(args, key), "application/x-www-form-urlencoded"
    elif tool.encoding == "json-v1":
        body, content = encode_json(args), "application/json"
    else:
        raise ArgumentError(f"unknown encoding {tool.encoding}", code="unknown_tool")
    headers = (*tool.headers, ("Content-Type", content), ("Idempotency-Key", key))
    return Request(method, url, headers, body)
