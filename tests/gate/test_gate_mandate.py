"""Mandates at the gate: what they cover, budgets to the unit, and their end between decision and dispatch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rig import AGENT, BOREALIS, Provider, bodies, grant_to, hold, make, pay, signed_revocation, unsound

from countermark.gate.dispatch import Dispatch
from countermark.model.clock import FakeClock, SystemClock
from countermark.model.errors import AuthorityError, CountermarkError


def limit(amount: int, over_us: int | None) -> list[dict[str, object]]:
    return [{"currency": "eur", "amount": amount, "over_us": over_us}]


@pytest.mark.parametrize("over_us", [None, 86_400_000_000])
def test_a_budget_is_exact(tmp_path: Path, over_us: int | None) -> None:
    """A budget takes payments up to its last unit and not one more, also after a restart."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        mandate = grant_to(handle, made, SystemClock().now_us(), limits=limit(1000, over_us))
        run = handle.start_run(mandate=mandate)
        assert pay(handle, 1, 999, run=run).status == "confirmed"
        assert pay(handle, 2, 2, run=run).code == "mandate_limit"
    with hold(tmp_path / "d", provider) as handle:
        assert pay(handle, 3, 2, run=run).code == "mandate_limit"
        assert pay(handle, 4, 1, run=run).status == "confirmed"
        assert pay(handle, 5, 1, run=run).code == "mandate_limit"
        limits = handle.call("status", {})["mandates"][mandate]["limits"]
        assert [row["used"] for row in limits] == [1000]
    assert len(provider.effects) == 2
    assert unsound(tmp_path / "d") == []


def test_a_budget_raced_by_many_threads_is_exact(tmp_path: Path) -> None:
    """Fifty threads at once on a budget for ten payments: ten, and the budget is used to the unit."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle, ThreadPoolExecutor(50) as pool:
        mandate = grant_to(handle, made, SystemClock().now_us(), limits=limit(10_000, None))
        run = handle.start_run(mandate=mandate)
        answers = list(pool.map(lambda n: pay(handle, n, 1000, run=run), range(50)))
    assert sorted(a.code for a in answers) == ["mandate_limit"] * 40 + ["ok"] * 10
    assert len(provider.effects) == 10


def test_a_failed_payment_gives_its_budget_back_and_an_unknown_one_does_not(tmp_path: Path) -> None:
    """Only certainty that nothing moved releases a hold."""
    provider = Provider(["refused", "lost_before", "lost_before", "lost_before"], lookup="provider_error")
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        mandate = grant_to(handle, made, SystemClock().now_us(), limits=limit(1000, None))
        run = handle.start_run(mandate=mandate)
        assert pay(handle, 1, 1000, run=run).status == "failed"
        assert pay(handle, 2, 1000, run=run).status == "unknown"
        assert pay(handle, 3, 1, run=run).code == "mandate_limit"
    assert provider.effects == []


def test_a_hold_debits_every_ancestor(tmp_path: Path) -> None:
    """What a child spends its parent has spent; two children share one purse."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    now = SystemClock().now_us()
    with hold(tmp_path / "d", provider) as handle:
        parent = grant_to(handle, made, now, limits=limit(1000, None))
        span = {"not_before": now - 1, "not_after": now + 1_000_000_000}
        children = [grant_to(handle, made, now, parent=parent, limits=limit(800, None), **span) for _ in range(2)]
        runs = [handle.start_run(mandate=child) for child in children]
        assert pay(handle, 1, 800, run=runs[0]).status == "confirmed"
        assert pay(handle, 2, 201, run=runs[1]).code == "mandate_limit"
        assert pay(handle, 3, 200, run=runs[1]).status == "confirmed"
    assert unsound(tmp_path / "d") == []


@pytest.mark.parametrize(
    "wider", [{"tools": ["*"]}, {"payees": ["*"]}, {"limits": limit(2000, None)}, {"not_after": 10**15 * 4}]
)
def test_a_child_only_narrows(tmp_path: Path, wider: dict[str, object]) -> None:
    """A child that claims more tools, payees, money or time than its parent is refused."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    now = SystemClock().now_us()
    narrow = {
        "tools": ["stripe.transfers.create"], "payees": ["acme-paper"], "limits": limit(1000, None),
        "not_before": now - 1_000, "not_after": now + 1_000_000_000,
    }  # fmt: skip
    with hold(tmp_path / "d", provider) as handle:
        parent = grant_to(handle, made, now, **narrow)
        with pytest.raises(AuthorityError):
            grant_to(handle, made, now, parent=parent, **{**narrow, **wider})
        child = grant_to(handle, made, now, parent=parent, **narrow)
        run = handle.start_run(mandate=child)
        assert pay(handle, 1, run=run, destination=BOREALIS).code == "mandate_payee"
        assert pay(handle, 2, run=run).status == "confirmed"


def test_revoking_a_parent_ends_its_children(tmp_path: Path) -> None:
    """A revocation ends the mandate and all below it, for runs that are open too."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    now = SystemClock().now_us()
    with hold(tmp_path / "d", provider) as handle:
        parent = grant_to(handle, made, now)
        child = grant_to(handle, made, now, parent=parent)
        run = handle.start_run(mandate=child)
        assert pay(handle, 1, run=run).status == "confirmed"
        handle.call("mandate.revoke", signed_revocation(made, parent))
        assert pay(handle, 2, run=run).code == "mandate_not_in_force"
        with pytest.raises(AuthorityError):
            handle.start_run(mandate=child)
    assert len(provider.effects) == 1


