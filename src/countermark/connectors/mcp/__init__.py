"""MCP servers as connectors, over a pipe or HTTP. Written to the protocol's text; needs no SDK."""

from countermark.connectors.mcp.connector import McpConnector
from countermark.connectors.mcp.definition import Definition, UpstreamError, visible
from countermark.connectors.mcp.draft import draft
from countermark.connectors.mcp.open import command_connector, origin_connector

__all__ = ["Definition", "McpConnector", "UpstreamError", "command_connector", "draft", "origin_connector", "visible"]
