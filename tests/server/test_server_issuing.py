"""Card payments that Stripe asks about, over the simulator: decided like any payment, answered in time, or declined."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="needs extra: server")

from stripe_support import Served, make, records, serving, twin_for

from countermark.connectors import IssuingConnector
from countermark.connectors.stripe import APPROVE
from countermark.model.clock import SystemClock
from countermark.server import issuing
from countermark.twins.stripe import signature

SECRET = "whsec_simulator"
CARD = "ic_1Agent"
CONFIG = f"""
[stripe]
webhook_secrets = ["env:TEST_WEBHOOK"]
cards = {{ "{CARD}" = "treasury" }}
"""
TOOLS = f"""
[tool."{APPROVE}"]
connector = "stripe_issuing"
"""
ASK, MAX = 500_001, 2_500_001  # above these people are asked, and nobody may pay
WAIT_S = 20


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("TEST_WEBHOOK", SECRET)
    with (
        twin_for(tmp_path / "twin") as twin,
        serving(make(tmp_path / "d", twin, tools=TOOLS, config=CONFIG), twin) as it,
    ):
        twin.control("webhook", {"url": it.url + "/webhooks/stripe", "secret": SECRET})
        yield it


def pay(served: Served, amount: int, **more: Any) -> dict[str, Any]:
    """A payment by card; how it was decided, and the event that asked."""
    return served.twin.control("issuing", {"card": CARD, "amount": amount, "currency": "eur", **more})


def ask(served: Served, event: Any) -> dict[str, Any]:
    """A question put to the gate in Stripe's name."""
    body = json.dumps(event).encode()
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=WAIT_S)
    try:
        headers = {"Stripe-Signature": signature(SECRET, body, SystemClock().now_us() // 1_000_000)}
        connection.request("POST", "/webhooks/stripe", body, headers)
        answer = connection.getresponse()
        assert answer.status == 200
        return dict(json.loads(answer.read()))
    finally:
        connection.close()


def outcomes(served: Served, authorization: str) -> list[str]:
    """What became of the actions about an authorization, in order."""
    found = records(served.root)
    of = {r.body["id"] for r in found if r.kind == "action.decided" and authorization in r.body["args"].values()}
    return [r.body["outcome"] for r in found if r.kind == "action.settled" and r.body["id"] in of]


def test_a_card_payment_is_decided_like_any_other(served: Served) -> None:
    """Within the limits yes; where people would be asked, above the limit, and with nobody's card no; all in time."""
    for amount, more, reason in (
        (1_000, {}, "webhook_approved"), (ASK, {}, "webhook_declined"), (MAX, {}, "webhook_declined"),
        (1_000, {"card": "ic_1Stranger"}, "webhook_declined"), (1_000, {"currency": "usd"}, "webhook_declined"),
        (0, {}, "webhook_declined"), (-5, {}, "webhook_declined"),
    ):  # fmt: skip
        paid = pay(served, amount, **more)
        assert (paid["reason"], paid["http_status"]) == (reason, 200), (amount, more)
        assert paid["took_ms"] < 2_000
        expected = ["confirmed"] if reason == "webhook_approved" else []
        assert outcomes(served, paid["authorization"]["id"]) == expected


def test_a_question_again_gets_the_answer_that_it_got(served: Served) -> None:
    """The same event twice holds one budget; another amount under its name is no; a further request is decided anew."""
    paid = pay(served, 1_000)
    event, authorization = paid["event"], paid["authorization"]["id"]
    assert ask(served, event) == {"approved": True}
    event["data"]["object"]["pending_request"]["amount"] = 2_000
    assert ask(served, event) == {"approved": False}
    assert outcomes(served, authorization) == ["confirmed"]
    assert pay(served, 3_000, again=authorization)["reason"] == "webhook_approved"
    assert pay(served, MAX, again=authorization)["reason"] == "webhook_declined"
    assert outcomes(served, authorization) == ["confirmed", "confirmed"]


def test_a_kill_stops_cards(served: Served) -> None:
    """What people stopped is stopped here too."""
    served.deployment.call("kill.set", {"kind": "agent", "value": "treasury", "reason": "test"})
    assert pay(served, 1_000)["reason"] == "webhook_declined"


def test_what_is_not_answered_in_time_is_declined(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane is busy, and the question comes several times meanwhile: none of them is taken for approved, and when
    the lane goes on, nothing is approved either.
    """
    event = pay(served, ASK)["event"]
    event["data"]["object"]["id"] = authorization = "iauth_busy"
    monkeypatch.setattr(issuing, "ANSWER_MS_MAX", 300)
    gate, held, go = served.deployment.gate, threading.Event(), threading.Event()

    def hold(writer: Any) -> None:
        held.set()
        assert go.wait(WAIT_S)

    busy = asyncio.run_coroutine_threadsafe(gate.lane.ask(hold), gate.loop)
    assert held.wait(WAIT_S)
    try:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: ask(served, event), range(4)))
    finally:
        go.set()
        busy.result(WAIT_S)
    assert answers == [{"approved": False}] * 4
    assert ask(served, event) == {"approved": False}
    assert "confirmed" not in outcomes(served, authorization)


def test_an_action_of_the_agents_own_answers_no_question(served: Served) -> None:
    """The agent asks for the tool itself: nobody waits for that. While Stripe's question about the same authorization
    waits, a smaller amount under its name approves nothing, and leaves the question open.
    """
    args = {"authorization": "iauth_own", "request_number": 0, "amount": 100, "currency": "eur", "card": CARD}
    result = served.deployment.act(APPROVE, args, call_id="own")
    assert (result.status, result.code) == ("failed", "not_sent")
    connector = served.deployment.gate.connectors[IssuingConnector.name]
    assert isinstance(connector, IssuingConnector)
    asked = {**args, "authorization": "iauth_asked", "amount": MAX}
    assert connector.expect(asked)
    assert not connector.expect(asked)
    smaller = served.deployment.act(APPROVE, {**asked, "amount": 100}, call_id="smaller")
    assert (smaller.status, smaller.code) == ("failed", "not_sent")
    assert connector.withdraw(asked)
    assert not connector.withdraw(asked)
