"""Claude Agent SDK: the hooks, asked through the SDK's own client, its control protocol and its own in-process tools.

The program that the SDK starts needs a model that only its maker serves. Here a transport stands in its place: it
speaks that program's side of the control protocol and keeps what the SDK's types say of hooks (a refusal, or a failure
under ``onFailure: block``, stops the call; a failure without it is no decision), and the SDK runs everything else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from desk import LARGE, SMALL, Broken, Desk, asked, in_docs

from countermark.adapters import Governor
from countermark.adapters.claude_agent import governed

pytest.importorskip(
    "claude_agent_sdk", reason="needs the extra claude-agent-sdk: run_all.py tests it", exc_type=ImportError
)
from claude_agent_sdk import (
    ClaudeAgentOptions,
    CLIConnectionError,
    HookMatcher,
    Transport,
    create_sdk_mcp_server,
    query,
    tool,
)

pytestmark = pytest.mark.filterwarnings("default")
NAME = "mcp__desk__refund"
TOOLS = {NAME: "desk.refund"}


class Program(Transport):
    """The program's side: makes the scripted calls, and keeps to what the hooks answer."""

    def __init__(self, *calls: dict[str, Any], knows_failure: bool = True, name: str = NAME, first_id: int = 1) -> None:
        self._calls, self._knows, self._name, self._id = calls, knows_failure, name, first_id
        self._out: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.hooks: dict[str, list[dict[str, Any]]] = {}
        self.told: list[str] = []  # what the model would read of each call
        self._turn: asyncio.Task[None] | None = None

    async def connect(self) -> None: ...

    async def close(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
        self._out.put_nowait(None)

    async def end_input(self) -> None: ...

    def is_ready(self) -> bool:
        return True

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        while (message := await self._out.get()) is not None:
            yield message

    async def write(self, data: str) -> None:
        message = json.loads(data)
        if message["type"] == "control_request":
            self.hooks = message["request"].get("hooks") or {}
            answer = {"hook_on_failure_supported": True} if self._knows else {}
            told = {"subtype": "success", "request_id": message["request_id"], "response": answer}
            self._out.put_nowait({"type": "control_response", "response": told})
        elif message["type"] == "control_response":
            self._waiting.pop(message["response"]["request_id"]).set_result(message["response"])
        elif message["type"] == "user":
            self._turn = asyncio.ensure_future(self._make_calls())

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        name = f"req_{len(self.told)}_{len(self._waiting)}_{request['subtype']}"
        self._waiting[name] = asyncio.get_running_loop().create_future()
        self._out.put_nowait({"type": "control_request", "request_id": name, "request": request})
        return await self._waiting[name]

    async def _hook(self, event: str, data: dict[str, Any]) -> str | None:
        """Why a hook stops the call, or None."""
        given = {"session_id": "s", "transcript_path": "", "cwd": "", "hook_event_name": event, **data}
        for matcher in self.hooks.get(event, []):
            for callback in matcher["hookCallbackIds"]:
                request = {"subtype": "hook_callback", "callback_id": callback, "input": given}
                said = await self._ask({**request, "tool_use_id": data["tool_use_id"]})
                if said["subtype"] == "error":
                    if matcher.get("onFailure") == "block":
                        return "blocked: a hook failed"
                    continue
                own = said["response"].get("hookSpecificOutput", {})
                data["tool_input"] = own.get("updatedInput", data["tool_input"])
                if own.get("permissionDecision") == "deny":
                    return str(own["permissionDecisionReason"])
        return None

    async def _mcp(self, method: str, params: dict[str, Any], **more: Any) -> Any:
        message = {"jsonrpc": "2.0", "method": method, "params": params, **more}
        said = await self._ask({"subtype": "mcp_message", "server_name": "desk", "message": message})
        return said["response"]["mcp_response"]["result"]

    async def _make_calls(self) -> None:
        client = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "program", "version": "1"},
        }
        await self._mcp("initialize", client, id=0)
        await self._mcp("notifications/initialized", {})
        for number, args in enumerate(self._calls, self._id):
            data = {"tool_name": self._name, "tool_input": args, "tool_use_id": f"toolu_{number}"}
            why = await self._hook("PreToolUse", data)
            self.told.append(await self._run(data) if why is None else why)
        usage = {"duration_ms": 1, "duration_api_ms": 1, "is_error": False, "num_turns": 1, "session_id": "s"}
        self._out.put_nowait({"type": "result", "subtype": "success", "result": "done", **usage})
        self._out.put_nowait(None)

    async def _run(self, data: dict[str, Any]) -> str:
        name = self._name.rpartition("__")[2]
        result = await self._mcp("tools/call", {"name": name, "arguments": data["tool_input"]}, id=data["tool_use_id"])
        text = str(result["content"][0]["text"])
        if result.get("isError"):
            await self._hook("PostToolUseFailure", {**data, "error": text})
        else:
            await self._hook("PostToolUse", {**data, "tool_response": result["content"]})
        return text


def talk(desk: Desk, program: Program, governor: Any = None, hooks: Any = None) -> list[str]:
    """One session of the SDK's own ``query``; returns what the model was told of each call."""

    if hooks is None:
        hooks = governed(Governor(desk.gate, run=desk.run, tools=TOOLS) if governor is None else governor)
    server = create_sdk_mcp_server("desk", tools=[refund_of(desk)])
    return session(program, ClaudeAgentOptions(hooks=hooks, mcp_servers={"desk": server}))


