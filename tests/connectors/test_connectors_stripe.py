"""The Stripe connector against the simulator and against hostile answers."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.connectors import StripeConnector
from countermark.connectors.http_send import Answer
from countermark.connectors.stripe import DRAFTS, ProviderError
from countermark.connectors.stripe.outcomes import judge
from countermark.model.clock import US
from countermark.model.digest import RESPONSE, digest
from countermark.model.errors import ArgumentError, ConfigError, CountermarkError
from countermark.model.ports import Book, Connector
from countermark.model.tool import ToolSpec, alias_of
from countermark.model.values import Outcome, Request
from countermark.twins import StripeTwin

NOW_US = 1_790_000_000 * US
TRANSFER: dict[str, Any] = {"amount": 1_250, "currency": "usd", "destination": "acct_ada", "metadata[invoice]": "I-7"}


def tool_at(origin: str, name: str, **more: Any) -> ToolSpec:
    """A draft as a bundle completes it: the origin joined to its path."""
    draft = next(item for item in DRAFTS if item.name == f"stripe.{name}")
    method, _, path = draft.endpoint.partition(" ")
    return dataclasses.replace(draft, endpoint=f"{method} {origin}{path}", **more)


@pytest.fixture
def connector_to() -> Iterator[Callable[..., StripeConnector]]:
    made: list[StripeConnector] = []

    def make(origin: str, key: str) -> StripeConnector:
        made.append(StripeConnector(lambda tool: key, origin))
        return made[-1]

    yield make
    for connector in made:
        connector.close()


@pytest.fixture
def connector(twin: StripeTwin, connector_to: Callable[..., StripeConnector]) -> StripeConnector:
    made = connector_to(twin.url, twin.key)
    _: tuple[Connector, Book] = (made, made)  # it is both, as the type checker confirms
    return made


def pay(connector: StripeConnector, tool: ToolSpec, key: str, **args: Any) -> tuple[Request, Outcome]:
    request = connector.prepare(tool, tool.decode({**TRANSFER, **args}), key)
    return request, connector.execute(tool, request)


def effects(twin: StripeTwin, key: str) -> int:
    return sum(move.metadata.get("countermark_key") == key for move in twin.books().movements())


def test_drafts_are_complete() -> None:
    """Every draft decodes strictly, classifies every argument, has unique aliases and only a path; money tools know
    their amount, recover with a key and stop trusting the key an hour before Stripe may forget it."""
    assert {draft.name for draft in DRAFTS} >= {
        "stripe.transfers.create", "stripe.refunds.create", "stripe.payouts.create", "stripe.balance.retrieve"
    }  # fmt: skip
    for draft in DRAFTS:
        assert re.fullmatch(r"(GET|POST) /v1/[a-z_]+(/\{[a-z]+\}(/[a-z]+)?)?", draft.endpoint)
        assert len({arg.alias for arg in draft.args}) == len(draft.args)
        assert all(arg.alias in (alias_of(arg.name), "invoice", "part") for arg in draft.args)
        assert ("metadata[countermark_key]") not in draft.by_name
        if draft.class_ == "money":
            assert draft.one("amount") is not None
            assert (draft.recovery, draft.key_ttl_s) == ("idempotent", 23 * 3600)
            assert dict(draft.headers)["Stripe-Version"]
    transfers = DRAFTS[0]
    for bad in ({"destination": "acct_"}, {"destination": "ba_1"}, {"currency": "USD"}, {"amount": 0}, {"amount": 1.5}):
        with pytest.raises(ArgumentError):
            transfers.decode({**TRANSFER, **bad})
    with pytest.raises(ArgumentError):
        transfers.decode({**TRANSFER, "metadata[countermark_key]": "mine"})


def test_a_confirmed_transfer_tells_what_was_moved(twin: StripeTwin, connector: StripeConnector) -> None:
    """The outcome holds the provider's id, amount, currency, request id, the digest of its bytes and the outputs."""
    tool = tool_at(twin.url, "transfers.create")
    _, outcome = pay(connector, tool, "cm_ok")
    assert (outcome.status, outcome.code, outcome.http_status, outcome.attempts) == ("confirmed", "ok", 200, 1)
    assert (outcome.amount, outcome.currency) == (1_250, "usd")
    assert outcome.output == {"id": outcome.ref, "amount": 1_250, "currency": "usd"}
    assert outcome.request_id.startswith("req_sim")
    assert outcome.response == digest(RESPONSE, json.dumps(outcome.result).encode())
    move = next(move for move in twin.books().movements() if move.id == outcome.ref)
    assert move.idempotency_key == "cm_ok"
    assert dict(move.metadata) == {"countermark_key": "cm_ok", "invoice": "I-7"}


