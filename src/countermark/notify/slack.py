"""Slack's incoming webhooks. The URL is the secret: its origin is fixed, the rest is read when it is used.

Text that others wrote stands in ``plain_text`` objects, where Slack forms no link, mention or emphasis; the line that
Slack parses holds only our words, amounts and the policy's names, escaped as Slack asks for it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from countermark.model.errors import ConfigError
from countermark.model.values import Request
from countermark.net import Network, Sender
from countermark.notify.channel import DeliveryError
from countermark.notify.text import NOTE, lines_of
from countermark.notify.webhook import origin_and_path, post

ORIGIN = "https://hooks.slack.com"
HEADER_CHARS_MAX = 150  # Slack's bound of a header block
SECTION_CHARS_MAX = 3_000  # and of a section's text
CUT_CHARS = 8
_PATH = re.compile(r"/[A-Za-z0-9/_-]{1,300}")


class SlackTransport:
    """Posts to an incoming webhook. ``secret`` gives the whole URL each time."""

    kind = "slack"

    def __init__(
        self, secret: Callable[[], str], *, origin: str = ORIGIN, allowed: Sequence[Network] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        """Raises ``ConfigError`` unless ``origin`` is one."""
        self._secret, self._origin = secret, origin
        self._sender = Sender(origin, allowed=allowed, tls=tls)

    def deliver(self, identity: str, doc: Mapping[str, Any], now_us: int) -> None:
        """Post one message. Slack knows no key for repeats: a message that is sent again appears again."""
        try:
            url = self._secret()
            origin, path = origin_and_path(url)
        except ConfigError as error:
            raise DeliveryError(error.message) from None
        if origin != self._origin or _PATH.fullmatch(path) is None:
            raise DeliveryError(f"the webhook's URL is not one of {self._origin}", final=True)
        body = orjson.dumps(message(doc))
        post(self._sender, Request("POST", url, (("Content-Type", "application/json"),), body), now_us)

    def close(self) -> None:
        self._sender.close()


def message(doc: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON that Slack takes."""
    rows = "\n".join(f"{label}: {value}" for label, value in lines_of(doc))
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(doc["title"], HEADER_CHARS_MAX)},
        {"type": "section", "text": _plain(rows, SECTION_CHARS_MAX)},
    ]
    if doc["link"]:
        # The one place that Slack parses: a link that only our configuration and the gate's own ids make.
        link = {"type": "mrkdwn", "text": f"<{escaped(doc['link'])}|Open the page>", "verbatim": True}
        blocks.append({"type": "section", "text": link})
    blocks.append({"type": "context", "elements": [_plain(NOTE, SECTION_CHARS_MAX)]})
    return {
        "text": escaped(doc["title"]), "mrkdwn": False, "parse": "none", "link_names": False, "unfurl_links": False,
        "unfurl_media": False, "blocks": blocks,
    }  # fmt: skip


def _plain(text: str, chars_max: int) -> dict[str, Any]:
    found = escaped(text)
    while len(found) > chars_max:  # cut what it says, not what stands for one character
        text = text[:-CUT_CHARS]
        found = escaped(text) + "…"
    return {"type": "plain_text", "text": found, "emoji": False}


def escaped(text: str) -> str:
    """The three characters with which Slack's own marks begin ("Formatting text: escaping text")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
