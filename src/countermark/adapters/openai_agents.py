"""OpenAI Agents SDK: function tools whose every call is put to the gate (extra ``openai-agents``).

    agent = Agent(name="desk", tools=governed(Governor(deployment), [refund, note]))

An action that needs a person interrupts the run the SDK's own way (``result.interruptions``). Once people answered at
the gate, approve the interruption in the run's state and resume: the gate is asked again, and it decides.
"""

from __future__ import annotations

import json
from asyncio import to_thread
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from countermark.adapters.governor import Answer, Governor


def governed(governor: Governor, tools: Sequence[Any]) -> list[Any]:
    """The same tools, each behind the gate. Raises ``TypeError`` for a tool that does not run in this process."""
    return [_governed(governor, tool) for tool in tools]


def _governed(governor: Governor, tool: Any) -> Any:
    from agents import FunctionTool
    from agents.tool import (
        maybe_invoke_function_tool_failure_error_function,
        set_function_tool_failure_error_function,
    )

    if not isinstance(tool, FunctionTool):
        raise TypeError(f"{type(tool).__name__} runs where no hook of ours reaches: it cannot be governed")
    inner = copy(tool)
    set_function_tool_failure_error_function(inner, None)  # what it raises is to be seen here, not told as a result

    async def invoke(context: Any, raw: str) -> Any:
        raised: list[Exception] = []

        async def run() -> Any:
            try:
                return await inner.on_invoke_tool(context, raw)
            except Exception as error:
                raised.append(error)
                raise

        try:
            found = await governor.acall(tool.name, json.loads(raw) if raw else {}, context.tool_call_id, run)
        except Exception as error:
            if error not in raised:  # not the tool's: it ends the run
                raise
            told = await maybe_invoke_function_tool_failure_error_function(
                function_tool=tool, context=context, error=error
            )
            if told is None:
                raise
            return told
        return found.text if isinstance(found, Answer) else found

    async def waits(context: Any, args: dict[str, Any], call_id: str) -> bool:
        own = tool.needs_approval
        if own is True or (callable(own) and await own(context, args, call_id)):
            return True
        answer: Answer = await to_thread(governor.ask, tool.name, args, call_id, only=True)
        return answer.waiting

    return replace(tool, on_invoke_tool=invoke, needs_approval=waits)
