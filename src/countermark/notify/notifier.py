"""Follows the log and tells people. A thread reads records, one for each channel sends; nobody else waits for them."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Protocol

from countermark.model.clock import US
from countermark.model.errors import CountermarkError, StoreError
from countermark.model.ports import Clock
from countermark.model.records import read
from countermark.notify.channel import RETRY_AFTER_S_MAX, Channel, DeliveryError
from countermark.notify.events import Event, Events
from countermark.notify.outbox import Message, Outbox

RECORDS_MAX = 512  # in one look at the log
POLL_S = 0.2
REPORT_S = 5
TRIES_MAX = 12
FIRST_PAUSE_S = 5
PAUSE_S_MAX = 900
UNREACHABLE_TRIES = 3  # so often a channel fails before it counts as one that reaches nobody
STOP_WAIT_S = 2

log = logging.getLogger("countermark.notify")


class Log(Protocol):
    """The log of records, as a reader beside the lane sees it: committed ones only."""

    def size(self) -> int: ...
    def raw(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]: ...
    def close(self) -> None: ...


class Unreachable(Protocol):
    """Tells the gate that nobody of a rung could be reached. False: it could not be told, ask again later."""

    def __call__(self, escalation: str, ladder: str, rung: int) -> bool: ...


def pause_us(identity: str, tries: int) -> int:
    """How long to wait after the ``tries``-th failure: doubled each time, plus up to a half that the message decides.

    The jitter has the message's identity as its seed, so that messages spread out and a test sees the same each time.
    """
    base_us: int = min(FIRST_PAUSE_S << (tries - 1), PAUSE_S_MAX) * US
    return base_us + random.Random(f"{identity}/{tries}").randrange(base_us // 2)  # noqa: S311 - not a secret


class Notifier:
    """``ingest``, ``deliver`` and ``report`` are the steps; ``start`` repeats them on threads of its own."""

    def __init__(
        self, name: str, store: Log, outbox: Outbox, events: Events, channels: Sequence[Channel], clock: Clock,
        unreachable: Unreachable, count: Callable[[str, str], None] = lambda what, channel: None,
    ) -> None:  # fmt: skip
        """``name`` (deployment and lane) begins every message's identity. ``store`` and what ``events`` reads belong to
        the one thread that calls ``ingest``. ``count`` hears ``sent``, ``failed`` and ``dead``.
        """
        self._name, self._store, self._outbox, self._events = name, store, outbox, events
        self._channels: Mapping[str, Channel] = {channel.name: channel for channel in channels}
        self._clock, self._unreachable, self._count = clock, unreachable, count
        self._stop = threading.Event()
        self._wake = {name: threading.Event() for name in self._channels}
        self._busy: dict[str, int] = {}  # channel -> until when its other side takes nothing
        self._threads: list[threading.Thread] = []
        outbox.begin(list(self._channels), store.size())

    def identity(self, message: Message) -> str:
        """The same for every try of a message, and for every channel that tells of the same record."""
        return f"msg_{self._name}-{message.seq}"

    def ingest(self) -> bool:
        """Read some records and queue what they mean. Returns whether there may be more."""
        cursors = self._outbox.cursors()
        size = self._store.size()
        behind = {name: seq for name, seq in cursors.items() if seq < size}
        if not behind:
            return False
        first = min(behind.values())
        last = min(size, first + RECORDS_MAX)
        for seq, raw in self._store.raw(first, last):
            if self._events.matters(raw):
                self._queue(raw, {name for name in self._channels if behind.get(name, size) <= seq})
        self._outbox.advance([name for name, seq in behind.items() if seq <= last], last)
        for wake in self._wake.values():
            wake.set()
        return last < size

    def _queue(self, raw: bytes, behind: Set[str]) -> None:
        """Queue what one record means for the channels that have not heard of it."""
        try:
            record = read(raw)
            if record.kind == "escalation.raised":
                self._outbox.follow(record.body["escalation"], record.seq)
            event = self._events.of(record)
        except StoreError:
            raise
        except (CountermarkError, LookupError, TypeError, ValueError) as error:  # one record stops no channel
            log.error("a record cannot be told of: %s", type(error).__name__, exc_info=error)
            return
        if event is None:
            return
        if event.intent is not None and event.escalation is not None:
            self._outbox.intend(event.escalation, event.intent)
        told = _receivers(event, {name: channel for name, channel in self._channels.items() if name in behind})
        self._outbox.put(event, told, self._clock.now_us())

    def deliver(self, name: str) -> bool:
        """Send the channel's next message, if one is due. Returns whether there was one."""
        now = self._clock.now_us()
        if (
            now < self._busy.get(name, 0) <= now + (RETRY_AFTER_S_MAX + 1) * US
        ):  # a later end is a clock's that was ahead
            return False
        message = self._outbox.due(name, now, 2 * PAUSE_S_MAX * US + 3_600 * US)
        if message is None:
            return False
        identity = self.identity(message)
        try:
            self._channels[name].transport.deliver(identity, message.doc, now)
        except DeliveryError as error:
            self._failed(message, error)
            return True
        except (CountermarkError, KeyError, TypeError, ValueError, OSError) as error:  # one message stops no channel
            log.error("channel %s, message %s: %s", name, identity, type(error).__name__, exc_info=error)
            self._failed(message, DeliveryError("the message could not be made", final=True))
            return True
        self._outbox.sent(message)
        self._count("sent", name)
        return True

    def _failed(self, message: Message, error: DeliveryError) -> None:
        if error.busy:  # not this message's failure: else whoever floods a channel has its questions climb
            until = self._clock.now_us() + max(FIRST_PAUSE_S, error.wait_s) * US
            self._busy[message.channel] = until
            self._outbox.failed(message, error.message, until, tried=False)
            self._count("failed", message.channel)
            return
        tries = message.tries + 1
        dead = error.final or tries >= TRIES_MAX
        pause = max(pause_us(self.identity(message), tries), error.wait_s * US)
        self._outbox.failed(message, error.message, None if dead else self._clock.now_us() + pause)
        self._count("failed", message.channel)
        if dead:
            self._count("dead", message.channel)
        log.warning("channel %s, message %s: %s%s", message.channel, self.identity(message), error.message,
                    "; it is dead" if dead else "")  # fmt: skip
        self.report(message.seq)

    def report(self, seq: int | None = None) -> None:
        """Tell the gate of every rung that no channel reaches, so that it asks the next one at once.

        ``seq``: only of those that the record there asked.
        """
        for ask in self._outbox.unreached(UNREACHABLE_TRIES, seq):
            if self._unreachable(ask.escalation, ask.ladder, ask.rung):
                self._outbox.told(ask)

    def start(self) -> None:
        """Begin, on threads of its own."""
        jobs = [(self._follow, ())] + [(self._send, (name,)) for name in self._channels]
        for job, args in jobs:
            thread = threading.Thread(target=job, args=args, name="countermark-notify", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End. What is not delivered stays queued; a delivery under way is not waited for beyond ``STOP_WAIT_S``."""
        self._stop.set()
        for wake in self._wake.values():
            wake.set()
        for thread in self._threads:
            thread.join(STOP_WAIT_S)
        if not self._threads:
            self._store.close()  # else the thread that reads it closes it
        self._outbox.close()
        for channel in self._channels.values():
            channel.transport.close()

    def _follow(self) -> None:
        look = 0
        while not self._stop.is_set():
            try:
                more = self.ingest()
                if not more and self._clock.steady_us() >= look:
                    look = self._clock.steady_us() + REPORT_S * US
                    self.report()
            except StoreError as error:
                more = False
                if not self._stop.is_set():
                    log.error("notifications wait: %s", error)
            if not more:
                self._stop.wait(POLL_S)
        self._store.close()

    def _send(self, name: str) -> None:
        wake = self._wake[name]
        while not self._stop.is_set():
            try:
                more = self.deliver(name)
            except StoreError as error:
                more = False
                if not self._stop.is_set():
                    log.error("channel %s waits: %s", name, error)
            if not more:
                wake.wait(1)
                wake.clear()


def _receivers(event: Event, channels: Mapping[str, Channel]) -> dict[str, list[str]]:
    """Channel -> the ladders of the event that it serves; a stop goes to all that take it, whatever their ladders."""
    found = {}
    for name, channel in channels.items():
        ladders = [ladder for ladder, roles in event.ladders.items() if channel.serves(ladder, roles)]
        if channel.takes(event.name) and (ladders or event.escalation is None):
            found[name] = ladders
    return found
