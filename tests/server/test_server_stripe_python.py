"""An unmodified stripe-python, pointed at a served gate over the simulator."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs extra: server")

import stripe
from stripe_support import ACME, STRANGER, Served, make, records, serving, token_for, twin_for

ASK = 500_001  # above ask_above


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("stripe-face")
    with twin_for(folder / "twin") as twin, serving(make(folder / "d", twin), twin) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Served) -> stripe.StripeClient:
    return client_of(served)


def client_of(served: Served, token: str = "", retries: int = 0, root: bool = False) -> stripe.StripeClient:
    base = served.stripe_url if root else served.url + "/stripe"
    return stripe.StripeClient(token or served.token, base_addresses={"api": base}, max_network_retries=retries)


def transfer(invoice: str, amount: int = 1_000, destination: str = ACME, **more: Any) -> Any:
    return {"amount": amount, "currency": "eur", "destination": destination, "metadata": {"invoice": invoice}, **more}


def code_of(error: Any) -> str:
    return str(error.error.code)


def test_an_allowed_transfer_comes_back_as_stripe_s_object(served: Served, client: stripe.StripeClient) -> None:
    """The SDK builds its own Transfer from the provider's own bytes; the provider saw our key, not the agent's."""
    made = client.v1.transfers.create(transfer("ALLOW-1", description="paper & pens"))
    assert isinstance(made, stripe.Transfer)
    [paid] = served.paid("ALLOW-1")
    assert (made.id, made.amount, made.currency, made.destination) == (paid.id, 1_000, "eur", ACME)
    assert made.description == "paper & pens"
    assert paid.idempotency_key.startswith("cm_")
    assert made.metadata["countermark_key"] == paid.idempotency_key
    headers = made.last_response.headers
    assert headers["countermark-action"].startswith("act_")
    assert headers["request-id"] == headers["countermark-action"]


def test_the_module_s_own_settings_work_too(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """``stripe.api_base`` with a path, as older programs have it."""
    monkeypatch.setattr(stripe, "api_base", served.url + "/stripe")
    monkeypatch.setattr(stripe, "api_key", served.token)
    assert stripe.Transfer.create(**transfer("MODULE-1")).id == served.paid("MODULE-1")[0].id


def test_the_face_of_its_own_address_takes_no_path(served: Served) -> None:
    """The same API at the root of a second port."""
    made = client_of(served, root=True).v1.transfers.create(transfer("ROOT-1"))
    assert made.id == served.paid("ROOT-1")[0].id


def test_a_denial_is_the_sdk_s_permission_error(served: Served, client: stripe.StripeClient) -> None:
    """More than the hard limit: our code, no threshold, no repetition, nothing at the provider."""
    with pytest.raises(stripe.PermissionError) as caught:
        client_of(served, retries=3).v1.transfers.create(transfer("DENY-1", 2_500_001))
    assert code_of(caught.value) == "countermark_denied"
    ours = caught.value.json_body["error"]["countermark"]
    # The mandate's own limit answers before the policy does.
    assert (ours["code"], ours["retryable"], ours["disposition"]) == ("mandate_limit", False, "deny")
    assert "2500000" not in str(caught.value)
    assert served.paid("DENY-1") == []


def test_an_escalation_waits_and_the_same_key_gives_the_answer(served: Served, client: stripe.StripeClient) -> None:
    """409 with the escalation's id; asking again changes nothing; after a person's approval the key gives the object,
    and money moved once."""
    options: Any = {"idempotency_key": "escalate-1"}
    for _ in range(2):
        with pytest.raises(stripe.APIError) as caught:
            client_of(served, retries=2).v1.transfers.create(transfer("ASK-1", ASK), options)
        assert code_of(caught.value) == "countermark_escalated"
        assert caught.value.http_status == 409
        assert caught.value.json_body["error"]["countermark"]["escalation"].startswith("esc_")
    assert served.paid("ASK-1") == []
    assert served.approve()["state"] == "approved"
    made = client.v1.transfers.create(transfer("ASK-1", ASK), options)
    assert [made.id] == [paid.id for paid in served.paid("ASK-1")]
    assert made.amount == ASK


def test_random_keys_pay_an_invoice_once(served: Served, client: stripe.StripeClient) -> None:
    """The SDK invents a key for each call; the invoice is the business key all the same."""
    client.v1.transfers.create(transfer("TWICE-1"))
    with pytest.raises(stripe.IdempotencyError) as caught:
        client.v1.transfers.create(transfer("TWICE-1"))
    assert code_of(caught.value) == "countermark_duplicate_obligation"
    assert len(served.paid("TWICE-1")) == 1


def test_one_key_for_two_payments_is_refused_as_stripe_does(served: Served, client: stripe.StripeClient) -> None:
    """The same Idempotency-Key with other parameters is an idempotency error, and moves nothing."""
    options: Any = {"idempotency_key": "one-key"}
    client.v1.transfers.create(transfer("KEY-1"), options)
    with pytest.raises(stripe.IdempotencyError) as caught:
        client.v1.transfers.create(transfer("KEY-2"), options)
    assert caught.value.json_body["error"]["countermark"]["code"] == "identity_conflict"
    assert served.paid("KEY-2") == []


def test_the_same_key_again_gives_the_same_object(served: Served, client: stripe.StripeClient) -> None:
    """An application's own retry: one movement, the same answer."""
    options: Any = {"idempotency_key": "again-1"}
    first = client.v1.transfers.create(transfer("AGAIN-1"), options)
    again = client.v1.transfers.create(transfer("AGAIN-1"), options)
    assert first.to_dict() == again.to_dict()
    assert len(served.paid("AGAIN-1")) == 1