@pytest.mark.parametrize(
    ("fault", "first", "happened", "again"),
    [
        ("ok", ("confirmed", "ok"), 1, ("confirmed", "ok")),
        ("reset_before", ("unknown", "provider_error"), 0, ("confirmed", "ok")),
        ("reset_after", ("unknown", "provider_error"), 1, ("confirmed", "ok")),
        ("timeout_after_commit", ("unknown", "timeout"), 1, ("confirmed", "ok")),
        ("http_500_before", ("unknown", "provider_error"), 0, ("unknown", "provider_error")),
        ("http_500_after", ("unknown", "provider_error"), 1, ("unknown", "provider_error")),
        ("http_409", ("unknown", "provider_error"), 0, ("confirmed", "ok")),
        ("http_429", ("failed", "provider_rate_limited"), 0, ("confirmed", "ok")),
    ],
)
def test_every_fault_has_its_outcome(
    twin: StripeTwin, connector: StripeConnector, fault: str, first: Any, happened: int, again: Any
) -> None:
    """Per fault: the first outcome, whether the effect happened, what a lookup says, what a retry with the key says;
    a failure is only told where nothing happened, and in the end there is at most one effect."""
    twin.faults({"script": {"transfers.create": [fault]}})
    tool = tool_at(twin.url, "transfers.create", timeout_ms=700 if "timeout" in fault else 10_000)
    key = f"cm_{fault}"
    request, outcome = pay(connector, tool, key)
    assert (outcome.status, outcome.code) == first
    assert effects(twin, key) == happened
    assert outcome.status != "failed" or happened == 0
    found = connector.lookup(tool, request, key, NOW_US)
    assert (found.status, found.code) == (("confirmed", "found") if happened else ("failed", "not_found"))
    if happened:
        assert (found.amount, found.currency, found.ref[:3]) == (1_250, "usd", "tr_")
    retried = connector.execute(tool, request)
    assert (retried.status, retried.code) == again
    assert effects(twin, key) <= 1


@pytest.mark.parametrize("fault", ["http_429", "reset_before"])
def test_after_a_doubtful_try_no_early_answer_settles(twin: StripeTwin, connector: StripeConnector, fault: str) -> None:
    """When an earlier try may have arrived, a rate limit on the retry says nothing about it: still unknown."""
    key = f"cm_doubt_{fault}"
    twin.faults({"script": {"transfers.create": ["reset_after", fault]}})
    tool = tool_at(twin.url, "transfers.create")
    request, outcome = pay(connector, tool, key)
    assert outcome.status == "unknown"
    assert connector.execute(tool, request).status == "unknown"
    assert connector.execute(tool, request).status == "confirmed"
    assert effects(twin, key) == 1


