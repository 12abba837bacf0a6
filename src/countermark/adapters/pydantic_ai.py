"""Pydantic AI: a capability around all function tools of an agent (extra ``pydantic-ai``).

    agent = Agent(model, tools=[refund], capabilities=[governed(Governor(deployment))],
                  output_type=[str, DeferredToolRequests])

Name it last: the last capability is the nearest to the tools, and nothing between can run one twice or with other
arguments. An action that needs a person ends the run with ``DeferredToolRequests``. Once people answered at the gate,
resume with ``DeferredToolResults(approvals={...})``: the gate is asked again, and it decides.
"""

from __future__ import annotations

from typing import Any

from countermark.adapters.governor import Answer, Governor


def governed(governor: Governor) -> Any:
    """A capability that puts every call of a function tool to the gate."""
    from pydantic_ai import ApprovalRequired, ToolFailed
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.exceptions import CallDeferred
    from pydantic_ai.toolsets import WrapperToolset

    class Governed(WrapperToolset[Any]):  # type: ignore[misc,unused-ignore]
        async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: Any, tool: Any) -> Any:
            found = await governor.acall(
                name, tool_args, ctx.tool_call_id, lambda: self.wrapped.call_tool(name, tool_args, ctx, tool),
                paused=(ApprovalRequired, CallDeferred),  # the tool itself waits
            )  # fmt: skip
            if not isinstance(found, Answer):
                return found
            if found.waiting:
                raise ApprovalRequired(metadata={"countermark": found.document()})
            if not found.ok:
                raise ToolFailed(found.text)
            return found.document()

    class Countermark(AbstractCapability[Any]):  # type: ignore[misc,unused-ignore]
        def get_wrapper_toolset(self, toolset: Any) -> Any:
            return Governed(toolset)

    return Countermark()
