"""From what a deployment says about an MCP server to its connector. Credentials are asked for when they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from countermark.connectors.http_send import NotSentError, Sender, origin_of
from countermark.connectors.mcp.connector import McpConnector
from countermark.connectors.mcp.http import ACCEPT, HttpWire
from countermark.connectors.mcp.stdio import StdioWire
from countermark.model.errors import CountermarkError

__all__ = ["command_connector", "origin_connector", "origin_of"]


def command_connector(name: str, command: Sequence[str], environment: Callable[[], Mapping[str, str]]) -> McpConnector:
    """A server that is started as a child process; ``environment`` is all that it is given."""

    def start() -> StdioWire:
        try:
            given = environment()
        except (CountermarkError, OSError, LookupError, ValueError):
            # Whatever went wrong there may quote the credential: say only that there is none.
            raise NotSentError("a variable of the MCP server has no value", "missing_secret") from None
        return StdioWire(command, given)

    return McpConnector(name, start)


def origin_connector(name: str, origin: str, path: str, secret: Callable[[], str] | None) -> McpConnector:
    """A server behind HTTP. Raises ``ConfigError`` when ``origin`` is not https (or http on loopback)."""
    sender = Sender(origin, ACCEPT)
    return McpConnector(name, lambda: HttpWire(sender, path, secret))
