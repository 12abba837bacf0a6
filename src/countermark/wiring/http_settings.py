"""``[connector.NAME]`` with ``kind = "http"`` of ``countermark.toml``: a JSON API, its origin and its credential."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.connectors import HttpConnector, networks_of, origin_of
from countermark.model.errors import ConfigError
from countermark.model.tool import CALLER
from countermark.model.values import NAME
from countermark.wiring.custody import FORMS, is_reference

KIND = "http"
RESERVED_NAMES = (CALLER, "noop", "stripe")

_KEYS = frozenset(("kind", "origin", "secret", "auth", "allow_addresses"))
_HEADER = re.compile(r"header:[A-Za-z][A-Za-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """``secret`` is a reference or ``""``; ``header`` carries it, ``""`` for a bearer token."""

    origin: str
    secret: str = ""
    header: str = ""
    allow_addresses: tuple[str, ...] = ()


def split_http(section: Any, file: str) -> tuple[Mapping[str, HttpSettings], Any]:
    """The JSON APIs of the section ``connector``, and what is left of it. Raises ``ConfigError``."""
    if not isinstance(section, dict):
        return {}, section
    found = {
        name: _read(name, table, file)
        for name, table in section.items()
        if isinstance(table, dict) and table.get("kind") == KIND
    }
    return found, {name: table for name, table in section.items() if name not in found}


def _read(name: str, table: Mapping[str, Any], file: str) -> HttpSettings:
    where = f"{file}: connector.{name}"
    if name in RESERVED_NAMES or NAME.fullmatch(name) is None:
        raise ConfigError(f"{where} cannot be the name of an API")
    if table.keys() - _KEYS:
        raise ConfigError(f"{where} takes only: {', '.join(sorted(_KEYS))}")
    origin, secret, auth = table.get("origin"), table.get("secret", ""), table.get("auth", "bearer")
    allowed = table.get("allow_addresses", [])
    if not isinstance(origin, str):
        raise ConfigError(f"{where} needs an origin")
    if secret != "" and not is_reference(secret):
        raise ConfigError(f"{where}.secret must be {FORMS}, never the secret itself")
    if not isinstance(auth, str) or (auth not in ("bearer", "none") and _HEADER.fullmatch(auth) is None):
        raise ConfigError(f'{where}.auth is "bearer", "none" or "header:NAME"')
    if (auth == "none") == bool(secret):
        raise ConfigError(f'{where} needs a secret, or auth = "none" and no secret')
    if not isinstance(allowed, list) or not all(isinstance(text, str) for text in allowed):
        raise ConfigError(f"{where}.allow_addresses is a list of networks")
    try:
        origin_of(origin)
        networks_of(allowed)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
    return HttpSettings(origin, secret, auth.partition(":")[2], tuple(allowed))


def http_connector(name: str, settings: HttpSettings, resolve: Callable[[str], str]) -> HttpConnector:
    """The connector; its secret is read when it is used."""
    reference = settings.secret
    secret = (lambda tool: resolve(reference)) if reference else None
    networks = networks_of(settings.allow_addresses)
    return HttpConnector(name, settings.origin, secret, header=settings.header, allowed=networks)
