"""Google ADK: a plugin around every tool call of a runner (extra ``google-adk``).

    runner = Runner(app=App(name="desk", root_agent=agent, plugins=[governed(Governor(deployment))]), ...)

Name it last: what another plugin or a callback of an agent changes afterwards was not decided. An action that needs a
person asks for ADK's own tool confirmation; once people answered at the gate, confirm it, and the call is made again:
the gate decides.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Mapping
from typing import Any

from countermark.adapters.governor import Governor

PLUGIN = "countermark"


def governed(governor: Governor) -> Any:
    """A ``BasePlugin`` that puts every tool call to the gate."""
    from google.adk.plugins.base_plugin import BasePlugin

    class Countermark(BasePlugin):  # type: ignore[misc,unused-ignore]
        async def before_tool_callback(
            self, *, tool: Any, tool_args: dict[str, Any], tool_context: Any
        ) -> dict[str, Any] | None:
            answer = await to_thread(governor.before, tool.name, tool_args, tool_context.function_call_id or "")
            if answer.go:
                return None
            if answer.waiting and tool_context.tool_confirmation is None:
                tool_context.request_confirmation(hint="A person must answer at the gate first.")
                tool_context.actions.skip_summarization = True  # else the model is asked anew, and calls anew
            return answer.document()

        async def after_tool_callback(
            self, *, tool: Any, tool_args: dict[str, Any], tool_context: Any, result: Any
        ) -> dict[str, Any] | None:
            call_id = tool_context.function_call_id or ""
            if call_id in tool_context.actions.requested_tool_confirmations:
                governor.pause(call_id)  # the tool itself asks its users first: it has not run
            elif not tool.is_long_running:  # what goes on running is reported by whoever sees its end, else unknown
                # With an error ADK says that it did not call the function, or a tool that it failed.
                failed = isinstance(result, Mapping) and "error" in result
                outcome = "unknown" if failed else "confirmed"
                await to_thread(governor.after, tool.name, tool_args, call_id, outcome, result)
            return None

        async def on_tool_error_callback(
            self, *, tool: Any, tool_args: dict[str, Any], tool_context: Any, error: Exception
        ) -> dict[str, Any] | None:
            # At once: ADK comes here with a call that is cancelled, too.
            governor.after(tool.name, tool_args, tool_context.function_call_id or "", "unknown")
            return None

    return Countermark(name=PLUGIN)
