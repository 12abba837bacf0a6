"""From an MCP server's answer to an ``Outcome``. A server's word is not proof of what it did, least of all its errors.

Source: Model Context Protocol 2025-11-25, "Tools: Error Handling"; JSON-RPC 2.0, section 5.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.connectors.mcp.definition import UpstreamError, read_message
from countermark.connectors.mcp.stdio import Answer
from countermark.model.digest import RESPONSE, digest
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Outcome

BLOCKS_MAX = 256
ERROR_CHARS_MAX = 2_000
KINDS = frozenset(("text", "image", "audio", "resource", "resource_link"))

_NOT_RUN = frozenset((-32700, -32600, -32601, -32602))  # JSON-RPC 2.0: refused before any method was run
_TYPES = {"string": str, "integer": int, "boolean": bool}


def judge(tool: ToolSpec, answer: Answer) -> Outcome:
    """The outcome of one call.

    An error of the tool settles nothing where being wrong would free something: a budget, or a business key.
    """
    response = digest(RESPONSE, answer.raw)
    message = answer.message
    error, result = message.get("error"), message.get("result")
    harmless = tool.class_ == "read" or (tool.class_ == "change" and not tool.once_per)
    if type(error) is dict and "result" not in message:
        said = {"content": [{"type": "text", "text": str(error.get("message"))[:ERROR_CHARS_MAX]}], "isError": True}
        if harmless or error.get("code") in _NOT_RUN:
            return Outcome("failed", "provider_refused", response=response, result={"mcp": said})
        return Outcome("unknown", "provider_error", response=response, result={"mcp": said})
    shown = _shown(result)
    if shown is None:
        return Outcome("failed" if tool.class_ == "read" else "unknown", "provider_error", response=response)
    if shown["isError"]:
        status, code = ("failed", "provider_refused") if harmless else ("unknown", "provider_error")
        return Outcome(status, code, response=response, result={"mcp": shown})  # type: ignore[arg-type]
    return Outcome("confirmed", "ok", response=response, output=_outputs(tool, shown), result={"mcp": shown})


def _shown(result: object) -> dict[str, Any] | None:
    """What of a tool's result goes to the agent; ``None`` when it is no finished result."""
    if type(result) is not dict or result.get("resultType", "complete") != "complete":
        return None
    content, flag = result.get("content"), result.get("isError", False)
    if type(content) is not list or len(content) > BLOCKS_MAX or type(flag) is not bool:
        return None
    if any(type(block) is not dict or block.get("type") not in KINDS for block in content):
        return None
    shown: dict[str, Any] = {"content": content, "isError": flag}
    if type(result.get("structuredContent")) is dict:
        shown["structuredContent"] = result["structuredContent"]
    return shown


def _outputs(tool: ToolSpec, shown: Mapping[str, Any]) -> dict[str, Value]:
    """The declared outputs: members of the structured answer, else of a single text that is a JSON object."""
    if not tool.outputs:
        return {}
    members, content = shown.get("structuredContent"), shown["content"]
    if members is None and len(content) == 1 and type(content[0].get("text")) is str:
        try:
            members = read_message(content[0]["text"].encode("utf-8"))
        except UpstreamError:
            members = None
    found = {} if members is None else members
    return {name: found[name] for name, kind in tool.outputs if type(found.get(name)) is _TYPES.get(kind)}
