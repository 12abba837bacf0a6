"""Webhooks by the Standard Webhooks specification; the body is our JSON, or a CloudEvents 1.0 event in JSON."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from countermark.model.clock import US
from countermark.model.errors import ConfigError
from countermark.model.values import Request
from countermark.net import Answer, LostError, Network, NotSentError, Sender
from countermark.notify.channel import RETRY_AFTER_S_MAX, TIMEOUT_MS, DeliveryError
from countermark.notify.standard import signatures
from countermark.notify.text import plain_text

JSON, CLOUDEVENTS = "json", "cloudevents"
FORMATS = (JSON, CLOUDEVENTS)
_TYPES = {JSON: "application/json", CLOUDEVENTS: "application/cloudevents+json; charset=utf-8"}
_LATER = (408, 429)
_NEVER = ("other_origin", "malformed_request")

TOO_MANY = 429  # RFC 6585 section 4


class WebhookTransport:
    """Posts to one URL. ``secrets`` gives the signing secrets each time; every one of them signs."""

    kind = "webhook"

    def __init__(
        self, url: str, secrets: Callable[[], Sequence[str]], *, source: str, format_: str = JSON,
        allowed: Sequence[Network] = (), tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        """``source`` names the log whose events these are (CloudEvents ``source``). Raises ``ConfigError``."""
        self._url, self._secrets, self._source, self._format = url, secrets, source, format_
        self._sender = Sender(origin_and_path(url)[0], allowed=allowed, tls=tls)

    def deliver(self, identity: str, doc: Mapping[str, Any], now_us: int) -> None:
        """Sign and post; any 2xx answer is a delivery."""
        body = self.body(identity, doc)
        at_s = now_us // US
        try:
            signed = signatures(self._secrets(), identity, at_s, body)
        except ConfigError as error:
            raise DeliveryError(error.message) from None
        headers = (
            ("Content-Type", _TYPES[self._format]), ("Webhook-Id", identity), ("Webhook-Timestamp", str(at_s)),
            ("Webhook-Signature", signed),
        )  # fmt: skip
        post(self._sender, Request("POST", self._url, headers, body), now_us)

    def body(self, identity: str, doc: Mapping[str, Any]) -> bytes:
        """The bytes that are signed and sent."""
        data = {**doc, "text": plain_text(doc)}
        kind = f"escalation.{doc['event']}" if doc["escalation"] is not None else f"gate.{doc['event']}"
        if self._format == JSON:
            return orjson.dumps({"type": kind, "timestamp": doc["at"], "data": data})
        subject = {} if doc["escalation"] is None else {"subject": doc["escalation"]}
        return orjson.dumps({  # CloudEvents 1.0.2, "JSON Event Format"
            "specversion": "1.0", "id": identity, "source": self._source, "type": f"countermark.{kind}", **subject,
            "time": doc["at"], "datacontenttype": "application/json", "data": data,
        })  # fmt: skip

    def close(self) -> None:
        self._sender.close()


def origin_and_path(url: str) -> tuple[str, str]:
    """``https://host/path`` as its origin and the rest. Raises ``ConfigError`` when there is no path."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if not separator or not slash or "#" in path:
        raise ConfigError("a URL to post to is https://HOST/PATH, without a fragment")
    return f"{scheme}://{host}", "/" + path


def post(sender: Sender, request: Request, now_us: int) -> None:
    """Post once. Raises ``DeliveryError``, which says whether to try again, and when."""
    try:
        answer = sender.send(request, None, TIMEOUT_MS)
    except NotSentError as error:
        raise DeliveryError(error.message, final=error.reason in _NEVER) from None
    except LostError as error:
        raise DeliveryError(error.message) from None
    if 200 <= answer.status < 300:
        return
    if answer.status >= 500 or answer.status in _LATER:
        wait_s = _retry_after_s(answer, now_us)
        raise DeliveryError(f"answered with {answer.status}", wait_s=wait_s, busy=answer.status == TOO_MANY)
    what = "a redirect, which is not followed" if 300 <= answer.status < 400 else str(answer.status)
    raise DeliveryError(f"answered with {what}", final=True)


def _retry_after_s(answer: Answer, now_us: int) -> int:
    """RFC 9110 section 10.2.3: seconds, or a date; 0 for anything else."""
    text = answer.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), RETRY_AFTER_S_MAX)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return (at - datetime.fromtimestamp(now_us // US, UTC)) // timedelta(seconds=1)
