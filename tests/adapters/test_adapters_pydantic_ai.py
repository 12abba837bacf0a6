"""Pydantic AI: an agent with the capability, driven by the framework's own function model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from desk import LARGE, SMALL, Broken, Desk, asked, in_docs

from countermark.adapters import Governor
from countermark.adapters.pydantic_ai import governed

pytest.importorskip("pydantic_ai", reason="needs the extra pydantic-ai: run_all.py tests it", exc_type=ImportError)
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

pytestmark = pytest.mark.filterwarnings("default")


def model_that(*calls: dict[str, Any], name: str = "refund") -> FunctionModel:
    """Calls the tool once, then says that it is done."""

    def answer(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        if any(isinstance(message, ModelResponse) for message in messages):
            return ModelResponse(parts=[TextPart("done")])
        return ModelResponse(parts=[ToolCallPart(name, args, f"call_{i}") for i, args in enumerate(calls, 1)])

    return FunctionModel(answer)


def agent_of(desk: Desk, *calls: dict[str, Any], governor: Any = None, output: Any = None, **more: Any) -> Any:
    return Agent(
        model_that(*calls), tools=more.get("tools", [desk.refund]), output_type=output or [str, DeferredToolRequests],
        capabilities=[*more.get("before", ()), governed(desk.governor() if governor is None else governor)],
    )  # fmt: skip


def told(result: Any) -> list[str]:
    parts = [part for message in result.all_messages() for part in message.parts]
    return [str(part.content) for part in parts if part.part_kind in ("tool-return", "retry-prompt")]


def test_allow(desk: Desk) -> None:
    """The tool runs and its result reaches the model; what happened is recorded."""
    result = agent_of(desk, asked()).run_sync("refund it")
    assert told(result) == ['{"receipt": "r-T-1"}']
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_deny(desk: Desk) -> None:
    """The tool does not run; the model is told a code."""
    assert "denied" in told(agent_of(desk, asked(3_000_000)).run_sync("refund it"))[0]
    assert desk.done == []


def test_escalate_then_approve(desk: Desk) -> None:
    """The run ends with a deferred request; resumed with its history, the tool runs once people answered."""
    agent = agent_of(desk, asked(LARGE))
    first = agent.run_sync("refund it")
    assert [call.tool_call_id for call in first.output.approvals] == ["call_1"]
    assert first.output.metadata["call_1"]["countermark"]["status"] == "escalated"
    assert desk.done == []
    desk.approve()
    approved = DeferredToolResults(approvals={"call_1": True})
    result = agent.run_sync(message_history=first.all_messages(), deferred_tool_results=approved)
    assert '{"receipt": "r-T-1"}' in told(result)
    assert desk.done == [("T-1", LARGE)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_the_frameworks_approval_is_not_the_gates(desk: Desk) -> None:
    """Whoever approves in the framework alone has approved nothing: the tool does not run."""
    agent = agent_of(desk, asked(LARGE))
    first = agent.run_sync("refund it")
    approved = DeferredToolResults(approvals={"call_1": True})
    again = agent.run_sync(message_history=first.all_messages(), deferred_tool_results=approved)
    assert [call.tool_call_id for call in again.output.approvals] == ["call_1"]
    assert desk.done == []


def test_a_waiting_action_that_cannot_be_deferred_runs_nothing(desk: Desk) -> None:
    """An agent whose output cannot be a deferred request fails, and the tool does not run."""
    with pytest.raises(Exception, match="DeferredToolRequests"):
        agent_of(desk, asked(LARGE), output=str).run_sync("refund it")
    assert desk.done == []


def test_our_hook_crashing_blocks(desk: Desk) -> None:
    """Whatever goes wrong in the hook ends the run, and the tool does not run."""
    with pytest.raises(RuntimeError, match="the hook crashed"):
        agent_of(desk, asked(), governor=Governor(Broken())).run_sync("refund it")  # type: ignore[arg-type]
    assert desk.done == []


def test_a_call_that_is_asked_about_again_runs_once(desk: Desk) -> None:
    """The same call in a run that is done over: one decision, one effect."""
    agent = agent_of(desk, asked())
    agent.run_sync("refund it")
    again = agent.run_sync("refund it")
    assert "confirmed" in told(again)[0]
    assert desk.done == [("T-1", SMALL)]
    assert desk.decisions() == ["allow"]


def test_a_failing_tool_is_unknown(desk: Desk) -> None:
    """What a tool did before it raised, nobody knows."""
    desk.fails = True
    with pytest.raises(RuntimeError, match="line broke"):
        agent_of(desk, asked()).run_sync("refund it")
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("unknown", "reported")]


def test_an_unreachable_gate_blocks(desk: Desk) -> None:
    """The gate's process is gone: the model is told that nothing was done, and the tool does not run."""
    with desk.unreachable() as governor:
        assert "gate_halted" in told(agent_of(desk, asked(), governor=governor).run_sync("refund it"))[0]
    assert desk.done == []


@dataclass
class Twice(AbstractCapability[Any]):
    """Another capability, which runs every tool twice."""

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
        await handler(args)
        return await handler(args)


def test_another_capability_cannot_run_a_tool_twice(desk: Desk) -> None:
    """Ours is the nearest to the tool: whoever runs it again meets the recorded outcome."""
    result = agent_of(desk, asked(), before=[Twice()]).run_sync("refund it")
    assert "confirmed" in told(result)[0]
    assert desk.done == [("T-1", SMALL)]


def test_the_lines_in_the_docs_govern(desk: Desk) -> None:
    """What a user copies from the page puts the tool behind the gate."""
    made = in_docs("Pydantic AI", governor=desk.governor(), model=model_that(asked()), refund=desk.refund)
    made["agent"].run_sync("refund it")
    assert desk.outcomes() == [("confirmed", "reported")]
