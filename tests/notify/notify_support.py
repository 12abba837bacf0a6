"""What the notification tests share: a receiver on loopback, deployments with channels, one message at a time."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from rig import Provider, hold, make, pay, signed_answer, waiting

import countermark
from countermark.model.clock import FakeClock
from countermark.wiring import Notices, load_config
from countermark.wiring.init import Made

HMAC_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SEED_SECRET = "whsk_" + base64.b64encode(bytes(range(32, 64))).decode()
LARGE = 600_000  # above what a person must answer for
CONSOLE = "http://localhost:8383"

INVOICE_HEAD = (
    '[tool."stripe.transfers.create".args."metadata[invoice]"]\nclass = "reference"\nalias = "invoice"\n'
    'required = true\npattern = "[A-Za-z0-9][A-Za-z0-9 ./_-]{0,63}"\nchars_max = 64\n'
)
OPEN_INVOICE = (
    '[tool."stripe.transfers.create".args."metadata[invoice]"]\nclass = "reference"\nalias = "invoice"\n'
    "required = true\nchars_max = 512\n"
)
NOTED = INVOICE_HEAD + (
    '\n[tool."stripe.transfers.create".args."metadata[note]"]\nclass = "reference"\nalias = "note"\nchars_max = 600\n'
)
SEALED_INVOICE = OPEN_INVOICE.replace("required = true\n", "required = true\nsensitive = true\n")


@dataclass(frozen=True)
class Got:
    """One request that a receiver got."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Answer = tuple[int, Mapping[str, str], bytes]
OK: Answer = (200, {}, b"ok")


class Receiver:
    """An HTTP server on loopback. ``answers`` are used up in their order, then everything is answered with 200.

    An answer that can be called is called with the handler instead, and answers as it likes.
    """

    def __init__(self, answers: Sequence[Answer | Callable[[Any], None]] = ()) -> None:
        self.got: list[Got] = []
        self.answers = list(answers)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", "0"))
                body = self.rfile.read(length)
                if len(body) < length:  # whoever sent it died meanwhile: that is no message
                    self.close_connection = True
                    return
                receiver.got.append(Got(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                answer = receiver.answers.pop(0) if receiver.answers else OK
                with suppress(OSError):
                    if callable(answer):
                        self.close_connection = True
                        answer(self)
                        return
                    status, headers, text = answer
                    self.send_response(status)
                    for name, value in {**headers, "Content-Length": str(len(text))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text)

            def do_GET(self) -> None:
                receiver.got.append(Got("GET " + self.path, {}, b""))
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def webhook(origin: str, name: str = "ops", **more: str) -> str:
    """A channel's table; ``more`` are further keys, written as TOML."""
    lines = "".join(f"{key} = {value}\n" for key, value in more.items())
    return (
        f'\n[[notify]]\nname = "{name}"\nkind = "webhook"\nurl = "{origin}/hook"\n'
        f'secrets = ["env:NOTIFY_HMAC", "env:NOTIFY_KEY"]\n{lines}'
    )


def slack(origin: str, name: str = "chat", **more: str) -> str:
    os.environ["NOTIFY_SLACK"] = f"{origin}/services/T0/B0/secretpath"
    lines = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f'\n[[notify]]\nname = "{name}"\nkind = "slack"\norigin = "{origin}"\nsecret = "env:NOTIFY_SLACK"\n{lines}'


class Desk:
    """A deployment over a provider in memory, with channels, told one step at a time."""

    def __init__(
        self, root: Path, channels: str, *, provider: Provider | None = None, tools: Mapping[str, str] | None = None,
        changes: Mapping[str, str] | None = None, reached: bool = True,
    ) -> None:  # fmt: skip
        os.environ["NOTIFY_HMAC"], os.environ["NOTIFY_KEY"] = HMAC_SECRET, SEED_SECRET
        self.root, self.clock = root, FakeClock()
        self.provider = provider or Provider()
        self.made: Made = make(root, self.provider, clock=self.clock, tools=tools, changes=changes)
        self.configure(channels)
        self.handle: countermark.Deployment = hold(root, self.provider, self.clock)
        self.reached = reached
        self.unreachable: list[tuple[str, str, int]] = []
        self.counted: list[tuple[str, str]] = []
        self.notices = self.open()

    def configure(self, channels: str) -> None:
        path = self.root / "countermark.toml"
        path.write_text(path.read_text().partition("\n[[notify]]")[0] + channels)

    def open(self) -> Notices:
        def call(op: str, body: dict[str, Any]) -> None:
            assert op == "escalation.unreachable"
            if not self.reached:
                raise ConnectionError("nobody owns the deployment")
            self.unreachable.append((body["escalation"], body["ladder"], body["rung"]))

        count = lambda what, channel: self.counted.append((what, channel))  # noqa: E731
        return Notices(load_config(self.root), call, console=CONSOLE, clock=self.clock, count=count)

    def reopen(self) -> None:
        """As a process does that begins after another one died."""
        self.notices.stop()
        self.notices = self.open()

    def ask(self, number: object = 1, amount: int = LARGE, **more: Any) -> str:
        """A payment that people are asked about; returns the escalation."""
        escalation = pay(self.handle, number, amount, **more).escalation
        assert escalation is not None
        return escalation

    def answer(self, escalation: str, verdict: str = "approve", person: str = "controller") -> Any:
        parked = next(one for one in waiting(self.handle) if one["escalation"] == escalation)
        return self.handle.call("answer", signed_answer(self.made, parked, verdict, person))

    def read(self) -> None:
        """Follow the log to its end."""
        while self.notices.notifier.ingest():
            pass

    def tell(self, *channels: str) -> int:
        """Follow the log and send what is due; returns how many tries that took."""
        self.read()
        tries = 0
        for name in channels or ("ops",):
            while self.notices.notifier.deliver(name):
                tries += 1
        return tries

    def events(self, state: str | None = None) -> list[tuple[str, str]]:
        """Channel and event of every message, the oldest first."""
        return [(m.channel, m.event) for m in reversed(self.notices.outbox.listed(state))]

    def close(self) -> None:
        self.notices.stop()
        self.handle.close()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
