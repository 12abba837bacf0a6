"""One listening address: uvicorn on the gate's own loop, so that a handler awaits the gate without a hop."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import uvicorn

from countermark.model.errors import ConfigError, GateHaltedError
from countermark.server.wire import Wire
from countermark.wiring import ServeSettings

BACKLOG = 256
DRAIN_TICK_MS = 20
START_WAIT_S = 10


class _Door(socket.socket):
    """A listening socket that knows what it let in. A connection is counted by the server from its first byte on; with
    TLS that is after the handshake, which a client may never begin. So as many of those as ``most`` may be under way,
    and the oldest of them ends for the next.
    """

    most = 0
    within: Callable[[], set[int]]  # descriptors of the connections that are counted

    def __init__(self, family: int, kind: int, protocol: int) -> None:
        super().__init__(family, kind, protocol)
        self._let_in: list[socket.socket] = []  # those that may not be counted yet

    def accept(self) -> tuple[socket.socket, Any]:
        """As a socket does. Raises ``OSError``."""
        connection, address = super().accept()
        let_in = self._let_in
        let_in.append(connection)
        if len(let_in) > self.most:
            within = self.within()
            let_in[:] = [one for one in let_in if one.fileno() not in within and one.fileno() != -1]
            for one in let_in[: max(0, len(let_in) - self.most)]:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)  # whoever owns it closes it
        return connection, address


class _Server(uvicorn.Server):
    """Says when it listens, and how many connections there are; stops without cancelling what it has begun."""

    def __init__(self, config: uvicorn.Config, counted: Callable[[int], None], drain_ms_max: int) -> None:
        super().__init__(config)
        self._counted = counted
        self._drain_ms_max = drain_ms_max
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    def descriptors(self) -> set[int]:
        """Of the connections that are counted."""
        transports = (one.transport for one in self.server_state.connections if isinstance(one, Wire))
        found = (one.get_extra_info("socket") for one in transports)
        return {one.fileno() for one in found if one is not None}

    async def on_tick(self, counter: int) -> bool:
        self._counted(len(self.server_state.connections))
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what only waits, wait a bounded time for answers, then tell whoever is left that the server stops.

        No handler is cancelled: an effect that is under way goes on to its record, and the gate waits for it.
        """
        for one in (*self.servers, *(sockets or ())):
            one.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        left_ms = self._drain_ms_max
        while self.server_state.connections and left_ms > 0 and not self.force_exit:
            await asyncio.sleep(DRAIN_TICK_MS / 1000)
            left_ms -= DRAIN_TICK_MS
        for connection in list(self.server_state.connections):
            if isinstance(connection, Wire):
                connection.leave()


class Port:
    """An ASGI app on an address of its own. ``counted`` hears how many connections there are, again and again."""

    def __init__(
        self, app: Any, settings: ServeSettings, wire: type[Wire],
        counted: Callable[[int], None] = lambda count: None,
    ) -> None:  # fmt: skip
        self._app = app
        self._counted = counted
        self._settings = settings
        self._wire = wire
        self._server: _Server | None = None
        self._done: Future[None] | None = None
        self.url = ""

    def start(self, loop: asyncio.AbstractEventLoop) -> str:
        """Listen. Returns the URL. Raises ``ConfigError`` when the address or the TLS files cannot be used."""
        settings = self._settings
        listener = _bound(settings)
        try:
            config = uvicorn.Config(
                self._app, http=self._wire, ws="none", lifespan="off", log_config=None, access_log=False,
                proxy_headers=False, server_header=False, backlog=BACKLOG,
                ssl_certfile=settings.tls_cert, ssl_keyfile=settings.tls_key, loop="none", interface="asgi3",
            )  # fmt: skip
            config.load()
        except (OSError, ssl.SSLError) as error:
            listener.close()
            raise ConfigError(
                f"the TLS files cannot be used: {error}", hint="PEM; the key without a password."
            ) from None
        server = self._server = _Server(config, self._counted, settings.limits.drain_ms_max)
        listener.most, listener.within = settings.limits.connections_max, server.descriptors
        self._done = asyncio.run_coroutine_threadsafe(server.serve(sockets=[listener]), loop)
        self._done.add_done_callback(lambda _: server.listening.set())
        if not server.listening.wait(START_WAIT_S) or self._done.done():
            listener.close()
            raise GateHaltedError("the server did not start", hint="See its log.")
        scheme = "https" if settings.tls_cert is not None else "http"
        host, port = listener.getsockname()[:2]
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        return self.url

    def ask_to_stop(self) -> None:
        """Take no new connection, answer what is under way; asked again, wait for nobody. Safe in a signal handler."""
        if self._server is not None:
            self._server.force_exit = self._server.should_exit
            self._server.should_exit = True

    def wait(self) -> None:
        """Wait until it has stopped."""
        if self._done is not None:
            self._done.result()


def _bound(settings: ServeSettings) -> _Door:
    """A listening address. Raises ``ConfigError``."""
    key = settings.tls_key
    try:
        if key is not None and key.stat().st_mode & 0o077:
            raise ConfigError(f"{key.name} can be read by others", hint=f"chmod 600 {key.name}")
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = _Door(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {settings.host}: {error.strerror}", code="cannot_listen") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}", code="cannot_listen",
            hint="Another server may be there: give another port.",
        ) from None  # fmt: skip
    return listener
