"""Signed events of the simulator, pushed to a loopback address when asked: once, twice, out of order or late.

Signature: ``Stripe-Signature: t=SECONDS,v1=HEX`` with HMAC-SHA256 over ``SECONDS.BODY`` (Stripe's webhook reference).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from countermark.twins.stripe.books import Ledger

BATCH_MAX = 500
ANSWER_S_MAX = 5
ANSWER_BYTES_MAX = 65_536


def signature(secret: str, body: bytes, at_s: int) -> str:
    """The ``Stripe-Signature`` header of ``body`` at ``at_s`` seconds."""
    mac = hmac.new(secret.encode(), b"%d." % at_s + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={mac}"


class Webhooks:
    """Delivers events that were not delivered yet; the position is durable."""

    def __init__(self, ledger: Ledger, now_s: Callable[[], int], seed: int) -> None:
        self._ledger = ledger
        self._now_s = now_s
        self._seed = seed

    def configure(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        """``{"url", "secret", "faults": {"duplicated", "reordered", "late": chance per million}}``; loopback only."""
        url, faults = str(doc["url"]), dict(doc.get("faults", {}))
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname != "127.0.0.1" or parts.port is None:
            raise ValueError("the simulator pushes only to http://127.0.0.1:PORT/")
        if set(faults) - {"duplicated", "reordered", "late"}:
            raise ValueError("unknown webhook fault")
        target = {"url": url, "secret": str(doc["secret"]), "faults": faults}
        with self._ledger.transaction():
            self._ledger.set_meta("webhook", target)
        return {"url": url, "faults": faults}

    def plan(self, events: list[tuple[int, dict[str, Any]]], faults: Mapping[str, int]) -> list[dict[str, Any]]:
        """The order of delivery: a pure function of the seed and the events' positions."""

        def hit(name: str, ordinal: int) -> bool:
            raw = hashlib.sha256(f"{self._seed}|webhook|{name}|{ordinal}".encode()).digest()
            return int.from_bytes(raw[:8], "big") % 1_000_000 < int(faults.get(name, 0))

        now: list[dict[str, Any]] = []
        late: list[dict[str, Any]] = []
        for ordinal, event in events:
            queue = late if hit("late", ordinal) else now
            at = max(0, len(queue) - 1) if hit("reordered", ordinal) else len(queue)
            queue.insert(at, event)
            if hit("duplicated", ordinal):
                queue.append(event)
        return now + late

    async def deliver(self) -> dict[str, Any]:
        """Push the undelivered events (at most ``BATCH_MAX``) and say how the receiver answered."""
        target = self._ledger.meta("webhook")
        if target is None:
            raise ValueError("no webhook is configured")
        start = int(self._ledger.meta("delivered", 0))
        events = self._ledger.events_after(start, BATCH_MAX)
        statuses = []
        for event in self.plan(events, target["faults"]):
            statuses.append((await self.push(event, ANSWER_S_MAX))[0])
        if events:
            with self._ledger.transaction():
                self._ledger.set_meta("delivered", events[-1][0])
        return {"events": len(events), "statuses": statuses}

    async def push(self, event: Mapping[str, Any], seconds: float) -> tuple[int, bytes]:
        """Send one event, signed now. HTTP status and body of the receiver's answer; 0 when none comes in time."""
        target = self._ledger.meta("webhook")
        if target is None:
            raise ValueError("no webhook is configured")
        body, parts = json.dumps(event).encode(), urlsplit(target["url"])
        head = (
            f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: countermark-stripe-simulator\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
            f"Stripe-Signature: {signature(target['secret'], body, self._now_s())}\r\n\r\n"
        )
        try:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(head.encode("ascii") + body)
                answer = await asyncio.wait_for(reader.read(ANSWER_BYTES_MAX), seconds)
                while not reader.at_eof() and len(answer) < ANSWER_BYTES_MAX:
                    answer += await asyncio.wait_for(reader.read(ANSWER_BYTES_MAX), seconds)
            finally:
                writer.close()
        except (OSError, TimeoutError):
            return 0, b""
        head_of, _, rest = answer.partition(b"\r\n\r\n")
        words = head_of.split()
        return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), rest
