"""stripe-python against a served gate when the provider falls silent; and payment intents with their many steps."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="needs extra: server")

import stripe
from stripe_support import ACME, Served, make, serving, twin_for

from countermark.model.clock import US, SystemClock

SILENT = {"script": {"*": ["timeout_after_commit"] * 4}}
WAIT_S_MAX = 15


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("stripe-trouble")
    with twin_for(folder / "twin") as twin:
        made = make(folder / "d", twin, quick=True)
        with serving(made, twin) as running:
            yield running


@pytest.fixture
def client_with(served: Served) -> Iterator[Callable[[int], stripe.StripeClient]]:
    def make_client(retries: int) -> stripe.StripeClient:
        base = {"api": served.url + "/stripe"}
        return stripe.StripeClient(served.token, base_addresses=base, max_network_retries=retries)  # type: ignore[arg-type]

    yield make_client
    served.twin.faults({"script": {}})


def transfer(invoice: str) -> Any:
    return {"amount": 700, "currency": "eur", "destination": ACME, "metadata": {"invoice": invoice}}


def code_of(error: Any) -> str:
    return str(error.error.code)


def until(ask: Callable[[], Any]) -> Any:
    """Ask until it does not raise Stripe's generic error any more."""
    end = SystemClock().steady_us() + WAIT_S_MAX * US
    while True:
        try:
            return ask()
        except stripe.APIError:
            if SystemClock().steady_us() > end:
                raise


def test_an_answer_lost_once_is_found_again(served: Served, client_with: Callable[[int], stripe.StripeClient]) -> None:
    """The gate repeats under its own key; the SDK sees nothing but its object."""
    served.twin.faults({"script": {"transfers.create": ["timeout_after_commit"]}})
    made = client_with(0).v1.transfers.create(transfer("LOST-1"))
    assert [made.id] == [paid.id for paid in served.paid("LOST-1")]


def test_an_unknown_outcome_is_shown_and_paid_once(
    served: Served, client_with: Callable[[int], stripe.StripeClient]
) -> None:
    """Every answer is lost: 504 and no guess. A new call of the SDK, with its new key, is refused; the old key gives
    the object as soon as the provider was heard."""
    served.twin.faults(SILENT)
    options: Any = {"idempotency_key": "unknown-1"}
    with pytest.raises(stripe.APIError) as caught:
        client_with(0).v1.transfers.create(transfer("UNKNOWN-1"), options)
    assert (caught.value.http_status, code_of(caught.value)) == (504, "countermark_unknown")
    assert caught.value.headers["stripe-should-retry"] == "true"
    ours = caught.value.json_body["error"]["countermark"]
    assert (ours["status"], ours["retryable"]) == ("unknown", True)
    with pytest.raises(stripe.IdempotencyError) as again:
        client_with(0).v1.transfers.create(transfer("UNKNOWN-1"))
    assert code_of(again.value) == "countermark_duplicate_obligation"
    served.twin.faults({"script": {}})
    made = until(lambda: client_with(0).v1.transfers.create(transfer("UNKNOWN-1"), options))
    assert [made.id] == [paid.id for paid in served.paid("UNKNOWN-1")]


def test_the_sdk_s_own_retries_do_not_pay_again(
    served: Served, client_with: Callable[[int], stripe.StripeClient]
) -> None:
    """An SDK that repeats by itself does so under the same key, and gets what is recorded."""
    served.twin.faults(SILENT)
    try:
        said = str(client_with(2).v1.transfers.create(transfer("REPEAT-1")).amount)
    except stripe.APIError as error:
        said = code_of(error)
    assert said in ("700", "countermark_unknown")
    assert len(served.paid("REPEAT-1")) == 1


def test_nothing_sent_is_said_as_such(served: Served, client_with: Callable[[int], stripe.StripeClient]) -> None:
    """Stripe answers 429: Stripe's own error, no repetition by the SDK, and the invoice stays free."""
    served.twin.faults({"script": {"transfers.create": ["http_429"]}})
    with pytest.raises(stripe.RateLimitError):
        client_with(3).v1.transfers.create(transfer("LIMIT-1"))
    assert served.paid("LIMIT-1") == []
    assert client_with(0).v1.transfers.create(transfer("LIMIT-1")).amount == 700


def intent(invoice: str, **more: Any) -> Any:
    return {
        "amount": 5_000, "currency": "eur", "payment_method": "pm_card_visa", "metadata": {"invoice": invoice}, **more,
    }  # fmt: skip


def test_an_intent_is_made_confirmed_and_captured_in_part(
    served: Served, client_with: Callable[[int], stripe.StripeClient]
) -> None:
    """Each step is one governed action; the objects are Stripe's; the browser's secret is taken out."""
    intents = client_with(0).v1.payment_intents
    made = intents.create(intent("PI-1", capture_method="manual"))
    assert (made.status, made.amount, made.client_secret) == ("requires_confirmation", 5_000, None)
    assert intents.confirm(made.id, {"payment_method": "pm_card_visa"}).status == "requires_capture"
    captured = intents.capture(made.id, {"amount_to_capture": 3_200})
    assert (captured.status, captured.amount_received, captured.client_secret) == ("succeeded", 3_200, None)
    assert captured.metadata == made.metadata  # the key that finds the intent again was not written over
    assert intents.retrieve(made.id).amount_received == 3_200
    assert served.twin.books().check() == []
    with pytest.raises(stripe.IdempotencyError):  # captured once
        intents.capture(made.id, {"amount_to_capture": 100})


