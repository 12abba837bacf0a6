"""Idempotency keys of the simulator: what a key keeps, what it refuses, and when it is forgotten."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.twins import Faults, StripeTwin
from countermark.twins.stripe.__main__ import build
from countermark.twins.stripe.api import Answer, Api, Incoming
from countermark.twins.stripe.books import Books
from countermark.twins.stripe.resources import Call, account, fund

PAY: Any = {"amount": 100, "currency": "usd", "destination": "acct_ada"}


def with_key(key: str) -> Any:
    return {"idempotency_key": key}


def count(twin: StripeTwin, key: str) -> int:
    return sum(move.idempotency_key == key for move in twin.books().movements())


def test_same_key_same_parameters_replays(twin: StripeTwin, client: stripe.StripeClient) -> None:
    """The second answer is the first one again, says so in a header, and names the original request."""
    first = client.v1.transfers.create(PAY, with_key("i-1"))
    again = client.v1.transfers.create(PAY, with_key("i-1"))
    assert again.id == first.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"  # type: ignore[attr-defined]
    assert again.last_response.headers["Original-Request"] == first.last_response.headers["Request-Id"]  # type: ignore[attr-defined]
    assert count(twin, "i-1") == 1


def test_same_key_other_parameters_is_an_error(twin: StripeTwin, client: stripe.StripeClient) -> None:
    """Another amount, or another route, under a used key is an IdempotencyError and moves nothing."""
    client.v1.transfers.create(PAY, with_key("i-2"))
    with pytest.raises(stripe.IdempotencyError):
        client.v1.transfers.create({**PAY, "amount": 101}, with_key("i-2"))
    with pytest.raises(stripe.IdempotencyError):
        client.v1.payouts.create({"amount": 100, "currency": "usd"}, with_key("i-2"))
    assert count(twin, "i-2") == 1


def test_concurrent_same_key_conflicts(twin: StripeTwin, client_of: Callable[..., stripe.StripeClient]) -> None:
    """While the first request with a key is in flight, a second one with it gets 409; afterwards it replays."""
    twin.faults({"script": {"transfers.create": ["slow"]}})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client_of(twin).v1.transfers.create, PAY, with_key("i-3"))
        twin.wait_held()
        with pytest.raises(stripe.APIError) as caught:
            client_of(twin).v1.transfers.create(PAY, with_key("i-3"))
        assert caught.value.http_status == 409
        twin.release()
        made = first.result(20)
    assert client_of(twin).v1.transfers.create(PAY, with_key("i-3")).id == made.id
    assert count(twin, "i-3") == 1


@pytest.mark.parametrize(("fault", "effects"), [("http_500_before", 0), ("http_500_after", 1)])
def test_a_stored_500_is_replayed(twin: StripeTwin, client: stripe.StripeClient, fault: str, effects: int) -> None:
    """A 500 is kept for its key, whether or not the effect happened: retrying the key never tells which."""
    twin.faults({"script": {"transfers.create": [fault]}})
    for _ in range(3):
        with pytest.raises(stripe.APIError) as caught:
            client.v1.transfers.create(PAY, with_key(fault))
        assert caught.value.http_status == 500
    assert count(twin, fault) == effects


@pytest.mark.parametrize(("fault", "status"), [("http_429", 429), ("http_409", 409)])
def test_429_and_409_are_not_stored(twin: StripeTwin, client: stripe.StripeClient, fault: str, status: int) -> None:
    """A rate limit or a lock conflict leaves no trace: the next request with the key is executed."""
    twin.faults({"script": {"transfers.create": [fault]}})
    with pytest.raises(stripe.RateLimitError if status == 429 else stripe.APIError) as caught:
        client.v1.transfers.create(PAY, with_key(fault))
    assert caught.value.http_status == status
    assert client.v1.transfers.create(PAY, with_key(fault)).amount == 100
    assert count(twin, fault) == 1


def test_errors_of_execution_are_stored_and_errors_of_parameters_are_not(
    twin: StripeTwin, client: stripe.StripeClient
) -> None:
    """Insufficient funds stay the answer for their key even after a top-up; a missing parameter can be mended."""
    big: Any = {"amount": 600, "currency": "eur", "destination": "acct_ada"}
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.transfers.create(big, with_key("i-4"))
    twin.seed(balances={"eur": 1_000})
    with pytest.raises(stripe.InvalidRequestError, match="insufficient"):
        client.v1.transfers.create(big, with_key("i-4"))
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.transfers.create({"currency": "usd", "destination": "acct_ada"}, with_key("i-5"))
    assert client.v1.transfers.create(PAY, with_key("i-5")).amount == 100


def test_a_key_is_forgotten_after_24_hours_and_pays_again(twin: StripeTwin, client: stripe.StripeClient) -> None:
    """Up to 24 hours the key replays; one second later the very same request pays a second time."""
    first = client.v1.transfers.create(PAY, with_key("i-6"))
    twin.advance(24 * 3600)
    assert client.v1.transfers.create(PAY, with_key("i-6")).id == first.id
    twin.advance(1)
    assert client.v1.transfers.create(PAY, with_key("i-6")).id != first.id
    assert count(twin, "i-6") == 2


def test_a_key_is_at_most_255_characters(client: stripe.StripeClient) -> None:
    """A longer idempotency key is refused."""
    with pytest.raises(stripe.InvalidRequestError, match="255"):
        client.v1.transfers.create(PAY, with_key("x" * 256))


def api_in(folder: str, seed: int = 0) -> Api:
    """The API without a wire, over real books, with one account and 5,000 usd cents."""
    api = build(Path(folder), seed, 1_790_000_000, False, "")
    with api.ledger.transaction():
        api.ledger.add("account", account("acct_ada", 0))
        fund(Call(api.ledger, 0, seed, "", "", "", {}), "usd", 5_000)
    return api


def post(api: Api, path: str, body: str, key: str = "") -> Answer:
    headers = {"authorization": f"Bearer {api.key}", **({"idempotency-key": key} if key else {})}
    return asyncio.run(api.handle(Incoming("POST", path, "", headers, body.encode())))


FAULTY = st.sampled_from(
    ["ok", "ok", "reset_before", "reset_after", "timeout_after_commit", "http_500_before", "http_500_after",
     "http_409", "http_429"]
)  # fmt: skip
TRY = st.tuples(st.integers(0, 3), st.integers(1, 3), FAULTY)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(TRY, max_size=14))
def test_a_key_takes_effect_at_most_once(tries: list[tuple[int, int, str]]) -> None:
    """Whatever goes wrong, and however often a key is retried, within 24 hours it makes at most one transfer, and a
    2xx answer for a key is always the same transfer."""
    with tempfile.TemporaryDirectory() as folder:
        api = api_in(folder)
        answers: dict[str, set[str]] = {}
        for key, amount, fault in tries:
            api.faults.script = {"transfers.create": [fault]}
            body = f"amount={amount}&currency=usd&destination=acct_ada"
            answer = post(api, "/v1/transfers", body, f"k{key}")
            if answer.fate == "send" and answer.status == 200:
                answers.setdefault(f"k{key}", set()).add(answer.body)
        api.ledger.close()
        made = [move.idempotency_key for move in Books(folder).movements()]
        assert len(made) == len(set(made))
        assert all(len(bodies) == 1 for bodies in answers.values())
        assert answers.keys() <= set(made)
        assert Books(folder).check() == []


STEP = st.one_of(
    st.tuples(st.just("charge"), st.integers(1, 4_000), st.integers(0, 3)),
    st.tuples(st.just("transfer"), st.integers(1, 4_000), st.integers(0, 3)),
    st.tuples(st.just("refund"), st.integers(1, 4_000), st.integers(0, 3)),
    st.tuples(st.just("payout"), st.integers(1, 4_000), st.integers(0, 3)),
    st.tuples(st.just("cancel"), st.just(0), st.integers(0, 3)),
    st.tuples(st.just("advance"), st.integers(1, 200_000), st.just(0)),
)


def step(api: Api, kind: str, amount: int, pick: int) -> None:
    made = api.ledger.select("charge" if kind == "refund" else "payout", {}, {}, limit=4)
    if kind == "advance":
        api.advance(amount)
    elif kind == "charge":
        post(api, "/v1/charges", f"amount={amount}&currency=usd")
    elif kind == "transfer":
        post(api, "/v1/transfers", f"amount={amount}&currency=usd&destination=acct_ada")
    elif kind == "payout":
        post(api, "/v1/payouts", f"amount={amount}&currency=usd")
    elif made:
        id_ = made[pick % len(made)]["id"]
        path, body = (
            ("/v1/refunds", f"charge={id_}&amount={amount}") if kind == "refund" else (f"/v1/payouts/{id_}/cancel", "")
        )
        post(api, path, body)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(STEP, max_size=16), st.integers(0, 5))
def test_the_ledger_always_adds_up(steps: list[tuple[str, int, int]], seed: int) -> None:
    """After any sequence of movements and faults the balance is the sum of its transactions, never negative, and
    every movement stands in the ledger with its amount; no charge is refunded beyond its amount."""
    with tempfile.TemporaryDirectory() as folder:
        api = api_in(folder, seed)
        api.faults = Faults(seed, {"http_500_after": 200_000, "reset_after": 200_000, "http_500_before": 100_000})
        for kind, amount, pick in steps:
            step(api, kind, amount, pick)
        charges = api.ledger.select("charge", {}, {}, limit=100)
        api.ledger.close()
        books = Books(folder)
        assert books.check() == []
        for charge in charges:
            back = sum(move.amount for move in books.movements("refund") if move.charge == charge["id"])
            assert back == charge["amount_refunded"] <= charge["amount"]
