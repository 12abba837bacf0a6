"""An unmodified Stripe SDK for Node, pointed at a served gate over the simulator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="needs extra: server")

from stripe_support import ACME, STRANGER, Served, make, serving, twin_for

from countermark.model.clock import US, SystemClock

NPM = Path(__file__).resolve().parent.parent / "npm"
MODULES = Path(os.environ.get("COUNTERMARK_NODE_MODULES", NPM / "node_modules"))
ASK = 500_001  # above ask_above
WAIT_S_MAX = 15


class Node:
    """A Node process with the SDK in it. ``call`` gives the SDK's object or what it threw."""

    def __init__(self, served: Served, token: str) -> None:
        place = urlsplit(served.stripe_url)
        words = [str(MODULES), str(place.hostname), str(place.port), token]
        self._child = subprocess.Popen(
            ["node", str(NPM / "stripe_driver.mjs"), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def call(self, name: str, *args: Any, **more: Any) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps({"call": name, "args": args, **more}) + "\n")
        self._child.stdin.flush()
        found: dict[str, Any] = json.loads(self._child.stdout.readline())
        return found

    def pay(self, invoice: str, amount: int = 1_000, *, key: str = "", retries: int = 0, **more: Any) -> dict[str, Any]:
        """A transfer for an invoice, under the application's own key or one that the SDK invents."""
        options = [{"idempotencyKey": key}] if key else []
        return self.call("transfers.create", transfer(invoice, amount, **more), *options, retries=retries)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()
        assert self._child.wait(WAIT_S_MAX) == 0


def transfer(invoice: str, amount: int = 1_000, destination: str = ACME, **more: Any) -> dict[str, Any]:
    return {"amount": amount, "currency": "eur", "destination": destination, "metadata": {"invoice": invoice}, **more}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if shutil.which("node") is None or not (MODULES / "stripe" / "package.json").exists():
        pytest.skip("needs npm: node, and stripe in tests/npm")
    folder = tmp_path_factory.mktemp("stripe-node")
    with twin_for(folder / "twin") as twin, serving(make(folder / "d", twin, quick=True), twin) as running:
        yield running


@pytest.fixture(scope="module")
def node(served: Served) -> Iterator[Node]:
    with Node(served, served.token) as running:
        yield running


@pytest.fixture(autouse=True)
def no_fault_stays(served: Served) -> Iterator[None]:
    yield
    served.twin.faults({"script": {}})


def test_the_sdk_is_the_official_one_as_it_is_pinned() -> None:
    """What stands in tests/npm/package.json is what is driven; its publisher's name is in it."""
    pinned = json.loads((NPM / "package.json").read_text())["dependencies"]["stripe"]
    package = MODULES / "stripe" / "package.json"
    if not package.exists():
        pytest.skip("needs npm: stripe in tests/npm")
    found = json.loads(package.read_text())
    assert (found["name"], found["version"]) == ("stripe", pinned)
    assert "stripe/stripe-node" in json.dumps(found["repository"])


def test_an_allowed_transfer_comes_back_as_stripe_s_object(served: Served, node: Node) -> None:
    """The SDK hands out the provider's object and the action's id; the provider saw the gate's key, not the SDK's."""
    found = node.pay("NODE-ALLOW", description="paper & pens")
    assert found["class"] is None, found
    [paid] = served.paid("NODE-ALLOW")
    made = found["object"]
    assert (made["id"], made["object"], made["amount"], made["destination"]) == (paid.id, "transfer", 1_000, ACME)
    assert made["description"] == "paper & pens"
    assert made["metadata"]["countermark_key"] == paid.idempotency_key
    assert found["headers"]["countermark-action"].startswith("act_")


def test_a_denial_is_the_sdk_s_permission_error(served: Served, node: Node) -> None:
    """Above the hard limit: our code, no threshold, no repetition by the SDK, nothing at the provider."""
    size = served.deployment.call("status", {})["records"]
    found = node.pay("NODE-DENY", 2_500_001, retries=3)
    assert found["class"] == "StripePermissionError"
    assert (found["error"]["code"], found["error"]["status"]) == ("countermark_denied", 403)
    assert (found["error"]["ours"]["disposition"], found["error"]["ours"]["retryable"]) == ("deny", False)
    assert "2500000" not in json.dumps(found)
    assert served.paid("NODE-DENY") == []
    assert served.deployment.call("status", {})["records"] - size <= 2, "the run and one refusal: asked once"


def test_an_escalation_waits_and_the_same_key_gives_the_answer(served: Served, node: Node) -> None:
    """409 with the escalation's id, however often the SDK repeats; after the approval the key gives the object, paid
    once."""
    for _ in range(2):
        found = node.pay("NODE-ASK", ASK, key="node-ask", retries=2)
        assert (found["error"]["code"], found["error"]["status"]) == ("countermark_escalated", 409)
        assert found["error"]["ours"]["escalation"].startswith("esc_")
    assert served.paid("NODE-ASK") == []
    assert served.approve()["state"] == "approved"
    found = node.pay("NODE-ASK", ASK, key="node-ask")
    assert [found["object"]["id"]] == [paid.id for paid in served.paid("NODE-ASK")]


def test_a_person_s_refusal_is_final_under_every_key(served: Served, node: Node) -> None:
    """A payee whom nobody knows is put to people; what they refuse stays refused, also under keys that the SDK
    invents."""
    assert node.pay("NODE-PERSON", key="node-person", destination=STRANGER)["error"]["status"] == 409
    served.approve("refuse")
    for key in ("node-person", ""):
        assert node.pay("NODE-PERSON", key=key, destination=STRANGER)["class"] == "StripePermissionError"
    assert served.paid("NODE-PERSON") == []


def test_keys_that_the_sdk_invents_pay_an_invoice_once(served: Served, node: Node) -> None:
    """Two calls, two random keys, one invoice: the second is Stripe's idempotency error."""
    assert node.pay("NODE-TWICE", retries=2)["class"] is None
    found = node.pay("NODE-TWICE", retries=2)
    assert (found["class"], found["error"]["code"]) == ("StripeIdempotencyError", "countermark_duplicate_obligation")
    assert len(served.paid("NODE-TWICE")) == 1


def test_the_same_key_again_gives_the_same_object(served: Served, node: Node) -> None:
    """An application's own retry moves nothing again; the same key for something else is refused."""
    first, again = (node.pay("NODE-AGAIN", key="node-again") for _ in range(2))
    assert first["class"] is None
    assert first["object"] == again["object"]
    assert len(served.paid("NODE-AGAIN")) == 1
    other = node.pay("NODE-OTHER", key="node-again")
    assert (other["class"], other["error"]["ours"]["code"]) == ("StripeIdempotencyError", "identity_conflict")
    assert served.paid("NODE-OTHER") == []


def test_an_answer_lost_once_is_found_again(served: Served, node: Node) -> None:
    """The gate repeats under its own key; the SDK sees nothing but its object."""
    served.twin.faults({"script": {"transfers.create": ["timeout_after_commit"]}})
    found = node.pay("NODE-LOST")
    assert [found["object"]["id"]] == [paid.id for paid in served.paid("NODE-LOST")]


def test_a_provider_that_stays_silent_is_unknown_and_paid_once(served: Served, node: Node) -> None:
    """504 and no guess; a new key for the invoice is refused; the old key gives the object once Stripe was heard."""
    served.twin.faults({"script": {"*": ["timeout_after_commit"] * 4}})
    found = node.pay("NODE-SILENT", key="node-silent")
    assert (found["error"]["status"], found["error"]["code"]) == (504, "countermark_unknown")
    assert found["headers"]["stripe-should-retry"] == "true"
    assert node.pay("NODE-SILENT")["error"]["code"] == "countermark_duplicate_obligation"
    served.twin.faults({"script": {}})
    end = SystemClock().steady_us() + WAIT_S_MAX * US
    while found["class"] is not None and SystemClock().steady_us() < end:
        found = node.pay("NODE-SILENT", key="node-silent")
    assert [found["object"]["id"]] == [paid.id for paid in served.paid("NODE-SILENT")]


def test_the_sdk_s_own_retries_pay_once(served: Served, node: Node) -> None:
    """An SDK that repeats by itself does so under one key, and gets what is recorded."""
    served.twin.faults({"script": {"*": ["timeout_after_commit"] * 4}})
    found = node.pay("NODE-REPEAT", retries=2)
    assert found["class"] is None or found["error"]["code"] == "countermark_unknown"
    assert len(served.paid("NODE-REPEAT")) == 1


def test_a_request_without_its_business_key_is_refused(served: Served, node: Node) -> None:
    """In Stripe's own shape, with the missing field's name."""
    before = len(served.twin.books().movements())
    found = node.call("transfers.create", {"amount": 5, "currency": "eur", "destination": ACME})
    assert found["class"] == "StripeInvalidRequestError"
    assert found["error"]["code"] == "countermark_business_key_missing"
    assert found["error"]["param"] == "metadata[invoice]"
    assert len(served.twin.books().movements()) == before


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"amount": 10.5}, "parameter_invalid_integer"), ({"amount": "1e3"}, "parameter_invalid_integer"),
        ({"amount": -5}, "parameter_invalid"), ({"transfer_data": {"destination": ACME}}, "parameter_unknown"),
        ({"expand": ["balance_transaction"]}, "parameter_unknown"), ({"Amount": 1}, "parameter_unknown"),
    ],
    ids=["fraction", "exponent", "negative", "nested", "array", "case"],
)  # fmt: skip
def test_what_is_not_declared_is_not_passed_on(served: Served, node: Node, more: dict[str, Any], code: str) -> None:
    """Whatever JavaScript makes of a number, and whatever is not in tools.toml, is refused by name."""
    found = node.call("transfers.create", {**transfer("NODE-STRICT"), **more})
    assert (found["class"], found["error"]["code"]) == ("StripeInvalidRequestError", code)
    assert served.paid("NODE-STRICT") == []


