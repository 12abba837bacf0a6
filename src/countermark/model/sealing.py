"""Values of a sealed run: where they would stand in its records, a salted digest does (``docs/spec/workflow.md``).

A record of such a run has the member ``subject``; exactly one of its values is sealed, under the alias ``$`` + the
name of the member that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from countermark.model.digest import FIELD, VALUE, digest_of
from countermark.model.errors import ArgumentError
from countermark.model.records import Record

SEALED_KINDS: Final = frozenset(("run.started", "compute.executed", "step.resumed", "run.ended"))
ERASED: Final = "values_erased"
SUBJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def is_sealed(record: Record) -> bool:
    """Whether a record holds a value of a sealed run."""
    return "subject" in record.body and record.kind in SEALED_KINDS


def label_of(body: Mapping[str, Any]) -> str:
    """What the ciphertext of a record's values is bound to: the action, or the run."""
    return str(body["id"] if "id" in body else body["run"])


def _member(body: Mapping[str, Any]) -> tuple[str, str]:
    """Where the value of such a record stands: an object within the body (or ""), and its member."""
    if "workflow" in body:
        return "workflow", "inputs" if "inputs" in body["workflow"] else "outputs"
    if "output" in body:
        return "", "output" if body["status"] == "ok" else "message"
    return "", "outputs"


def _with(body: Mapping[str, Any], value: Any) -> dict[str, Any]:
    within, name = _member(body)
    return {**body, within: {**body[within], name: value}} if within else {**body, name: value}


def _value(body: Mapping[str, Any]) -> Any:
    within, name = _member(body)
    return body[within][name] if within else body[name]


def seal_body(body: Mapping[str, Any], subject: str, salt: str) -> tuple[dict[str, Any], list[Any]]:
    """The body as a sealed run records it, and ``[alias, salt, value]`` of what it does not show."""
    alias, value = "$" + _member(body)[1], _value(body)
    sealed = {**_with(body, {"$sd": digest_of(FIELD, [salt, alias, value])}), "subject": subject}
    if "output" in body:
        sealed |= {"input": None, "result": None}  # digests without a salt: small values could be guessed
    return sealed, [alias, salt, value]


def hidden_value(body: Mapping[str, Any]) -> tuple[str, str]:
    """Alias and field digest of the value that a record of a sealed run does not show."""
    return "$" + _member(body)[1], str(_value(body)["$sd"])


def open_record(record: Record, values: Mapping[str, Any]) -> Record:
    """The record as an unsealed run would have it, but for the digest of what code was given.

    ``values``: by alias, those that fit their digests. Raises ``ArgumentError`` (``values_erased``).
    """
    alias, _ = hidden_value(record.body)
    if alias not in values:
        raise ArgumentError(
            f"the values of the run {record.body['run']} were erased, or cannot be opened", field="run",
            code=ERASED,
        )  # fmt: skip
    body = _with(record.body, values[alias])
    del body["subject"]
    if alias == "$output":
        body["result"] = digest_of(VALUE, values[alias])
    return record._replace(body=body)
