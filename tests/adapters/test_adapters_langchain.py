"""LangChain and LangGraph: ``create_agent`` with the middleware, driven by their own fake model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from desk import ACCOUNT, LARGE, SMALL, Broken, Desk, asked, in_docs

from countermark.adapters import Governor
from countermark.adapters.langchain import governed

pytest.importorskip("langchain", reason="needs the extra langchain: run_all.py tests it", exc_type=ImportError)
from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

pytestmark = pytest.mark.filterwarnings("default")
THREAD: Any = {"configurable": {"thread_id": "t"}}


class Scripted(GenericFakeChatModel):
    """The framework's fake model, which here also accepts tools."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


def says(*calls: dict[str, Any], name: str = "refund") -> AIMessage:
    made = [{"name": name, "args": args, "id": f"call_{i}", "type": "tool_call"} for i, args in enumerate(calls, 1)]
    return AIMessage(content="", tool_calls=made)


def agent_of(desk: Desk, *messages: BaseMessage, governor: Any = None, tools: Any = None, **more: Any) -> Any:
    script: Iterator[BaseMessage] = iter([*messages, AIMessage(content="done")])
    middleware = [governed(desk.governor() if governor is None else governor)]
    return create_agent(
        Scripted(messages=script), tools or [tool(desk.refund)], middleware=middleware, **more
    )  # fmt: skip


def told(state: Any) -> list[str]:
    return [str(message.content) for message in state["messages"] if message.type == "tool"]


START: Any = {"messages": [("user", "refund it")]}


def test_allow(desk: Desk) -> None:
    """The tool runs and its result reaches the model; what happened is recorded."""
    state = agent_of(desk, says(asked())).invoke(START)
    assert told(state) == ['{"receipt": "r-T-1"}']
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_allow_async(desk: Desk) -> None:
    """The same over ``ainvoke``."""
    state = asyncio.run(agent_of(desk, says(asked())).ainvoke(START))
    assert told(state) == ['{"receipt": "r-T-1"}']
    assert desk.outcomes() == [("confirmed", "reported")]


def test_deny(desk: Desk) -> None:
    """The tool does not run; the model is told a code."""
    state = agent_of(desk, says(asked(3_000_000))).invoke(START)
    assert "denied" in told(state)[0]
    assert desk.done == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_escalate_then_approve(desk: Desk, asynchronous: bool) -> None:
    """The graph is interrupted; resumed after the approval it runs the node anew, and the tool once."""
    agent = agent_of(desk, says(asked(LARGE)), checkpointer=InMemorySaver())

    def go(what: Any) -> Any:
        return asyncio.run(agent.ainvoke(what, THREAD)) if asynchronous else agent.invoke(what, THREAD)

    state = go(START)
    assert state["__interrupt__"][0].value["countermark"]["status"] == "escalated"
    assert desk.done == []
    desk.approve()
    state = go(Command(resume="answered"))
    assert told(state) == ['{"receipt": "r-T-1"}']
    assert desk.done == [("T-1", LARGE)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_resumed_without_an_answer_runs_nothing(desk: Desk) -> None:
    """Resuming is no approval: the gate still waits for its own people."""
    agent = agent_of(desk, says(asked(LARGE)), checkpointer=InMemorySaver())
    agent.invoke(START, THREAD)
    state = agent.invoke(Command(resume={"approved": True}), THREAD)
    assert "escalated" in told(state)[0]
    assert desk.done == []


def test_a_waiting_action_without_a_checkpointer_runs_nothing(desk: Desk) -> None:
    """Where LangGraph cannot interrupt it raises, and the tool does not run."""
    state: Any = {"messages": []}
    with suppress(RuntimeError):
        state = agent_of(desk, says(asked(LARGE))).invoke(START)
    assert told(state) == []
    assert desk.done == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_our_hook_crashing_blocks(desk: Desk, asynchronous: bool) -> None:
    """Whatever goes wrong in the hook ends the run, and the tool does not run."""
    agent = agent_of(desk, says(asked()), governor=Governor(Broken()))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="the hook crashed"):
        asyncio.run(agent.ainvoke(START)) if asynchronous else agent.invoke(START)
    assert desk.done == []


