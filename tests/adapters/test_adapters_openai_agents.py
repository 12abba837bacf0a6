"""OpenAI Agents SDK: function tools behind the gate, driven by the SDK's own scripted model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from desk import LARGE, SMALL, Broken, Desk, asked, in_docs

from countermark.adapters import Governor
from countermark.adapters.openai_agents import governed

pytest.importorskip("agents", reason="needs the extra openai-agents: run_all.py tests it", exc_type=ImportError)
from agents import Agent, RunConfig, Runner, RunState, WebSearchTool, function_tool
from agents.testing import ScriptedModel
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

pytestmark = pytest.mark.filterwarnings("default")
QUIET = RunConfig(tracing_disabled=True)


def calls(*asked_for: dict[str, Any], name: str = "refund") -> list[Any]:
    return [
        ResponseFunctionToolCall(type="function_call", name=name, arguments=json.dumps(args), call_id=f"call_{i}")
        for i, args in enumerate(asked_for, 1)
    ]


def done() -> list[Any]:
    text = ResponseOutputText(type="output_text", text="done", annotations=[])
    return [ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])]


def agent_of(desk: Desk, *steps: Any, governor: Any = None, tool: Any = None) -> Any:
    tools = governed(desk.governor() if governor is None else governor, [tool or function_tool(desk.refund)])
    return Agent(name="desk", tools=tools, model=ScriptedModel([*steps, done()]))


def run(agent: Any, what: Any = "refund it") -> Any:
    return asyncio.run(Runner.run(agent, what, run_config=QUIET))


def told(result: Any) -> list[str]:
    return [str(item.output) for item in result.new_items if item.type == "tool_call_output_item"]


def test_allow(desk: Desk) -> None:
    """The tool runs and its result reaches the model; what happened is recorded."""
    result = run(agent_of(desk, calls(asked())))
    assert told(result) == ['{"receipt": "r-T-1"}']
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_deny(desk: Desk) -> None:
    """The tool does not run; the model is told a code."""
    assert "denied" in told(run(agent_of(desk, calls(asked(3_000_000)))))[0]
    assert desk.done == []


def test_escalate_then_approve(desk: Desk) -> None:
    """The run is interrupted; its state, stored and read again, runs the tool once people answered."""
    agent = agent_of(desk, calls(asked(LARGE)))
    first = run(agent)
    assert [item.name for item in first.interruptions] == ["refund"]
    assert desk.done == []
    desk.approve()

    async def resume() -> Any:
        state = await RunState.from_json(agent, first.to_state().to_json())
        for item in state.get_interruptions():
            state.approve(item)
        return await Runner.run(agent, state, run_config=QUIET)

    result = asyncio.run(resume())
    assert told(result) == ['{"receipt": "r-T-1"}']
    assert desk.done == [("T-1", LARGE)]
    assert desk.decisions() == ["escalate", "flag"]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_the_sdks_approval_is_not_the_gates(desk: Desk) -> None:
    """Whoever approves in the SDK alone has approved nothing: the tool does not run."""
    agent = agent_of(desk, calls(asked(LARGE)))
    state = run(agent).to_state()
    for item in state.get_interruptions():
        state.approve(item)
    assert "escalated" in told(run(agent, state))[0]
    assert desk.done == []


def test_our_hook_crashing_blocks(desk: Desk) -> None:
    """Whatever goes wrong in the hook ends the run, and the tool does not run."""
    agent = agent_of(desk, calls(asked()), governor=Governor(Broken()))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="the hook crashed"):
        run(agent)
    assert desk.done == []


def test_our_hook_crashing_late_blocks_too(desk: Desk) -> None:
    """The hook is asked before the approval and before the tool: a crash of the second one stops it as well."""

    class Late(Governor):
        count = 0

        def ask(self, *args: Any, **more: Any) -> Any:
            self.count += 1
            if self.count > 1:
                raise RuntimeError("the hook crashed")
            return super().ask(*args, **more)

    agent = agent_of(desk, calls(asked()), governor=Late(desk.gate, tools={"refund": "desk.refund"}))
    with pytest.raises(Exception, match="the hook crashed"):
        run(agent)
    assert desk.done == []


def test_a_call_that_is_asked_about_again_runs_once(desk: Desk) -> None:
    """The SDK asks before the approval and before the tool, and a resumed run asks again: one decision, one effect."""
    governor = desk.governor()
    run(agent_of(desk, calls(asked()), governor=governor))
    again = run(agent_of(desk, calls(asked()), governor=governor))
    assert '"status": "confirmed"' in told(again)[0]
    assert desk.done == [("T-1", SMALL)]
    assert desk.decisions() == ["allow"]


def test_a_failing_tool_is_unknown(desk: Desk) -> None:
    """The SDK tells the model of the failure as before; the record says that nobody knows what the tool did."""
    desk.fails = True
    assert "error" in told(run(agent_of(desk, calls(asked()))))[0].lower()
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("unknown", "reported")]


def test_a_failing_tool_without_an_error_function_ends_the_run(desk: Desk) -> None:
    """The tool's own way of failing stays its own."""
    desk.fails = True
    with pytest.raises(Exception, match="line broke"):
        run(agent_of(desk, calls(asked()), tool=function_tool(desk.refund, failure_error_function=None)))
    assert desk.outcomes() == [("unknown", "reported")]


def test_the_tools_own_approval_stays(desk: Desk) -> None:
    """A tool that already asks its users keeps doing so."""
    first = run(agent_of(desk, calls(asked()), tool=function_tool(desk.refund, needs_approval=True)))
    assert len(first.interruptions) == 1
    assert desk.done == []


def test_a_hosted_tool_is_refused() -> None:
    """What runs at the model's provider cannot be stopped from here, so it is not called governed."""
    with pytest.raises(TypeError, match="WebSearchTool"):
        governed(Governor(Broken()), [WebSearchTool()])  # type: ignore[arg-type]


def test_an_unreachable_gate_blocks(desk: Desk) -> None:
    """The gate's process is gone: the model is told that nothing was done, and the tool does not run."""
    with desk.unreachable() as governor:
        assert "gate_halted" in told(run(agent_of(desk, calls(asked()), governor=governor)))[0]
    assert desk.done == []


def test_a_tool_that_runs_out_of_time_is_unknown(desk: Desk) -> None:
    """The SDK cancels it and tells the model; the record says that nobody knows what it did."""

    async def refund(amount: int, account: str, ticket: str) -> str:
        """Refund, and never come back."""
        desk.refund(amount, account, ticket)
        await asyncio.Event().wait()
        return ""

    result = run(agent_of(desk, calls(asked()), tool=function_tool(refund, timeout=0.2)))
    assert "timed out" in told(result)[0]
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("unknown", "reported")]


def test_the_lines_in_the_docs_govern(desk: Desk) -> None:
    """What a user copies from the page puts the tool behind the gate."""
    model = ScriptedModel([calls(asked()), done()])
    run(in_docs("OpenAI Agents", governor=desk.governor(), model=model, refund=desk.refund)["agent"])
    assert desk.outcomes() == [("confirmed", "reported")]
