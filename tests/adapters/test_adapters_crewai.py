"""CrewAI: a crew whose agent has governed tools, driven by a scripted model of CrewAI's own base class."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from desk import LARGE, SMALL, Broken, Desk, asked, in_docs

from countermark.adapters import Governor
from countermark.adapters.crewai import governed, only_governed

if find_spec("crewai") is not None:  # read when it is imported; where it is not, other tests want telemetry
    os.environ.update(CREWAI_DISABLE_TELEMETRY="true", CREWAI_DISABLE_TRACKING="true", OTEL_SDK_DISABLED="true")
pytest.importorskip("crewai", reason="needs the extra crewai: run_all.py tests it", exc_type=ImportError)
from crewai import Agent, BaseLLM, Crew, Task
from crewai.hooks import clear_all_tool_call_hooks, register_before_tool_call_hook
from crewai.tools import BaseTool, tool

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """CrewAI keeps files of its own; hooks are the process's, so none outlives its test."""
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path / "crew"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    clear_all_tool_call_hooks()


class Scripted(BaseLLM):
    """Makes the calls, one a turn, then is done; keeps what it was told of each."""

    calls: list[dict[str, Any]]
    told: list[str]
    native: bool = True
    name: str = "refund"
    turn: int = 0
    heard: int = 0

    def supports_function_calling(self) -> bool:
        return self.native

    def call(self, messages: Any, tools: Any = None, **more: Any) -> Any:
        if self.turn:
            self.told.append("\n".join(str(message["content"]) for message in messages[self.heard :]))
        self.heard = len(messages)
        number, self.turn = self.turn, self.turn + 1
        if number >= len(self.calls):
            return "done" if self.native else "Thought: I now know the final answer\nFinal Answer: done"
        args = json.dumps(self.calls[number])
        if self.native:
            function = {"name": self.name, "arguments": args}
            return [{"id": f"call_{number}", "type": "function", "function": function}]
        return f"Thought: refund it\nAction: {self.name}\nAction Input: {args}"


def refund_of(desk: Desk) -> Any:
    @tool("refund")
    def refund(amount: int, account: str, ticket: str) -> str:
        """Refund an amount to an account, for a ticket."""
        return desk.refund(amount, account, ticket)

    return refund


def crew_of(desk: Desk, *calls: dict[str, Any], governor: Any = None, native: bool = True, tools: Any = None) -> Any:
    governor = desk.governor() if governor is None else governor
    llm = Scripted(model="scripted", calls=list(calls), native=native, told=[])
    made = governed(governor, [refund_of(desk)]) if tools is None else tools
    agent = Agent(role="desk", goal="refund", backstory="a desk", llm=llm, tools=made, max_retry_limit=0)
    task = Task(description="refund it", expected_output="done", agent=agent)
    return Crew(agents=[agent], tasks=[task], verbose=False), llm


def run(desk: Desk, *calls: dict[str, Any], **more: Any) -> list[str]:
    """What the model was told of each call."""
    crew, llm = crew_of(desk, *calls, **more)
    crew.kickoff()
    assert len(llm.told) == len(calls)
    return llm.told


@pytest.fixture(params=[True, False], ids=["native", "text"])
def native(request: pytest.FixtureRequest) -> bool:
    """CrewAI calls tools in two ways: as the model's interface has them, or as it reads them in the model's text."""
    return bool(request.param)


def test_allow(desk: Desk, native: bool) -> None:
    """The tool runs and its result reaches the model; what happened is recorded."""
    assert '{"receipt": "r-T-1"}' in run(desk, asked(), native=native)[0]
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_deny(desk: Desk, native: bool) -> None:
    """The tool does not run; the model is told a code."""
    assert '"status": "denied"' in run(desk, asked(3_000_000), native=native)[0]
    assert desk.done == []