@pytest.mark.parametrize("metadata", [{}, {"invoice": ""}, {"invoces": "X"}])
def test_a_request_without_its_business_key_is_refused(
    served: Served, client: stripe.StripeClient, metadata: dict[str, str]
) -> None:
    """In Stripe's own shape, with the missing field's name; nothing is sent."""
    before = len(served.twin.books().movements())
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.transfers.create({"amount": 5, "currency": "eur", "destination": ACME, "metadata": metadata})
    if "invoces" in metadata:
        assert (caught.value.code, caught.value.param) == ("parameter_unknown", "metadata[invoces]")
    else:
        assert (caught.value.code, caught.value.param) == ("countermark_business_key_missing", "metadata[invoice]")
        assert "idempotency_key does not" in str(caught.value.user_message)
    assert len(served.twin.books().movements()) == before


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"transfer_data": {"destination": ACME}}, "parameter_unknown", "transfer_data[destination]"),
    ({"expand": ["balance_transaction"]}, "parameter_unknown", "expand[0]"),
    ({"amount": "10.50"}, "parameter_invalid_integer", "amount"),
    ({"amount": 1e3}, "parameter_invalid_integer", "amount"),
    ({"amount": "0010"}, "parameter_invalid_integer", "amount"),
    ({"amount": -5}, "parameter_invalid", "amount"),
    ({"currency": "EUR"}, "parameter_invalid", "currency"),
    ({"currency": "usd"}, "parameter_invalid", "currency"),
    ({"destination": "acct_x/../../refunds"}, "parameter_invalid", "destination"),
]


@pytest.mark.parametrize(
    ("more", "code", "param"), REFUSED, ids=[param + str(i) for i, (_, _, param) in enumerate(REFUSED)]
)
def test_what_is_not_declared_is_not_passed_on(
    served: Served, client: stripe.StripeClient, more: dict[str, Any], code: str, param: str
) -> None:
    """Unknown fields, arrays, numbers that are no integers: refused by name, never dropped."""
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.transfers.create({**transfer("STRICT-1"), **more})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert served.paid("STRICT-1") == []


def test_acting_for_another_account_is_refused(served: Served, client: stripe.StripeClient) -> None:
    """``Stripe-Account`` would move another account's money; it is neither passed on nor ignored."""
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.transfers.create(transfer("ACCOUNT-1"), {"stripe_account": "acct_other"})
    assert caught.value.code == "countermark_other_account"
    assert served.paid("ACCOUNT-1") == []


def test_a_wrong_token_is_an_authentication_error(served: Served) -> None:
    """A stranger is told nothing, and leaves no record."""
    size = served.deployment.call("status", {})["records"]
    for token in (
        "sk_test_" + "x" * 24,
        served.twin.key,
        served.token[:-1] + ("0" if served.token[-1] != "0" else "1"),
    ):
        with pytest.raises(stripe.AuthenticationError):
            client_of(served, token).v1.transfers.create(transfer("STRANGER-1"))
    assert served.deployment.call("status", {})["records"] == size


def test_what_has_no_tool_is_refused(served: Served, client: stripe.StripeClient) -> None:
    """Every other route of Stripe's API: not found, in Stripe's shape, for every method."""
    for call in (
        lambda: client.v1.customers.create({"name": "x"}), lambda: client.v1.charges.list(),
        lambda: client.v1.customers.delete("cus_1"), lambda: client.v1.payouts.cancel("po_1"),
    ):  # fmt: skip
        with pytest.raises(stripe.InvalidRequestError) as caught:
            call()  # type: ignore[no-untyped-call]
        assert caught.value.code == "countermark_no_tool"


def test_reads_go_through_the_gate_where_they_are_declared(served: Served, client: stripe.StripeClient) -> None:
    """Lists, objects and the balance come back as the SDK's own objects; a missing object is Stripe's own 404."""
    made = client.v1.transfers.create(transfer("READ-1"))
    assert client.v1.transfers.retrieve(made.id).to_dict() == made.to_dict()
    assert client.v1.transfers.list({"limit": 1}).data[0].id == made.id
    assert client.v1.balance.retrieve().available[0].currency == "eur"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.transfers.retrieve("tr_nothing")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")


