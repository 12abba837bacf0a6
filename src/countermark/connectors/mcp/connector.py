"""An MCP server as a connector: exactly the prepared ``tools/call``, to a tool that is still what people approved."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import unquote

import orjson

from countermark.connectors.http_send import LostError, NotSentError
from countermark.connectors.mcp.definition import TOOLS_MAX, Definition, UpstreamError, read_definitions
from countermark.connectors.mcp.outcomes import judge
from countermark.connectors.mcp.stdio import Answer, left_s
from countermark.model.clock import SystemClock
from countermark.model.errors import CountermarkError
from countermark.model.ports import Description
from countermark.model.request import prepare
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Outcome, Request

PROTOCOL = "2025-11-25"
PROTOCOLS = frozenset((PROTOCOL, "2025-06-18", "2025-03-26", "2024-11-05"))
OPEN_MS_MAX = 20_000  # for a server to start, greet and list its tools
PAGES_MAX = 64
RELIST_TRIES_MAX = 3
CURSOR_CHARS_MAX = 4_096
KEPT_BYTES_MAX = 32 << 20  # of answers, for agents that ask again
ENCODING = "mcp-v1"
PIN_HEADER = "Mcp-Tool-Digest"

_PLAIN = (("Content-Type", "application/json"),)


class Wire(Protocol):
    """A way to one server. ``volatile``: it does not tell by itself when its tools change."""

    changes: int
    alive: bool
    volatile: bool

    def greeted(self, result: Mapping[str, Any]) -> None: ...
    def ask(
        self, body: bytes, id_: str, headers: Sequence[tuple[str, str]], end_us: int, still: Callable[[], bool]
    ) -> Answer: ...
    def tell(self, body: bytes, end_us: int) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Listing:
    """The tools of a connection, as they were when it had said ``changes`` times that they change."""

    wire: Wire
    changes: int
    tools: Mapping[str, Definition]


class McpConnector:
    """Implements ``Connector`` and ``Describing``.

    ``open_wire`` starts or reaches the server; it is called at the first use, and again after the server has gone.
    """

    blocking = True

    def __init__(self, name: str, open_wire: Callable[[], Wire]) -> None:
        self.name = name
        self._open_wire = open_wire
        self._lock = threading.Lock()
        self._wire: Wire | None = None
        self._listing: _Listing | None = None
        self._lists = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._kept_lock = threading.Lock()

    def tools(self) -> Sequence[ToolSpec]:
        return ()  # what a server offers is drafted once, by people, into tools.toml

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        return prepare(tool, args, key)

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        try:
            answer = self._call(tool, request)
            outcome = judge(tool, answer)
            self._keep(outcome)
            return replace(outcome, result=None)  # agents get it through ``answer_of``, as often as they ask
        except NotSentError as error:
            code = "tool_changed" if error.reason == "tool_changed" else "not_sent"
            return Outcome("failed", code, request_id=error.reason, attempts=0)
        except LostError as error:
            return Outcome("failed" if tool.class_ == "read" else "unknown", error.code)

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        """MCP has no way to ask what became of a call. A read had no effect that could be in doubt."""
        return Outcome("failed", "not_found") if tool.class_ == "read" else Outcome("unknown", "provider_error")

    def answer_of(self, response: str) -> bytes | None:
        """What the server answered, by the digest of its answer, while it is kept: JSON with the member ``mcp``."""
        with self._kept_lock:
            return self._kept.get(response)

    def forget(self, responses: Collection[str]) -> None:
        """Let go of these answers, of which the digests are given: whose they were is erased."""
        with self._kept_lock:
            for response in responses:
                self._kept_bytes -= len(self._kept.pop(response, b""))

    def _keep(self, outcome: Outcome) -> None:
        if outcome.result is None:
            return
        raw = orjson.dumps(outcome.result)
        with self._kept_lock:
            self._kept_bytes += len(raw) - len(self._kept.pop(outcome.response, b""))
            self._kept[outcome.response] = raw
            while self._kept_bytes > KEPT_BYTES_MAX:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    def describe(self, tools: Sequence[ToolSpec]) -> Mapping[str, Description]:
        """What the server says about those of ``tools`` that are still what they were pinned to."""
        try:
            listing = self._current(SystemClock().steady_us() + OPEN_MS_MAX * 1000)
        except CountermarkError:
            return {}
        found = {tool.name: listing.tools[_upstream_name(tool.endpoint)] for tool in tools if _stands(listing, tool)}
        return {name: Description(one.description, one.arguments) for name, one in found.items()}

    def definitions(self) -> list[Definition]:
        """All tools as the server lists them now, for drafts. Raises ``UpstreamError``."""
        try:
            return list(self._current(SystemClock().steady_us() + OPEN_MS_MAX * 1000).tools.values())
        except (LostError, NotSentError) as error:
            raise UpstreamError(
                f"the MCP server does not list its tools: {error.message}",
                hint="It is started in / with PATH, LANG and what --server-env names: name files by their whole path,"
                " and try its command by hand like that.",
            ) from None

    def close(self) -> None:
        """End the connection; the next use opens a new one."""
        with self._lock:
            self._drop()

    def _call(self, tool: ToolSpec, request: Request) -> Answer:
        """Send the request once, on a connection where the tool is what its pin says at that very moment."""
        for _ in range(RELIST_TRIES_MAX):
            listing = self._current(SystemClock().steady_us() + OPEN_MS_MAX * 1000)
            if not _stands(listing, tool):
                break
            changes, wire = listing.changes, listing.wire
            end_us = SystemClock().steady_us() + tool.timeout_ms * 1000
            try:
                return wire.ask(
                    request.body, _id_of(request), request.headers, end_us,
                    lambda wire=wire, changes=changes: wire.changes == changes,  # type: ignore[misc]
                )  # fmt: skip
            except NotSentError as error:
                if error.reason != "tool_changed":
                    raise
        raise NotSentError("the tool is not what it was when the policy was written", "tool_changed")

    def _current(self, end_us: int) -> _Listing:
        """A listing that nothing has outdated. Raises ``NotSentError``: nothing of an action has left by then."""
        if not self._lock.acquire(timeout=left_s(end_us)):
            raise NotSentError("the MCP server does not answer", "no_connection")
        try:
            for _ in range(2):  # a session over HTTP may have been forgotten: then once more, from the start
                try:
                    return self._listed(end_us)
                except (LostError, UpstreamError) as error:
                    forgotten = self._wire is not None and self._wire.volatile and not self._wire.alive
                    self._drop()
                    if not forgotten:
                        raise NotSentError(error.message, "no_connection") from None
                except NotSentError:
                    self._drop()
                    raise
            raise NotSentError("the MCP server keeps forgetting the session", "no_connection")
        finally:
            self._lock.release()

    def _listed(self, end_us: int) -> _Listing:
        if self._wire is not None and not self._wire.alive:
            self._drop()
        wire, listing = self._wire, self._listing
        if wire is None:
            wire = self._wire = self._open_wire()
            _greet(wire, end_us)
        elif listing is not None and not wire.volatile and listing.changes == wire.changes:
            return listing
        changes = wire.changes
        self._listing = _Listing(wire, changes, self._list(wire, end_us))
        return self._listing

    def _list(self, wire: Wire, end_us: int) -> dict[str, Definition]:
        tools: dict[str, Definition] = {}
        params: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            self._lists += 1
            result = _result(wire, f"cm-list-{self._lists}", "tools/list", params, end_us)
            for one in read_definitions(result.get("tools")):
                if one.name in tools or len(tools) >= TOOLS_MAX:
                    raise UpstreamError(f"the MCP server lists a tool twice, or more than {TOOLS_MAX}")
                tools[one.name] = one
            cursor = result.get("nextCursor")
            if cursor is None:
                return tools
            if type(cursor) is not str or len(cursor) > CURSOR_CHARS_MAX:
                break
            params = {"cursor": cursor}
        raise UpstreamError("the MCP server's list of tools does not end")

    def _drop(self) -> None:
        wire, self._wire, self._listing = self._wire, None, None
        if wire is not None:
            wire.close()


def _greet(wire: Wire, end_us: int) -> None:
    """The handshake. The gate offers a server nothing: no model, no questions to users, no files."""
    params = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "countermark", "version": "0.1"}}
    result = _result(wire, "cm-initialize", "initialize", params, end_us)
    if result.get("protocolVersion") not in PROTOCOLS:
        raise UpstreamError("the MCP server speaks no protocol version that is known here")
    wire.greeted(result)
    wire.tell(orjson.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}), end_us)


def _result(wire: Wire, id_: str, method: str, params: Mapping[str, Any], end_us: int) -> Mapping[str, Any]:
    body = orjson.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
    result = wire.ask(body, id_, _PLAIN, end_us, lambda: True).message.get("result")
    if type(result) is not dict:
        raise UpstreamError(f"the MCP server refuses {method}")
    return result


def _upstream_name(endpoint: str) -> str:
    return unquote(endpoint.rpartition("/")[2])


def _stands(listing: _Listing, tool: ToolSpec) -> bool:
    found = listing.tools.get(_upstream_name(tool.endpoint))
    return found is not None and found.digest == dict(tool.headers).get(PIN_HEADER)


def _id_of(request: Request) -> str:
    return dict(request.headers).get("Idempotency-Key", "")
