"""uvicorn on the gate's own loop: a handler awaits the gate without a hop between threads."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FrameType, TracebackType
from urllib.parse import urlsplit

from countermark.model.clock import SystemClock
from countermark.model.errors import ConfigError, CountermarkError, StoreError
from countermark.model.ports import Clock
from countermark.policy import Compiled
from countermark.server.app import Front, build
from countermark.server.authenticate import AgentAuthenticator
from countermark.server.port import Port
from countermark.server.stripe_errors import raw_refusal
from countermark.server.stripe_face import StripeFace
from countermark.server.surroundings import Authenticator, Surroundings
from countermark.server.wire import wire_of
from countermark.wiring import (
    Config,
    Deployment,
    Notices,
    ServeSettings,
    open_deployment,
    own_the_process,
    without_secret,
)

log = logging.getLogger("countermark.server")

BUNDLE_WAIT_S = 5.0
PORTS = {"http": 80, "https": 443}
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # elsewhere a proxy may stand before it


class Listener:
    """The HTTP face of a deployment that this process owns; a context manager around ``start`` and ``stop``."""

    def __init__(
        self, deployment: Deployment, authenticator: Authenticator | None = None, settings: ServeSettings | None = None,
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        """Raises ``ConfigError`` when another process owns the deployment, or when it would listen in clear."""
        self.settings = deployment.config.serve if settings is None else settings
        self.settings.check()
        if not deployment.owner:
            raise ConfigError(
                "another process owns this deployment", code="owner_lives",
                hint="Stop it first: the server itself holds the lane and the credentials.",
            )  # fmt: skip
        config = replace(deployment.config, serve=self.settings)
        who = authenticator or AgentAuthenticator(config, deployment.gate)
        self.surroundings = Surroundings(
            config, deployment.gate, who, self.settings, clock=clock or SystemClock(),
            trigger_faults=lambda: deployment.trigger_faults, lacking=self.lacking,
        )  # fmt: skip
        self._deployment = deployment
        self._notices: Notices | None = None
        self._lacking: dict[str, str] = {}
        self._front = build(self.surroundings)
        self._ports = [
            Port(self._front, self.settings, wire_of(self.settings, self.surroundings.counters), self._count)
        ]
        if self.settings.stripe_port is not None:
            beside = replace(self.settings, port=self.settings.stripe_port)
            wire = wire_of(beside, self.surroundings.counters, raw_refusal)
            self._ports.append(Port(StripeFace(self.surroundings), beside, wire))
        self.url = self.stripe_url = ""

    def _count(self, connections: int) -> None:
        self._front.connections = connections

    @property
    def front(self) -> Front:
        """The app, for those who list its routes."""
        return self._front

    def start(self) -> str:
        """Listen. Returns the URL. Raises ``ConfigError`` when an address or the TLS files cannot be used."""
        loop = self.surroundings.gate.loop
        try:
            for port in self._ports:
                port.start(loop)
        except CountermarkError:
            self.stop()
            raise
        self.url, self.stripe_url = self._ports[0].url, self._ports[-1].url if len(self._ports) > 1 else ""
        try:
            self._notify()
        except CountermarkError:
            self.stop()
            raise
        return self.url

    def console(self) -> str:
        """Where the policy in force says that people answer; empty where it says nothing, or none is in force."""
        compiled = self._compiled()
        return str(getattr(compiled, "console", "") or "")

    def _compiled(self) -> Compiled | None:
        gate = self.surroundings.gate
        try:
            return asyncio.run_coroutine_threadsafe(gate.bundle(), gate.loop).result(BUNDLE_WAIT_S).compiled
        except (CountermarkError, TimeoutError):
            return None

    async def lacking(self) -> Mapping[str, str]:
        """Connectors that had no secret when ``warn`` looked, and have none now: by name, which one."""
        if self._lacking:
            bundle = await self.surroundings.gate.bundle()
            tools = bundle.compiled.tools.values()
            self._lacking = await asyncio.to_thread(without_secret, self._deployment.config, tools)
        return self._lacking

    def warn(self) -> None:
        """Log what a start would otherwise not tell: payments that cannot be sent, people who would find nothing."""
        compiled = self._compiled()
        self._lacking = {} if compiled is None else without_secret(self._deployment.config, compiled.tools.values())
        for name, why in self._lacking.items():
            log.warning("nothing can be sent through the connector %s: %s", name, why)
        console, port = urlsplit(self.console()), urlsplit(self.url).port
        named = console.port or PORTS.get(console.scheme)
        if console.hostname in LOOPBACK and named != port:
            log.warning("people answer at port %s of this machine, says the policy; this serves port %s", named, port)

    def _notify(self) -> None:
        """Tell people, on threads of their own, unless another process does. Without that the gate serves too."""
        config, counters = self.surroundings.config, self.surroundings.counters
        if not config.notify:
            return
        loop = self.surroundings.gate.loop

        def count(what: str, channel: str) -> None:
            loop.call_soon_threadsafe(counters.add, "notices", what, channel)

        try:
            self._notices = Notices(config, self._deployment.call, console=self.url, count=count)
        except ConfigError as error:
            if error.code != "notifier_lives":
                raise
            log.warning("%s; this one sends none", error.message)
            return
        except StoreError as error:
            log.error("nobody is notified of anything until the server starts again: %s", error)
            return
        self._notices.start()

    def ask_to_stop(self) -> None:
        """Take no new connection and answer what is under way; asked again, wait for nobody. Safe in a signal handler.

        Whoever is not waited for loses an answer, never a record: closing the deployment still waits for effects.
        """
        for port in self._ports:
            port.ask_to_stop()

    def wait(self) -> None:
        """Wait until the server has stopped."""
        for port in self._ports:
            port.wait()
        notices, self._notices = self._notices, None
        if notices is not None:
            notices.stop()
        self._front.close()

    def stop(self) -> None:
        """Stop and wait."""
        self.ask_to_stop()
        self.wait()

    def __enter__(self) -> Listener:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def serve(config: Config, settings: ServeSettings, ready: Callable[[str, str], None]) -> None:
    """Own the deployment and serve it until SIGTERM or SIGINT; belongs on the main thread.

    ``ready`` hears the URL once the server listens, and the address at which people answer. Raises
    ``CountermarkError`` when it cannot begin.
    """
    settings.check()
    own_the_process()
    with open_deployment(config.root, tier=settings.tier, triggers=True) as deployment:
        listener = Listener(deployment, settings=settings)

        def heard(number: int, frame: FrameType | None) -> None:
            listener.ask_to_stop()

        before = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            url = listener.start()
            listener.warn()
            ready(url, listener.console())
            listener.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
