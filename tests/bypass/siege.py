"""A gate as it is deployed: a `countermark serve` child over the Stripe simulator, whose books are the judge."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "server"))

from face import Answer, answers_in, received
from observed import CALLER_TOOLS, NOTES, REFUND, refund_args
from rig import signed_answer, unsound
from stripe_support import ACME, AGENT, LOOSE, STRANGER, make, serving, twin_for
from support import judge_books, policy_for

import countermark
from countermark.authority import issue, load_private, make_pass
from countermark.model.clock import US, SystemClock
from countermark.twins.stripe import StripeTwin
from countermark.wiring import TokenFile
from countermark.wiring.init import Made

__all__ = [
    "ACME", "AGENT", "ANSWER_WAIT_S", "ASK", "REFUND", "STRANGER", "TOOL", "Answer", "Siege", "answers_in", "args_for",
    "embedded", "ended", "escalation_of", "judge_books", "make", "paid_at", "received", "refund_args", "serve",
    "serving", "signed_answer", "twin_for", "unsound",
]  # fmt: skip

TOOL = "stripe.transfers.create"
CLERK = '\n[agents.clerk]\nowner = "treasurer"\n'
ASK = 500_001  # above the limit from which people are asked
ANSWER_WAIT_S = 30
STOP_WAIT_S = 60


def args_for(invoice: object, amount: object = 1_000, destination: object = ACME, **more: Any) -> dict[str, Any]:
    return {"amount": amount, "currency": "eur", "destination": destination, "metadata[invoice]": invoice, **more}


class Siege:
    """The child, the simulator and an agent's way to them: bytes over loopback, and a token.

    There is a second agent, ``clerk``, and a tool that its caller runs.
    """

    def __init__(self, folder: Path, twin: StripeTwin, config: str = "") -> None:
        self.twin = twin
        more = {"limits.toml": policy_for(LOOSE)["limits.toml"] + CLERK, "policies/desk.cedar": NOTES}
        self.made: Made = make(folder / "d", twin, tools=CALLER_TOOLS, more=more, config=config)
        self.root = self.made.root
        self.token, self.token_id = self.issued()
        self.child, self.url = serve(self.root)
        place = urlsplit(self.url)
        self.address = (str(place.hostname), int(place.port or 0))

    def issued(self, agent: str = AGENT, *, life_s: int = 3_600, ago_s: int = 0, **scope: Any) -> tuple[str, str]:
        """A fresh token, as ``countermark token issue`` makes it, and its id; ``ago_s`` seconds ago."""
        now = SystemClock().now_us() - ago_s * US

        def edit(book: Any) -> Any:
            book, made, plain = issue(book, agent, now, life_s=life_s, **scope)
            return book, (plain, made.id)

        found: tuple[str, str] = TokenFile(self.root).change(edit)
        return found

    def ask(
        self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None, *,
        token: str | None = None,
    ) -> Answer:  # fmt: skip
        """One request on its own connection. ``body`` is JSON unless it is bytes; an empty ``token`` sends none."""
        given = self.token if token is None else token
        sent = {"authorization": f"Bearer {given}"} if given else {}
        raw = body
        if body is not None and type(body) is not bytes:
            raw = json.dumps(body).encode()
        if raw is not None:
            sent["content-type"] = "application/json"
        connection = http.client.HTTPConnection(*self.address, timeout=ANSWER_WAIT_S)
        try:
            connection.request(method, target, raw, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def act(self, args: Any, *, call_id: str = "", token: str | None = None, **more: Any) -> Answer:
        """Ask for one action under a call_id of its own."""
        body = {"call_id": call_id or "c-" + os.urandom(8).hex(), "tool": TOOL, "args": args, **more}
        return self.ask("POST", "/v1/actions", body, token=token)

    def form(self, fields: Any, path: str = "/v1/transfers", *, token: str | None = None, **headers: str) -> Answer:
        """A request as a Stripe SDK makes it; ``fields`` are pairs, or the body itself."""
        raw = fields if type(fields) is bytes else urlencode(fields, quote_via=quote).encode()
        sent = {"content-type": "application/x-www-form-urlencoded", "idempotency-key": "k-" + os.urandom(8).hex()}
        return self.ask("POST", "/stripe" + path, raw, {**sent, **headers}, token=token)

    def mcp(self, tool: str, arguments: Any, meta: Any = None, *, token: str | None = None) -> Answer:
        """One MCP call, in a way of the protocol that has no session."""
        params = {"name": tool, "arguments": arguments, **({"_meta": meta} if meta else {})}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        sent = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
        return self.ask("POST", "/mcp", body, sent, token=token)

    def raw(self, data: bytes) -> list[Answer]:
        """Send bytes, read until the server closes, and take the answers apart."""
        with self.connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return answers_in(received(connection))

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=ANSWER_WAIT_S)

    @property
    def moved(self) -> int:
        """How many movements the provider's books have."""
        return len(self.twin.books().movements())

    def paid(self, invoice: str) -> list[Any]:
        return paid_at(self.twin, invoice)

    @property
    def size(self) -> int:
        """How many records the log has."""
        return int(self.ask("GET", "/log/checkpoint", token="").body.split(b"\n")[1])

    def person_asks(self, method: str, target: str, body: bytes = b"", **members: Any) -> Answer:
        """A request that a person signed with a pass."""
        shown = {"authorization": self.pass_for(method, target, body, **members)}
        return self.ask(method, target, body or None, shown, token="")

    def pass_for(self, method: str, target: str, body: bytes = b"", who: str = "treasurer", **members: Any) -> str:
        plain = {"person": who, "not_after": SystemClock().now_us() + 60 * US, **members}
        key = load_private(self.made.people[who])
        return make_pass(key, deployment=self.made.deployment, method=method, target=target, body=body, **plain)

    def waiting(self, escalation: str) -> dict[str, Any]:
        """An escalation as an approver sees it."""
        after = ""
        while page := self.person_asks("GET", f"/v1/escalations?limit=100{after}").json["escalations"]:
            after = f"&after={page[-1]['seq']}"
            for one in page:
                if one["escalation"] == escalation:
                    return dict(one)
        raise KeyError(escalation)

    def answer(self, escalation: str, verdict: str = "approve") -> Answer:
        """The controller answers over HTTP."""
        signed = signed_answer(self.made, self.waiting(escalation), verdict)
        return self.ask("POST", f"/v1/escalations/{escalation}/answers", signed, token="")

    def stop(self) -> int:
        return ended(self.child)


