"""From a prepared request back to the arguments, for connectors that answer without a provider."""

from __future__ import annotations

from urllib.parse import parse_qsl

from countermark.model.canon import read_json
from countermark.model.errors import EncodingError
from countermark.model.request import KEY_FIELD
from countermark.model.tool import ArgSpec, ToolSpec, Value
from countermark.model.values import Request


def key_of(request: Request) -> str:
    """The provider key in the request's headers, or an empty string."""
    return dict(request.headers).get("Idempotency-Key", "")


def arguments(tool: ToolSpec, request: Request) -> dict[str, Value]:
    """The arguments that ``prepare`` encoded, by their provider names. Raises ``EncodingError``."""
    if tool.encoding == "json-v1":
        return dict(read_json(request.body))
    text = request.url.partition("?")[2] if tool.encoding == "query-v1" else request.body.decode("ascii")
    pairs = parse_qsl(text, keep_blank_values=True)
    return {name: _typed(tool.by_name.get(name), value) for name, value in pairs if name != KEY_FIELD}


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
