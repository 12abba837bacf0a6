"""Google ADK: an in-memory runner with the plugin, driven by a scripted model of ADK's own base class."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from desk import LARGE, SMALL, Broken, Desk, asked, in_docs

from countermark.adapters import Governor
from countermark.adapters.google_adk import governed

pytest.importorskip("google.adk", reason="needs the extra google-adk: run_all.py tests it", exc_type=ImportError)
from google.adk.agents import LlmAgent
from google.adk.apps import App, ResumabilityConfig
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools import FunctionTool, LongRunningFunctionTool
from google.genai import types

pytestmark = pytest.mark.filterwarnings("default")
CONFIRM = "adk_request_confirmation"


class Scripted(BaseLlm):
    """Calls the tool once; when it was told a result, it is done."""

    calls: list[dict[str, Any]]

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
        parts = [part for content in llm_request.contents for part in content.parts or []]
        if any(part.function_response for part in parts):
            yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text="done")]))
            return
        made = [types.FunctionCall(id=f"call_{i}", name="refund", args=a) for i, a in enumerate(self.calls, 1)]
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(function_call=one) for one in made]))


class Talk:
    """One session of one runner."""

    def __init__(self, desk: Desk, *calls: dict[str, Any], governor: Any = None, **more: Any) -> None:
        def refund(amount: int, account: str, ticket: str) -> dict[str, str]:
            """Refund an amount to an account, for a ticket."""
            return {"receipt": desk.refund(amount, account, ticket)}

        kind, ask_first = more.pop("kind", FunctionTool), more.pop("ask_first", None)
        tool = kind(refund) if ask_first is None else kind(refund, require_confirmation=ask_first)
        agent = LlmAgent(name="desk", model=Scripted(model="scripted", calls=list(calls)), tools=[tool], **more)
        plugins = [governed(desk.governor() if governor is None else governor)]
        app = App(
            name="desk", root_agent=agent, plugins=plugins, resumability_config=ResumabilityConfig(is_resumable=True)
        )
        self._runner = InMemoryRunner(app=app)

    def say(self, *messages: types.Part) -> list[Any]:
        async def go() -> list[Any]:
            sessions, who = self._runner.session_service, {"app_name": "desk", "user_id": "u", "session_id": "s"}
            if await sessions.get_session(**who) is None:
                await sessions.create_session(**who)
            content = types.Content(role="user", parts=list(messages))
            return [e async for e in self._runner.run_async(user_id="u", session_id="s", new_message=content)]

        return asyncio.run(go())


def told(events: list[Any]) -> list[dict[str, Any]]:
    return [
        dict(part.function_response.response)
        for event in events
        for part in (event.content.parts if event.content else None) or []
        if part.function_response and part.function_response.name == "refund"
    ]


START = types.Part(text="refund it")


def test_allow(desk: Desk) -> None:
    """The tool runs and its result reaches the model; what happened is recorded."""
    assert told(Talk(desk, asked()).say(START)) == [{"receipt": '{"receipt": "r-T-1"}'}]
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_deny(desk: Desk) -> None:
    """The tool does not run; the model is told a code."""
    assert told(Talk(desk, asked(3_000_000)).say(START))[0]["status"] == "denied"
    assert desk.done == []


def confirmation(events: list[Any], answer: bool = True) -> types.Part:
    [call] = [
        part.function_call
        for event in events
        for part in (event.content.parts if event.content else None) or []
        if part.function_call and part.function_call.name == CONFIRM
    ]
    said = types.FunctionResponse(id=call.id, name=CONFIRM, response={"confirmed": answer})
    return types.Part(function_response=said)


def test_escalate_then_approve(desk: Desk) -> None:
    """ADK asks for its confirmation; confirmed after people answered, the same call is made again and runs once."""
    talk = Talk(desk, asked(LARGE))
    first = talk.say(START)
    assert told(first)[0]["status"] == "escalated"
    assert desk.done == []
    desk.approve()
    again = talk.say(confirmation(first))
    assert told(again)[-1] == {"receipt": '{"receipt": "r-T-1"}'}
    assert desk.done == [("T-1", LARGE)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_adks_confirmation_is_not_the_gates(desk: Desk) -> None:
    """Whoever confirms in ADK alone has approved nothing: the tool does not run."""
    talk = Talk(desk, asked(LARGE))
    again = talk.say(confirmation(talk.say(START)))
    assert told(again)[-1]["status"] == "escalated"
    assert desk.done == []


def test_our_hook_crashing_blocks(desk: Desk) -> None:
    """Whatever goes wrong in the hook ends the run, and the tool does not run."""
    with pytest.raises(RuntimeError, match="the hook crashed"):
        Talk(desk, asked(), governor=Governor(Broken())).say(START)  # type: ignore[arg-type]
    assert desk.done == []


def test_a_call_that_is_asked_about_again_runs_once(desk: Desk) -> None:
    """The same call in a session that is done over: one decision, one effect."""
    governor = desk.governor()
    Talk(desk, asked(), governor=governor).say(START)
    again = told(Talk(desk, asked(), governor=governor).say(START))
    assert again[0]["status"] == "confirmed"
    assert desk.done == [("T-1", SMALL)]
    assert desk.decisions() == ["allow"]


def test_a_failing_tool_is_unknown(desk: Desk) -> None:
    """What a tool did before it raised, nobody knows."""
    desk.fails = True
    with pytest.raises(Exception, match="line broke"):
        Talk(desk, asked()).say(START)
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("unknown", "reported")]


def test_an_unreachable_gate_blocks(desk: Desk) -> None:
    """The gate's process is gone: the model is told that nothing was done, and the tool does not run."""
    with desk.unreachable() as governor:
        assert told(Talk(desk, asked(), governor=governor).say(START))[0]["code"] == "gate_halted"
    assert desk.done == []


