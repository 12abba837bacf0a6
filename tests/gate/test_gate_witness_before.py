"""Tools that send nothing before witnesses have seen the intent, and money that stands still without witnesses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from published import Newspaper, published, wanting
from rig import Provider, args_for, bodies, hold, kinds, make, pay, rebuilt_equally, transfers, unsound
from support import records

import countermark
from countermark.gate import publishing, waiting
from countermark.model.clock import FakeClock
from countermark.model.errors import CountermarkError
from countermark.wiring.init import Made

WAIT_S_MAX = 20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is long for a test."""
    for name, value in (("PUBLISH_S", 0.01), ("CLOSE_WAIT_S", 0.2)):
        monkeypatch.setattr(publishing, name, value)
    monkeypatch.setattr("countermark.wiring.publishing.MAKERS", ())  # nobody is asked who is not named here
    monkeypatch.setattr("countermark.gate.highwater.PUBLISH_S", 0.02)
    monkeypatch.setattr("countermark.gate.highwater.NUDGED_S", 0.01)
    monkeypatch.setattr("countermark.gate.gate.FIRST_HEAD_S", 0.2)
    monkeypatch.setattr("countermark.gate.gate.CLOSE_WAIT_S", 1)
    monkeypatch.setattr(waiting, "LOOK_S", 0.01)


def before(root: Path, provider: Provider, clock: FakeClock | None = None, **keys: Any) -> Made:
    """A deployment whose transfers wait for witnesses."""
    tools = transfers(witness="before", **keys)
    edit = {**wanting("alpha", "beta")}
    return make(root, provider, clock=clock, tools=tools, edit=edit)


class Day:
    """An open gate, a press that may stand still, and callers on threads of their own."""

    def __init__(self, handle: countermark.Deployment, paper: Newspaper) -> None:
        self.handle, self.paper = handle, paper
        self.callers = ThreadPoolExecutor(8)
        self.run = handle.start_run()

    def stop_the_press(self) -> None:
        """Nothing is cosigned from now on; returns when the press is known to stand."""
        if self.paper.hold is None:
            self.paper.hold = threading.Event()

    def go_on(self) -> None:
        press, self.paper.hold = self.paper.hold, None
        if press is not None:
            press.set()

    def pay(self, number: int) -> Any:
        return self.callers.submit(pay, self.handle, number, run=self.run)

    def waits(self, count: int) -> None:
        """Until so many effects wait for witnesses."""
        gate, seen = self.handle.gate, threading.Event()
        for _ in range(WAIT_S_MAX * 100):
            if len(gate._waiting._waits) >= count:
                return
            seen.wait(0.01)
        raise AssertionError("nobody waits")


@contextmanager
def day(root: Path, provider: Provider, patch: pytest.MonkeyPatch, clock: FakeClock | None = None) -> Iterator[Day]:
    paper = Newspaper()
    with published(patch, paper), hold(root, provider, clock) as handle:
        one = Day(handle, paper)
        try:
            yield one
        finally:
            one.go_on()
            one.callers.shutdown(wait=False)


def test_nothing_is_sent_before_witnesses_have_seen_the_intent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no head that covers the intent is cosigned nothing reaches the provider; then it does, once."""
    provider = Provider()
    before(tmp_path, provider)
    with day(tmp_path, provider, monkeypatch) as one:
        one.stop_the_press()
        answer = one.pay(1)
        one.waits(1)
        assert provider.sent == []
        one.go_on()
        assert answer.result(WAIT_S_MAX).status == "confirmed"
    found = records(tmp_path)
    intent = next(r.seq for r in found if r.kind == "action.decided")
    settled = next(r.seq for r in found if r.kind == "action.settled")
    covering = [r.seq for r in found if r.kind == "head.witnessed" and r.body["size"] > intent]
    assert intent < covering[0] < settled
    assert len(provider.sent) == 1
    assert unsound(tmp_path) == []
    assert rebuilt_equally(tmp_path)


def test_an_intent_that_nobody_sees_in_time_is_settled_unsent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the intent's end: failed, not_witnessed, no attempt; the business key is free again."""
    provider, clock = Provider(), FakeClock()
    before(tmp_path, provider, clock)
    with day(tmp_path, provider, monkeypatch, clock) as one:
        one.stop_the_press()
        answer = one.pay(1)
        one.waits(1)
        clock.advance(61)
        result = answer.result(WAIT_S_MAX)
        assert (result.status, result.code) == ("failed", "not_witnessed")
        one.go_on()
        one.paper.wait()
    (settled,) = bodies(tmp_path, "action.settled")
    assert (settled["outcome"], settled["code"], settled["attempts"]) == ("failed", "not_witnessed", 0)
    assert provider.sent == []
    with day(tmp_path, provider, monkeypatch, clock) as one:
        again = pay(one.handle, 1, run=one.run, call_id="again")
    assert again.status == "confirmed"
    assert unsound(tmp_path) == []


