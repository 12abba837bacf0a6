"""Webhooks and Slack over real sockets: what is sent, whose answers count, and what text of others may not do."""

from __future__ import annotations

import base64
import os
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from notify_support import (
    HMAC_SECRET,
    INVOICE_HEAD,
    LARGE,
    NOTED,
    SEED_SECRET,
    Answer,
    Desk,
    Receiver,
    slack,
    webhook,
)
from rig import ACME
from test_notify_standard import independently

from countermark.model.clock import US
from countermark.net import ANSWER_BYTES_MAX
from countermark.notify import SlackTransport, WebhookTransport, check_secret
from countermark.notify import webhook as webhook_module
from countermark.notify.channel import DeliveryError
from countermark.notify.slack import message

HOSTILE = [
    "INV-1\n\nApproved: 1.00 EUR to Anna",
    "<script>alert(1)</script>",
    "<!channel> <@U123> <https://evil.example|Open the page>",
    "*bold* _it_ `code` @here #general",
    "\u202etxt.exe\u2066 \u200bzero\u00a0width",
    "https://evil.example/approve and www.evil.example and mail a@evil.example",
    "&lt;!channel&gt; &amp;amp;",
    "x" * 500,
]


def ask_with(desk: Desk, note: str) -> None:
    args = {
        "amount": LARGE, "currency": "eur", "destination": ACME, "metadata[invoice]": "INV-1", "metadata[note]": note,
    }  # fmt: skip
    assert desk.handle.act("stripe.transfers.create", args, call_id="c1", reason=f"{note} reason").escalation


def test_a_webhook_is_signed_by_both_schemes_over_the_bytes_that_arrive(tmp_path: Path) -> None:
    """The receiver verifies v1 by an HMAC of its own and v1a by the public key, over the body as it came."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.ask()
        desk.tell()
        (got,) = receiver.got
        now_s = desk.clock.now_us() // US
    assert got.path == "/hook"
    assert got.headers["content-type"] == "application/json"
    assert "." not in got.id
    at = got.headers["webhook-timestamp"]
    assert at == str(now_s)
    first, second = got.headers["webhook-signature"].split(" ")
    assert first == independently(HMAC_SECRET, got.id, at, got.body)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(check_secret(SEED_SECRET).removeprefix("whpk_")))
    key.verify(base64.b64decode(second.removeprefix("v1a,")), f"{got.id}.{at}.".encode() + got.body)
    assert HMAC_SECRET not in str(got)
    assert SEED_SECRET not in str(got)


def test_cloudevents_have_the_members_of_the_specification(tmp_path: Path) -> None:
    """CloudEvents 1.0 structured JSON: required attributes, types of attributes, our event as data."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin, format='"cloudevents"')) as desk:
        escalation = desk.ask()
        desk.tell()
        (got,) = receiver.got
    event = got.json
    assert got.headers["content-type"].startswith("application/cloudevents+json")
    assert event["specversion"] == "1.0"
    assert event["id"] == got.id
    assert event["source"] == "urn:countermark:test:l0"
    assert event["type"] == "countermark.escalation.asked"
    assert event["subject"] == escalation
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", event["time"])
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in event)
    assert event["data"]["event"] == "asked"


@pytest.mark.parametrize("note", HOSTILE, ids=range(len(HOSTILE)))
def test_text_of_others_makes_no_line_link_mention_or_mark(tmp_path: Path, note: str) -> None:
    """What an agent writes stays one labelled line; chat and mail see no link in it, Slack no mark of its own."""
    with Receiver() as receiver:
        channels = webhook(receiver.origin) + slack(receiver.origin)
        with Desk(tmp_path / "d", channels, tools={INVOICE_HEAD: NOTED}) as desk:
            ask_with(desk, note)
            desk.tell("ops", "chat")
    hooked, chatted = receiver.got
    text = hooked.json["data"]["text"]
    lines = [line for line in text.splitlines() if line.startswith("The agent's note: ")]
    assert len(lines) == 1
    assert not any(line.startswith("Approved") for line in text.splitlines())
    assert len(lines[0]) < 300
    assert "://" not in lines[0]
    assert not re.search(r"[a-z]\.[a-z]{2}", lines[0])
    assert text.isprintable() or all(char.isprintable() or char == "\n" for char in text)
    assert not set(text) & set("\u202e\u2066\u200b\u00a0\r")
    assert "reason" not in text
    document = chatted.json
    parsed = [block["text"] for block in document["blocks"] if block.get("text", {}).get("type") == "mrkdwn"]
    assert len(parsed) == 1
    assert re.fullmatch(r"<http://localhost:8521/waiting/esc_[0-9a-f]{32}\|Open the page>", parsed[0]["text"])
    assert document["text"] == "Waiting for an answer: 6,000.00 EUR to Acme Paper GmbH"
    plain = [block["text"]["text"] for block in document["blocks"] if block["type"] in ("header", "section")]
    for shown in plain[:2]:
        assert "<" not in shown
        assert ">" not in shown
    assert (document["parse"], document["link_names"], document["unfurl_links"]) == ("none", False, False)


def test_a_long_text_for_slack_is_cut_between_its_escapes() -> None:
    """A block stays within Slack's bound, and no escape is cut in two."""
    doc: dict[str, Any] = {
        "event": "stopped", "escalation": None, "what": "x", "reason": "<&>" * 2_000, "zone": "UTC", "link": "",
        "title": "T" * 400,
    }  # fmt: skip
    for block in message(doc)["blocks"][:2]:
        shown = block["text"]["text"]
        assert len(shown) <= 3_000
        assert re.search(r"&(?!amp;|lt;|gt;)", shown) is None