def test_a_call_that_is_asked_about_again_runs_once(desk: Desk) -> None:
    """The tool itself interrupts: its node runs again, the gate is asked again, nothing is held twice."""

    @tool
    def refund(amount: int, account: str, ticket: str) -> str:
        """Refund, after the desk's own question."""
        interrupt("sure?")
        return desk.refund(amount, account, ticket)

    agent = agent_of(desk, says(asked()), tools=[refund], checkpointer=InMemorySaver())
    assert agent.invoke(START, THREAD)["__interrupt__"][0].value == "sure?"
    assert (desk.done, desk.outcomes()) == ([], [])
    state = agent.invoke(Command(resume="yes"), THREAD)
    assert told(state) == ['{"receipt": "r-T-1"}']
    assert desk.decisions() == ["allow"]
    assert desk.outcomes() == [("confirmed", "reported")]
    again = agent_of(desk, says(asked()), tools=[tool(desk.refund)]).invoke(START)
    assert '"status": "confirmed"' in told(again)[0]
    assert desk.done == [("T-1", SMALL)]


def test_an_unreachable_gate_blocks(desk: Desk) -> None:
    """The gate's process is gone: the model is told that nothing was done, and the tool does not run."""
    with desk.unreachable() as governor:
        state = agent_of(desk, says(asked()), governor=governor).invoke(START)
    assert "gate_halted" in told(state)[0]
    assert desk.done == []


def test_of_two_calls_the_one_that_ran_is_not_run_again(desk: Desk) -> None:
    """One call is paid, one waits; resuming pays the second and leaves the first."""
    calls = says(asked(SMALL, "T-1"), asked(LARGE, "T-2"))
    agent = agent_of(desk, calls, checkpointer=InMemorySaver())
    agent.invoke(START, THREAD)
    desk.approve()
    agent.invoke(Command(resume="answered"), THREAD)
    assert sorted(desk.done) == [("T-1", SMALL), ("T-2", LARGE)]


def test_a_failing_tool_is_unknown(desk: Desk) -> None:
    """What a tool did before it raised, nobody knows."""
    desk.fails = True
    with pytest.raises(RuntimeError, match="line broke"):
        agent_of(desk, says(asked())).invoke(START)
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("unknown", "reported")]


def test_the_gate_executes_what_stands_in_acts(desk: Desk) -> None:
    """The framework's function is only a description: the gate pays, with a credential the agent has not."""

    @tool
    def pay(amount: int, currency: str, account: str, invoice: str) -> str:
        """Pay an account."""
        raise AssertionError("the framework ran it")

    governor = desk.governor(acts=["pay"], names={"account": "destination", "invoice": "metadata[invoice]"})
    call = says({"amount": 1, "currency": "eur", "account": ACCOUNT, "invoice": "INV-1"}, name="pay")
    state = agent_of(desk, call, governor=governor, tools=[pay]).invoke(START)
    assert '"status": "confirmed"' in told(state)[0]
    assert len(desk.provider.effects) == 1


def test_a_middleware_before_ours_that_tries_again_runs_nothing_twice(desk: Desk) -> None:
    """A retrying middleware around ours meets the recorded outcome, not the tool."""
    desk.fails = True
    retries = ToolRetryMiddleware(max_retries=2, initial_delay=0, jitter=False)
    script: Iterator[BaseMessage] = iter([says(asked()), AIMessage(content="done")])
    agent = create_agent(
        Scripted(messages=script), [tool(desk.refund)], middleware=[retries, governed(desk.governor())]
    )  # fmt: skip
    state = agent.invoke(START)
    assert '"status": "unknown"' in told(state)[0]
    assert desk.done == [("T-1", SMALL)]


def test_the_lines_in_the_docs_govern(desk: Desk) -> None:
    """What a user copies from the page puts the tool behind the gate."""
    script: Iterator[BaseMessage] = iter([says(asked()), AIMessage(content="done")])
    made = in_docs(
        "LangChain, LangGraph", governor=desk.governor(), model=Scripted(messages=script), refund=desk.refund
    )
    made["agent"].invoke(START, THREAD)
    assert desk.outcomes() == [("confirmed", "reported")]
