"""FastMCP: a server's middleware around every tool call (extra ``fastmcp``).

    server.add_middleware(governed(Governor(deployment)))

Add it after all others, so that it is the nearest to the tools. A call's identity is ``countermark/call_id`` in its
``_meta``, else its request in its session. An action that needs a person is answered with an error that says so; the
same call, made again after people answered, is the same action.
"""

from __future__ import annotations

from typing import Any

from countermark.adapters.governor import Answer, Governor

META = "countermark/call_id"


def governed(governor: Governor) -> Any:
    """A ``Middleware`` that puts every tool call to the gate."""
    from fastmcp.server.middleware import Middleware
    from fastmcp.tools.base import ToolResult

    def outcome(result: Any) -> tuple[str, object]:
        failed = getattr(result, "is_error", False)
        return ("unknown", None) if failed else ("confirmed", getattr(result, "structured_content", None))

    class Countermark(Middleware):  # type: ignore[misc,unused-ignore]
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            name, args = context.message.name, context.message.arguments or {}
            found = await governor.acall(name, args, _call_id(context), lambda: call_next(context), outcome=outcome)
            if not isinstance(found, Answer):
                return found
            # A result without an error must fit the tool's output schema; that of a function that returns text.
            shown = {"result": found.text} if found.ok else None
            return ToolResult(content=found.text, structured_content=shown, is_error=not found.ok)

    return Countermark()


def _call_id(context: Any) -> str | None:
    """The caller's own name for the call; a session's request number is not one beyond its session."""
    around = context.fastmcp_context
    if around is None or around.request_context is None:
        return None  # a call from within the server, which has no identity
    given = (around.request_context.meta or {}).get(META)
    return given if type(given) is str else f"{around.session_id}:{around.request_id}"
