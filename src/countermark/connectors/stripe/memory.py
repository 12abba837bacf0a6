"""Stripe's own answers, kept in memory for a while, so that an SDK in front of the gate gets its object back.

Records hold only the digest of an answer; it is the name under which the bytes are kept here, without what is not for
agents: every face takes them from here.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict

from countermark.connectors.http_send import Answer

ANSWERS_MAX = 1_024
ANSWERS_BYTES_MAX = 16 << 20

# Whoever has it can confirm a payment intent from a browser, which is past the gate.
_CLIENT_SECRET = re.compile(rb'(?<!\\)"client_secret"\s*:\s*"(?:[^"\\]|\\.)*"')


def for_agents(body: bytes) -> bytes:
    """An answer of Stripe's without the secrets of payment intents."""
    return _CLIENT_SECRET.sub(b'"client_secret": null', body)


class Answers:
    """The newest answers by the digest of their bytes; safe to use from many threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, digest: str, answer: Answer) -> None:
        """Keep an answer's body; the oldest go when there are too many or they are too large."""
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
                return
            self._kept[digest] = body = for_agents(answer.body)
            self._bytes += len(body)
            while len(self._kept) > ANSWERS_MAX or self._bytes > ANSWERS_BYTES_MAX:
                self._bytes -= len(self._kept.popitem(last=False)[1])

    def body(self, digest: str) -> bytes | None:
        """The bytes with this digest, while they are kept."""
        with self._lock:
            return self._kept.get(digest)
