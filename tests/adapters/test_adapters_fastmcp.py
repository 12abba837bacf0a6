"""FastMCP: a server with the middleware, called by FastMCP's own client over its in-memory transport."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from desk import LARGE, SMALL, Broken, Desk, asked, in_docs

from countermark.adapters import Governor
from countermark.adapters.fastmcp import META, governed

pytest.importorskip("fastmcp", reason="needs the extra fastmcp: run_all.py tests it", exc_type=ImportError)
from fastmcp import Client, FastMCP

pytestmark = pytest.mark.filterwarnings("default")


def server_of(desk: Desk, governor: Any = None) -> FastMCP:
    server: FastMCP = FastMCP("desk")
    server.tool(desk.refund)
    server.add_middleware(governed(desk.governor() if governor is None else governor))
    return server


def call(server: FastMCP, *calls: dict[str, Any], meta: dict[str, Any] | None = None) -> list[tuple[bool, str]]:
    """Whether each call failed, and what the client was told."""

    async def go() -> list[tuple[bool, str]]:
        async with Client(server) as client:
            found = [await client.call_tool("refund", args, raise_on_error=False, meta=meta) for args in calls]
            return [(one.is_error, str(one.content[0].text)) for one in found]  # type: ignore[union-attr]

    return asyncio.run(go())


def test_allow(desk: Desk) -> None:
    """The tool runs and its result reaches the client; what happened is recorded."""
    [(failed, text)] = call(server_of(desk), asked())
    assert (failed, text) == (False, '{"receipt": "r-T-1"}')
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_deny(desk: Desk) -> None:
    """The tool does not run; the client is told a code."""
    [(failed, text)] = call(server_of(desk), asked(3_000_000))
    assert failed
    assert "denied" in text
    assert desk.done == []


def test_escalate_then_approve(desk: Desk) -> None:
    """The client is told to wait; the same call, made again after people answered, runs once."""
    server = server_of(desk)
    [(failed, text)] = call(server, asked(LARGE))
    assert failed
    assert "escalated" in text
    assert desk.done == []
    desk.approve()
    assert call(server, asked(LARGE)) == [(False, '{"receipt": "r-T-1"}')]
    assert desk.done == [("T-1", LARGE)]
    assert desk.outcomes() == [("confirmed", "reported")]


def test_our_hook_crashing_blocks(desk: Desk) -> None:
    """Whatever goes wrong in the hook is an error to the client, without its details, and the tool does not run."""
    with pytest.raises(Exception) as caught:
        call(server_of(desk, Governor(Broken())), asked())  # type: ignore[arg-type]
    assert "crashed" not in str(caught.value)
    assert desk.done == []


def test_a_call_that_is_asked_about_again_runs_once(desk: Desk) -> None:
    """A client that names its call may repeat it, in another session too: one decision, one effect."""
    server, meta = server_of(desk), {META: "call-7"}
    [(_, first)] = call(server, asked(), meta=meta)
    [(_, second)] = call(server, asked(), meta=meta)
    assert first == '{"receipt": "r-T-1"}'
    assert '"status": "confirmed"' in second
    assert desk.done == [("T-1", SMALL)]
    assert desk.decisions() == ["allow"]


def test_requests_of_two_sessions_are_two_calls(desk: Desk) -> None:
    """Request numbers begin anew with every session; what is asked there is not taken for an earlier call."""
    server = server_of(desk)
    call(server, asked(ticket="T-1"))
    call(server, asked(ticket="T-2"))
    assert desk.done == [("T-1", SMALL), ("T-2", SMALL)]


def test_a_failing_tool_is_unknown(desk: Desk) -> None:
    """What a tool did before it raised, nobody knows."""
    desk.fails = True
    [(failed, _)] = call(server_of(desk), asked())
    assert failed
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("unknown", "reported")]


def test_an_unreachable_gate_blocks(desk: Desk) -> None:
    """The gate's process is gone: the client is told that nothing was done, and the tool does not run."""
    with desk.unreachable() as governor:
        [(failed, text)] = call(server_of(desk, governor), asked())
    assert failed
    assert "gate_halted" in text
    assert desk.done == []


def test_a_call_that_is_repeated_while_it_runs_does_not_run_twice(desk: Desk) -> None:
    """A client that does not wait for the answer and sends the same call again: one effect."""
    server: FastMCP = FastMCP("desk")
    entered, leave = asyncio.Event(), asyncio.Event()

    @server.tool
    async def refund(amount: int, account: str, ticket: str) -> str:
        entered.set()
        await leave.wait()
        return desk.refund(amount, account, ticket)

    server.add_middleware(governed(desk.governor()))

    async def go() -> Any:
        async with Client(server) as client, Client(server) as other:
            first = asyncio.ensure_future(client.call_tool("refund", asked(), meta={META: "call-7"}))
            await entered.wait()
            again = await other.call_tool("refund", asked(), meta={META: "call-7"}, raise_on_error=False)
            leave.set()
            return (await first).data, again.is_error, str(again.content[0].text)  # type: ignore[union-attr]

    data, failed, text = asyncio.run(go())
    assert (data, failed) == ('{"receipt": "r-T-1"}', True)
    assert "already_running" in text
    assert desk.done == [("T-1", SMALL)]


def test_the_lines_in_the_docs_govern(desk: Desk) -> None:
    """What a user copies from the page puts the tool behind the gate."""
    call(in_docs("FastMCP", governor=desk.governor(), refund=desk.refund)["server"], asked())
    assert desk.outcomes() == [("confirmed", "reported")]