def test_other_accounts_and_other_routes_are_refused(served: Served, node: Node) -> None:
    """``stripeAccount`` is not passed on, and what has no tool is not there."""
    found = node.call("transfers.create", transfer("NODE-ACCOUNT"), {"stripeAccount": "acct_other"})
    assert found["error"]["code"] == "countermark_other_account"
    assert node.call("customers.create", {"name": "x"})["error"]["code"] == "countermark_no_tool"
    assert served.paid("NODE-ACCOUNT") == []


def test_strangers_are_told_nothing(served: Served) -> None:
    """The provider's own key and a made-up one are no token: an authentication error, and no record."""
    size = served.deployment.call("status", {})["records"]
    for token in (served.twin.key, "sk_test_" + "x" * 24):
        with Node(served, token) as stranger:
            assert stranger.pay("NODE-STRANGER")["class"] == "StripeAuthenticationError"
    assert served.deployment.call("status", {})["records"] == size


def test_reads_and_pages_go_through_the_gate(served: Served, node: Node) -> None:
    """A declared read gives the SDK's object; its own pagination walks every page."""
    for number in range(3):
        assert node.pay(f"NODE-READ-{number}")["class"] is None
    made = node.call("transfers.list", {"limit": 2}, pages=True)["object"]
    assert {m["metadata"]["invoice"] for m in made} >= {f"NODE-READ-{number}" for number in range(3)}
    assert node.call("transfers.retrieve", made[0]["id"])["object"] == made[0]
    missing = node.call("transfers.retrieve", "tr_nothing")
    assert (missing["class"], missing["error"]["code"]) == ("StripeInvalidRequestError", "resource_missing")
    assert node.call("balance.retrieve")["object"]["available"][0]["currency"] == "eur"


def test_an_intent_is_made_confirmed_and_captured_in_part(served: Served, node: Node) -> None:
    """Each step is one governed action; the browser's secret is taken out."""
    terms = {
        "amount": 5_000, "currency": "eur", "payment_method": "pm_card_visa", "capture_method": "manual",
        "metadata": {"invoice": "NODE-PI"},
    }  # fmt: skip
    made = node.call("paymentIntents.create", terms)["object"]
    assert (made["status"], made["client_secret"]) == ("requires_confirmation", None)
    confirmed = node.call("paymentIntents.confirm", made["id"], {"payment_method": "pm_card_visa"})["object"]
    assert confirmed["status"] == "requires_capture"
    over = node.call("paymentIntents.capture", made["id"], {"amount_to_capture": 5_001})
    assert "over_capture" in over["error"]["message"]
    captured = node.call("paymentIntents.capture", made["id"], {"amount_to_capture": 3_200})["object"]
    assert (captured["status"], captured["amount_received"]) == ("succeeded", 3_200)
    assert served.twin.books().check() == []
