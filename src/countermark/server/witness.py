"""A witness over HTTP: C2SP tlog-witness on a loop of its own."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from countermark.model.errors import CountermarkError, StoreError
from countermark.publish import BODY_BYTES_MAX, Reply, Witness
from countermark.server.bodies import GoneError, read_body
from countermark.server.port import Port
from countermark.server.problems import GUARDS, HttpError
from countermark.server.surroundings import Counters
from countermark.server.wire import wire_of
from countermark.wiring import ServeLimits, ServeSettings

CONNECTIONS_MAX = 64

log = logging.getLogger("countermark.witness")


class WitnessFace:
    """The ASGI app of a witness. One request is answered after the other: each is a write to the disk."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._thread = ThreadPoolExecutor(1, "countermark-witness")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._reply(scope, receive)
        except GoneError:
            return
        headers = {**GUARDS, "cache-control": "no-store"}
        await Response(reply.body, reply.status, headers, reply.media)(scope, receive, send)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        path, posts = scope["path"], scope["path"] == "/add-checkpoint"
        if scope["method"] not in (("POST",) if posts else ("GET", "HEAD")):
            return Reply(405, b"heads are posted, and the rest is read\n")
        try:
            body = await read_body(scope, receive, BODY_BYTES_MAX if posts else 0)
        except HttpError as error:
            return Reply(error.status, f"{error.message}\n".encode())
        try:
            if posts:
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._witness.add_checkpoint, body
                )
            return self._read(path)
        except StoreError as error:  # nothing was cosigned
            log.error("%s", error)
            return Reply(500, b"the witness cannot keep what it would cosign\n")

    def _read(self, path: str) -> Reply:
        """The verifier key; or what C2SP tlog-witness has monitors ask for: the newest cosigned head of a log."""
        if path == "/":
            return Reply(200, f"{self._witness.vkey}\n".encode())
        origin_hash, _, rest = path[1:].partition("/")
        note = self._witness.newest(origin_hash) if rest == "checkpoint" else None
        return Reply(404, b"there is nothing here\n") if note is None else Reply(200, note)

    def close(self) -> None:
        """Finish what is being written."""
        self._thread.shutdown(wait=True)


def witness_settings(
    host: str, port: int, names: tuple[str, ...] = (), tls_cert: Path | None = None, tls_key: Path | None = None
) -> ServeSettings:
    """Where a witness listens, and its bounds."""
    limits = ServeLimits(body_bytes_max=BODY_BYTES_MAX, connections_max=CONNECTIONS_MAX)
    return ServeSettings(host, port, tls_cert, tls_key, names=names, limits=limits)


def serve_witness(witness: Witness, settings: ServeSettings, ready: Callable[[str], None]) -> None:
    """Answer until SIGTERM or SIGINT; belongs on the main thread. Raises ``CountermarkError`` when it cannot begin."""
    settings.check()
    witness.claim()
    face = WitnessFace(witness)
    try:
        asyncio.run(_serve(face, settings, ready))
    finally:
        face.close()
        witness.close()


async def _serve(face: WitnessFace, settings: ServeSettings, ready: Callable[[str], None]) -> None:
    port = Port(face, settings, wire_of(settings, Counters(), _refusal))
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def heard() -> None:
        port.ask_to_stop()
        stopped.set()

    ready(await asyncio.to_thread(port.start, loop))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heard)
    await stopped.wait()
    await asyncio.to_thread(port.wait)


def _refusal(error: CountermarkError) -> bytes:
    """What is refused before there is a request ends the connection, in words."""
    status = error.status if isinstance(error, HttpError) else 503
    body = f"{error.message}\n".encode()
    head = f"HTTP/1.1 {status} Refused\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n"
    return head.encode("ascii") + b"connection: close\r\n\r\n" + body
