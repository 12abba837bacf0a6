"""AP2 mandates at a gate: each redeemed once, their budgets counted here, their end like any mandate's."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rig import ACME, AGENT, Provider, bodies, edited, hold, pay, rebuilt_equally, signed_revocation, unsound

from countermark.authority import grant, load_private
from countermark.gate import caches
from countermark.model.clock import FakeClock
from countermark.model.errors import AuthorityError, CountermarkError
from countermark.wiring.init import Made, init_deployment, mandate_document

sys.path.insert(0, str(Path(__file__).parents[1]))
from ap2_wallet import MERCHANT, OTHER, Wallet, amounts

WALLET = Wallet()
ALLOWED = (MERCHANT, OTHER)
TWICE = {"type": "payment.agent_recurrence", "frequency": "ON_DEMAND", "max_occurrences": 2}


def made_with(root: Path, provider: Provider, clock: FakeClock, wallet: Wallet = WALLET) -> Made:
    files = edited()
    files["limits.toml"] += wallet.toml()
    return init_deployment(root, "vendor-payments", "test", edit=files, clock=clock, connectors={"stripe": provider})


def accept(handle: Any, text: str, **more: Any) -> list[str]:
    found: list[str] = handle.call("mandate.accept", {"ap2": text, **more})["mandates"]
    return found


def code_of(handle: Any, text: str, **more: Any) -> str:
    with pytest.raises(CountermarkError) as caught:
        accept(handle, text, **more)
    return caught.value.code


def test_a_payment_mandate_is_redeemed_once(tmp_path: Path) -> None:
    """The document, the document with its signature written anew, and its transaction again: accepted once."""
    provider, clock = Provider(), FakeClock()
    made_with(tmp_path / "d", provider, clock)
    text = WALLET.closed(None)
    with hold(tmp_path / "d", provider, clock) as handle:
        clock.advance(1)
        (digest,) = accept(handle, text)
        assert code_of(handle, text) == "already_redeemed"
        assert code_of(handle, WALLET.closed(None)) == "already_redeemed"
        assert code_of(handle, WALLET.closed(None, iat=WALLET.now - 1)) == "already_redeemed"  # the same transaction
        run = handle.start_run(mandate=digest)
        assert pay(handle, 1, 15_001, run=run).code == "mandate_limit"
        assert pay(handle, 2, 15_000, run=run).status == "confirmed"
        assert pay(handle, 3, 1, run=run).code == "mandate_limit"
    with hold(tmp_path / "d", provider, clock) as handle:
        assert code_of(handle, text) == "already_redeemed"
        assert pay(handle, 4, 1, run=run).code == "mandate_limit"
    assert len(provider.effects) == 1
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


@pytest.mark.parametrize("records", [1, 1 << 40])
def test_a_redemption_survives_with_and_without_a_snapshot(
    tmp_path: Path, records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a start folds everything or reads a snapshot, what was redeemed stays redeemed."""
    monkeypatch.setattr(caches, "SNAPSHOT_RECORDS", records)
    monkeypatch.setattr(caches, "SNAPSHOT_PART", 0)
    provider, clock = Provider(), FakeClock()
    made_with(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        accept(handle, WALLET.open())
    with hold(tmp_path / "d", provider, clock) as handle:
        assert code_of(handle, WALLET.open()) == "already_redeemed"
    assert rebuilt_equally(tmp_path / "d")


def test_fifty_callers_redeem_one_document_once(tmp_path: Path) -> None:
    """At the same moment: one of them has it."""
    provider, clock = Provider(), FakeClock()
    made_with(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle, ThreadPoolExecutor(20) as pool:
        text = WALLET.open()

        def one(_: int) -> str:
            try:
                return "ok" if accept(handle, text) else ""
            except AuthorityError as error:
                return error.code

        answers = list(pool.map(one, range(50)))
    assert sorted(set(answers)) == ["already_redeemed", "ok"]
    assert answers.count("ok") == 1
    assert len(bodies(tmp_path / "d", "mandate.accepted")) == 1


def test_closed_mandates_share_what_their_open_one_grants(tmp_path: Path) -> None:
    """The gate is the budget: two payments were allowed, each closed mandate is one, and the third is none."""
    provider, clock = Provider(["refused"]), FakeClock()
    made_with(tmp_path / "d", provider, clock)
    above = WALLET.open(amounts(), TWICE, allowed=ALLOWED)
    with hold(tmp_path / "d", provider, clock) as handle:
        clock.advance(10)
        parent, first = accept(handle, WALLET.closed(above, 9_000, transaction_id="t-1"))
        (second,) = accept(handle, WALLET.closed(above, 9_000, transaction_id="t-2"))
        (third,) = accept(handle, WALLET.closed(above, 9_000, transaction_id="t-3"))
        runs = [handle.start_run(mandate=digest) for digest in (first, second, third)]
        assert pay(handle, 1, 9_000, run=runs[0]).status == "failed"  # gives its place back
        assert pay(handle, 2, 9_000, run=runs[1]).status == "confirmed"
        assert pay(handle, 3, 9_000, run=runs[2]).status == "confirmed"
        assert pay(handle, 4, 9_000, run=runs[0]).code == "mandate_limit"
        assert pay(handle, 5, 9_000, run=handle.start_run(mandate=parent)).code == "mandate_limit"
        assert code_of(handle, above) == "already_redeemed"
    assert len(provider.effects) == 2
    assert unsound(tmp_path / "d") == []


def test_an_accepted_mandate_is_a_parent_like_any_other(tmp_path: Path) -> None:
    """A principal narrows it further; revoking it ends what is below; nobody widens it."""
    provider, clock = Provider(), FakeClock()
    made = made_with(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        clock.advance(1)
        (parent,) = accept(handle, WALLET.open(amounts(), TWICE, allowed=ALLOWED), source="shop")
        doc = next(row for row in handle.call("mandates", {}) if row["mandate"] == parent)
        narrow = {
            "parent": parent, "tools": doc["tools"], "payees": ["acme-paper"], "purpose": doc["purpose"] + ": paper",
            "not_before": doc["not_before"], "not_after": doc["not_after"],
        }  # fmt: skip
        key = load_private(made.people["treasurer"])
        for wide in ({"payees": ["own-bank"]}, {"purpose": "rent"}, {"not_after": doc["not_after"] + 1}):
            document = mandate_document("test", "treasurer", AGENT, **{**narrow, **wide})
            with pytest.raises(AuthorityError):
                handle.call("mandate.grant", grant(document, key))
        child = handle.call("mandate.grant", grant(mandate_document("test", "treasurer", AGENT, **narrow), key))
        run = handle.start_run(mandate=child)
        assert pay(handle, 1, 20_000, run=run).status == "confirmed"
        handle.call("mandate.revoke", signed_revocation(made, parent))
        assert pay(handle, 2, 1_000, run=run).code == "mandate_not_in_force"
        assert code_of(handle, WALLET.open(amounts(), TWICE, allowed=ALLOWED)) == "already_redeemed"
    assert unsound(tmp_path / "d") == []


def test_a_parent_revoked_while_the_provider_hangs_lets_nothing_more_out(tmp_path: Path) -> None:
    """What left is listed; what was decided and waits behind it, and every further attempt, is not sent."""
    provider, clock = Provider(["hold_lost"]), FakeClock()
    made = made_with(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle, ThreadPoolExecutor(1) as pool:
        clock.advance(10)
        parent, child = accept(handle, WALLET.closed(WALLET.open(amounts(), TWICE), 9_000))
        run = handle.start_run(mandate=child)
        waiting = pool.submit(pay, handle, 1, 9_000, run=run)
        assert provider.held.acquire(timeout=20)
        answer = handle.call("mandate.revoke", signed_revocation(made, parent))
        assert [item["tool"] for item in answer["in_flight"]] == ["stripe.transfers.create"]
        provider.go.set()
        assert waiting.result().status in ("unknown", "failed")
    assert len(provider.sent) == 1  # the attempt that hung; an idempotent tool would have tried again
    assert provider.effects == []
    assert unsound(tmp_path / "d") == []


def test_strangers_and_unknown_sources_are_refused(tmp_path: Path) -> None:
    """Another provider's signature, a source that the policy does not have, and a policy without any."""
    provider, clock = Provider(), FakeClock()
    made_with(tmp_path / "d", provider, clock)
    from ap2_wallet import p256

    with hold(tmp_path / "d", provider, clock) as handle:
        assert code_of(handle, Wallet(issuer=p256(7)).open()) == "bad_signature"
        assert code_of(handle, WALLET.open(), source="other") == "unknown_source"
        assert code_of(handle, WALLET.open(), source=7) == "unknown_source"
        assert code_of(handle, WALLET.open(exp=WALLET.now - 1)) == "ap2_expired"
        with pytest.raises(CountermarkError):
            handle.call("mandate.accept", {"ap2": 7})
    assert bodies(tmp_path / "d", "mandate.accepted") == []
    init_deployment(tmp_path / "e", "vendor-payments", "test", clock=clock, connectors={"stripe": provider})
    with hold(tmp_path / "e", provider, clock) as handle:
        assert code_of(handle, WALLET.open()) == "unknown_source"


def test_an_acceptance_is_paid_to_the_payee_that_the_merchant_is_here(tmp_path: Path) -> None:
    """The user's merchant is a payee of the policy; money for anybody else is refused."""
    provider, clock = Provider(), FakeClock()
    made_with(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        clock.advance(1)
        (digest,) = accept(handle, WALLET.open(allowed=(OTHER,)))
        run = handle.start_run(mandate=digest)
        assert pay(handle, 1, 100, run=run, destination=ACME).code == "mandate_payee"
