"""CrewAI: tools whose every call is put to the gate (extra ``crewai``).

    governor = Governor(deployment, free=["ask_question_to_coworker"])
    only_governed(governor)
    agent = Agent(..., tools=governed(governor, [refund, note]))

CrewAI's hooks cannot carry this alone: a hook that crashes lets the tool run, some ways of calling a tool pass by the
hooks, a tool that raises is run again without asking them, and they see an error as any other text. So the tool itself
asks, each time that it is run, and the hook only blocks tools that do not. CrewAI gives calls no identity: in one run
(``Governor(run=...)``) the same tool with the same arguments is the same call.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from countermark.adapters.governor import Answer, Governor, same_call


def governed(governor: Governor, tools: Sequence[Any]) -> list[Any]:
    """The same tools, each behind the gate."""
    kept = (
        "name", "description", "args_schema", "result_schema", "result_as_answer", "max_usage_count",
        "tool_failure_policy", "cache_function",
    )  # fmt: skip
    made = []
    for tool in tools:
        behind = _kind()(**{field: getattr(tool, field) for field in kept})
        behind.bind(governor, tool)
        made.append(behind)
    return made


def only_governed(governor: Governor) -> Any:
    """Block every other tool of this process, of any crew, unless it is free. Returns the hook, to unregister it."""
    from crewai.hooks import register_before_tool_call_hook
    from crewai.hooks.dispatch import HookAborted

    def guard(context: Any) -> None:
        try:
            own = getattr(context.tool, "_original_tool", None) or context.tool
            known = isinstance(own, _kind()) or context.tool_name in governor.free
        except Exception as error:
            raise HookAborted("the call cannot be judged", source="countermark") from error
        if not known:
            raise HookAborted("this tool is not behind the gate", source="countermark")

    register_before_tool_call_hook(guard)
    return guard


@lru_cache(maxsize=1)
def _kind() -> Any:
    from crewai.tools import BaseTool
    from crewai.tools.tool_failure import ToolFailure
    from crewai.utilities.string_utils import sanitize_tool_name
    from pydantic import PrivateAttr

    class Governed(BaseTool):  # type: ignore[misc,unused-ignore]
        _governor: Any = PrivateAttr()
        _tool: Any = PrivateAttr()

        def bind(self, governor: Governor, tool: Any) -> None:
            self._governor, self._tool = governor, tool

        def _run(self, **args: Any) -> Any:
            name = sanitize_tool_name(self.name)  # as the model knows it
            return self._told(self._governor.call(name, args, same_call(name, args), lambda: self._tool.run(**args)))

        async def _arun(self, **args: Any) -> Any:
            name = sanitize_tool_name(self.name)
            run = lambda: self._tool.arun(**args)  # noqa: E731
            return self._told(await self._governor.acall(name, args, same_call(name, args), run))

        def _told(self, found: Any) -> Any:
            if not isinstance(found, Answer):
                return found
            if found.ok:
                return found.text
            # Declared a failure, a refusal is neither cached nor taken for the agent's final answer.
            return ToolFailure(message=found.text, code=found.document()["code"], retryable=found.waiting)

    return Governed
