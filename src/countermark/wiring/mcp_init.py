"""``countermark init --from-mcp``: what an MCP server offers becomes denied drafts in ``tools.toml``.

The server is asked before anything is written. What is written is for people to read: nothing of it is permitted.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from countermark.connectors import UpstreamError, draft
from countermark.model.errors import ConfigError
from countermark.wiring.config import CONFIG_BYTES_MAX, FILE, load_config, resolve_secret
from countermark.wiring.mcp_settings import McpSettings, mcp_connector, split_mcp

TOOLS = "tools.toml"
TOOLS_BYTES_MAX = 128 * 1024  # as a policy's file may be


@dataclass(frozen=True, slots=True)
class Offer:
    """A server that was asked: its settings, how many tools it lists, and their drafts."""

    settings: McpSettings
    count: int
    text: str


def ask_server(name: str, target: str, env: Mapping[str, str], secret: str, root: Path) -> Offer:
    """Start or reach a server and draft its tools. ``target`` is a command line or an https URL.

    Raises:
        ConfigError: the name, the target or a reference cannot be used.
        UpstreamError: the server does not list tools.
    """
    table: dict[str, object] = {"kind": "mcp"}
    if target.startswith(("https://", "http://")):
        parts = urlsplit(target)
        table |= {"origin": f"{parts.scheme}://{parts.netloc}", "path": parts.path or "/"}
        table |= {"secret": secret} if secret else {}
    else:
        table |= {"command": _words(target)}
    table |= {"env": dict(env)} if env else {}
    settings = split_mcp({name: table}, FILE)[0][name]
    connector = mcp_connector(settings, lambda reference: resolve_secret(reference, root))
    try:
        definitions = connector.definitions()
    finally:
        connector.close()
    if not definitions:
        raise UpstreamError("the MCP server lists no tools")
    return Offer(settings, len(definitions), draft(name, definitions))


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"the command line of the MCP server cannot be read: {error}") from None


def write_offer(root: Path, offer: Offer) -> None:
    """Add a server to a deployment: ``[connector.NAME]`` and the drafts. Raises ``ConfigError``."""
    name = offer.settings.name
    config = load_config(root)
    if name in config.mcp or name in config.secrets:
        raise ConfigError(
            f"{FILE} has a connector {name} already", hint="Choose another --connector, or take the old one out."
        )
    tools, settings = config.policy / TOOLS, root / FILE
    try:
        new_tools = tools.read_text("utf-8").rstrip("\n") + "\n\n" + offer.text
        new_settings = settings.read_text("utf-8").rstrip("\n") + "\n\n" + section(offer.settings)
        if len(new_tools.encode()) > TOOLS_BYTES_MAX or len(new_settings.encode()) > CONFIG_BYTES_MAX:
            raise ConfigError(f"{TOOLS} would be longer than {TOOLS_BYTES_MAX} bytes with these drafts")
        _replace(tools, new_tools)
        _replace(settings, new_settings)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the deployment's files cannot be changed: {error}") from None


def section(settings: McpSettings) -> str:
    """The server's section of ``countermark.toml``."""
    lines = [f"[connector.{settings.name}]", 'kind = "mcp"']
    if settings.command:
        lines.append(f"command = [{', '.join(_quoted(word) for word in settings.command)}]")
        if settings.env:
            pairs = ", ".join(f"{name} = {_quoted(reference)}" for name, reference in settings.env.items())
            lines.append(f"env = {{ {pairs} }}")
    else:
        lines += [f"origin = {_quoted(settings.origin)}", f"path = {_quoted(settings.path)}"]
        lines += [f"secret = {_quoted(settings.secret)}"] if settings.secret else []
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    if not text.isprintable():
        raise ConfigError("a command line or an address holds characters that cannot be seen")
    return json.dumps(text, ensure_ascii=False)


def _replace(path: Path, text: str) -> None:
    """All of it or nothing: a cut policy or configuration would not open."""
    new = path.with_name(path.name + ".new")
    mode = stat.S_IMODE(path.stat().st_mode)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
