"""An MCP server behind HTTP (streamable HTTP of the handshake era): one POST per message, one origin, no redirects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from countermark.connectors.http_send import Answer as HttpAnswer
from countermark.connectors.http_send import LostError, NotSentError, Sender, no_credential
from countermark.connectors.mcp.definition import UpstreamError, read_message
from countermark.connectors.mcp.stdio import Answer, left_s
from countermark.model.errors import CountermarkError
from countermark.model.values import Request

EVENTS_MAX = 10_000
ACCEPT = "application/json, text/event-stream"

_SESSION = re.compile(r"[!-~]{1,256}")
_VERSION = re.compile(r"[0-9-]{1,20}")


class HttpWire:
    """A session with one server. It is told of changed tools only when it asks, so its listing is always stale."""

    def __init__(self, sender: Sender, path: str, secret: Callable[[], str] | None) -> None:
        self.changes = 0
        self.alive = True
        self.volatile = True
        self._sender = sender
        self._path = path
        self._secret = secret
        self._headers: tuple[tuple[str, str], ...] = ()

    def greeted(self, result: Mapping[str, Any]) -> None:
        """Every further request says which protocol was agreed on."""
        version = result.get("protocolVersion")
        if type(version) is str and _VERSION.fullmatch(version) is not None:
            self._headers += (("MCP-Protocol-Version", version),)

    def ask(
        self, body: bytes, id_: str, headers: Sequence[tuple[str, str]], end_us: int, still: Callable[[], bool]
    ) -> Answer:
        """Send one request and read its answer, from a JSON body or an event stream that ends with it.

        Raises ``NotSentError`` or ``LostError``, as ``StdioWire.ask``.
        """
        if not still():
            raise NotSentError("the MCP server's tools are changing", "tool_changed")
        answer = self._send(body, headers, end_us)
        if answer.status == 404:
            self.alive = False  # the server forgot the session
        if answer.status != 200:
            raise LostError(f"the MCP server answered {answer.status}")
        session = answer.headers.get("mcp-session-id", "")
        if not self._headers and _SESSION.fullmatch(session) is not None:
            self._headers = (("Mcp-Session-Id", session),)
        try:
            return self._found(answer, id_)
        except UpstreamError as error:
            raise LostError(error.message) from None

    def tell(self, body: bytes, end_us: int) -> None:
        """Send a message that has no answer. Raises ``LostError`` or ``NotSentError``."""
        if self._send(body, (("Content-Type", "application/json"),), end_us).status not in (200, 202, 204):
            raise LostError("the MCP server refused a notification")

    def close(self) -> None:
        """Close idle connections; the server forgets the session by itself."""
        self.alive = False
        self._sender.close()

    def _send(self, body: bytes, headers: Sequence[tuple[str, str]], end_us: int) -> HttpAnswer:
        try:
            secret = None if self._secret is None else self._secret()
        except (CountermarkError, OSError, LookupError, ValueError) as error:
            raise no_credential(error, "this MCP server") from None
        request = Request("POST", self._sender.origin + self._path, (*headers, *self._headers), body)
        return self._sender.send(request, secret, int(left_s(end_us) * 1000))

    def _found(self, answer: HttpAnswer, id_: str) -> Answer:
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        pieces = [answer.body] if kind == "application/json" else _events(answer.body)
        for raw in pieces:
            message = read_message(raw)
            if message.get("method") == "notifications/tools/list_changed":
                self.changes += 1
            if "method" not in message and message.get("id") == id_:
                return Answer(message, raw)
        raise UpstreamError("the MCP server's answer holds no answer")


def _events(body: bytes) -> list[bytes]:
    """The data of each event of an event stream (WHATWG HTML, "Server-sent events")."""
    events: list[list[bytes]] = [[]]
    for line in body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        if not line:
            events.append([])
        elif line.startswith(b"data:"):
            events[-1].append(line[5:].removeprefix(b" "))
    found = [b"\n".join(lines) for lines in events if any(lines)]
    if len(found) > EVENTS_MAX:
        raise UpstreamError("the MCP server's event stream is too long")
    return found