def test_a_dead_provider_after_a_doubtful_try_stays_unknown(
    peer_of: Callable[[list[Any]], Any], connector_to: Callable[..., StripeConnector]
) -> None:
    """A refused connection is a failure the first time, but not once an earlier try may have arrived."""
    peer = peer_of([lambda sock: None])
    connector = connector_to(peer.origin, "sk_test_x")
    tool = tool_at(peer.origin, "transfers.create")
    request, lost = pay(connector, tool, "cm_x")
    peer.close()
    assert (lost.status, lost.code) == ("unknown", "provider_error")
    again = connector.execute(tool, request)
    assert (again.status, again.code) == ("unknown", "not_sent")
    other, fresh = pay(connector, tool, "cm_y")
    assert (fresh.status, fresh.code, fresh.attempts) == ("failed", "not_sent", 1)
    assert connector.lookup(tool, other, "cm_y", NOW_US).status == "unknown"


@pytest.mark.parametrize(
    ("args", "status"),
    [
        ({"amount": 10**10}, 400),
        ({"destination": "acct_nobody"}, 400),
        ({"source_transaction": "ch_none"}, 400),
    ],
)
def test_a_refusal_is_a_failure(twin: StripeTwin, connector: StripeConnector, args: Any, status: int) -> None:
    """Insufficient funds, an unknown destination and an unknown charge are refused, and nothing happened."""
    key = "cm_refused_" + "_".join(args)
    _, outcome = pay(connector, tool_at(twin.url, "transfers.create"), key, **args)
    assert (outcome.status, outcome.code, outcome.http_status) == ("failed", "provider_refused", status)
    assert outcome.request_id.startswith("req_sim")
    assert effects(twin, key) == 0


def test_wrong_and_narrow_keys_are_refused(
    twin: StripeTwin, connector: StripeConnector, connector_to: Callable[..., StripeConnector]
) -> None:
    """A wrong key is 401 and a restricted key without the scope is 403: failed, nothing happened. A key that was
    used for something else is not a failure: the other thing may have been this payment."""
    tool = tool_at(twin.url, "transfers.create")
    narrow = twin.restricted_key("payouts", ["payouts:write"])
    for key, status in (("sk_test_wrong", 401), (narrow, 403)):
        _, outcome = pay(connector_to(twin.url, key), tool, f"cm_{status}")
        assert (outcome.status, outcome.code, outcome.http_status) == ("failed", "provider_refused", status)
    pay(connector, tool, "cm_reused")
    _, outcome = pay(connector, tool, "cm_reused", amount=9)
    assert (outcome.status, outcome.code, outcome.http_status) == ("unknown", "provider_error", 400)


def test_refunds_and_payouts(twin: StripeTwin, connector: StripeConnector) -> None:
    """Refunds and payouts are made, reported in the provider's currency, and found again by their key."""
    import stripe

    client = stripe.StripeClient(twin.key, base_addresses={"api": twin.url}, max_network_retries=0)
    charge = client.v1.charges.create({"amount": 900, "currency": "usd"})
    refunds = tool_at(twin.url, "refunds.create", currency="usd")
    request = connector.prepare(refunds, refunds.decode({"charge": charge.id, "amount": 400}), "cm_re")
    outcome = connector.execute(refunds, request)
    assert (outcome.status, outcome.amount, outcome.currency) == ("confirmed", 400, "usd")
    assert connector.lookup(refunds, request, "cm_re", NOW_US).ref == outcome.ref
    over = connector.prepare(refunds, refunds.decode({"charge": charge.id, "amount": 501}), "cm_re2")
    assert connector.execute(refunds, over).code == "provider_refused"
    payouts = tool_at(twin.url, "payouts.create")
    args = payouts.decode({"amount": 77, "currency": "usd", "destination": "ba_house", "statement_descriptor": "HOUSE"})
    request = connector.prepare(payouts, args, "cm_po")
    outcome = connector.execute(payouts, request)
    assert (outcome.status, outcome.amount) == ("confirmed", 77)
    assert connector.lookup(payouts, request, "cm_po", NOW_US).ref == outcome.ref


