"""Claude Agent SDK: hooks around every tool call of a session (extra ``claude-agent-sdk``).

    options = ClaudeAgentOptions(hooks=governed(Governor(deployment, tools={"mcp__desk__refund": "desk.refund"})), ...)

Every tool is asked about, those that are built in too: an agent that has a shell can go around the gate, so only what
cannot is to stand in ``free``. The SDK takes a hook that fails for one without an opinion and runs the tool, unless the
matcher says otherwise, as here; it refuses to connect to a program that does not know of that. An action that needs a
person is refused with a reason that says so; asked again after people answered, it is the same action.
"""

from __future__ import annotations

from asyncio import to_thread
from typing import Any

from countermark.adapters.governor import Governor


def governed(governor: Governor) -> Any:
    """Hooks for ``ClaudeAgentOptions.hooks``; other hooks can be added to its lists."""
    from claude_agent_sdk import HookMatcher

    async def before(data: Any, tool_use_id: str | None, context: Any) -> Any:
        answer = await to_thread(governor.before, data["tool_name"], data["tool_input"], data["tool_use_id"])
        if answer.go:
            return {}  # no opinion: the session's own permissions still apply
        decision = {"permissionDecision": "deny", "permissionDecisionReason": answer.text}
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **decision}}

    async def after(data: Any, tool_use_id: str | None, context: Any) -> Any:
        await to_thread(_report, governor, data, "confirmed", _result(data["tool_response"]))
        return {}

    async def failed(data: Any, tool_use_id: str | None, context: Any) -> Any:
        await to_thread(_report, governor, data, "unknown", None)
        return {}

    return {
        "PreToolUse": [HookMatcher(hooks=[before], on_failure="block")],
        "PostToolUse": [HookMatcher(hooks=[after])],
        "PostToolUseFailure": [HookMatcher(hooks=[failed])],
    }


def _report(governor: Governor, data: Any, outcome: str, result: object) -> None:
    """The hooks see the arguments that were used: another hook may have changed those that were decided."""
    governor.after(data["tool_name"], data["tool_input"], data["tool_use_id"], outcome, result)


def _result(response: Any) -> object:
    """What the tool returned: an MCP tool's answer is a list of parts, of which the first text is read."""
    parts = response.get("content") if isinstance(response, dict) and "content" in response else response
    texts = [part["text"] for part in parts if isinstance(part, dict) and "text" in part] if type(parts) is list else []
    return texts[0] if texts else response
