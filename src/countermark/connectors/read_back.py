"""From a prepared request back to the arguments, for connectors that answer without a provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from countermark.model.canon import read_json
from countermark.model.errors import EncodingError
from countermark.model.request import KEY_FIELD, path_aliases
from countermark.model.tool import ArgSpec, ToolSpec, Value
from countermark.model.values import Request


def key_of(request: Request) -> str:
    """The provider key in the request's headers, or an empty string."""
    return dict(request.headers).get("Idempotency-Key", "")


def arguments(tool: ToolSpec, request: Request) -> dict[str, Value]:
    """The arguments that ``prepare`` encoded, by their provider names. Raises ``EncodingError``."""
    found = _of_path(tool, request.url)
    if tool.encoding == "json-v1":
        return {**found, **dict(read_json(request.body))}
    if tool.encoding == "object-v1":
        return {**found, **_flat(read_json(request.body))}
    text = request.url.partition("?")[2] if tool.encoding == "query-v1" else request.body.decode("ascii")
    pairs = parse_qsl(text, keep_blank_values=True)
    return {**found, **{name: _typed(tool.by_name.get(name), value) for name, value in pairs if name != KEY_FIELD}}


def _flat(document: Mapping[str, Any], before: str = "") -> dict[str, Value]:
    """The arguments of an object within an object."""
    found: dict[str, Value] = {}
    for name, value in document.items():
        found.update(_flat(value, f"{before}{name}.") if type(value) is dict else {before + name: value})
    return found


def _of_path(tool: ToolSpec, url: str) -> dict[str, Value]:
    """The arguments that stand in the path."""
    aliases = path_aliases(tool.endpoint)
    if not aliases:
        return {}
    form = re.escape(tool.endpoint.partition(" ")[2])
    for alias in aliases:
        form = form.replace(re.escape("{" + alias + "}"), "([^/?]+)")
    match = re.match(form, url)
    if match is None:
        raise EncodingError("the request's path is not the tool's")
    specs = [tool.by_alias[alias] for alias in aliases]
    return {spec.name: _typed(spec, unquote(text)) for spec, text in zip(specs, match.groups(), strict=True)}


def _typed(spec: ArgSpec | None, text: str) -> Value:
    if spec is None:
        raise EncodingError("the request holds an argument that the tool does not have")
    if spec.type == "integer":
        return int(text)
    return text == "true" if spec.type == "boolean" else text


def terms(tool: ToolSpec, args: dict[str, Value]) -> tuple[int | None, str]:
    """Amount and currency of a money tool's arguments; ``(None, "")`` for other tools."""
    if tool.class_ != "money":
        return None, ""
    amount, currency = tool.one("amount"), tool.one("currency")
    given = args.get(amount.name) if amount is not None else None
    named = args.get(currency.name, tool.currency) if currency is not None else tool.currency
    return (given if type(given) is int else None), str(named)
