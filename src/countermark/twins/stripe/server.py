"""The simulator's wire: a small HTTP/1.1 server on 127.0.0.1, and the controls under ``/_sim/``.

Only what Stripe's clients send is understood: a Content-Length body, keep-alive; everything is bounded.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from countermark.model.errors import CountermarkError
from countermark.twins.stripe import accounts as accounts_of
from countermark.twins.stripe.api import SERVER, Answer, Api, Incoming
from countermark.twins.stripe.issuing import pay_by_card
from countermark.twins.stripe.params import Refusal
from countermark.twins.stripe.resources import OWN_ACCOUNT, Call, account, fund
from countermark.twins.stripe.webhooks import ANSWER_S_MAX, Webhooks

HEAD_BYTES_MAX = 32_768
BODY_BYTES_MAX = 262_144
IDLE_S_MAX = 120
HANG_S_MAX = 120
CONNECTIONS_MAX = 512
CONTROLS = ("clock", "faults", "seed", "keys", "release", "counters", "webhook", "deliver", "resend", "issuing")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with zero time: close sends RST, not FIN


class BadRequestError(Exception):
    """Not an HTTP request that this server understands; the connection is closed."""


class Server:
    """Serves one ``Api`` until it is told to stop."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._webhooks = Webhooks(api.ledger, api.clock.now_s, api.seed)
        self._open = 0
        self._stop = asyncio.Event()

    async def run(self, port: int, announce: Mapping[str, Any], *, tethered: bool) -> None:
        """Bind 127.0.0.1, print one JSON line with the address, serve until SIGTERM (or the end of stdin)."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, limit=HEAD_BYTES_MAX)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if tethered:  # whoever started us holds the other end: when it dies, so do we
            loop.add_reader(sys.stdin.fileno(), self._stop.set)
        bound = server.sockets[0].getsockname()[1]
        print(json.dumps({"url": f"http://127.0.0.1:{bound}", **announce}), flush=True)
        await self._stop.wait()
        server.close()
        self._api.ledger.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            while self._open <= CONNECTIONS_MAX:
                request = await asyncio.wait_for(_read(reader), IDLE_S_MAX)
                if request is None:
                    return
                answer = await self._answer(request)
                if answer.fate == "hang":  # wait until the client gives up; never answer
                    await asyncio.wait_for(reader.read(1), HANG_S_MAX)
                    return
                if answer.fate == "reset":
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    writer.transport.abort()
                    return
                writer.write(_render(answer))
                await writer.drain()
                if request.headers.get("connection", "").lower() == "close":
                    return
        except BadRequestError as error:
            writer.write(_render(Answer(400, json.dumps({"error": {"message": str(error), "type": "api_error"}}))))
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client went away or sent nonsense: nothing to answer
        except asyncio.CancelledError:
            if not self._stop.is_set():  # at the end of the process every open connection is cancelled
                raise
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, request: Incoming) -> Answer:
        if not request.path.startswith("/_sim/"):
            return await self._api.handle(request)
        try:
            self._api.authorise(request, "simulator:write")
            return Answer(200, json.dumps(await self._control(request)))
        except Refusal as error:
            return Answer(error.status, json.dumps(error.document()))
        except (CountermarkError, ValueError, TypeError, KeyError, AttributeError) as error:
            message = f"bad control request: {type(error).__name__}: {error}"
            return Answer(400, json.dumps({"error": {"message": message, "type": "invalid_request_error"}}))

    async def _control(self, request: Incoming) -> dict[str, Any]:
        api, name = self._api, request.path.removeprefix("/_sim/")
        doc: dict[str, Any] = json.loads(request.body or b"{}")
        if name == "clock":
            seconds = int(doc.get("advance_s", 0))
            if seconds < 0:
                raise ValueError("the clock only goes forward")
            return {"now": api.advance(seconds) if seconds else api.clock.now_s()}
        if name == "faults":
            if request.method == "POST":
                api.set_faults(doc)
            return api.faults.document()
        if name == "seed":
            return seed_books(self._api, doc.get("accounts", []), doc.get("balances", {}))
        if name == "keys":
            if not str(doc["key"]).startswith("rk_test_"):
                raise ValueError("only restricted keys (rk_test_) are added")
            with api.ledger.transaction():
                api.ledger.set_key(str(doc["key"]), [str(scope) for scope in doc["scopes"]])
            return {"key": doc["key"]}
        if name == "release":
            api.release.set()
            api.release = asyncio.Event()
            return {"released": True}
        if name == "counters":
            return {"counters": dict(api.counters), "simulator": SERVER}
        if name == "webhook":
            return self._webhooks.configure(doc)
        if name == "deliver":
            return await self._webhooks.deliver()
        if name == "resend":
            return {"status": (await self._webhooks.push(dict(doc["event"]), ANSWER_S_MAX))[0]}
        if name == "issuing":
            call = Call(api.ledger, api.clock.now_s(), api.seed, "", "", "", {})
            return await pay_by_card(call, self._webhooks, doc)
        raise Refusal(404, f"Unrecognized simulator control; there are: {', '.join(CONTROLS)}.")


def seed_books(api: Api, accounts: Iterable[Any], balances: Mapping[str, Any]) -> dict[str, Any]:
    """``accounts``: ids (``acct_``, ``ba_``, ``card_``) to know; ``balances``: currency -> minor units to add."""
    now = api.clock.now_s()
    call = Call(api.ledger, now, api.seed, "", "", "", {})
    with api.ledger.transaction():
        for id_ in accounts:
            name = str(id_)
            if not name.startswith("acct_"):
                if api.ledger.get(accounts_of.KIND, name) is None:
                    accounts_of.add(api.ledger, accounts_of.seeded(name, OWN_ACCOUNT, now))
            elif api.ledger.get("account", name) is None:
                api.ledger.add("account", account(name, now))
                accounts_of.add(api.ledger, accounts_of.seeded(accounts_of.behind(name), name, now))
        for currency, amount in balances.items():
            if type(amount) is not int or amount < 0:
                raise ValueError("a balance is a positive integer in minor units")
            fund(call, str(currency), amount)
    return {"balances": api.ledger.balances()}


async def _read(reader: asyncio.StreamReader) -> Incoming | None:
    """One request, or ``None`` at the end of the connection. Raises ``BadRequestError``."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    lines = head[:-4].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequestError("not an HTTP/1.1 request")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or name.lower() in headers:
            raise BadRequestError("a header is malformed or given twice")
        headers[name.lower()] = value.strip()
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdigit() or int(length) > BODY_BYTES_MAX:
        raise BadRequestError("a body needs a Content-Length within bounds")
    body = await reader.readexactly(int(length))
    path, _, query = words[1].partition("?")
    return Incoming(words[0], unquote(path), query, headers, body)


def _render(answer: Answer) -> bytes:
    body = answer.body.encode("utf-8")
    headers = [
        ("Server", SERVER), ("Countermark-Simulator", "true"), ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))), *answer.headers,
    ]  # fmt: skip
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