def test_a_mandate_expires(tmp_path: Path) -> None:
    """At ``not_after`` it is over, to the microsecond; before ``not_before`` it has not begun."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        now = clock.now_us()
        mandate = grant_to(handle, made, now, not_before=now, not_after=now + 2_000_000)
        later = grant_to(handle, made, now, not_before=now + 1_000_000, not_after=now + 9_000_000)
        run = handle.start_run(mandate=mandate)
        with pytest.raises(AuthorityError):
            handle.start_run(mandate=later)
        clock.advance(1.999999)
        assert pay(handle, 1, run=run).status == "confirmed"
        clock.advance(0.000001)
        assert pay(handle, 2, run=run).code == "mandate_not_in_force"
        assert handle.start_run(mandate=later)
    assert len(provider.effects) == 1


@pytest.mark.parametrize("what", ["revoke", "revoke parent", "kill", "expire", "late"])
def test_the_barrier_stops_what_was_decided_but_not_sent(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the durable decision and the first byte, a revocation, a kill or the passing of time still stops it."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        parent = grant_to(handle, made, clock.now_us(), not_after=clock.now_us() + 30_000_000)
        mandate = grant_to(handle, made, clock.now_us(), parent=parent, not_after=clock.now_us() + 30_000_000)
        run = handle.start_run(mandate=mandate)
        begin = Dispatch.begin

        def late(self: Dispatch, intent: object, now_us: int) -> str | None:
            if what == "revoke":
                _in_lane(handle, "mandate.revoke", signed_revocation(made, mandate))
            elif what == "revoke parent":
                _in_lane(handle, "mandate.revoke", signed_revocation(made, parent))
            elif what == "kill":
                _in_lane(handle, "kill.set", {"kind": "agent", "value": AGENT, "reason": ""})
            elif what == "expire":
                now_us += 30_000_000
            else:
                now_us = intent.not_after  # type: ignore[attr-defined]
            return begin(self, intent, now_us)  # type: ignore[arg-type]

        monkeypatch.setattr(Dispatch, "begin", late)
        result = pay(handle, 1, run=run)
        assert (result.status, result.code) == ("failed", "not_sent")
        monkeypatch.undo()
    assert provider.sent == []
    assert bodies(tmp_path / "d", "action.settled")[-1]["outcome"] == "failed"
    assert unsound(tmp_path / "d") == []


def _in_lane(handle: object, op: str, body: dict[str, object]) -> None:
    """Run a lane message from the gate's own thread, and wait until the lane has published it."""
    from countermark.gate import orders

    done = threading.Event()
    lane = handle.gate.lane  # type: ignore[attr-defined]

    def handler(writer: object) -> object:
        if op == "kill.set":
            return orders.kill(writer, *orders.kill_of(body, "test"), "")  # type: ignore[arg-type]
        return orders.ORDERS[op](writer, body)  # type: ignore[arg-type]

    future = lane._loop.create_future()
    lane._inbox.append((handler, future, ()))
    lane._inbox.append((lambda writer: done.set(), lane._loop.create_future(), ()))
    lane._wake.set()
    assert done.wait(10)
    fence = threading.Event()
    lane._inbox.append((lambda writer: fence.set(), lane._loop.create_future(), ()))
    lane._wake.set()
    assert fence.wait(10)


def test_a_grant_from_nobody_grants_nothing(tmp_path: Path) -> None:
    """A mandate signed by a person who is no principal, or for an agent that the policy does not know, is refused."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    from countermark.authority import grant, load_private
    from countermark.wiring.init import mandate_document

    now = SystemClock().now_us()
    with hold(tmp_path / "d", provider) as handle:
        for principal, agent in (("controller", AGENT), ("treasurer", "stranger")):
            document = mandate_document("test", principal, agent, not_before=now, not_after=now + 10**9)
            with pytest.raises(CountermarkError):
                handle.call("mandate.grant", grant(document, load_private(made.people[principal])))
        forged = mandate_document("test", "treasurer", AGENT, not_before=now, not_after=now + 10**9)
        with pytest.raises(CountermarkError):
            handle.call("mandate.grant", grant(forged, load_private(made.people["controller"])))
        assert len(handle.call("status", {})["mandates"]) == 1


def test_a_chain_has_no_more_limits_than_a_record_can_hold(tmp_path: Path) -> None:
    """A decision names every budget of its chain: a mandate with which none would fit is refused when it is granted."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    now = SystemClock().now_us()
    members = {"not_before": now - 1_000_000, "not_after": now + 3_600_000_000}
    rows = [{"currency": "eur", "amount": 10_000, "over_us": 3_600_000_000 + span} for span in range(32)]
    with hold(tmp_path / "d", provider) as handle:
        parent = None
        for _ in range(16):
            parent = grant_to(handle, made, now, parent=parent, limits=rows, **members)
        with pytest.raises(AuthorityError) as caught:
            grant_to(handle, made, now, parent=parent, limits=rows[:1], **members)
        assert caught.value.code == "bad_mandate"
        run = handle.start_run(mandate=grant_to(handle, made, now, parent=parent, limits=[], **members))
        assert pay(handle, 1, 100, run=run).status == "confirmed"
    assert unsound(tmp_path / "d") == []
