"""Signed events of the simulator: verified, repeated, out of order and late, they settle once."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="needs extra: server")

import stripe
from hypothesis import given, settings
from hypothesis import strategies as st
from stripe_support import ACME, Served, make, records, serving, twin_for

from countermark.gate import Gate
from countermark.model.clock import US, SystemClock
from countermark.model.errors import ConfigError, SignatureError
from countermark.server.stripe_events import check_event
from countermark.twins.stripe import signature
from countermark.wiring.stripe_settings import read_stripe

OLD, NEW = "whsec_simulator_old", "whsec_simulator_new"
CONFIG = '\n[stripe]\nwebhook_secrets = ["env:TEST_WEBHOOK_OLD", "env:TEST_WEBHOOK_NEW"]\n'
NOW = 1_790_000_000
EVENT = {"id": "evt_1", "object": "event", "type": "transfer.created", "data": {"object": {}}}
BODY = json.dumps(EVENT).encode()
WAIT_S_MAX = 10


def test_what_stripe_signed_is_read() -> None:
    """With any of the secrets, any of several signatures, and any other scheme beside them."""
    good, other = signature(NEW, BODY, NOW), signature("whsec_foreign", BODY, NOW)
    assert check_event(BODY, good, [OLD, NEW], NOW, 300) == EVENT
    both = f"{good},{other.split(',')[1]},v0={'0' * 64}"
    assert check_event(BODY, both, [OLD, NEW], NOW + 300, 300) == EVENT
    assert stripe.Webhook.construct_event(BODY, signature(NEW, BODY, SystemClock().now_us() // US), NEW).id == "evt_1"


@pytest.mark.parametrize(
    "header",
    [
        "", "t=1", "v1=" + "0" * 64, f"t={NOW}", f"t={NOW},v1=" + "0" * 64, f"t={NOW},v0=" + "0" * 64,
        signature("whsec_foreign", BODY, NOW), signature(OLD, BODY + b" ", NOW), signature(OLD, BODY, NOW - 301),
        signature(OLD, BODY, NOW + 301), signature(OLD, BODY, NOW).replace(f"t={NOW}", f"t={NOW + 1}"),
        signature(OLD, BODY, NOW) + f",t={NOW}", signature(OLD, BODY, NOW).upper(), "t=" + "9" * 5_000,
        f"t={NOW}" + ",v1=" + ",v1=".join(["0" * 64] * 17), f"t=-{NOW},v1=" + "0" * 64,
    ],
)  # fmt: skip
def test_what_stripe_did_not_sign_now_is_refused(header: str) -> None:
    """Forged, altered, old, from the future, ill-formed, too many: one refusal."""
    with pytest.raises(SignatureError) as caught:
        check_event(BODY, header, [OLD, NEW], NOW, 300)
    assert caught.value.code == "bad_webhook"


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"\xff", b'{"object":"event"}', b'{"object":"event","object":"event","type":"x"}', b"[" * 9_000],
)
def test_signed_bytes_that_are_no_event_are_refused(body: bytes) -> None:
    """A signature does not make sense of nonsense."""
    with pytest.raises(SignatureError):
        check_event(body, signature(OLD, body, NOW), [OLD], NOW, 300)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text(max_size=80), st.binary(max_size=60))
def test_no_other_error_leaves_the_check(header: str, body: bytes) -> None:
    """Whatever comes, it is refused as what it is."""
    mac = hmac.new(OLD.encode(), b"%d." % NOW + body, hashlib.sha256).hexdigest()
    for given_header in (header, f"t={NOW},v1={mac},{header}"):
        try:
            check_event(body, given_header, [OLD], NOW, 300)
        except SignatureError:
            continue


@pytest.mark.parametrize(
    "section",
    [
        [], {"secret": "x"}, {"webhook_secrets": "env:X"}, {"webhook_secrets": ["whsec_plain"]}, {"tolerance_s": 0},
        {"tolerance_s": True}, {"cards": []}, {"cards": {"card_1": "treasury"}}, {"cards": {"ic_1": "No Agent"}},
    ],
)  # fmt: skip
def test_a_wrong_section_is_refused(section: object) -> None:
    """Secrets stand there by reference alone; a card belongs to one agent."""
    with pytest.raises(ConfigError):
        read_stripe(section, "countermark.toml")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("TEST_WEBHOOK_OLD", OLD)
    monkeypatch.setenv("TEST_WEBHOOK_NEW", NEW)
    with (
        twin_for(tmp_path / "twin") as twin,
        serving(make(tmp_path / "d", twin, config=CONFIG, quick=True), twin) as it,
    ):
        yield it


def post(served: Served, body: bytes, header: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=10)
    try:
        connection.request("POST", "/webhooks/stripe", body, {"Stripe-Signature": header})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def until(true: Callable[[], bool]) -> None:
    end = SystemClock().steady_us() + WAIT_S_MAX * US
    while not true():
        assert SystemClock().steady_us() < end


def outcomes(served: Served, invoice: str) -> list[str]:
    """The outcomes of the action that pays an invoice, in their order."""
    found = records(served.root)
    seqs = {
        r.seq for r in found
        if r.kind == "action.decided" and r.body["args"].get("invoice") == invoice and r.body["disposition"] == "allow"
    }  # fmt: skip
    return [r.body["outcome"] for r in found if r.kind == "action.settled" and r.body["intent"] in seqs]


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate's own background settles nothing. Asked for before the gate starts, which takes its jobs then."""

    async def nothing(self: Gate) -> None:
        return

    monkeypatch.setattr(Gate, "_recover_due", nothing)


