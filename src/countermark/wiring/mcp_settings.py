"""``[connector.NAME]`` with ``kind = "mcp"`` in ``countermark.toml``: how an MCP server is started or reached.

The server is given PATH, LANG and what ``env`` names by reference, and nothing else of this process's environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from countermark.connectors import McpConnector, command_connector, origin_connector, origin_of
from countermark.model.errors import ConfigError
from countermark.wiring.custody import FORMS, is_reference

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
COMMAND_WORDS_MAX = 64
WORD_CHARS_MAX = 4_096
VARIABLES_MAX = 64
PATH_DEFAULT = "/mcp"

_KEYS = frozenset(("kind", "command", "env", "origin", "path", "secret"))
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PATH = re.compile(r"/[A-Za-z0-9._~/-]{0,200}")

Resolve = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class McpSettings:
    """One server: a ``command`` to start, or an ``origin`` and ``path`` to reach with ``secret``.

    ``env`` maps the server's variables to references (``env:NAME``, ``file:PATH``).
    """

    name: str
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    path: str = PATH_DEFAULT
    secret: str = ""

    @property
    def references(self) -> tuple[str, ...]:
        """Every secret that the server needs, by reference."""
        return (*self.env.values(), *((self.secret,) if self.secret else ()))


def split_mcp(section: object, file: str) -> tuple[dict[str, McpSettings], object]:
    """The MCP servers of ``[connector]``, and the rest of it. Raises ``ConfigError``."""
    if not isinstance(section, dict):
        return {}, section
    ours = {name: table for name, table in section.items() if isinstance(table, dict) and table.get("kind") == "mcp"}
    rest = {name: table for name, table in section.items() if name not in ours}
    return {name: _read(name, table, f"{file}: connector.{name}") for name, table in ours.items()}, rest


def _read(name: str, table: Mapping[str, Any], where: str) -> McpSettings:
    if NAME.fullmatch(name) is None or name in ("stripe", "noop", "caller"):
        raise ConfigError(f"{where}: an MCP connector is named by 1 to 40 of a-z 0-9 -, and not like one of ours")
    if table.keys() - _KEYS:
        raise ConfigError(f"{where} takes only: {', '.join(sorted(_KEYS))}")
    command, env, origin = table.get("command", []), table.get("env", {}), table.get("origin", "")
    path, secret = table.get("path", PATH_DEFAULT), table.get("secret", "")
    words = type(command) is list and len(command) <= COMMAND_WORDS_MAX and all(map(_word, command))
    if not words or type(origin) is not str or bool(command) == bool(origin):
        raise ConfigError(f'{where} needs either command = ["PROGRAM", "ARGUMENT", ...] or origin = "https://HOST"')
    if type(env) is not dict or len(env) > VARIABLES_MAX or not all(map(_VARIABLE.fullmatch, env)):
        raise ConfigError(f"{where}.env must be a table of at most {VARIABLES_MAX} variables")
    for reference in (*env.values(), *([secret] if secret else [])):
        if not is_reference(reference):
            raise ConfigError(f"{where}: a secret must be {FORMS}, never the secret itself")
    if origin:
        origin_of(origin)
    if (env and origin) or ((secret or "path" in table) and command):
        raise ConfigError(f"{where}: env goes with command; secret and path go with origin")
    if type(path) is not str or _PATH.fullmatch(path) is None:
        raise ConfigError(f"{where}.path must be a path such as {PATH_DEFAULT}")
    return McpSettings(name, tuple(command), dict(env), origin, path, secret)


def _word(word: object) -> bool:
    return type(word) is str and 0 < len(word) <= WORD_CHARS_MAX and "\0" not in word


def mcp_connector(settings: McpSettings, resolve: Resolve) -> McpConnector:
    """The connector of a server. ``resolve`` gives the secret behind a reference, each time it is needed."""
    if not settings.command:
        secret = (lambda: resolve(settings.secret)) if settings.secret else None
        return origin_connector(settings.name, settings.origin, settings.path, secret)

    def environment() -> dict[str, str]:
        given = {name: resolve(reference) for name, reference in settings.env.items()}
        return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **given}

    return command_connector(settings.name, settings.command, environment)
