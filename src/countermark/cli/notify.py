"""``notify``: what people were told, what could not be delivered, and telling where no server runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import Here, as_json_option, emit, good, pass_here, table
from countermark.model.errors import ConfigError

if TYPE_CHECKING:
    from countermark.cli.base import Config
    from countermark.notify import Message, Outbox


@click.group()
def notify() -> None:
    """Tell people what waits for them, by the channels of countermark.toml."""


@notify.command(name="list")
@as_json_option
@pass_here
def list_(here: Here, as_json: bool) -> None:
    """The newest messages of every channel, and what became of each."""
    _show(here, None, "No message was made.", as_json=as_json)


@notify.command()
@as_json_option
@pass_here
def dead(here: Here, as_json: bool) -> None:
    """The messages that could not be delivered and are not tried any more."""
    _show(here, "dead", "No message is dead.", as_json=as_json)


@notify.command()
@click.argument("numbers", metavar="[NUMBER]...", nargs=-1, type=click.IntRange(1))
@as_json_option
@pass_here
def retry(here: Here, numbers: tuple[int, ...], as_json: bool) -> None:
    """Queue dead messages again, all or those with these numbers; whoever sends for the deployment sends them."""
    from countermark.model.clock import SystemClock

    config = here.config()
    with _outbox(config) as outbox:
        names = [one.name for one in config.notify]
        count = outbox.retry(set(numbers) or None, names, SystemClock().now_us())
    emit({"queued": count}, f"{count} queued again.", as_json=as_json)


@notify.command()
@click.argument("channel", metavar="CHANNEL")
@as_json_option
@pass_here
def test(here: Here, channel: str, as_json: bool) -> None:
    """Send one message that only tries a channel. Exit 1, with the reason, when it was not delivered."""
    from countermark.wiring import try_channel

    try_channel(here.config(), channel)
    emit({"channel": channel, "delivered": True}, f"{good('Delivered')} to {channel}.", as_json=as_json)


@notify.command()
@as_json_option
@pass_here
def run(here: Here, as_json: bool) -> None:
    """Tell people until SIGTERM or Ctrl-C, beside a gate that is embedded in another program.

    `countermark serve` does this by itself. Of several processes only one tells; the others are refused.
    """
    from countermark.wiring import Notices, configure_logs, owner_call

    configure_logs()
    config = here.config()
    if not config.notify:
        raise ConfigError("countermark.toml has no [[notify]]", hint="See docs/notifications.md.")
    over = threading.Event()
    with Notices(config, owner_call(config)):
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for number in before:
                signal.signal(number, lambda *_: over.set())
            names = [one.name for one in config.notify]
            emit({"channels": names}, f"Telling {', '.join(names)}.", as_json=as_json)
            over.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _outbox(config: Config) -> Iterator[Outbox]:
    from countermark.notify import Outbox

    if not config.outbox.is_file():
        raise ConfigError("no message was ever made here", code="no_outbox",
                          hint="`countermark serve` and `countermark notify run` make them.")  # fmt: skip
    outbox = Outbox(config.outbox)
    try:
        yield outbox
    finally:
        outbox.close()


def _show(here: Here, state: str | None, nothing: str, *, as_json: bool) -> None:
    from countermark.audit import when

    with _outbox(here.config()) as outbox:
        found = outbox.listed(state)
    rows = [
        [str(m.id), m.channel, m.event, m.escalation or "", m.state, str(m.tries),
         when(m.due) if m.state == "queued" else "", m.error]
        for m in found
    ]  # fmt: skip
    lines = table(("number", "channel", "event", "escalation", "state", "tries", "next try", "why"), rows, right=(0, 5))
    emit([_document(message) for message in found], lines or [nothing], as_json=as_json)


def _document(message: Message) -> dict[str, Any]:
    return {
        "number": message.id, "channel": message.channel, "seq": message.seq, "event": message.event,
        "escalation": message.escalation, "state": message.state, "tries": message.tries, "due": message.due,
        "error": message.error, "title": message.doc["title"],
    }  # fmt: skip