def refund_of(desk: Desk) -> Any:
    @tool("refund", "Refund an amount to an account.", {"amount": int, "account": str, "ticket": str})
    async def refund(args: dict[str, Any]) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": desk.refund(**args)}]}

    return refund


def session(program: Program, options: ClaudeAgentOptions) -> list[str]:
    async def go() -> None:
        async for _ in query(prompt="refund it", options=options, transport=program):
            pass

    asyncio.run(asyncio.wait_for(go(), 60))
    return program.told


def test_allow(desk: Desk) -> None:
    """The tool runs and its result reaches the model; what happened is recorded with its declared output."""
    governor = Governor(desk.gate, run=desk.run, tools=TOOLS)
    assert talk(desk, Program(asked()), governor) == ['{"receipt": "r-T-1"}']
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("confirmed", "reported")]
    assert governor.ask(NAME, asked(), "toolu_1").document()["output"] == {"receipt": "r-T-1"}


def test_deny(desk: Desk) -> None:
    """The tool does not run; the model is told a code."""
    assert '"status": "denied"' in talk(desk, Program(asked(3_000_000)))[0]
    assert desk.done == []


def test_escalate_then_approve(desk: Desk) -> None:
    """The call is refused while people are asked; made again under a new id after they answered, it runs once."""
    governor = Governor(desk.gate, run=desk.run, tools=TOOLS)
    assert '"status": "escalated"' in talk(desk, Program(asked(LARGE)), governor)[0]
    assert desk.done == []
    desk.approve()
    assert talk(desk, Program(asked(LARGE), first_id=2), governor) == ['{"receipt": "r-T-1"}']
    assert desk.done == [("T-1", LARGE)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_our_hook_crashing_blocks(desk: Desk) -> None:
    """The SDK reports the failure to the program, which was told to block on it; the tool does not run."""
    program = Program(asked())
    assert talk(desk, program, Governor(Broken())) == ["blocked: a hook failed"]  # type: ignore[arg-type]
    assert [matcher["onFailure"] for matcher in program.hooks["PreToolUse"]] == ["block"]
    assert desk.done == []


def test_the_stand_in_lets_a_failing_hook_pass_where_it_may(desk: Desk) -> None:
    """Without ``on_failure`` the same crash runs the tool: so the test above shows our setting, not the stand-in's."""

    async def crash(*_: Any) -> Any:
        raise RuntimeError("the hook crashed")

    talk(desk, Program(asked()), hooks={"PreToolUse": [HookMatcher(hooks=[crash])]})
    assert desk.done == [("T-1", SMALL)]


def test_a_program_that_does_not_block_on_failure_is_refused(desk: Desk) -> None:
    """The SDK does not even start a session in which a crash of our hook would let tools run."""
    with pytest.raises(CLIConnectionError, match="on_failure"):
        talk(desk, Program(asked(), knows_failure=False))
    assert desk.done == []


def test_an_unreachable_gate_blocks(desk: Desk) -> None:
    """The gate's process is gone: the model is told that nothing was done, and the tool does not run."""
    with desk.unreachable() as governor:
        assert "gate_halted" in talk(desk, Program(asked(), name="refund"), governor)[0]
    assert desk.done == []


def test_a_call_that_is_asked_about_again_runs_once(desk: Desk) -> None:
    """A resumed session makes the same call under the same id: one decision, one effect."""
    for governor in (Governor(desk.gate, run=desk.run, tools=TOOLS), Governor(desk.gate, run=desk.run, tools=TOOLS)):
        told = talk(desk, Program(asked()), governor)
    assert '"status": "confirmed"' in told[0]
    assert desk.done == [("T-1", SMALL)]
    assert desk.decisions() == ["allow"]


def test_a_failing_tool_is_unknown(desk: Desk) -> None:
    """What a tool did before it raised, nobody knows."""
    desk.fails = True
    assert "line broke" in talk(desk, Program(asked()))[0]
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("unknown", "reported")]


def test_a_built_in_tool_is_asked_about_too(desk: Desk) -> None:
    """What the policy does not know is refused: an agent with a shell would need no gate."""
    told = talk(desk, Program({"command": "curl bank"}, name="Bash"))
    assert "unknown_tool" in told[0]


def test_arguments_changed_by_another_hook_are_not_confirmed(desk: Desk) -> None:
    """All hooks of a call are heard, and one may rewrite what ours agreed to: the record says unknown."""

    async def more(*_: Any) -> Any:
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", "updatedInput": asked(LARGE)}}

    hooks = governed(Governor(desk.gate, run=desk.run, tools=TOOLS))
    hooks["PreToolUse"].append(HookMatcher(hooks=[more]))
    talk(desk, Program(asked()), hooks=hooks)
    assert desk.done == [("T-1", LARGE)]
    assert desk.outcomes() == [("unknown", "reported")]


def test_the_lines_in_the_docs_govern(desk: Desk) -> None:
    """What a user copies from the page puts the tool behind the gate."""
    governor = Governor(desk.gate, run=desk.run, tools=TOOLS)
    made = in_docs("Claude Agent SDK", governor=governor, refund=refund_of(desk))
    session(Program(asked()), made["options"])
    assert desk.outcomes() == [("confirmed", "reported")]