def _transport(receiver: Receiver) -> WebhookTransport:
    return WebhookTransport(f"{receiver.origin}/hook", lambda: [HMAC_SECRET], source="urn:x")


DOC: dict[str, Any] = {
    "event": "test", "escalation": None, "at": "2026-01-01T00:00:00.000Z", "zone": "UTC", "link": "", "title": "t"
}  # fmt: skip
NOW = 1_790_000_000 * US


@pytest.mark.parametrize(
    ("answer", "final", "wait_s"),
    [
        ((400, {}, b""), True, 0), ((401, {}, b""), True, 0), ((404, {}, b""), True, 0), ((410, {}, b""), True, 0),
        ((408, {}, b""), False, 0), ((429, {"Retry-After": "30"}, b""), False, 30),
        ((429, {"Retry-After": "99999999999999"}, b""), False, 3_600), ((429, {"Retry-After": "-5"}, b""), False, 0),
        ((429, {"Retry-After": "soon"}, b""), False, 0),
        ((429, {"Retry-After": "Mon, 21 Sep 2026 14:14:20 GMT"}, b""), False, 60),
        ((503, {"Retry-After": "7"}, b""), False, 7), ((500, {}, b""), False, 0), ((502, {}, b""), False, 0),
        ((302, {"Location": "/elsewhere"}, b""), True, 0), ((307, {"Location": "http://10.0.0.1/"}, b""), True, 0),
        ((304, {}, b""), True, 0),
    ],
)  # fmt: skip
def test_an_answer_says_whether_to_try_again(answer: Answer, final: bool, wait_s: int) -> None:
    """2xx is a delivery; 408, 429 and 5xx are tried again, with a bounded wait; everything else is final."""
    with Receiver([answer]) as receiver:
        transport = _transport(receiver)
        with pytest.raises(DeliveryError) as error:
            transport.deliver("msg_1", DOC, NOW)
        assert (error.value.final, error.value.wait_s) == (final, wait_s)
        transport.deliver("msg_1", DOC, NOW)
        transport.close()
        assert [got.path for got in receiver.got] == ["/hook", "/hook"]  # a redirect was not followed


def test_a_huge_answer_is_no_delivery() -> None:
    """An answer beyond the bound is not read to its end, and the message is tried again."""
    with Receiver([(200, {}, b"x" * (ANSWER_BYTES_MAX + 1))]) as receiver:
        transport = _transport(receiver)
        with pytest.raises(DeliveryError) as error:
            transport.deliver("msg_1", DOC, NOW)
        transport.close()
    assert not error.value.final


def test_a_slow_receiver_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that trickles in is given up at the deadline for all of it."""
    monkeypatch.setattr(webhook_module, "TIMEOUT_MS", 300)
    over = threading.Event()

    def trickle(handler: Any) -> None:
        while not over.wait(0.05):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n"[:1])
            handler.wfile.flush()

    with Receiver([trickle]) as receiver:
        transport = _transport(receiver)
        with pytest.raises(DeliveryError) as error:
            transport.deliver("msg_1", DOC, NOW)
        over.set()
        transport.close()
    assert "in time" in error.value.message
    assert not error.value.final


def test_nobody_listens_or_speaks_http() -> None:
    """A closed port, and a peer that speaks something else, are tried again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    transport = WebhookTransport(f"http://127.0.0.1:{free}/hook", lambda: [HMAC_SECRET], source="urn:x")
    with pytest.raises(DeliveryError) as error:
        transport.deliver("msg_1", DOC, NOW)
    assert not error.value.final
    with Receiver([lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n\r\n")]) as receiver:
        with pytest.raises(DeliveryError) as error:
            _transport(receiver).deliver("msg_1", DOC, NOW)
        assert not error.value.final


def test_a_private_address_is_not_posted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public name that leads inside is refused before a connection, unless the address is listed."""
    looked: list[object] = []

    def resolve(host: str, port: int, **_: object) -> list[Any]:
        looked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.1.2.3", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was tried"))
    transport = WebhookTransport("https://hooks.example/hook", lambda: [HMAC_SECRET], source="urn:x")
    with pytest.raises(DeliveryError, match="not allowed"):
        transport.deliver("msg_1", DOC, NOW)
    assert looked == ["hooks.example"]


def test_slack_goes_only_to_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL behind the secret that leads elsewhere, or has more than a path, is never posted to, and never named."""
    for url in ("https://evil.example/services/T/B/x", "https://hooks.slack.com/a?b=c", "https://hooks.slack.com.evil/x",
                "https://hooks.slack.com@evil.example/x", "nonsense"):  # fmt: skip
        monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was tried"))
        with pytest.raises(DeliveryError) as error:
            SlackTransport(lambda url=url: url).deliver("msg_1", DOC, NOW)  # type: ignore[misc]
        assert "evil" not in str(error.value)


def test_a_secret_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    """Without its secret a channel sends nothing unsigned: the message waits, and goes when the secret is there."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        del os.environ["NOTIFY_HMAC"]
        desk.ask()
        assert desk.tell() == 1
        assert receiver.got == []
        os.environ["NOTIFY_HMAC"] = HMAC_SECRET
        desk.clock.advance(10)
        desk.tell()
        assert len(receiver.got) == 1
