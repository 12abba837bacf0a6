"""A published head goes to an authority of time (RFC 3161): a ``Destination`` that asks once an hour or so.

The authority learns a digest and the time, nothing else. What comes back is verified at once and becomes the record
``head.stamped``; what does not verify becomes nothing, and is asked for again.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from countermark.model.clock import US
from countermark.model.ports import Clock, Head
from countermark.model.values import Request
from countermark.net import Network, Sender
from countermark.publish.tokens import StampError, accept, ask, check_installed

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

EVERY_US = 3_600 * US
RETRY_US = 60 * US  # after a failure; never sooner than that, since authorities count
TIMEOUT_MS = 10_000
OK = 200

# RFC 3161 section 3.4: time stamps over HTTP.
QUERY_TYPE = "application/timestamp-query"
REPLY_TYPE = "application/timestamp-reply"


@dataclass(frozen=True, slots=True)
class StampSettings:
    """``authority`` is the name that records give it; ``certificates`` are those that its tokens must lead to."""

    authority: str
    url: str
    certificates: tuple[Certificate, ...]
    every_us: int = EVERY_US


class Stamps:
    """One authority of time."""

    def __init__(
        self, settings: StampSettings, clock: Clock, *, allowed: Sequence[Network] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        """Raises ``ConfigError`` when the URL's origin is none that may be sent to."""
        self.name = f"stamp {settings.authority}"
        self._settings = settings
        self._clock = clock
        parts = urlsplit(settings.url)
        origin = f"{parts.scheme}://{parts.netloc}"
        self._url = settings.url if parts.path else f"{settings.url}/"
        self._sender = Sender(origin, REPLY_TYPE, allowed=allowed, tls=tls)
        self._tried: int | None = None
        self._wait = 0

    def check(self) -> None:
        """An authority of time knows no log: it cannot say that one is behind. Raises ``ConfigError``: no extra."""
        check_installed()

    def due(self, head: Head, busy: bool, now_us: int) -> bool:
        """Once in ``every_us``, when there is something new; after a failure a minute later."""
        waits = self._tried is not None and 0 <= now_us - self._tried < self._wait
        return busy and not waits

    def publish(self, head: Head) -> tuple[str, Mapping[str, Any]] | None:
        """Ask for the time of the head's text. Raises ``StampError``, ``NotSentError`` or ``LostError``."""
        self._tried, self._wait = self._clock.now_us(), min(RETRY_US, self._settings.every_us)
        asking = ask(note_text(head.note))
        request = Request("POST", self._url, (("Content-Type", QUERY_TYPE),), asking.raw)
        asked = self._clock.now_us()
        answer = self._sender.send(request, None, TIMEOUT_MS)
        answered = self._clock.now_us()
        if answer.status != OK:
            raise StampError(f"{self._settings.authority} answered with HTTP status {answer.status}")
        if answer.headers.get("content-type", "").partition(";")[0].strip().lower() != REPLY_TYPE:
            raise StampError(f"{self._settings.authority} did not answer with a time stamp")
        token = accept(asking, answer.body, self._settings.certificates)
        self._wait = self._settings.every_us
        return "head.stamped", {
            "size": head.size, "root": head.root.hex(), "authority": self._settings.authority,
            "token": base64.b64encode(token).decode("ascii"), "asked": asked, "answered": max(asked, answered),
        }  # fmt: skip

    def close(self) -> None:
        """Close the idle connections."""
        self._sender.close()


def note_text(note: bytes) -> bytes:
    """The signed text of a head's note: origin, size and root, a line each (C2SP signed-note)."""
    return note.rpartition(b"\n\n")[0] + b"\n"