def test_a_tool_that_asks_its_own_users_first_has_not_run(desk: Desk) -> None:
    """ADK answers in place of the function: nothing is reported as done, and after the answer it runs, once."""
    talk = Talk(desk, asked(), ask_first=True)
    first = talk.say(START)
    assert (desk.done, desk.outcomes(), desk.decisions()) == ([], [], ["allow"])
    assert told(talk.say(confirmation(first)))[-1] == {"receipt": '{"receipt": "r-T-1"}'}
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_what_adk_did_not_call_is_not_confirmed(desk: Desk) -> None:
    """A user who rejects ADK's own question: the function does not run, and the record does not say that it did."""
    talk = Talk(desk, asked(), ask_first=True)
    told(talk.say(confirmation(talk.say(START), answer=False)))
    assert desk.done == []
    assert desk.outcomes() == [("unknown", "reported")]


def test_arguments_changed_after_the_decision_are_not_confirmed(desk: Desk) -> None:
    """A callback of the agent comes after every plugin and can change the amount: the record says unknown."""

    def more(tool: Any, args: dict[str, Any], tool_context: Any) -> None:
        args["amount"] = LARGE

    Talk(desk, asked(), before_tool_callback=more).say(START)
    assert desk.done == [("T-1", LARGE)]
    assert desk.outcomes() == [("unknown", "reported")]


def test_a_tool_that_runs_long_is_left_open(desk: Desk) -> None:
    """Its return is only the beginning: nothing is reported as done."""
    Talk(desk, asked(), kind=LongRunningFunctionTool).say(START)
    assert desk.decisions() == ["allow"]
    assert desk.outcomes() == []


def test_the_lines_in_the_docs_govern(desk: Desk) -> None:
    """What a user copies from the page puts the tool behind the gate."""
    model = Scripted(model="scripted", calls=[asked()])
    talk = Talk(desk)
    talk._runner = InMemoryRunner(
        app=in_docs("Google ADK", governor=desk.governor(), model=model, refund=desk.refund)["app"]
    )
    talk.say(START)
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("confirmed", "reported")]