@pytest.mark.usefixtures("idle")
def test_events_settle_what_is_unknown_once(served: Served) -> None:
    """Payments whose answers were lost are unknown; their events come twice, out of order and late; each intent is
    confirmed once, by asking the provider. The gate's own background does nothing here."""
    client = stripe.StripeClient(served.token, base_addresses={"api": served.url + "/stripe"}, max_network_retries=0)
    names = [f"HOOK-{n}" for n in range(3)]
    for name in names:
        served.twin.faults({"script": {"*": ["timeout_after_commit"] * 4}})
        with pytest.raises(stripe.APIError):
            client.v1.transfers.create(
                {"amount": 500, "currency": "eur", "destination": ACME, "metadata": {"invoice": name}}
            )
    served.twin.faults({"script": {}})
    assert [outcomes(served, name) for name in names] == [["unknown"]] * 3
    chances = {"duplicated": 1_000_000, "reordered": 1_000_000, "late": 400_000}
    hook = {"url": served.url + "/webhooks/stripe", "secret": NEW, "faults": chances}
    served.twin.control("webhook", hook)
    told = served.twin.control("deliver", {})
    assert told["events"] == 3
    assert told["statuses"] == [200] * 6
    until(lambda: all(len(outcomes(served, name)) == 2 for name in names))
    served.twin.control("webhook", hook)
    assert [outcomes(served, name) for name in names] == [["unknown", "confirmed"]] * 3
    assert all(len(served.paid(name)) == 1 for name in names)


def test_an_event_is_not_believed_only_asked_about(served: Served) -> None:
    """Somebody with the secret tells of a success that never was: the gate asks Stripe, and nothing is settled."""
    served.twin.faults({"script": {"transfers.create": ["reset_before"] * 3, "transfers.list": ["http_429"]}})
    client = stripe.StripeClient(served.token, base_addresses={"api": served.url + "/stripe"}, max_network_retries=0)
    with pytest.raises(stripe.APIError):
        client.v1.transfers.create(
            {"amount": 5, "currency": "eur", "destination": ACME, "metadata": {"invoice": "LIE"}}
        )
    [intent] = [r for r in records(served.root) if r.kind == "action.decided"]
    lie = {
        "id": "evt_lie", "object": "event", "type": "transfer.created",
        "data": {"object": {"id": "tr_lie", "object": "transfer", "metadata": {"countermark_key": intent.body["key"]}}},
    }  # fmt: skip
    body = json.dumps(lie).encode()
    assert post(served, body, signature(OLD, body, SystemClock().now_us() // US)) == (200, {"received": True})
    served.twin.faults({"script": {}})
    assert "confirmed" not in outcomes(served, "LIE") or len(served.paid("LIE")) == 1


def test_a_stranger_s_event_is_refused_over_http(served: Served) -> None:
    """400 in the server's one error shape, and no record."""
    size = served.deployment.call("status", {})["records"]
    status, said = post(served, BODY, signature("whsec_foreign", BODY, SystemClock().now_us() // US))
    assert (status, said["code"]) == (400, "bad_webhook")
    assert served.deployment.call("status", {})["records"] == size


def test_without_a_secret_there_is_no_such_route(tmp_path: Path) -> None:
    """Events that nobody can verify are not taken at all."""
    with twin_for(tmp_path / "twin") as twin, serving(make(tmp_path / "d", twin), twin) as served:
        assert post(served, BODY, "")[0] == 404
