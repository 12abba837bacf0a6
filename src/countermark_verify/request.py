"""V12: the provider request that an action's arguments make (docs/spec/requests.md)."""

from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from countermark_verify import canon, onchain
from countermark_verify.bundle import PLACE

_SHORT_CHARS = 64


def as_text(value: Any) -> str:
    """An argument as text: booleans as JSON writes them, integers in decimal."""
    if type(value) is bool:
        return "true" if value else "false"
    return str(value)


def request_digest(tool: dict[str, Any], arguments: dict[str, Any], key: str, salt: str) -> str:
    """The digest of the request that these arguments (by provider name) make (docs/spec/requests.md)."""
    method, _, url = tool["endpoint"].partition(" ")
    if "{" in url:
        url, arguments = _with_path(tool, url, arguments)
    pairs = sorted(arguments.items(), key=lambda pair: pair[0])
    headers, data = list(tool["headers"]), b""
    if tool["encoding"] == "query-v1":
        url += "?" + _form(pairs) if pairs else ""
    elif tool["encoding"] == "form-v1":
        keyed = sorted([*pairs, ("metadata[countermark_key]", key)], key=lambda pair: pair[0])
        data = _form(keyed).encode()
        headers += [["Content-Type", "application/x-www-form-urlencoded"], ["Idempotency-Key", key]]
    elif tool["encoding"] == "form-bare-v1":
        data = _form(pairs).encode()
        headers += [["Content-Type", "application/x-www-form-urlencoded"], ["Idempotency-Key", key]]
    elif tool["encoding"] == "object-v1":
        data = canon.render(_nested(arguments))
        headers += [["Content-Type", "application/json"], ["Idempotency-Key", key]]
    elif tool["encoding"] == onchain.ENCODING:
        aliases = {item["name"]: item["alias"] for item in tool["args"]}
        data = onchain.body_of(tool["evm"], {aliases[name]: value for name, value in pairs})
        headers += [["Content-Type", "application/json"], ["Idempotency-Key", key]]
    elif tool["encoding"] == "mcp-v1":
        data = canon.render(_tools_call(tool, arguments, key))
        headers += [["Content-Type", "application/json"], ["Idempotency-Key", key]]
    else:
        data = canon.render([list(pair) for pair in pairs])
        headers += [["Content-Type", "application/json"], ["Idempotency-Key", key]]
    request = {
        "method": method,
        "url": url,
        "headers": headers,
        "body": canon.digest("body", salt.encode() + data),
    }
    return canon.digest("request", canon.render(request))


def _tools_call(tool: dict[str, Any], arguments: dict[str, Any], key: str) -> dict[str, Any]:
    """The JSON-RPC request of an MCP tool."""
    params = {"arguments": _nested(arguments), "name": unquote(tool["endpoint"].rpartition("/")[2])}
    return {"id": key, "jsonrpc": "2.0", "method": "tools/call", "params": params}


def _nested(arguments: dict[str, Any]) -> dict[str, Any]:
    """One object of all arguments: a dot in a name opens an object within."""
    nested: dict[str, Any] = {}
    for name, value in arguments.items():
        *outer, last = name.split(".")
        place = nested
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def _with_path(tool: dict[str, Any], url: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The URL with the arguments of its path, and the arguments that are left for query or body."""
    names = {item["alias"]: item["name"] for item in tool["args"]}
    left = dict(arguments)
    for alias in PLACE.findall(url):
        if names.get(alias) in left:
            url = url.replace("{" + alias + "}", _encoded(as_text(left.pop(names[alias]))))
    return url, left


def fits_path(tool: dict[str, Any], alias: str, value: Any) -> bool:
    """Whether a value may stand where the endpoint has it: no empty or dotted segment, no further one."""
    if "{" + alias + "}" not in tool["endpoint"]:
        return True
    text = as_text(value)
    return bool(text.strip(".")) and not any(c in "/\\%" or c < " " or "\x7f" <= c <= "\x9f" for c in text)


def _form(pairs: list[tuple[str, Any]]) -> str:
    return "&".join(f"{_encoded(name)}={_encoded(as_text(value))}" for name, value in pairs)


def _encoded(text: str) -> str:
    return _quoted(text) if len(text) <= _SHORT_CHARS else quote(text, safe="")


@lru_cache(maxsize=4_096)
def _quoted(text: str) -> str:
    # `safe=""` leaves exactly the unreserved characters of RFC 3986 2.3.
    return quote(text, safe="")