def test_no_face_gives_away_an_intents_secret(served: Served) -> None:
    """With it a browser confirms the intent past the gate: not over MCP, and not as an action, when the intent is made
    and when it is looked at.
    """
    pytest.importorskip("mcp", reason="needs extra: mcp")
    accept = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}

    def told(tool: str, args: dict[str, Any], call: str) -> bytes:
        params = {"name": tool, "arguments": args}
        over_mcp = post(served, "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, accept)
        return over_mcp + post(served, "/v1/actions", {"call_id": call, "tool": tool, "args": args}, {})

    made = told("stripe.payment_intents.create", {"amount": 700, "currency": "eur", "metadata[invoice]": "PI-4"}, "s-1")
    found = re.search(rb"pi_[A-Za-z0-9]+", made)
    assert found is not None
    seen = told("stripe.payment_intents.retrieve", {"intent": found[0].decode()}, "s-2")
    for answers in (made, seen):
        assert b'\\"object\\": \\"payment_intent\\"' in answers
        assert b"_secret_" not in answers


def post(served: Served, path: str, body: Any, more: dict[str, str]) -> bytes:
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=WAIT_S_MAX)
    try:
        headers = {"Authorization": f"Bearer {served.token}", "Content-Type": "application/json", **more}
        connection.request("POST", path, json.dumps(body), headers)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_an_intent_may_be_cancelled(served: Served, client_with: Callable[[int], stripe.StripeClient]) -> None:
    """Once; and what was counted for it stays counted: its invoice is still taken."""
    intents = client_with(0).v1.payment_intents
    made = intents.create(intent("PI-2", capture_method="manual", confirm=True))
    cancelled = intents.cancel(made.id, {"cancellation_reason": "abandoned"})
    assert (cancelled.status, cancelled.cancellation_reason) == ("canceled", "abandoned")
    with pytest.raises(stripe.IdempotencyError):
        intents.create(intent("PI-2"))


def test_a_declined_card_is_stripe_s_card_error_and_the_intent_stays_counted(
    served: Served, client_with: Callable[[int], stripe.StripeClient]
) -> None:
    """The intent exists and can be confirmed with another card; making a second one for the invoice is refused."""
    intents = client_with(0).v1.payment_intents
    with pytest.raises(stripe.CardError) as caught:
        intents.create(intent("PI-3", payment_method="pm_card_chargeDeclined", confirm=True))
    assert caught.value.code == "card_declined"
    made = caught.value.json_body["error"]["payment_intent"]
    assert made["client_secret"] is None
    with pytest.raises(stripe.IdempotencyError):
        intents.create(intent("PI-3", confirm=True))
    with pytest.raises(stripe.CardError):
        intents.confirm(made["id"], {"payment_method": "pm_card_chargeDeclined"})
    assert intents.confirm(made["id"], {"payment_method": "pm_card_visa"}).status == "succeeded"


def test_an_intent_that_the_gate_did_not_make_is_not_touched(
    served: Served, client_with: Callable[[int], stripe.StripeClient]
) -> None:
    """Its amount counted against no limit here: neither confirmed, captured nor cancelled."""
    direct = stripe.StripeClient(served.twin.key, base_addresses={"api": served.twin.url})
    foreign = direct.v1.payment_intents.create(intent("PI-4", capture_method="manual", confirm=True))
    intents = client_with(0).v1.payment_intents
    for change in (intents.capture, intents.cancel, intents.confirm):
        with pytest.raises(stripe.APIError) as caught:
            change(foreign.id)
        assert code_of(caught.value) == "countermark_not_sent"
        assert "foreign_object" in str(caught.value)
    assert direct.v1.payment_intents.retrieve(foreign.id).status == "requires_capture"


def test_more_than_was_asked_for_is_not_captured(
    served: Served, client_with: Callable[[int], stripe.StripeClient]
) -> None:
    """Over-capture is refused before anything is sent."""
    intents = client_with(0).v1.payment_intents
    made = intents.create(intent("PI-5", capture_method="manual", confirm=True))
    with pytest.raises(stripe.APIError, match="over_capture"):
        intents.capture(made.id, {"amount_to_capture": 5_001})
    assert intents.capture(made.id).amount_received == 5_000


@pytest.mark.parametrize("step", ["confirm", "capture", "cancel"])
def test_a_change_whose_answer_is_lost_is_found_in_the_object_s_state(
    served: Served, client_with: Callable[[int], stripe.StripeClient], step: str
) -> None:
    """The gate looks at the intent itself; the SDK gets it."""
    intents = client_with(0).v1.payment_intents
    made = intents.create(intent(f"PI-{step}", capture_method="manual", confirm=step != "confirm"))
    served.twin.faults({"script": {f"payment_intents.{step}": ["timeout_after_commit"] * 3}})
    changed = getattr(intents, step)(made.id)
    assert changed.status == {"confirm": "requires_capture", "capture": "succeeded", "cancel": "canceled"}[step]
    assert served.twin.books().check() == []
