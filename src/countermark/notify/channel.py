"""A channel: where messages go, and which of them. A transport delivers one message once, or says how it failed."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Protocol

from countermark.model.errors import CountermarkError

# What becomes of one escalation, in its order; then what is told of everything else.
EVENTS = (
    "asked", "climbed", "answered", "approved", "refused", "expired", "voided", "sent", "confirmed", "failed",
    "unknown", "stopped",
)  # fmt: skip
RETRY_AFTER_S_MAX = 3_600
TIMEOUT_MS = 10_000


class DeliveryError(CountermarkError):
    """A message was not delivered by this try, as far as we know.

    ``final``: trying again would not help. ``wait_s``: how long the other side asks us to wait, 0 when it says nothing.
    ``busy``: it takes no more messages at present, whatever they say.
    """

    code = "not_delivered"

    def __init__(self, message: str, *, final: bool = False, wait_s: int = 0, busy: bool = False) -> None:
        super().__init__(message)
        self.final, self.busy = final, busy
        self.wait_s = min(max(wait_s, 0), RETRY_AFTER_S_MAX)


class Transport(Protocol):
    """Delivers one message once. ``kind`` is ``webhook``, ``slack`` or ``smtp``."""

    kind: str

    def deliver(self, identity: str, doc: Mapping[str, Any], now_us: int) -> None:
        """Send what ``doc`` says (see ``events``). ``identity`` is the same for every try. Raises ``DeliveryError``."""
        ...

    def close(self) -> None:
        """Let go of idle connections."""
        ...


def serves(ladders: Set[str], of: Set[str], ladder: str, roles: Set[str]) -> bool:
    """Whether a channel's filters (``ladders``, roles ``of``; empty takes all) fit a ladder that asks ``roles``."""
    return (not ladders or ladder in ladders) and (not of or bool(of & roles))


@dataclass(frozen=True, slots=True)
class Channel:
    """Where messages go. Empty filters let everything through.

    ``ladders`` and ``roles`` choose among escalations; a stop is everybody's. ``events`` are words of ``EVENTS``.
    """

    name: str
    transport: Transport
    ladders: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()

    def serves(self, ladder: str, roles: Set[str]) -> bool:
        """Whether it is for this ladder, of which people with ``roles`` are asked now."""
        return serves(self.ladders, self.roles, ladder, roles)

    def takes(self, event: str) -> bool:
        """Whether it tells of this kind of event."""
        return not self.events or event in self.events