def test_stripe_s_own_refusal_is_passed_on(served: Served, client: stripe.StripeClient) -> None:
    """An account that does not exist: Stripe's words, and the invoice is free for another try."""
    options: Any = {"idempotency_key": "refused-1"}
    unknown = transfer("REFUSED-1", destination="acct_nobody")
    with pytest.raises(stripe.StripeError):  # a payee whom nobody knows is put to people first
        client.v1.transfers.create(unknown, options)
    served.approve()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.transfers.create(unknown, options)
    assert (caught.value.code, caught.value.param) == ("resource_missing", "destination")
    assert client.v1.transfers.create(transfer("REFUSED-1")).amount == 1_000


def test_a_payee_whom_nobody_knows_is_put_to_people(served: Served, client: stripe.StripeClient) -> None:
    """A refusal by a person is final under every key."""
    options: Any = {"idempotency_key": "stranger-1"}
    with pytest.raises(stripe.APIError):
        client.v1.transfers.create(transfer("PERSON-1", destination=STRANGER), options)
    served.approve("refuse")
    for more in (options, {}):
        with pytest.raises(stripe.PermissionError) as caught:
            client.v1.transfers.create(transfer("PERSON-1", destination=STRANGER), more)
        assert caught.value.json_body["error"]["countermark"]["code"] in ("not_approved", "refused_by_person")


def test_a_key_that_is_no_call_id_is_refused(served: Served, client: stripe.StripeClient) -> None:
    """A key of the application's own has a form."""
    for key in ("a b", "ключ", "x" * 129):
        with pytest.raises((stripe.InvalidRequestError, stripe.APIConnectionError, UnicodeEncodeError)):
            client.v1.transfers.create(transfer("FORM-1"), {"idempotency_key": key})
    assert served.paid("FORM-1") == []


def test_a_run_may_be_named(served: Served, client: stripe.StripeClient) -> None:
    """A header names the run; without it, an agent's requests share one."""
    run = served.deployment.start_run(purpose="named")
    made = client.v1.transfers.create(transfer("RUN-1"), {"headers": {"Countermark-Run": run}})
    assert made.last_response.headers["countermark-run"] == run
    other = [client.v1.transfers.create(transfer(f"RUN-{n}")) for n in (2, 3)]
    assert len({one.last_response.headers["countermark-run"] for one in other} | {run}) == 2
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.transfers.create(transfer("RUN-4"), {"headers": {"Countermark-Run": "run_" + "0" * 32}})


def test_a_run_that_ended_gives_way_to_a_new_one(served: Served, client: stripe.StripeClient) -> None:
    """The next request mints one."""
    first = client.v1.transfers.create(transfer("ENDED-1")).last_response.headers["countermark-run"]
    served.deployment.call("run.end", {"run": first, "reason": "over"})
    second = client.v1.transfers.create(transfer("ENDED-2")).last_response.headers["countermark-run"]
    assert second != first


def test_the_credential_never_reaches_the_agent_s_side(served: Served) -> None:
    """Neither records nor the run file hold the provider's key or the agent's token."""
    client_of(served).v1.transfers.create(transfer("SECRET-1"), {"idempotency_key": "secret-1"})  # type: ignore[arg-type]
    raw = b"".join(record.raw for record in records(served.root))
    raw += (served.root / "data" / "stripe-runs.json").read_bytes()
    assert served.twin.key.encode() not in raw
    assert served.token.encode() not in raw


def test_restarted_gates_answer_the_same_key(tmp_path: Path) -> None:
    """After a restart the run is the same, so a key used before gives the object, read anew from the provider."""
    with twin_for(tmp_path / "twin") as twin:
        made, options = make(tmp_path / "d", twin), {"idempotency_key": "restart-1"}
        token = token_for(made.root)
        with serving(made, twin, token) as first:
            before = client_of(first).v1.transfers.create(transfer("RESTART-1"), options)  # type: ignore[arg-type]
        with serving(made, twin, token) as second:
            after = client_of(second).v1.transfers.create(transfer("RESTART-1"), options)  # type: ignore[arg-type]
            assert after.to_dict() == before.to_dict()
            assert len(second.paid("RESTART-1")) == 1
        os.environ["STRIPE_API_KEY"] = "sk_test_" + "0" * 24  # the object cannot be read now: the record knows enough
        with serving(made, twin, token) as third:
            partial = client_of(third).v1.transfers.create(transfer("RESTART-1"), options)  # type: ignore[arg-type]
            assert (partial.id, partial.amount, partial.currency) == (before.id, 1_000, "eur")
            assert partial.last_response.headers["countermark-partial"] == "true"
