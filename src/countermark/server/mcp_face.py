"""``/mcp`` and ``countermark mcp``: the gate as an MCP server, on the official SDK (extra ``[mcp]``).

Over HTTP every request stands alone: no session is kept that somebody could take over, and each shows its credential.
The SDK is imported only when a face is made.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from countermark.model.canon import read_json
from countermark.model.errors import ConfigError, CountermarkError
from countermark.server.actions import caller_of
from countermark.server.bodies import check_json, header, read_body
from countermark.server.mcp_calls import META_ACTION, META_CALL, META_RUN, Calls, Party, Reply
from countermark.server.problems import HttpError, plain
from countermark.server.stripe_runs import name_of
from countermark.server.surroundings import Surroundings

if TYPE_CHECKING:
    import mcp_types as types
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server

PATH = "/mcp"
PAGE = "/escalations/"
CALLER = "countermark.party"
URL_ELICITATION_SINCE = "2025-11-25"
BODY_DEPTH_MAX = 32
TEXT_CHARS_MAX = 65_536

_ESCALATION = re.compile(r"esc_[0-9a-f]{32}")
_WHO = "Countermark decides about every call. Errors say what to do next; asking again with the same arguments is safe."

log = logging.getLogger("countermark.mcp")


def build_server(calls: Calls, party_of: Callable[[Any], Party]) -> Server[Any]:
    """The SDK's low-level server over ``calls``. ``party_of`` says who is behind a request's context.

    Raises:
        ConfigError: the extra ``[mcp]`` is not installed.
    """
    try:
        import mcp_types as types
        from mcp.server.lowlevel import Server
        from mcp.shared.exceptions import MCPError
    except ImportError:
        raise ConfigError("the MCP SDK is not installed", hint="Install countermark[mcp].") from None

    async def list_tools(ctx: ServerRequestContext[Any, Any], params: Any) -> types.ListToolsResult:
        try:
            found = await calls.tools(party_of(ctx))
        except CountermarkError as error:
            raise MCPError(types.INTERNAL_ERROR, error.message, {"code": error.code}) from None
        return types.ListToolsResult(tools=[_tool(entry) for entry in found])

    async def call_tool(
        ctx: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        party, again = party_of(ctx), params.request_state or ""
        meta = dict(ctx.meta or {})
        patient = bool(again) and _accepted(params.input_responses)
        reply = await calls.call(party, params.name, params.arguments or {}, meta, again, patient)
        if reply.escalation and party.page is not None and not again:
            asked = _asked_by_url(ctx, reply, party.page(reply.escalation))
            if asked is not None:
                return asked
        return _result(reply)

    from countermark import __version__

    server: Server[Any] = Server(
        "countermark", version=__version__, instructions=_WHO, on_list_tools=list_tools, on_call_tool=call_tool,
        get_tool_input_schema=lambda name: None,
    )  # fmt: skip
    server.middleware.clear()  # the SDK's own tracing would put foreign names into spans
    return server


def _tool(entry: Mapping[str, Any]) -> types.Tool:
    import mcp_types as types

    return types.Tool(
        name=entry["name"], description=entry["description"], input_schema=entry["schema"],
        annotations=types.ToolAnnotations(read_only_hint=entry["class"] == "read"),
    )  # fmt: skip


def _accepted(responses: Any) -> bool:
    """Whether the user went to look: then people may be answering at this moment."""
    return any(getattr(response, "action", "") == "accept" for response in (responses or {}).values())


def _asked_by_url(ctx: ServerRequestContext[Any, Any], reply: Reply, url: str) -> types.InputRequiredResult | None:
    """MCP's own way to say that people must act elsewhere first; None for a client that does not know it.

    Raises ``UrlElicitationRequiredError`` for clients of 2025-11-25, whose way it is.
    """
    import mcp_types as types
    from mcp.shared.exceptions import UrlElicitationRequiredError
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS

    offered = ctx.session.client_capabilities
    if offered is None or offered.elicitation is None or offered.elicitation.url is None:
        return None
    message = f"A person must answer before this goes on. Nothing has happened yet. {reply.escalation}"
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        params = types.ElicitRequestURLParams(message=message, url=url)
        return types.InputRequiredResult(
            input_requests={"approval": types.ElicitRequest(params=params)}, request_state=reply.state
        )
    if ctx.protocol_version == URL_ELICITATION_SINCE:
        params = types.ElicitRequestURLParams(message=message, url=url, elicitation_id=reply.escalation)
        raise UrlElicitationRequiredError([params])
    return None


def _result(reply: Reply) -> types.CallToolResult:
    """The answer as a tool's result: what the provider said, or the gate's own words."""
    import mcp_types as types

    result = reply.result or {}
    meta = {META_RUN: reply.run, META_CALL: reply.call_id}
    if "action" in result:
        meta[META_ACTION] = result["action"]
    said = reply.said.get("mcp") if isinstance(reply.said, dict) else None
    own = {"type": "text", "text": reply.text()}
    if isinstance(said, dict):
        blocks = [*said["content"], *([own] if reply.failed else [])]
        return types.CallToolResult(
            content=[_block(block) for block in blocks], structured_content=said.get("structuredContent"),
            is_error=reply.failed or bool(said["isError"]), _meta=meta,
        )  # fmt: skip
    answer = reply.document()
    blocks = [own]
    if reply.said is not None:
        blocks.append({"type": "text", "text": json.dumps(reply.said)[:TEXT_CHARS_MAX]})
    return types.CallToolResult(
        content=[_block(block) for block in blocks], structured_content=answer, is_error=reply.failed, _meta=meta
    )


def _block(block: Any) -> Any:
    """A content block as the protocol has it; what is none is named, not passed on."""
    import mcp_types as types
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(types.ContentBlock).validate_python(block)
    except ValidationError:
        return types.TextContent(text="[a part of the answer that is not MCP content was left out]")


class McpApp:
    """The ASGI app of ``/mcp``: strict body, credential, then the SDK for one request."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._all = surroundings
        self._server = build_server(Calls(), _party_of)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        if scope["type"] != "http":
            return
        scope["countermark.route"] = PATH
        headers, body_bytes_max = scope["headers"], self._all.settings.limits.body_bytes_max
        if scope["method"] != "POST":
            raise plain(405, headers={"allow": "POST"})
        check_json(headers)
        origin, host = header(headers, b"origin"), header(headers, b"host")
        if origin and origin.partition(b"://")[2].lower() != host.lower():
            raise HttpError(403, "a page of another origin asks here", code="other_origin")
        body = await read_body(scope, receive, body_bytes_max)
        read_json(body, bytes_max=body_bytes_max, depth_max=BODY_DEPTH_MAX)
        caller = await caller_of(self._all, scope, body)
        gate = self._all.gate

        async def ask(op: str, given: Mapping[str, Any]) -> Any:
            # A client that hangs up must not cancel an effect between its send and its record.
            return await asyncio.shield(asyncio.ensure_future(gate.call(op, given, caller)))

        base = f"{scope['scheme']}://{host.decode('latin-1')}"
        run = "" if caller.scope is None else caller.scope.run
        party = Party(
            caller.agent, ask, run, page=lambda escalation: f"{base}{PAGE}{escalation}", behalf=name_of(caller)
        )  # fmt: skip
        inner = {**scope, "path": PATH, "root_path": "", CALLER: party}
        manager = StreamableHTTPSessionManager(
            self._server, json_response=True, stateless=True, max_request_body_size=body_bytes_max
        )
        async with manager.run():
            await manager.handle_request(inner, _again(body, receive), send)


