"""From an SDK's form or query to a tool's arguments, strictly: nothing is dropped, guessed or given twice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from countermark.model.request import path_aliases
from countermark.model.tool import ARGS_MAX, ArgSpec, ToolSpec, Value
from countermark.server.stripe_errors import RefusedError

NAME_CHARS_MAX = 100
FORM = b"application/x-www-form-urlencoded"

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,15}")
_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ARRAY = re.compile(r".*\[[0-9]*\].*", re.DOTALL)


def pairs_of(raw: bytes) -> dict[str, str]:
    """The fields of a form or a query, each once. Raises ``RefusedError``."""
    found: dict[str, str] = {}
    if not raw:
        return found
    parts = raw.split(b"&")
    if len(parts) > ARGS_MAX:
        raise RefusedError(400, f"More than {ARGS_MAX} parameters.", code="parameter_invalid")
    for part in parts:
        name, equals, text = part.partition(b"=")
        if not equals:
            raise RefusedError(400, "The parameters are not form-encoded.", code="parameter_invalid")
        key = _text(name)
        if key in found:
            raise _about(key, "The parameter {} was given twice.", "parameter_invalid")
        found[key] = _text(text)
    return found


def _text(raw: bytes) -> str:
    if _PERCENT.search(raw) is not None:
        raise RefusedError(400, "The parameters are not form-encoded.", code="parameter_invalid")
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError(400, "The parameters are not UTF-8.", code="parameter_invalid") from None


def _about(name: str, message: str, code: str, hint: str = "") -> RefusedError:
    shown = name[:NAME_CHARS_MAX].encode("ascii", "replace").decode("ascii")
    return RefusedError(400, message.format(shown), code=code, param=shown, hint=hint)


def arguments(tool: ToolSpec, fields: Mapping[str, str], path: Mapping[str, str]) -> dict[str, Value]:
    """The tool's arguments by Stripe's names. ``path``: alias -> text of what stands in the address.

    Raises:
        RefusedError: an unknown field, an array, a text that is no value of the argument's type.
    """
    of_path = {tool.by_alias[alias].name: text for alias, text in path.items()}
    args: dict[str, Value] = {}
    for name, text in {**fields, **of_path}.items():
        spec = tool.by_name.get(name)
        if spec is None or (name in of_path and name in fields):
            raise _unknown(name)
        args[name] = _value(spec, text)
    return args


def _unknown(name: str) -> RefusedError:
    if _ARRAY.fullmatch(name) is not None:
        return _about(name, "The gate passes on no arrays: {}", "parameter_unknown")
    hint = "Only what tools.toml declares is passed on."
    return _about(name, "Received unknown parameter: {}", "parameter_unknown", hint)


def _value(spec: ArgSpec, text: str) -> Value:
    if spec.type == "integer":
        if _INTEGER.fullmatch(text) is None:
            raise _about(spec.name, "Invalid integer: {}", "parameter_invalid_integer")
        return int(text)
    if spec.type == "boolean":
        if text not in ("true", "false"):
            raise _about(spec.name, "Invalid boolean: {}", "parameter_invalid")
        return text == "true"
    return text


def check_business_key(tool: ToolSpec, args: Mapping[str, Value]) -> None:
    """SDKs invent a new Idempotency-Key for each call, so here only the business key makes two payments the same one.

    Raises:
        RefusedError: the tool has no business key, or the request leaves a part of it out.
    """
    if not tool.once_per:
        raise RefusedError(
            403, f"{tool.name} has no business key, so the gate does not take it from an SDK.",
            code="countermark_no_business_key", hint="Declare once_per for it in tools.toml.",
        )  # fmt: skip
    payee = tool.one("payee")
    specs = [payee if name == "payee" else tool.by_alias.get(name) for name in tool.once_per]
    named = any(spec is not None and spec is not payee and args.get(spec.name, "") != "" for spec in specs)
    for spec in specs:  # what tools.toml declares as optional may be left out beside something that names the payment
        if spec is not None and args.get(spec.name, "") == "" and (spec.required or not named):
            hint = (
                "It says what is being paid, so that the same thing is never paid twice. idempotency_key does not: "
                "SDKs make a new one for each call."
            )
            raise _about(spec.name, "Missing required param: {}.", "countermark_business_key_missing", hint)


class Routes:
    """The Stripe tools of one bundle, by method and path."""

    def __init__(self, tools: Mapping[str, ToolSpec], connector: str) -> None:
        self._exact: dict[tuple[str, str], ToolSpec] = {}
        self._with_ids: list[tuple[str, re.Pattern[str], ToolSpec]] = []
        for tool in tools.values():
            if tool.connector != connector:
                continue
            method, _, url = tool.endpoint.partition(" ")
            path = "/" + "/".join(url.split("/")[3:])
            aliases = path_aliases(tool.endpoint)
            if not aliases:
                self._exact[(method, path)] = tool
                continue
            form = re.escape(path)
            for alias in aliases:
                form = form.replace(re.escape("{" + alias + "}"), f"(?P<{alias}>[A-Za-z0-9_.~-]+)")
            self._with_ids.append((method, re.compile(form), tool))

    def find(self, method: str, path: str) -> tuple[ToolSpec, dict[str, str]] | None:
        """The tool behind an address, and what the address says of its arguments."""
        tool = self._exact.get((method, path))
        if tool is not None:
            return tool, {}
        for known, form, candidate in self._with_ids:
            match = form.fullmatch(path) if known == method else None
            if match is not None:
                return candidate, match.groupdict()
        return None
