"""One listening address: uvicorn on the gate's own loop, so that a handler awaits the gate without a hop."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from countermark.model.errors import ConfigError, GateHaltedError
from countermark.wiring import ServeSettings

BACKLOG = 256
START_WAIT_S = 10


class _Server(uvicorn.Server):
    """Says when it listens, and how many connections there are."""

    def __init__(self, config: uvicorn.Config, counted: Callable[[int], None]) -> None:
        super().__init__(config)
        self._counted = counted
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def on_tick(self, counter: int) -> bool:
        self._counted(len(self.server_state.connections))
        return await super().on_tick(counter)


class Port:
    """An ASGI app on an address of its own. ``counted`` hears how many connections there are, again and again."""

    def __init__(
        self, app: Any, settings: ServeSettings, wire: type[HttpToolsProtocol],
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
                timeout_graceful_shutdown=max(1, settings.limits.drain_ms_max // 1000), ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key, loop="none", interface="asgi3",
            )  # fmt: skip
            config.load()
        except (OSError, ssl.SSLError) as error:
            listener.close()
            raise ConfigError(
                f"the TLS files cannot be used: {error}", hint="PEM; the key without a password."
            ) from None
        server = self._server = _Server(config, self._counted)
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


def _bound(settings: ServeSettings) -> socket.socket:
    """A listening address. Raises ``ConfigError``."""
    key = settings.tls_key
    try:
        if key is not None and key.stat().st_mode & 0o077:
            raise ConfigError(f"{key.name} can be read by others", hint=f"chmod 600 {key.name}")
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
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