def test_a_kill_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that comes while an effect waits settles it: not sent, killed."""
    provider = Provider()
    before(tmp_path, provider)
    with day(tmp_path, provider, monkeypatch) as one:
        one.stop_the_press()
        answer = one.pay(1)
        one.waits(1)
        one.handle.call("kill.set", {"kind": "deployment", "value": "test", "reason": "stop"})
        result = answer.result(WAIT_S_MAX)
    assert (result.status, result.code) == ("failed", "not_sent")
    (settled,) = bodies(tmp_path, "action.settled")
    assert (settled["request_id"], provider.sent) == ("killed", [])


def test_many_that_wait_keep_no_worker_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty effects wait for witnesses, more than there are workers; a payout that waits for nobody goes through."""
    provider = Provider()
    before(tmp_path, provider)
    with day(tmp_path, provider, monkeypatch) as one:
        one.stop_the_press()
        gate = one.handle.gate
        caller = countermark.gate.Caller("treasury", "embedded")
        for number in range(40):
            body = {
                "run": one.run,
                "call_id": f"c{number}",
                "tool": "stripe.transfers.create",
                "args": args_for(number),
            }
            assert gate.wait(gate.call("act", body, caller, wait="decision"))["status"] == "pending"
        one.waits(40)
        payout = {"amount": 500, "currency": "eur", "destination": "ba_1Main", "metadata[batch]": "b1"}
        result = one.handle.act("stripe.payouts.create", payout, run=one.run, call_id="p1")
        assert result.status != "pending"
        assert len(provider.sent) <= 1
        one.go_on()
        one.paper.wait()
    assert unsound(tmp_path) == []


def test_what_waited_when_the_gate_closed_goes_on_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing lets the caller go with nothing sent; the next start waits for witnesses again and sends once."""
    provider, paper = Provider(), Newspaper()
    before(tmp_path, provider)
    with published(monkeypatch, paper):
        one = Day(hold(tmp_path, provider), paper)
        one.stop_the_press()
        answer = one.pay(1)
        one.waits(1)
        one.handle.close()
        with pytest.raises(CountermarkError):
            answer.result(WAIT_S_MAX)
        assert provider.sent == []
        one = Day(hold(tmp_path, provider), paper)
        one.waits(1)
        assert provider.sent == []
        one.go_on()
        paper.hold = None
        settled_in(tmp_path)
        one.handle.close()
    assert [body["outcome"] for body in bodies(tmp_path, "action.settled")] == ["confirmed"]
    assert len(provider.sent) == 1
    assert unsound(tmp_path) == []


def settled_in(root: Path) -> None:
    """Until an outcome stands in the journal."""
    for _ in range(WAIT_S_MAX * 100):
        if "action.settled" in kinds(root):
            return
        threading.Event().wait(0.01)
    raise AssertionError("nothing was settled")


def test_money_stands_still_when_the_last_answer_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute without an answer money is denied; with the next answer it moves again."""
    provider, clock = Provider(), FakeClock()
    make(tmp_path, provider, clock=clock, edit=wanting("alpha", "beta"))
    with day(tmp_path, provider, monkeypatch, clock) as one:
        assert pay(one.handle, 1, run=one.run).status == "confirmed"
        one.stop_the_press()
        clock.advance(61)
        stale = pay(one.handle, 2, run=one.run)
        assert (stale.status, stale.code) == ("denied", "witness_stale")
        one.go_on()
        for _ in range(WAIT_S_MAX * 20):  # what was printed is recorded a moment later
            if any(body["answered"] >= clock.now_us() for body in bodies(tmp_path, "head.witnessed")):
                break
            one.paper.printed.acquire(timeout=0.05)
        assert pay(one.handle, 3, run=one.run).status == "confirmed"
    (denied,) = [body for body in bodies(tmp_path, "action.decided") if body["disposition"] == "deny"]
    assert (denied["stage"], denied["reasons"], denied["budgets"], denied["facts"]) == ("witness", [], [], {})
    assert unsound(tmp_path) == []
