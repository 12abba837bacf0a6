"""The simulator behaves as Stripe's reference says, seen through unmodified stripe-python."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import stripe

from countermark.twins import StripeTwin

MONEY = {"amount": 100, "currency": "usd"}


def raw(twin: StripeTwin, method: str, path: str, body: str = "", **headers: str) -> tuple[Any, dict[str, Any]]:
    """One request without any SDK: the response object and its document."""
    connection = http.client.HTTPConnection(urlsplit(twin.url).netloc, timeout=20)
    sent = {"Authorization": f"Bearer {twin.key}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request(method, path, body, sent)
    response = connection.getresponse()
    doc = json.loads(response.read())
    connection.close()
    return response, doc


def test_a_transfer_is_made_found_and_booked(twin: StripeTwin, client: stripe.StripeClient) -> None:
    """A transfer has Stripe's shape, is retrieved by its id, leaves the balance and stands in the books."""
    before = twin.books().balance["usd"]
    made = client.v1.transfers.create(
        {**MONEY, "destination": "acct_ada", "transfer_group": "g1", "metadata": {"invoice": "I-1"}},
        {"idempotency_key": "contract-1"},
    )
    assert (made.object, made.amount, made.currency, made.destination) == ("transfer", 100, "usd", "acct_ada")
    assert made.livemode is False
    assert made.metadata["invoice"] == "I-1"
    assert client.v1.transfers.retrieve(made.id).id == made.id
    move = twin.books().movements("transfer")[-1]
    assert (move.id, move.amount, move.idempotency_key) == (made.id, 100, "contract-1")
    assert dict(move.metadata) == {"invoice": "I-1"}
    assert twin.books().balance["usd"] == before - 100
    assert client.v1.balance.retrieve().available[1].amount == before - 100
    assert client.v1.balance_transactions.list({"source": made.id}).data[0].net == -100
    assert twin.books().check() == []


def test_lists_page_in_both_directions(twin: StripeTwin, client: stripe.StripeClient) -> None:
    """Auto-pagination visits every transfer once, newest first; ``ending_before`` walks back; filters hold."""
    made = [
        client.v1.transfers.create({**MONEY, "destination": "acct_bob", "transfer_group": "pages"}).id for _ in range(7)
    ]
    page = client.v1.transfers.list({"limit": 3, "transfer_group": "pages"})
    assert page.has_more
    assert [item.id for item in page.auto_paging_iter()] == made[::-1]
    back = client.v1.transfers.list({"limit": 2, "transfer_group": "pages", "ending_before": made[0]})
    assert [item.id for item in back.data] == [made[2], made[1]]
    assert back.has_more
    now = twin.advance(10)
    late = client.v1.transfers.create({**MONEY, "destination": "acct_bob", "transfer_group": "pages"})
    found = client.v1.transfers.list({"created": {"gte": now}, "destination": "acct_bob"})
    assert [item.id for item in found.data] == [late.id]
    assert client.v1.transfers.list({"created": {"gte": now}, "destination": "acct_ada"}).data == []


def test_refunds_stop_at_the_charge(client: stripe.StripeClient) -> None:
    """Partial refunds add up to the charge and no further: too large is refused, a full refund cannot be repeated."""
    charge = client.v1.charges.create({"amount": 1_000, "currency": "usd", "source": "tok_visa"})
    refund = client.v1.refunds.create({"charge": charge.id, "amount": 600, "reason": "duplicate"})
    assert (refund.status, refund.amount, refund.charge) == ("succeeded", 600, charge.id)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.refunds.create({"charge": charge.id, "amount": 401})
    assert (caught.value.code, caught.value.param) == ("amount_too_large", "amount")
    assert client.v1.refunds.create({"charge": charge.id}).amount == 400
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.refunds.create({"charge": charge.id})
    assert caught.value.code == "charge_already_refunded"
    assert client.v1.charges.retrieve(charge.id).refunded is True
    assert [item.amount for item in client.v1.refunds.list({"charge": charge.id}).data] == [400, 600]