def _party_of(ctx: ServerRequestContext[Any, Any]) -> Party:
    request = ctx.request
    found = request.scope.get(CALLER) if isinstance(request, Request) else None
    if not isinstance(found, Party):  # the SDK lost the request: nobody is behind it
        raise CountermarkError("nobody is known behind this request", code="not_authenticated")
    return found


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read once already, and then whatever comes."""
    first = [True]

    async def replay() -> Message:
        if first:
            first.clear()
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    """Where a client's user is sent: what people have to do. It reads nothing, so it tells nothing."""
    scope["countermark.route"] = PAGE
    if scope["method"] not in ("GET", "HEAD"):
        raise plain(405, headers={"allow": "GET"})
    escalation = scope["path"].rpartition("/")[2]
    if _ESCALATION.fullmatch(escalation) is None:
        raise plain(404)
    text = (
        f"An action waits for an answer: {escalation}\n\nAn approver sees and answers it at /waiting/{escalation} on "
        f"this server, or with `countermark approvals list`, `approve` and `refuse`.\nThen the agent's same call gives "
        f"the result.\n"
    ).encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text)),
        (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"),
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})


class _Page:
    """An object, so that a router takes it for an app and leaves its methods alone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _page(scope, receive, send)


def mcp_app(surroundings: Surroundings) -> ASGIApp:
    """``/mcp`` (streamable HTTP). Raises ``ConfigError`` when the SDK is not installed."""
    return McpApp(surroundings)


def page_app() -> ASGIApp:
    """``/escalations/ID``, where MCP clients send their users."""
    return _Page()


def serve_stdio(party: Party) -> None:
    """Serve one client on standard input and output until it closes its end. Nothing else is written there."""
    import anyio

    server = build_server(Calls(), lambda _: party)

    async def run() -> None:
        from mcp.server.stdio import stdio_server

        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    anyio.run(run)
