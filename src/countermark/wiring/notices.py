"""Notifications of a deployment: its channels, the journal beside its owner, the outbox, and a lock."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from countermark.audit import bundles_of
from countermark.gate import SocketClient
from countermark.journal import SqliteStore
from countermark.model.clock import SystemClock
from countermark.model.errors import ConfigError, CountermarkError
from countermark.model.ports import Clock
from countermark.net import networks_of
from countermark.notify import (
    Channel,
    Events,
    Mailbox,
    Notifier,
    Outbox,
    SlackTransport,
    SmtpTransport,
    Transport,
    WebhookTransport,
    check_secret,
    probe,
)
from countermark.wiring.config import FILE, Config, resolve_secret
from countermark.wiring.deployment import take_lock
from countermark.wiring.notify_settings import ChannelSettings

OP = "escalation.unreachable"

Call = Callable[[str, dict[str, Any]], Any]

log = logging.getLogger("countermark.notify")


def channels_of(config: Config) -> Sequence[Channel]:
    """The channels; a secret is read when it is used."""
    return [
        Channel(one.name, transport_of(config, one), one.ladders, one.roles, one.events) for one in config.notify
    ]  # fmt: skip


def transport_of(config: Config, settings: ChannelSettings) -> Transport:
    """What delivers a channel's messages. Raises ``ConfigError``."""
    options, allowed = settings.options, networks_of(settings.allow_addresses)

    def secrets() -> list[str]:
        return [resolve_secret(reference, config.root) for reference in settings.references]

    if settings.kind == "webhook":
        source = f"urn:countermark:{config.deployment}:{config.lane}"
        return WebhookTransport(
            options["url"], secrets, source=source, format_=options["format"], allowed=allowed
        )  # fmt: skip
    if settings.kind == "slack":
        return SlackTransport(lambda: secrets()[0], origin=options["origin"], allowed=allowed)
    secret = (lambda: secrets()[0]) if settings.references else None
    return SmtpTransport(Mailbox(**options), secret, channel=settings.name, allowed=allowed)


class Notices:
    """The notifier of a deployment in this process, while it holds the outbox's lock; a context manager."""

    def __init__(
        self, config: Config, call: Call, *, console: str = "", clock: Clock | None = None,
        count: Callable[[str, str], None] = lambda what, channel: None,
    ) -> None:  # fmt: skip
        """``call`` asks the gate for an operation. ``console`` is where its pages are, or ``""``.

        Raises ``ConfigError`` (``notifier_lives``) when another process tells of this deployment, ``StoreError``.
        """
        lock = take_lock(config.outbox.with_suffix(".lock"))
        if lock is None:
            raise ConfigError("another process sends this deployment's notifications", code="notifier_lives")
        self._lock: int | None = lock
        self._call = call
        try:
            self.outbox = Outbox(config.outbox)
            store = SqliteStore(config.journal, readonly=True)
            events = Events(store.record, bundles_of(store), self.outbox, console)
            self.notifier = Notifier(
                f"{config.deployment}-{config.lane}", store, self.outbox, events, channels_of(config),
                clock or SystemClock(), self.unreachable, count,
            )  # fmt: skip
        except BaseException:
            os.close(lock)
            raise

    def unreachable(self, escalation: str, ladder: str, rung: int) -> bool:
        """Tell the gate that no message reached a rung. False when it could not be told now."""
        try:
            self._call(OP, {"escalation": escalation, "ladder": ladder, "rung": rung})
        except CountermarkError as error:
            log.warning("nobody of ladder %s, rung %d was reached for %s: %s", ladder, rung, escalation, error)
            return not error.retryable
        except OSError:
            return False
        return True

    def start(self) -> None:
        """Tell from now on, on threads of its own."""
        self.notifier.start()

    def stop(self) -> None:
        """End, and let go of the lock; a second time it changes nothing."""
        lock, self._lock = self._lock, None
        if lock is not None:
            self.notifier.stop()
            os.close(lock)

    def __enter__(self) -> Notices:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def owner_call(config: Config) -> Call:
    """Ask whoever owns the deployment; this process never becomes its owner for it. Raises ``ConnectionError``."""

    def call(op: str, body: dict[str, Any]) -> Any:
        client = SocketClient(config.socket)
        try:
            return client.call(op, body, "")
        finally:
            client.close()

    return call


def try_channel(config: Config, name: str, console: str = "") -> None:
    """Send one message that only tries a channel. Raises ``ConfigError``, or ``DeliveryError`` (``not_delivered``)."""
    settings = next((one for one in config.notify if one.name == name), None)
    if settings is None:
        known = ", ".join(one.name for one in config.notify) or "none"
        raise ConfigError(f"there is no channel {name} in {FILE}", hint=f"There are: {known}.")
    now = SystemClock().now_us()
    transport = transport_of(config, settings)
    try:
        transport.deliver(
            f"msg_{config.deployment}-{config.lane}-test-{now}", probe(now, config.deployment, console), now
        )
    finally:
        transport.close()


def channel_fault(config: Config, settings: ChannelSettings) -> str:
    """Why a channel cannot send from here, as far as its secrets tell; ``""`` when they are in order."""
    try:
        found = [resolve_secret(reference, config.root) for reference in settings.references]
        if settings.kind == "webhook":
            for secret in found:
                check_secret(secret)
    except ConfigError as error:
        return f"{error.message}. {error.hint}".strip()
    return ""