def test_a_payment_intent_can_be_confirmed_and_refunded(client: stripe.StripeClient) -> None:
    """A confirmed intent has a charge; a refund may name the intent instead of the charge; a decline is a CardError."""
    intent = client.v1.payment_intents.create({"amount": 500, "currency": "usd", "metadata": {"a": "b"}})
    assert intent.status == "requires_confirmation"
    intent = client.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    assert intent.status == "succeeded"
    refund = client.v1.refunds.create({"payment_intent": intent.id, "amount": 500})
    assert refund.charge == intent.latest_charge
    with pytest.raises(stripe.CardError) as caught:
        client.v1.payment_intents.create({**MONEY, "payment_method": "pm_card_chargeDeclined", "confirm": True})
    assert caught.value.code == "card_declined"


def test_a_payout_is_cancelled_or_arrives(twin: StripeTwin, client: stripe.StripeClient) -> None:
    """A cancelled payout comes back to the balance; another is paid when its day comes, and then stays."""
    before = twin.books().balance["usd"]
    first = client.v1.payouts.create({**MONEY, "destination": "ba_house", "statement_descriptor": "HOUSE"})
    second = client.v1.payouts.create({**MONEY, "method": "instant"})
    assert first.status == "pending"
    assert client.v1.payouts.cancel(first.id).status == "canceled"
    assert twin.books().balance["usd"] == before - 100
    twin.advance(3 * 86_400)
    assert client.v1.payouts.retrieve(second.id).status == "paid"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.payouts.cancel(second.id)
    assert caught.value.code == "payout_not_cancelable"
    assert twin.books().check() == []


def test_a_transfer_of_a_charge_stays_within_it(client: stripe.StripeClient) -> None:
    """Transfers that name a source charge may together not exceed it."""
    charge = client.v1.charges.create({"amount": 300, "currency": "usd"})
    params = {"currency": "usd", "destination": "acct_ada", "source_transaction": charge.id}
    assert client.v1.transfers.create({**params, "amount": 200}).source_transaction == charge.id
    with pytest.raises(stripe.InvalidRequestError, match="may not exceed"):
        client.v1.transfers.create({**params, "amount": 101})


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"destination": "acct_ada"}, "parameter_missing", "amount"),
        ({**MONEY}, "parameter_missing", "destination"),
        ({**MONEY, "amount": 0, "destination": "acct_ada"}, "parameter_invalid_integer", "amount"),
        ({**MONEY, "amount": -5, "destination": "acct_ada"}, "parameter_invalid_integer", "amount"),
        ({**MONEY, "amount": "1.5", "destination": "acct_ada"}, "parameter_invalid_integer", "amount"),
        ({**MONEY, "amount": 10**12, "destination": "acct_ada"}, "amount_too_large", "amount"),
        ({**MONEY, "currency": "USD", "destination": "acct_ada"}, None, "currency"),
        ({**MONEY, "destination": "acct_nobody"}, "resource_missing", "destination"),
        ({**MONEY, "destination": "acct_ada", "colour": "red"}, "parameter_unknown", "colour"),
        ({**MONEY, "destination": {"account": "acct_ada"}}, "parameter_unknown", "destination[account]"),
        ({**MONEY, "destination": "acct_ada", "metadata": {"a": {"b": "c"}}}, "parameter_unknown", "metadata[a][b]"),
        ({**MONEY, "destination": "acct_ada", "description": ""}, "parameter_invalid_empty", "description"),
        ({"amount": 501, "currency": "eur", "destination": "acct_ada"}, "balance_insufficient", None),
        ({**MONEY, "currency": "jpy", "destination": "acct_ada"}, "balance_insufficient", None),
    ],
)
def test_wrong_parameters_are_refused(
    twin: StripeTwin, client: stripe.StripeClient, params: dict[str, Any], code: str | None, param: str | None
) -> None:
    """Every wrong transfer is an InvalidRequestError that names code and parameter, and moves nothing."""
    before = twin.books().movements()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.transfers.create(params)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.param) == (code, param)
    assert twin.books().movements() == before


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "created[after]=1", "starting_after=tr_none", "page=2"])
def test_wrong_list_parameters_are_refused(twin: StripeTwin, query: str) -> None:
    """A list refuses limits, ranges, cursors and names that it does not know."""
    response, doc = raw(twin, "GET", f"/v1/transfers?{query}")
    assert response.status == 400
    assert doc["error"]["type"] == "invalid_request_error"


