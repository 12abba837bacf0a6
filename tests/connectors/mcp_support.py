"""What the tests of MCP share: the small server in a folder, its tools, and the real ones from the registries."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from countermark.connectors import McpConnector, command_connector
from countermark.model.request import prepare
from countermark.model.tool import ArgSpec, ToolSpec
from countermark.model.values import Outcome, Request

HERE = Path(__file__).resolve().parent
MODULES = Path(os.environ.get("COUNTERMARK_NODE_MODULES", HERE.parent / "npm" / "node_modules"))
TEXT = {"type": "string"}
ECHO = {
    "name": "echo", "description": "Says it again.",
    "inputSchema": {
        "type": "object", "properties": {"text": {**TEXT, "description": "What to say."}}, "required": ["text"],
    },
}  # fmt: skip
NOTE = {
    "name": "note", "description": "Writes a note.",
    "inputSchema": {"type": "object", "properties": {"text": TEXT, "topic": TEXT}, "required": ["text"]},
}  # fmt: skip
PAY = {
    "name": "pay", "description": "Pays an invoice.",
    "inputSchema": {
        "type": "object", "required": ["amount", "to", "invoice"],
        "properties": {
            "amount": {
                "type": "object", "required": ["value", "currency"],
                "properties": {"value": {"type": "integer"}, "currency": TEXT},
            },
            "to": {"type": "string", "maxLength": 64}, "invoice": TEXT,
        },
    },
}  # fmt: skip


class Upstream:
    """The small server: its folder, and what it saw."""

    def __init__(self, folder: Path, tools: list[dict[str, Any]] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.offer(tools or [ECHO, NOTE, PAY])

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(HERE / "mcp_upstream.py"), str(self.folder)]

    def offer(self, tools: list[dict[str, Any]]) -> None:
        (self.folder / "tools.json").write_text(json.dumps(tools))

    def mood(self, name: str) -> None:
        (self.folder / "mood").write_text(name)

    @property
    def received(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def lines(self) -> list[bytes]:
        log = self.folder / "log"
        return log.read_bytes().splitlines() if log.exists() else []

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [message["params"] for message in self.received if message.get("method") == "tools/call"]

    def connector(self, **environment: str) -> McpConnector:
        return command_connector("shop", self.command, lambda: environment)


def tool_of(connector: McpConnector, name: str, class_: str = "read", **more: Any) -> ToolSpec:
    """The tool as a bundle knows it, pinned to what the server says now."""
    pin = next(one.digest for one in connector.definitions() if one.name == name)
    args = {
        "echo": (ArgSpec("text", "string", "inert", "text"),),
        "note": (ArgSpec("text", "string", "inert", "text"), ArgSpec("topic", "string", "inert", "topic", False)),
        "pay": (
            ArgSpec("amount.value", "integer", "amount", "amount"),
            ArgSpec("amount.currency", "string", "currency", "currency"),
            ArgSpec("to", "string", "payee", "to"), ArgSpec("invoice", "string", "reference", "invoice"),
        ),
    }  # fmt: skip
    return ToolSpec(
        name=f"shop.{name}", connector="shop", class_=class_, args=args[name], encoding="mcp-v1",  # type: ignore[arg-type]
        endpoint=f"POST mcp://shop/tools/call/{name}", headers=(("Mcp-Tool-Digest", pin),), timeout_ms=5_000, **more,
    )  # fmt: skip


def run(connector: McpConnector, tool: ToolSpec, key: str = "cm_1", **args: Any) -> tuple[Request, Outcome]:
    request = prepare(tool, args or {"text": "hello"}, key)
    return request, connector.execute(tool, request)


def said(connector: McpConnector, outcome: Outcome) -> dict[str, Any]:
    raw = connector.answer_of(outcome.response)
    assert raw is not None
    found: dict[str, Any] = json.loads(raw)["mcp"]
    return found


def npm_server(name: str) -> list[str]:
    """The command of a server from npm; the test is skipped, loudly, where it is not installed."""
    script = MODULES / "@modelcontextprotocol" / name / "dist" / "index.js"
    if shutil.which("node") is None or not script.exists():
        pytest.skip(f"needs npm: @modelcontextprotocol/{name}")
    return ["node", str(script)]


def pypi_server(name: str) -> list[str]:
    """The command of a server from PyPI, in an environment of its own: COUNTERMARK_MCP_SERVERS is its bin folder."""
    folder = os.environ.get("COUNTERMARK_MCP_SERVERS", "")
    found = shutil.which(name, path=folder) if folder else shutil.which(name)
    if found is None:
        pytest.skip(f"needs pypi: {name}")
    return [found]
