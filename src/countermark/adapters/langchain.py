"""LangChain and LangGraph: a middleware around every tool call (extra ``langchain``).

    agent = create_agent(model, tools, middleware=[governed(Governor(deployment))], checkpointer=...)

Name it last: the last middleware is the nearest to the tools. An action that needs a person interrupts the graph;
resuming it runs the node anew and asks the gate again, which knows the call. Without a checkpointer LangGraph cannot
interrupt, and raises: the tool does not run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from countermark.adapters.governor import Answer, Governor


def governed(governor: Governor) -> Any:
    """An ``AgentMiddleware`` that puts every tool call to the gate."""
    from langchain.agents.middleware import AgentMiddleware
    from langchain_core.messages import ToolMessage
    from langgraph.errors import GraphBubbleUp
    from langgraph.types import interrupt

    def outcome(message: Any) -> tuple[str, object]:
        """A tool node may have turned an exception into a message: then nobody knows what the tool did."""
        failed = getattr(message, "status", "") == "error"
        return ("unknown", None) if failed else ("confirmed", getattr(message, "content", None))

    def waits(found: Any, call: Any) -> bool:
        """Whether people must answer: then the graph stops here, and goes on here when it is resumed."""
        if not isinstance(found, Answer) or not found.waiting:
            return False
        interrupt({"countermark": found.document(), "tool": call["name"]})
        return True

    def told(found: Any, call: Any) -> Any:
        if not isinstance(found, Answer):
            return found
        status = "success" if found.ok else "error"
        return ToolMessage(content=found.text, name=call["name"], tool_call_id=call["id"], status=status)

    # A tool that interrupts has not run, and will be asked for again.
    how: dict[str, Any] = {"outcome": outcome, "paused": (GraphBubbleUp,)}

    class Countermark(AgentMiddleware):  # type: ignore[misc,type-arg,unused-ignore]
        def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
            call = request.tool_call
            asked = (call["name"], call["args"], call["id"])
            found = governor.call(*asked, lambda: handler(request), **how)
            if waits(found, call):
                found = governor.call(*asked, lambda: handler(request), **how)
            return told(found, call)

        async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
            call = request.tool_call
            asked = (call["name"], call["args"], call["id"])
            found = await governor.acall(*asked, lambda: handler(request), **how)
            if waits(found, call):
                found = await governor.acall(*asked, lambda: handler(request), **how)
            return told(found, call)

    return Countermark()