def serve(root: Path, *words: str) -> tuple[subprocess.Popen[str], str]:
    """Start `countermark serve` on a free port. Returns the child and its URL."""
    child = subprocess.Popen(
        [sys.executable, "-m", "countermark.cli", "-C", str(root), "serve", "--port", "0", "--json", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise AssertionError(child.communicate(timeout=STOP_WAIT_S)[1])
    return child, str(json.loads(line)["url"])


def ended(child: subprocess.Popen[str]) -> int:
    """Stop a child as an operator does, and say how it ended."""
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=STOP_WAIT_S)
    assert "Traceback" not in told, told
    return child.returncode


def escalation_of(answer: Answer) -> str:
    """The id of the escalation in whatever answer."""
    found = re.search(rb"esc_[0-9a-f]{32}", answer.body)
    assert found is not None, answer.body
    return found[0].decode()


@contextmanager
def embedded(folder: Path) -> Iterator[tuple[countermark.Deployment, Made, StripeTwin]]:
    """A gate inside this process, over a simulator of its own."""
    with twin_for(folder / "own twin") as twin:
        made = make(folder / "embedded", twin)
        with countermark.open(made.root, agent=AGENT) as handle:
            yield handle, made, twin


def paid_at(twin: StripeTwin, invoice: str) -> list[Any]:
    """Movements for an invoice in a simulator's books."""
    return [m for m in twin.books().movements() if m.metadata.get("invoice") == invoice]
