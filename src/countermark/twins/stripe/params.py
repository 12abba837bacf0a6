"""Form parameters of the simulated API: nested brackets, strict names, exact types, and the error shape.

Source of shapes and messages: Stripe's public API reference (Errors, Pagination, Idempotent requests).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

PARAMS_MAX = 200
METADATA_KEYS_MAX = 50
METADATA_KEY_CHARS_MAX = 40
METADATA_VALUE_CHARS_MAX = 500
AMOUNT_MAX = 99_999_999_999  # Stripe: amounts of at most eleven digits for the currencies that allow most
LIST_LIMIT_MAX = 100

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_INTEGER = re.compile(r"-?[0-9]{1,15}")


class Refusal(Exception):
    """An answer in Stripe's error shape.

    ``stored`` says whether an idempotency key keeps this answer: errors found while checking parameters are not
    kept, errors found while executing are.
    """

    def __init__(
        self, status: int, message: str, *, type_: str = "invalid_request_error", code: str = "", param: str = "",
        stored: bool = False, extra: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.stored = stored
        self.error: dict[str, Any] = {"message": message, "type": type_}
        if code:
            self.error["code"] = code
            self.error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        if param:
            self.error["param"] = param
        self.error.update(extra or {})

    def document(self) -> dict[str, Any]:
        return {"error": self.error}


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter. ``kind``: string, integer, amount, currency, boolean, metadata, range or list."""

    kind: str = "string"
    required: bool = False
    enum: tuple[str, ...] = ()
    chars_max: int = 5_000


AMOUNT = Param("amount", required=True)
CURRENCY = Param("currency", required=True)
TEXT = Param()
METADATA = Param("metadata")
EXPAND = Param("list")
FLAG = Param("boolean")
LIST_PARAMS: dict[str, Param] = {
    "limit": Param("integer"),
    "starting_after": TEXT,
    "ending_before": TEXT,
    "created": Param("range"),
    "expand": EXPAND,
}


def parse(raw: str, schema: Mapping[str, Param]) -> dict[str, Any]:
    """Parse a form or a query strictly against ``schema``. Raises ``Refusal`` (400)."""
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, strict_parsing=bool(raw), errors="strict")
    except ValueError:
        raise Refusal(400, "Invalid request: the parameters are not form-encoded UTF-8.") from None
    if len(pairs) > PARAMS_MAX:
        raise Refusal(400, f"Invalid request: more than {PARAMS_MAX} parameters.")
    values: dict[str, Any] = {}
    for name, text in pairs:
        match = _NAME.fullmatch(name)
        spec = schema.get(match.group(1)) if match else None
        if match is None or spec is None:
            raise unknown(name)
        path = [part[:-1] for part in match.group(2).split("[")[1:]]
        _put(values, match.group(1), path, text, spec, name)
    for name, spec in schema.items():
        if spec.required and name not in values:
            raise Refusal(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    return values


def unknown(name: str) -> Refusal:
    shown = name[:100]
    return Refusal(400, f"Received unknown parameter: {shown}", code="parameter_unknown", param=shown)


def _put(values: dict[str, Any], name: str, path: list[str], text: str, spec: Param, full: str) -> None:
    if spec.kind == "list":
        if len(path) != 1 or not (path[0] == "" or path[0].isdigit()):
            raise Refusal(400, "Invalid array", param=name)
        raise Refusal(400, f"This property cannot be expanded ({text[:100]}); the simulator expands none.", param=name)
    if spec.kind == "metadata":
        _put_metadata(values.setdefault(name, {}), path, text, full)
    elif spec.kind == "range" and path:
        if path[0] not in ("gt", "gte", "lt", "lte") or len(path) != 1:
            raise unknown(full)
        values.setdefault(name, {})[path[0]] = _integer(text, full)
    elif path:
        raise unknown(full)
    elif name in values:
        raise Refusal(400, f"The parameter {name} was given twice.", param=name)
    else:
        values[name] = _value(name, text, spec)


def _put_metadata(metadata: dict[str, str], path: list[str], text: str, full: str) -> None:
    if len(path) != 1 or not path[0] or path[0] in metadata:
        raise Refusal(400, "Invalid metadata: give each key once.", code="parameter_unknown", param=full[:100])
    if len(path[0]) > METADATA_KEY_CHARS_MAX or len(text) > METADATA_VALUE_CHARS_MAX:
        raise Refusal(400, "Metadata keys may have 40 characters and values 500.", param=full[:100])
    if len(metadata) >= METADATA_KEYS_MAX:
        raise Refusal(400, f"Metadata may have {METADATA_KEYS_MAX} keys.", param="metadata")
    metadata[path[0]] = text


def _integer(text: str, name: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise Refusal(400, f"Invalid integer: {text[:40]}", code="parameter_invalid_integer", param=name)
    return int(text)


def _value(name: str, text: str, spec: Param) -> Any:
    if spec.kind == "range":
        return {"gte": _integer(text, name), "lte": _integer(text, name)}
    if spec.kind == "integer":
        return _integer(text, name)
    if spec.kind == "amount":
        amount = _integer(text, name)
        if amount < 1:
            raise Refusal(400, "Invalid positive integer", code="parameter_invalid_integer", param=name)
        if amount > AMOUNT_MAX:
            raise Refusal(400, f"Amount must be no more than {AMOUNT_MAX}", code="amount_too_large", param=name)
        return amount
    if spec.kind == "boolean":
        if text not in ("true", "false"):
            raise Refusal(400, f"Invalid boolean: {text[:40]}", param=name)
        return text == "true"
    if text == "":
        raise Refusal(400, f"You passed an empty string for '{name}'.", code="parameter_invalid_empty", param=name)
    if spec.kind == "currency" and re.fullmatch(r"[a-z]{3}", text) is None:
        raise Refusal(400, f"Invalid currency: {text[:40]}. Use lower-case ISO.", param=name)
    if spec.enum and text not in spec.enum:
        raise Refusal(400, f"Invalid {name}: must be one of {', '.join(spec.enum)}", param=name)
    if len(text) > spec.chars_max:
        raise Refusal(400, f"Invalid string: {name} is too long", code="parameter_invalid_string", param=name)
    return text