def test_escalate_then_approve(desk: Desk, native: bool) -> None:
    """The model is told to wait; the same call, made by a later kickoff after people answered, runs once."""
    assert '"status": "escalated"' in run(desk, asked(LARGE), native=native)[0]
    assert desk.done == []
    desk.approve()
    assert '{"receipt": "r-T-1"}' in run(desk, asked(LARGE), native=native)[0]
    assert desk.done == [("T-1", LARGE)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_an_approval_is_found_within_one_kickoff(desk: Desk, native: bool) -> None:
    """CrewAI's memory of earlier calls does not repeat the old answer: the gate is asked again."""

    class Approving(Scripted):
        def call(self, messages: Any, tools: Any = None, **more: Any) -> Any:
            if self.turn == 2:
                desk.approve()
            return super().call(messages, tools, **more)

    crew, _ = crew_of(desk)
    calls = [asked(LARGE), asked(ticket="T-2"), asked(LARGE)]
    llm = Approving(model="scripted", native=native, calls=calls, told=[])
    crew.agents[0].llm = llm
    crew.kickoff()
    assert '"status": "escalated"' in llm.told[0]
    assert '{"receipt": "r-T-1"}' in llm.told[2]
    assert desk.done == [("T-2", SMALL), ("T-1", LARGE)]


def test_our_hook_crashing_blocks(desk: Desk, native: bool) -> None:
    """Whatever goes wrong at the gate is an error to the model, and the tool does not run."""
    governor = Governor(Broken())  # type: ignore[arg-type]
    assert "the hook crashed" in run(desk, asked(), governor=governor, native=native)[0]
    assert desk.done == []


def test_an_unreachable_gate_blocks(desk: Desk, native: bool) -> None:
    """The gate's process is gone: the model is told that nothing was done, and the tool does not run."""
    with desk.unreachable() as governor:
        assert "gate_halted" in run(desk, asked(), governor=governor, native=native)[0]
    assert desk.done == []


def test_a_call_that_is_asked_about_again_runs_once(desk: Desk, native: bool) -> None:
    """The same call in a crew that is kicked off anew, with a governor that remembers nothing: one effect."""
    run(desk, asked(), native=native)
    assert '"status": "confirmed"' in run(desk, asked(), native=native)[0]
    assert desk.done == [("T-1", SMALL)]
    assert desk.decisions() == ["allow"]


def test_a_failing_tool_is_unknown(desk: Desk, native: bool) -> None:
    """What a tool did before it raised, nobody knows; CrewAI runs it again by itself, and the gate does not let it."""
    desk.fails = True
    run(desk, asked(), native=native)
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("unknown", "reported")]


def test_crewai_runs_a_failing_tool_again_without_asking_its_hooks(desk: Desk) -> None:
    """Why the tool itself asks: one call of the hook, several runs of an ungoverned tool."""
    desk.fails, asked_for = True, []
    register_before_tool_call_hook(lambda context: asked_for.append(context.tool_name))
    run(desk, asked(), native=False, tools=[refund_of(desk)])
    assert asked_for == ["refund"]
    assert len(desk.done) > 1


def test_a_hook_of_crewai_that_crashes_lets_the_tool_run(desk: Desk) -> None:
    """Why the tool itself asks: to CrewAI a hook that raises has no objection."""

    def crash(context: Any) -> None:
        raise RuntimeError("the hook crashed")

    register_before_tool_call_hook(crash)
    run(desk, asked(), tools=[refund_of(desk)])
    assert desk.done == [("T-1", SMALL)]


def test_a_tool_that_does_not_ask_is_blocked(desk: Desk, native: bool) -> None:
    """With the guard a tool that somebody forgot to put behind the gate does not run; governed ones do."""
    governor = desk.governor()
    only_governed(governor)
    told = run(desk, asked(), governor=governor, native=native, tools=[refund_of(desk)])
    assert "blocked" in told[0]
    assert desk.done == []
    run(desk, asked(), governor=governor, native=native)
    assert desk.done == [("T-1", SMALL)]


def test_a_free_tool_passes_the_guard(desk: Desk, native: bool) -> None:
    """What is listed as free is neither governed nor blocked."""
    governor = desk.governor(free=["refund"])
    only_governed(governor)
    run(desk, asked(), governor=governor, native=native, tools=[refund_of(desk)])
    assert desk.done == [("T-1", SMALL)]
    assert desk.decisions() == []


def test_a_guard_that_crashes_blocks(desk: Desk, native: bool) -> None:
    """CrewAI would let the tool run: so the guard turns whatever goes wrong into CrewAI's own way to stop a call."""
    governor = desk.governor()
    del governor.free
    only_governed(governor)
    assert "blocked" in run(desk, asked(), governor=governor, native=native, tools=[refund_of(desk)])[0]
    assert desk.done == []


def test_a_tool_made_as_a_class_keeps_its_face(desk: Desk) -> None:
    """Name, description and arguments are the tool's own, and the gate sees what the tool gets."""

    class Refund(BaseTool):
        name: str = "refund"
        description: str = "Refund an amount."

        def _run(self, amount: int, account: str, ticket: str) -> str:
            return desk.refund(amount, account, ticket)

    own = Refund()
    [behind] = governed(desk.governor(), [own])
    assert (behind.name, behind.description, behind.args_schema) == (own.name, own.description, own.args_schema)
    run(desk, asked(), tools=[behind])
    assert desk.done == [("T-1", SMALL)]
    with pytest.raises(TypeError):
        behind.run(SMALL, "acct_1Nobody", "T-2")  # by position: nobody would know which is which
    assert desk.done == [("T-1", SMALL)]


def test_the_lines_in_the_docs_govern(desk: Desk) -> None:
    """What a user copies from the page puts the tool behind the gate."""
    model = Scripted(model="scripted", calls=[asked()], told=[])
    made = in_docs("CrewAI", governor=desk.governor(), model=model, refund=refund_of(desk))
    task = Task(description="refund it", expected_output="done", agent=made["agent"])
    Crew(agents=[made["agent"]], tasks=[task], verbose=False).kickoff()
    assert desk.outcomes() == [("confirmed", "reported")]