def test_keys_are_checked(twin: StripeTwin, client_of: Callable[..., stripe.StripeClient]) -> None:
    """No key or a wrong one is 401; a restricted key does what its scopes say, write includes read, else 403."""
    with pytest.raises(stripe.AuthenticationError):
        client_of(twin, "sk_test_wrong").v1.balance.retrieve()
    assert raw(twin, "GET", "/v1/balance", Authorization="")[0].status == 401
    assert raw(twin, "GET", "/v1/balance", Authorization="Basic !")[0].status == 401
    narrow = client_of(twin, twin.restricted_key("narrow", ["transfers:write", "balance:read"]))
    made = narrow.v1.transfers.create({**MONEY, "destination": "acct_ada"})
    assert narrow.v1.transfers.retrieve(made.id).id == made.id
    with pytest.raises(stripe.PermissionError):
        narrow.v1.payouts.create(MONEY)
    reader = client_of(twin, twin.restricted_key("reader", ["transfers:read"]))
    with pytest.raises(stripe.PermissionError):
        reader.v1.transfers.create({**MONEY, "destination": "acct_ada"})
    assert raw(twin, "POST", "/_sim/seed", "{}", Authorization="Bearer rk_test_narrow")[0].status == 403


def test_basic_authentication_works(twin: StripeTwin) -> None:
    """The key may stand as the user name of basic authentication."""
    import base64

    token = base64.b64encode(f"{twin.key}:".encode()).decode()
    assert raw(twin, "GET", "/v1/account", Authorization=f"Basic {token}")[1]["object"] == "account"


def test_it_says_that_it_is_a_simulator(twin: StripeTwin, client: stripe.StripeClient) -> None:
    """Server header, a header of its own, the key's name, livemode and the log all say so; every answer has an id."""
    response, doc = raw(twin, "GET", "/v1/transfers?limit=1")
    assert response.getheader("Server") == "countermark-stripe-simulator"
    assert response.getheader("Countermark-Simulator") == "true"
    assert response.getheader("Request-Id").startswith("req_sim")
    assert "simulator" in twin.key
    assert all(item["livemode"] is False for item in doc["data"])
    assert "no money moves" in (twin.directory / "simulator.log").read_text()
    assert client.v1.accounts.retrieve("acct_ada").id == "acct_ada"


def test_it_listens_on_one_loopback_address(twin: StripeTwin) -> None:
    """Only 127.0.0.1 answers; another loopback address refuses."""
    port = urlsplit(twin.url).port
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port), timeout=5):
        pass


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"POST /v1/transfers HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/transfers HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"GET /v1/balance HTTP/1.1\r\nA: 1\r\na: 2\r\n\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_nonsense_on_the_wire_harms_nothing(twin: StripeTwin, client: stripe.StripeClient, sent: bytes) -> None:
    """Malformed, oversized and ambiguous requests end their connection; the next client is served."""
    with socket.create_connection(("127.0.0.1", urlsplit(twin.url).port or 0), timeout=10) as sock:
        sock.sendall(sent)
        answer = sock.recv(4096)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert client.v1.balance.retrieve().object == "balance"


def test_events_tell_what_happened(client: stripe.StripeClient) -> None:
    """Every change leaves an event with a snapshot of the object."""
    made = client.v1.transfers.create({**MONEY, "destination": "acct_ada"})
    event = client.v1.events.list({"type": "transfer.created", "limit": 1}).data[0]
    assert event.data.object["id"] == made.id
    assert client.v1.events.retrieve(event.id).type == "transfer.created"
