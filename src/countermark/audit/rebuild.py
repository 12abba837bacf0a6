"""From a record back to the exact request, and the sealed values that belong to a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from countermark.journal import SqliteStore, Vault
from countermark.model.digest import FIELD, digest_of
from countermark.model.errors import CountermarkError
from countermark.model.records import Record
from countermark.model.request import prepare
from countermark.model.sealing import hidden_value, label_of, open_record
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Request

REASON = "$reason"  # the alias under which the agent's reason is sealed


@dataclass(frozen=True, slots=True)
class Sealed:
    """What stands beside a record, encrypted: ``fields`` are ``(alias, salt, value)``, the reason among them.

    ``salt`` is the request's, when the record does not hold it itself.
    """

    fields: tuple[tuple[str, str, Value], ...]
    salt: str | None


Unseal = Callable[[int], Sealed | None]
"""Sealed values of the record at a seq: None when there are none, or when their key was destroyed."""


def unsealer(store: SqliteStore, vault: Vault) -> Unseal:
    """Open sealed values with the deployment's vault."""

    def unseal(seq: int) -> Sealed | None:
        row = store.sealed(seq)
        if row is None:
            return None
        plain = vault.open(row[0], label_of(store.record(seq).body), row[1])
        return None if plain is None else sealed_of(orjson.loads(plain))

    return unseal


def sealed_of(document: Mapping[str, Any]) -> Sealed:
    """The sealed document ``{"fields": [[alias, salt, value]], "salt", "reason": [salt, text] | null}``."""
    fields = [(alias, salt, value) for alias, salt, value in document["fields"]]
    if document["reason"]:
        salt, text = document["reason"]
        fields.append((REASON, salt, text))
    return Sealed(tuple(fields), document["salt"])


def hidden_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Alias -> field digest of the values that an ``action.decided`` body does not show, the reason among them.

    Also of a record of a sealed run.
    """
    if "subject" in body:
        return dict([hidden_value(body)])
    found = {alias: value["$sd"] for alias, value in body["args"].items() if type(value) is dict}
    if body["claimed"]["reason"] is not None:
        found[REASON] = body["claimed"]["reason"]["$sd"]
    return found


def opened(body: Mapping[str, Any], sealed: Sealed | None) -> dict[str, Value]:
    """The hidden values that ``sealed`` opens, by alias. One that does not fit its digest is left out."""
    if sealed is None:
        return {}
    hidden = hidden_of(body)
    return {
        alias: value
        for alias, salt, value in sealed.fields
        if hidden.get(alias) == digest_of(FIELD, [salt, alias, value])
    }


def open_run_record(record: Record, unseal: Unseal | None) -> Record:
    """A record of a sealed run as an unsealed one would have it. Raises ``ArgumentError`` (``values_erased``)."""
    return open_record(record, opened(record.body, None if unseal is None else unseal(record.seq)))


def request_of(
    body: Mapping[str, Any], tool: ToolSpec, sealed: Sealed | None = None
) -> tuple[Request, dict[str, Value]] | None:
    """The request of a decision, rebuilt, with its plain arguments by alias; None where values are missing.

    The caller compares: only a request whose digest is the recorded one is what was decided.
    """
    args: dict[str, Value] = {}
    values = opened(body, sealed)
    for alias, value in body["args"].items():
        if type(value) is dict:
            if alias not in values:
                return None
            value = values[alias]
        args[alias] = value
    try:
        request = prepare(tool, {tool.by_alias[alias].name: value for alias, value in args.items()}, body["key"])
    except (CountermarkError, KeyError):
        return None
    return request, args


def is_decided(body: Mapping[str, Any], request: Request, sealed: Sealed | None = None) -> bool:
    """Whether these are exactly the bytes that were decided."""
    salt = body["salt"] if body["salt"] is not None else sealed.salt if sealed is not None else None
    return salt is not None and request.digest(salt) == body["request"]