def test_reads_are_queries(twin: StripeTwin, connector: StripeConnector) -> None:
    """A read has no body and no key, is confirmed with the provider's document, and has no effect to look up."""
    balance = tool_at(twin.url, "balance.retrieve")
    request = connector.prepare(balance, {}, "cm_b")
    assert (request.method, request.url, request.body) == ("GET", twin.url + "/v1/balance", b"")
    outcome = connector.execute(balance, request)
    assert (outcome.status, outcome.code, outcome.amount) == ("confirmed", "ok", None)
    assert outcome.result["object"] == "balance"
    listing = tool_at(twin.url, "transfers.list")
    request = connector.prepare(listing, listing.decode({"limit": 1, "destination": "acct_bob"}), "cm_l")
    assert request.url.endswith("/v1/transfers?destination=acct_bob&limit=1")
    assert connector.execute(listing, request).result["data"] == []
    bad = connector.prepare(listing, {"starting_after": "tr_none"}, "cm_l")
    assert connector.execute(listing, bad).code == "provider_refused"
    assert connector.lookup(listing, request, "cm_l", NOW_US).code == "not_found"


def test_a_lookup_pages_until_it_finds(
    twin: StripeTwin, connector: StripeConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup walks through all pages; with more pages than it may read the answer is unknown, not "not found"."""
    from countermark.connectors.stripe import connector as module

    tool = tool_at(twin.url, "transfers.create")
    request, first = pay(connector, tool, "cm_page", destination="acct_bob")
    for number in range(5):
        pay(connector, tool, f"cm_page{number}", destination="acct_bob")
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    assert connector.lookup(tool, request, "cm_page", NOW_US).ref == first.ref
    assert connector.lookup(tool, request, "cm_absent", NOW_US).code == "not_found"
    monkeypatch.setattr(module, "PAGES_MAX", 2)
    assert (connector.lookup(tool, request, "cm_page", NOW_US)).status == "unknown"
    late = connector.lookup(tool, request, "cm_page", NOW_US + 10_000 * US)
    assert late.code == "not_found"  # created before the time from which was asked


def answer_of(status: int, doc: Any) -> bytes:
    body = doc if isinstance(doc, bytes) else json.dumps(doc).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


GOOD = {"id": "tr_1", "object": "transfer", "amount": 1_250, "currency": "usd"}
ERROR = {"error": {"type": "invalid_request_error", "message": "no"}}


@pytest.mark.parametrize(
    ("status", "doc", "expected"),
    [
        (200, GOOD, ("confirmed", "ok")),
        (200, {**GOOD, "exchange_rate": 1.25, "status": "paid"}, ("confirmed", "ok")),
        (200, {**GOOD, "status": "failed"}, ("failed", "provider_refused")),
        (200, {**GOOD, "amount": 12.5}, ("unknown", "provider_error")),
        (200, {**GOOD, "amount": "1250"}, ("unknown", "provider_error")),
        (200, {**GOOD, "amount": True}, ("unknown", "provider_error")),
        (200, {**GOOD, "currency": None}, ("unknown", "provider_error")),
        (200, {**GOOD, "object": "payout"}, ("unknown", "provider_error")),
        (200, {**GOOD, "id": "tr 1"}, ("unknown", "provider_error")),
        (200, b"<html>", ("unknown", "provider_error")),
        (200, [GOOD], ("unknown", "provider_error")),
        (200, b"[" * 100_000, ("unknown", "provider_error")),
        (200, json.dumps(GOOD).encode()[:-1] + b',"x":"\\ud800"}', ("unknown", "provider_error")),
        (200, json.dumps(GOOD).encode()[:-1] + b',"x":9007199254740993}', ("unknown", "provider_error")),
        (200, json.dumps(GOOD).encode()[:-1] + b',"x":' + b"[" * 40 + b"]" * 40 + b"}", ("unknown", "provider_error")),
        (204, b"", ("unknown", "provider_error")),
        (302, b"", ("unknown", "provider_error")),
        (400, ERROR, ("failed", "provider_refused")),
        (402, ERROR, ("failed", "provider_refused")),
        (404, ERROR, ("failed", "provider_refused")),
        (404, b"<html>not from Stripe</html>", ("unknown", "provider_error")),
        (400, {"error": "text"}, ("unknown", "provider_error")),
        (400, {"error": {"type": "idempotency_error"}}, ("unknown", "provider_error")),
        (409, ERROR, ("unknown", "provider_error")),
        (418, ERROR, ("unknown", "provider_error")),
        (429, ERROR, ("failed", "provider_rate_limited")),
        (500, ERROR, ("unknown", "provider_error")),
        (503, b"", ("unknown", "provider_error")),
    ],
)
def test_only_stripes_own_shape_settles(
    peer_of: Callable[[list[Any]], Any],
    connector_to: Callable[..., StripeConnector],
    status: int,
    doc: Any,
    expected: Any,
) -> None:
    """An answer that is not what Stripe answers leaves the outcome unknown; it is never guessed."""
    peer = peer_of([answer_of(status, doc)])
    _, outcome = pay(
        connector_to(peer.origin, "sk_test_x"), tool_at(peer.origin, "transfers.create", timeout_ms=5_000), "k"
    )
    assert (outcome.status, outcome.code, outcome.http_status) == (*expected, status)
    assert outcome.response.startswith("sha256:")


SCRAPS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(list(GOOD.values())),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "object", "amount", "currency", "status", "error", "type"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(100, 599), st.one_of(SCRAPS.map(lambda doc: json.dumps(doc).encode()), st.binary()), st.booleans())
def test_no_answer_makes_the_judge_fail(status: int, body: bytes, doubtful: bool) -> None:
    """Whatever a provider answers there is an outcome; only 2xx confirms, only the known refusals fail, what goes on
    to the caller can be written as JSON, and after a doubtful try an answer from before the key settles nothing."""
    tool = tool_at("https://api.stripe.com", "transfers.create")
    outcome = judge(tool, Answer(status, {"request-id": "req 1"}, body), doubtful=doubtful)
    orjson.dumps([outcome.result, dict(outcome.output)])
    assert outcome.request_id == ""
    if outcome.status == "confirmed":
        assert 200 <= status < 300
        assert type(outcome.amount) is int
    if outcome.status == "failed":
        assert status in (*range(200, 300), 400, 401, 402, 403, 404, 429)
        assert not (doubtful and status in (401, 403, 429))


@pytest.mark.parametrize(
    "doc",
    [{}, {"object": "list"}, {"object": "list", "data": [1], "has_more": False}, b"x",
     {"object": "list", "data": [], "has_more": True}, {"object": "list", "data": [GOOD]}],
)  # fmt: skip
def test_a_list_that_is_none_is_unknown(
    peer_of: Callable[[list[Any]], Any], connector_to: Callable[..., StripeConnector], doc: Any
) -> None:
    """A lookup that reads something else than a complete list never says "not found"; the book raises."""
    peer = peer_of([answer_of(200, doc)] * 2)
    connector = connector_to(peer.origin, "sk_test_x")
    tool = tool_at(peer.origin, "transfers.create")
    request = connector.prepare(tool, TRANSFER, "k")
    assert (connector.lookup(tool, request, "k", NOW_US).status) == "unknown"
    with pytest.raises(ProviderError):
        list(connector.movements(0, NOW_US))


def test_another_origin_is_not_contacted(twin: StripeTwin, connector: StripeConnector) -> None:
    """A request to another origin than the configured one fails before anything is sent."""
    tool = tool_at("http://127.0.0.1:1", "transfers.create")
    _, outcome = pay(connector, tool, "cm_origin")
    assert (outcome.status, outcome.code) == ("failed", "not_sent")
    with pytest.raises(ConfigError):
        StripeConnector(lambda name: "", "http://example.com")


def test_the_secret_shows_nowhere(
    twin: StripeTwin, connector_to: Callable[..., StripeConnector], caplog: pytest.LogCaptureFixture
) -> None:
    """A canary credential is in no outcome, error, representation or log line, whatever goes wrong."""
    canary = "sk_test_canary_d41d8cd98f"

    def broken(tool: str) -> str:
        raise ValueError(f"cannot use {canary}")

    caplog.set_level(logging.DEBUG)
    shown = []
    tool = tool_at(twin.url, "transfers.create", timeout_ms=700)
    for make in (lambda: connector_to(twin.url, canary), lambda: StripeConnector(broken, twin.url)):
        connector = make()
        request, outcome = pay(connector, tool, "cm_canary")
        shown += [repr(connector), str(vars(connector)), repr(request), repr(outcome)]
        shown.append(repr(connector.lookup(tool, request, "cm_canary", NOW_US)))
        with pytest.raises(CountermarkError) as caught:
            list(connector.movements(0, NOW_US))
        shown += [repr(caught.value), repr(caught.value.__cause__)]
    bad = connector_to(twin.url, canary + "\r\nX: y")
    shown.append(repr(pay(bad, tool, "cm_canary")))
    assert not [text for text in [*shown, caplog.text] if canary in text]
    assert StripeConnector(broken, twin.url).execute(tool, request).code == "not_sent"


def test_the_book_lists_every_movement(twin: StripeTwin, connector: StripeConnector) -> None:
    """The provider's balance transactions in a span add up to what the simulator's books say."""
    twin.advance(1_000)
    start = twin.control("clock")["now"] * US
    _, outcome = pay(connector, tool_at(twin.url, "transfers.create"), "cm_book")
    (move,) = connector.movements(start, start + US)
    assert (move["ref"], move["amount"], move["currency"], move["at"]) == (outcome.ref, -1_250, "usd", start)
    assert sum(item["net"] for item in connector.movements(0, start + US)) == twin.books().balance["usd"]
    assert list(connector.movements(start + US, start + 2 * US)) == []


@pytest.mark.network
def test_contract_with_stripes_test_mode(connector_to: Callable[..., StripeConnector]) -> None:
    """With a test-mode key in STRIPE_TEST_KEY: Stripe itself answers as the simulator does. Skipped without it."""
    key = os.environ.get("STRIPE_TEST_KEY", "")
    if not key:
        pytest.skip("NOT CHECKED AGAINST STRIPE: set STRIPE_TEST_KEY to a test-mode key to run this")
    if not key.startswith(("sk_test_", "rk_test_")):
        pytest.fail("STRIPE_TEST_KEY is not a test-mode key")
    origin = "https://api.stripe.com"
    connector = connector_to(origin, key)
    balance = tool_at(origin, "balance.retrieve")
    answer = connector.execute(balance, connector.prepare(balance, {}, ""))
    assert (answer.status, answer.result["object"], answer.result["livemode"]) == ("confirmed", "balance", False)
    transfers = tool_at(origin, "transfers.create")
    unique = "cm_contract_" + os.urandom(8).hex()
    request, refused = pay(connector, transfers, unique, destination="acct_doesnotexist")
    assert (refused.status, refused.code) == ("failed", "provider_refused")
    assert refused.request_id.startswith("req_")
    found = connector.lookup(transfers, request, unique, NOW_US)
    assert found.status != "confirmed"
    sent = dict(parse_qsl(request.body.decode()))
    assert sent["metadata[countermark_key]"] == unique
    strange = dataclasses.replace(request, body=request.body + b"&colour=red", headers=request.headers[:2])
    assert connector.execute(transfers, strange).result["error"]["code"] == "parameter_unknown"
    wrong = connector_to(origin, "sk_test_wrong").execute(balance, connector.prepare(balance, {}, ""))
    assert (wrong.status, wrong.http_status) == ("failed", 401)
