"""What stands behind an account at the provider is read before the decision, and again before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from paying import RESOLVE, new_bank_account, order, stripe, with_anna
from rig import ACME, AGENT, Provider, Stand, bodies, hold, make, pay, signed_answer, unsound, waiting

import countermark
from countermark.authority import build_approval
from countermark.model.values import Reference
from countermark.twins.stripe import StripeTwin

EUR = 4_800_000  # 48,000.00
LIMIT = {"max = 2500000 ": "max = 5000000 "}


class Reading(Provider):
    """A provider in memory that says what stands behind an account; a None in the list is a read that fails."""

    def __init__(self, *said: Reference | None) -> None:
        super().__init__()
        self.said = list(said)

    def resolve(self, tool, args):
        return self.said.pop(0) if len(self.said) > 1 else self.said[0]


A, B = Reference("sha256:" + "a" * 64, "7712"), Reference("sha256:" + "b" * 64, "9921")


def test_approved_for_one_bank_account_and_never_sent_to_another(tmp_path: Path) -> None:
    """Incident 2: 48,000 EUR approved; the bank details behind the account are changed before sending: blocked,
    with both accounts, who approved and the time between the two looks in the record and in the explanation.
    """
    with Stand(tmp_path, tools=RESOLVE, after=LIMIT) as stand:
        handle = countermark.open(stand.root, agent=AGENT)
        with handle:
            before = stripe(stand.twin, "GET", f"/v1/accounts/{ACME}/external_accounts")["data"][0]
            assert pay(handle, "9", EUR).status == "escalated"
            (asked,) = waiting(handle)
            assert asked["reference"]["last4"] == before["last4"]
            new = new_bank_account(stand.twin, ACME, "370400440532019921")
            assert new["last4"] == "9921"
            reply = handle.call("answer", signed_answer(stand.made, asked))
            assert (reply["state"], reply["result"]["status"]) == ("approved", "failed")
        assert stand.twin.books().movements() == []
        settled = bodies(stand.root, "action.settled")[-1]
        assert (settled["code"], settled["request_id"], settled["attempts"]) == ("not_sent", "reference_changed", 0)
        assert settled["reference"]["last4"] == "9921"
        assert unsound(stand.root) == []
        said = explanation(stand.root, "INV-9")
        assert f"approved for ...{before['last4']}, now ...9921" in said
        assert "Controller (controller)" in said
        assert "nothing was sent" in said.lower()


def explanation(root: Path, ref: str) -> str:
    from countermark.audit import explain
    from countermark.journal import SqliteStore

    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        return explain(store, next(r for r in store.records() if r.kind == "action.decided").body["id"]).text
    finally:
        store.close()


def test_the_same_bank_account_is_paid(tmp_path: Path) -> None:
    """With nothing changed the payment goes out, and the reference stands in both decisions and in the approval."""
    with Stand(tmp_path, tools=RESOLVE) as stand:
        with countermark.open(stand.root, agent=AGENT) as handle:
            pay(handle, 1, 600_000)
            (asked,) = waiting(handle)
            document = build_approval(
                asked, deployment=stand.made.deployment, ladder="finance", verdict="approve", person="controller"
            )
            assert document["reference"] == asked["reference"]["digest"]
            assert handle.call("answer", signed_answer(stand.made, asked))["result"]["status"] == "confirmed"
            assert pay(handle, 2).status == "confirmed"
        first, second = (body["reference"] for body in bodies(stand.root, "action.decided")[:2])
        assert first == second
        assert unsound(stand.root) == []


def test_an_approval_for_another_reference_is_refused(tmp_path: Path) -> None:
    """A signature over another bank account's digest, or over none, does not count."""
    provider = Reading(A)
    made = make(tmp_path / "d", provider, tools=RESOLVE)
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, 600_000)
        (asked,) = waiting(handle)
        for lie in ({**asked, "reference": B.document()}, {k: v for k, v in asked.items() if k != "reference"}):
            with pytest.raises(countermark.CountermarkError) as caught:
                handle.call("answer", signed_answer(made, lie))
            assert caught.value.code == "approval_mismatch"
    assert provider.sent == []


