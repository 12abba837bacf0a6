"""What the server's tests share: a deployment behind a real socket, requests as bytes and as JSON."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from rig import AGENT, TOOL, Provider, args_for, make

import countermark
from countermark.gate import Caller
from countermark.model.errors import AuthorityError
from countermark.model.ports import Connector
from countermark.server import Listener
from countermark.wiring import ServeLimits, ServeSettings
from countermark.wiring.init import Made

TOKEN = "cmk_for_tests"
PROBLEM = "application/problem+json"
WAIT_S = 20


class OneToken:
    """Knows one agent by one token; how agents are really known is another room's matter."""

    async def authenticate(
        self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> Caller:
        if dict(headers).get(b"authorization") != b"Bearer " + TOKEN.encode():
            raise AuthorityError("the credential is not valid here", code="not_authenticated")
        return Caller(AGENT, "enforcing")


@dataclass
class Answer:
    """An HTTP answer, with its body as JSON where it is JSON."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


class Face:
    """A served deployment over a provider in memory."""

    def __init__(self, root: Path, provider: Connector | None = None, limits: Mapping[str, int] | None = None) -> None:
        self.provider = provider or Provider()
        self.root = root
        self.made: Made = make(root, self.provider)
        settings = ServeSettings(port=0, limits=replace(ServeLimits(), **(limits or {})))
        self.handle = countermark.open(root, agent=AGENT, connectors={"stripe": self.provider}, tier="enforcing")
        self.listener = Listener(self.handle, OneToken(), settings)
        self.url = self.listener.start()

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=WAIT_S)

    def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: str = TOKEN,
    ) -> Answer:
        """One request on a connection of its own. ``body`` is JSON unless it is bytes."""
        connection = http.client.HTTPConnection(*self.address, timeout=WAIT_S)
        sent = {"authorization": f"Bearer {token}"} if token else {}
        raw = body
        if body is not None and type(body) is not bytes:
            raw = json.dumps(body).encode()
        if raw is not None:
            sent["content-type"] = "application/json"
        try:
            connection.request(method, target, raw, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def raw(self, data: bytes) -> list[Answer]:
        """Send bytes, read until the server closes, and take the answers apart."""
        with self.connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return answers_in(received(connection))

    def pay(self, number: object, query: str = "", **changes: Any) -> Answer:
        """Pay an invoice over HTTP."""
        body = {"call_id": f"pay-{number}", "tool": TOOL, "args": args_for(number), **changes}
        return self.ask("POST", f"/v1/actions{query}", body)

    def stop(self) -> None:
        self.listener.stop()
        self.handle.close()

    def __enter__(self) -> Face:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def received(connection: socket.socket) -> bytes:
    """Everything until the other side ends; a cut connection ends it too."""
    parts = []
    while True:
        try:
            part = connection.recv(65_536)
        except ConnectionError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def answers_in(raw: bytes) -> list[Answer]:
    """The answers in what a connection brought, each by its length."""
    found = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 ([0-9]{3}) .*", first)
        assert match is not None, first
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if match[1] == "100":
            raw = rest
            continue
        length = int(headers.get("content-length", "0"))
        found.append(Answer(int(match[1]), headers, rest[:length]))
        raw = rest[length:]
    return found


def is_problem(answer: Answer) -> bool:
    """Whether an error has the one shape: RFC 9457's members and ours, and nothing that tells of our inside."""
    if answer.headers.get("content-type") != PROBLEM:
        return False
    document = answer.json
    known = {"type", "title", "status", "detail", "code", "retryable", "hint"}
    return (
        known <= document.keys() <= known | {"result"}
        and document["status"] == answer.status
        and document["type"] == "urn:countermark:problem:" + document["code"]
        and type(document["retryable"]) is bool
        and "Traceback" not in document["detail"]
        and (answer.status not in (429, 503) or "retry-after" in answer.headers)
    )