def test_what_cannot_be_read_is_denied(tmp_path: Path) -> None:
    """A read that fails before the decision denies; one that fails before the effect keeps it from being sent."""
    provider = Reading(None, A, None)
    make(tmp_path / "d", provider, tools=RESOLVE)
    with hold(tmp_path / "d", provider) as handle:
        assert (pay(handle, 1).status, pay(handle, 1).code) == ("denied", "reference_unread")
        provider.said = [A, None]
        assert (pay(handle, 2).status, pay(handle, 2).code) == ("failed", "not_sent")
    assert bodies(tmp_path / "d", "action.settled")[-1]["request_id"] == "reference_unread"
    assert provider.sent == []
    assert unsound(tmp_path / "d") == []


def test_a_connector_that_cannot_read_denies(tmp_path: Path) -> None:
    """The policy wants a reference and the connector has no way to read one, or raises: nothing is allowed."""
    plain = Provider()
    make(tmp_path / "d", plain, tools=RESOLVE)
    with hold(tmp_path / "d", plain) as handle:
        assert pay(handle, 1).code == "reference_unread"
    broken = Reading(A)
    broken.resolve = None  # type: ignore[method-assign,assignment]
    with hold(tmp_path / "d", broken) as handle:
        assert pay(handle, 2).code == "reference_unread"
    assert plain.sent == broken.sent == []


def test_recovery_does_not_send_again_where_the_reference_moved(tmp_path: Path) -> None:
    """After a doubtful try, an account that changed is only asked about: a second send could pay somebody else."""
    provider = Reading(A)
    provider.script.extend(["lost_before"] * 3)
    make(tmp_path / "d", provider, tools=RESOLVE)
    with hold(tmp_path / "d", provider) as handle:
        assert pay(handle, 1).status == "unknown"
        sent = len(provider.sent)
        provider.said = [B]
        handle.call("recover", {})
        assert len(provider.sent) == sent
        provider.said = [A]
        handle.call("recover", {})
        assert len(provider.sent) == sent + 1
    assert unsound(tmp_path / "d") == []


def test_the_register_and_the_provider_are_both_watched(tmp_path: Path) -> None:
    """With a reference that stays, a change in the register alone stops the approved payment."""
    provider = Reading(A)
    made = make(tmp_path / "d", provider, edit=with_anna(tools=RESOLVE))
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, 600_000)
        answer = signed_answer(made, waiting(handle)[0])
        handle.call("payee.set", order(handle, made, "acme-paper", "acct_1AcmeNewBank"))
        assert handle.call("answer", answer)["result"]["code"] == "approval_void"
    assert provider.sent == []


def test_a_payout_reads_our_own_bank_account(tmp_path: Path) -> None:
    """A payout's destination is one of our own accounts; the twin's answer about it is in the decision."""
    tools = {'once_per = ["payee", "batch"]\n': 'once_per = ["payee", "batch"]\nresolve = "destination"\n'}
    with Stand(tmp_path, tools=tools) as stand:
        stand.twin.seed(accounts=["ba_1OwnBank"])
        with countermark.open(stand.root, agent=AGENT) as handle:
            args = {"amount": 1000, "currency": "eur", "destination": "ba_1OwnBank", "metadata[batch]": "B-1"}
            assert handle.act("stripe.payouts.create", args, call_id="p-1").status == "confirmed"
        found = bodies(stand.root, "action.decided")[-1]["reference"]
        assert len(found["last4"]) == 4


def test_the_twin_changes_accounts_as_stripe_does(tmp_path: Path) -> None:
    """One default for each currency; a default is not deleted; an account that is not there is not found."""
    with StripeTwin.start(tmp_path, seed=3, accounts=[ACME]) as twin:
        path = f"/v1/accounts/{ACME}/external_accounts"
        (old,) = stripe(twin, "GET", path)["data"]
        new = new_bank_account(twin, ACME, "370400440532019921")
        listed = {doc["id"]: doc["default_for_currency"] for doc in stripe(twin, "GET", path)["data"]}
        assert listed == {old["id"]: False, new["id"]: True}
        assert "error" in stripe(twin, "DELETE", f"{path}/{new['id']}")
        assert stripe(twin, "DELETE", f"{path}/{old['id']}")["deleted"] is True
        assert stripe(twin, "GET", f"{path}/{old['id']}")["error"]["code"] == "resource_missing"
        assert stripe(twin, "GET", "/v1/accounts/acct_ghost/external_accounts")["error"]["code"] == "resource_missing"
        assert stripe(twin, "POST", f"{path}/{new['id']}", {"metadata[a]": "b"})["metadata"] == {"a": "b"}
