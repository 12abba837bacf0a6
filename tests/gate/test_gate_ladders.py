"""Ladders: who is asked next, when, and what an answer on a rung is worth. The clock is a fake one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from laddered import HOUR, LARGE, OLD, RUNGS, laddered, only, people, say, tick
from rig import (
    BOREALIS,
    Provider,
    bodies,
    edited,
    hold,
    kinds,
    make,
    pay,
    rebuilt_equally,
    signed_answer,
    unsound,
    waiting,
)  # fmt: skip

from countermark.gate import caches, climbing
from countermark.model.clock import US, FakeClock
from countermark.model.errors import ArgumentError, AuthorityError, CountermarkError

Refused = Callable[[], Any]


@pytest.fixture(autouse=True)
def _no_other_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing looks at the ladders but the tests."""
    monkeypatch.setattr("countermark.gate.gate.LADDERS_S", 3_600.0)


def code_of(call: Refused) -> str:
    with pytest.raises(CountermarkError) as caught:
        call()
    return caught.value.code


def test_nobody_answers_and_the_next_rung_is_asked(tmp_path: Path) -> None:
    """At the end of the first rung, no microsecond before, the board is asked, until its office hours have passed."""
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock)
    asked_at = clock.now_us()
    with hold(tmp_path / "d", provider, clock) as handle:
        assert pay(handle, 1, LARGE).status == "escalated"
        first = only(handle)["rungs"]["finance"]
        assert first == {"rung": 1, "of": 2, "roles": ["approver"], "quorum": 2, "due": asked_at + 4 * HOUR * US,
                         "people": ["anna", "controller"]}  # fmt: skip
        clock.advance(4 * HOUR - 0.000001)
        tick(handle)
        assert only(handle)["rungs"]["finance"]["rung"] == 1
        clock.advance(0.000001)
        tick(handle)
        second = only(handle)["rungs"]["finance"]
        # Eight office hours from 20:13 on a Monday are Tuesday, from nine to five.
        assert (second["rung"], second["people"]) == (2, ["clara", "dora"])
        assert second["due"] == only(handle)["not_after"] == 1_790_089_200 * US  # 2026-09-22 15:00 UTC
        assert say(handle, made, "clara")["result"]["status"] == "confirmed"
    (climbed,) = bodies(tmp_path / "d", "escalation.climbed")
    assert (climbed["rung"], climbed["because"], climbed["due"]) == (2, "deadline", second["due"])
    assert len(provider.effects) == 1
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_it_expires_only_after_the_last_rung(tmp_path: Path) -> None:
    """However late the gate looks, each rung is left in its turn and at its own time, and the end is a no."""
    provider, clock = Provider(), FakeClock()
    laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        end = only(handle)["not_after"]
        clock.advance((end - clock.now_us()) / US + 7 * 86_400)
        tick(handle)
        assert waiting(handle) == []
        assert pay(handle, 1, LARGE).code == "not_approved"
    found = [kind for kind in kinds(tmp_path / "d") if kind.startswith("escalation.")]
    assert found == ["escalation.raised", "escalation.climbed", "escalation.expired"]
    assert bodies(tmp_path / "d", "escalation.climbed")[0]["due"] == end
    assert provider.sent == []
    assert unsound(tmp_path / "d") == []


def test_m_of_n_different_people(tmp_path: Path) -> None:
    """Two of the approvers, each once; the second one's answer sends it."""
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        assert say(handle, made, "anna") == {"state": "pending", "result": None}
        assert only(handle)["rungs"]["finance"]["people"] == ["controller"]
        assert code_of(lambda: say(handle, made, "anna")) == "approval_same_person"
        assert provider.sent == []
        assert say(handle, made, "controller")["result"]["status"] == "confirmed"
    assert unsound(tmp_path / "d") == []


def test_answers_of_a_rung_that_was_left_count_no_more(tmp_path: Path) -> None:
    """One of two on the first rung and one of two on the second are not two; who answered before may answer anew."""
    provider, clock = Provider(), FakeClock()
    rungs = RUNGS.replace('roles = ["board"]\n', 'roles = ["approver", "board"]\nquorum = 2\n')
    made = laddered(tmp_path / "d", provider, clock, rungs)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        early = signed_answer(made, only(handle), person="controller")
        say(handle, made, "anna")
        clock.advance(4 * HOUR)
        tick(handle)
        assert only(handle)["answers"] == {}
        assert code_of(lambda: handle.call("answer", early)) == "approval_rung"
        assert say(handle, made, "clara")["state"] == "pending"
        assert say(handle, made, "anna")["state"] == "approved"
    assert len(provider.effects) == 1
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_an_answer_belongs_to_its_rung(tmp_path: Path) -> None:
    """For a rung to come, for one whose time is over though nobody has climbed, and for one that was left: refused."""
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        early = signed_answer(made, only(handle), person="clara", rung=2)
        assert code_of(lambda: handle.call("answer", early)) == "approval_rung"
        late = signed_answer(made, only(handle), person="anna")
        clock.advance(4 * HOUR)  # the gate has not looked yet
        assert code_of(lambda: handle.call("answer", late)) == "approval_rung"
        tick(handle)
        assert code_of(lambda: handle.call("answer", late)) == "approval_rung"
        assert code_of(lambda: say(handle, made, "anna")) == "approval_not_eligible"
        assert handle.call("answer", early)["state"] == "approved"
    assert len(provider.effects) == 1
    assert unsound(tmp_path / "d") == []


def test_a_refusal_on_any_rung_binds_the_obligation(tmp_path: Path) -> None:
    """Who asks for the same invoice anew, to find other people, finds the refusal."""
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        clock.advance(4 * HOUR)
        tick(handle)
        assert say(handle, made, "dora", "refuse")["state"] == "refused"
        assert pay(handle, 1, 100, run=handle.start_run(), call_id="anew").code == "refused_by_person"
    assert provider.sent == []
    assert unsound(tmp_path / "d") == []


def test_who_cannot_be_told_is_not_waited_for(tmp_path: Path) -> None:
    """The notifier's word climbs the present rung at once, once; the next one's time begins there."""
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        asked = only(handle)
        word = {"escalation": asked["escalation"], "ladder": "finance", "rung": 1}
        say(handle, made, "anna")
        clock.advance(60)
        assert handle.call("escalation.unreachable", word) == {"rung": 2, "climbed": True}
        assert handle.call("escalation.unreachable", word) == {"rung": 2, "climbed": False}
        assert handle.call("escalation.unreachable", {**word, "rung": 2}) == {"rung": 2, "climbed": False}  # the last
        # From Monday 16:14: until five, and what is left of eight hours on Tuesday. Earlier than said at first.
        assert only(handle)["rungs"]["finance"]["due"] < only(handle)["not_after"]
        assert code_of(lambda: handle.call("escalation.unreachable", {**word, "ladder": "none"})) == "bad_argument"
        assert code_of(lambda: handle.call("escalation.unreachable", {**word, "rung": "1"})) == "bad_argument"
        assert code_of(lambda: handle.call("escalation.unreachable", {"rung": 1})) == "bad_argument"
        clock.advance((only(handle)["rungs"]["finance"]["due"] - clock.now_us()) / US)
        tick(handle)
        assert waiting(handle) == []
        assert code_of(lambda: handle.call("escalation.unreachable", word)) == "approval_closed"
    (climbed,) = bodies(tmp_path / "d", "escalation.climbed")
    assert climbed["because"] == "unreachable"
    assert unsound(tmp_path / "d") == []


def test_enough_answers_stop_the_clock_of_a_ladder(tmp_path: Path) -> None:
    """Of two ladders one has its people and waits for the other, which climbs alone; the end is a no for both."""
    provider, clock = Provider(), FakeClock()
    files = edited({OLD: RUNGS + '\n[ladder.risk]\nroles = ["clerk"]\ndeadline = "30m"\n' + people()})
    files["policies/risk.cedar"] = (
        '@id("own.risk") @escalate("risk")\nforbid (principal, action in Action::"money", resource)\n'
        "when { context.amount > 500000 };\n"
    )
    made = make(tmp_path / "d", provider, clock=clock, edit=files)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        assert {name: row["rung"] for name, row in only(handle)["rungs"].items()} == {"finance": 1, "risk": 1}
        assert say(handle, made, "emil", ladder="risk")["state"] == "pending"
        word = {"escalation": only(handle)["escalation"], "ladder": "risk", "rung": 1}
        assert handle.call("escalation.unreachable", word)["climbed"] is False
        clock.advance(4 * HOUR)
        tick(handle)
        assert {name: row["rung"] for name, row in only(handle)["rungs"].items()} == {"finance": 2, "risk": 1}
        assert code_of(lambda: say(handle, made, "emil", ladder="finance")) == "approval_not_eligible"
        assert say(handle, made, "dora")["state"] == "approved"
        pay(handle, 2, LARGE)
        early = signed_answer(made, only(handle), "refuse", "anna")
        clock.advance(HOUR / 2)
        # The clerk's half hour is over, and so is everything: also a no comes too late to bind the invoice.
        assert code_of(lambda: handle.call("answer", early)) == "approval_expired"
        tick(handle)
        assert waiting(handle) == []
        assert code_of(lambda: handle.call("answer", early)) == "approval_expired"
    assert kinds(tmp_path / "d").count("escalation.expired") == 1
    assert unsound(tmp_path / "d") == []


def test_a_ladder_that_has_its_answers_neither_climbs_nor_closes(tmp_path: Path) -> None:
    """It waits where it is: nothing unreachable moves it, and somebody of it may still say no, hours after its end."""
    provider, clock = Provider(), FakeClock()
    files = edited({OLD: RUNGS + '\n[ladder.risk]\nroles = ["clerk"]\ndeadline = "30h"\n' + people()})
    files["limits.toml"] = files["limits.toml"].replace("quorum = 2", "quorum = 1")
    files["policies/risk.cedar"] = (
        '@id("own.risk") @escalate("risk")\nforbid (principal, action in Action::"money", resource)\n'
        "when { context.amount > 500000 };\n"
    )
    made = make(tmp_path / "d", provider, clock=clock, edit=files)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        assert say(handle, made, "anna")["state"] == "pending"
        word = {"escalation": only(handle)["escalation"], "ladder": "finance", "rung": 1}
        assert handle.call("escalation.unreachable", word) == {"rung": 1, "climbed": False}
        clock.advance(20 * HOUR)
        tick(handle)
        finance = only(handle)["rungs"]["finance"]
        assert (finance["rung"], finance["due"], finance["people"]) == (1, only(handle)["not_after"], ["controller"])
        assert say(handle, made, "controller", "refuse")["state"] == "refused"
    assert provider.sent == []
    assert unsound(tmp_path / "d") == []


@pytest.mark.parametrize("snapshots", [False, True])
def test_a_restart_in_the_middle_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshots: bool
) -> None:
    """Rung, end and answers are those of before; what became due meanwhile is done at once, from its own time on."""
    if snapshots:
        monkeypatch.setattr(caches, "SNAPSHOT_RECORDS", 1)
        monkeypatch.setattr(caches, "SNAPSHOT_PART", 0)
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        say(handle, made, "anna")
        before = only(handle)
    with hold(tmp_path / "d", provider, clock) as handle:
        assert only(handle) == before
        assert code_of(lambda: say(handle, made, "anna")) == "approval_same_person"
        pay(handle, 2, LARGE)
    clock.advance(6 * HOUR)
    with hold(tmp_path / "d", provider, clock) as handle:
        tick(handle)
        rungs = [asked["rungs"]["finance"] for asked in waiting(handle)]
        assert [(row["rung"], row["due"]) for row in rungs] == [(2, before["not_after"])] * 2
        reply = handle.call("answer", signed_answer(made, waiting(handle)[0], person="dora"))
        assert reply["result"]["status"] == "confirmed"
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_what_is_due_is_done_turn_by_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No turn takes more steps than it may, the longest overdue come first, and all are done."""
    monkeypatch.setattr(climbing, "STEPS_PER_TURN_MAX", 3)
    provider, clock = Provider(), FakeClock()
    laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        for number in range(8):
            pay(handle, number, LARGE, run=run)
            clock.advance(1)
        clock.advance(4 * HOUR - 8)
        turns: list[int] = [handle.gate.wait(handle.gate.lane.ask(climbing.turn)) for _ in range(2)]
        assert turns == [1, 0]  # the first one alone is due
        clock.advance(8)
        tick(handle)
        assert {asked["rungs"]["finance"]["rung"] for asked in waiting(handle)} == {2}
    climbed = bodies(tmp_path / "d", "escalation.climbed")
    raised = bodies(tmp_path / "d", "escalation.raised")
    assert [body["escalation"] for body in climbed] == [body["escalation"] for body in raised]
    assert unsound(tmp_path / "d") == []


def test_a_preview_says_what_an_approval_would_do(tmp_path: Path) -> None:
    """By today's facts and policy, recorded nowhere: a limit that is used up meanwhile, a kill, a run that ended."""
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock, changes={"max = 900000000\n": "max = 1000000\n"})
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        pay(handle, 1, LARGE, run=run)
        body = {"escalation": only(handle)["escalation"]}
        records = handle.call("status", {})["records"]
        fine = handle.call("escalation.preview", body)
        assert (fine["disposition"], fine["code"], fine["against"]) == ("flag", "flagged", [])
        assert handle.call("status", {})["records"] == records
        pay(handle, 2, 200_000)
        pay(handle, 3, 240_000, destination=BOREALIS)
        full = handle.call("escalation.preview", body)
        assert (full["disposition"], full["stage"], full["code"]) == ("deny", "approval", "approval_void")
        assert full["against"] == ["limits.window.day_total"]
        assert full["facts"]["day_total"] > 1_000_000
        kill = handle.call("kill.set", {"kind": "agent", "value": "treasury", "reason": "strange"})["kill"]
        assert handle.call("escalation.preview", body)["reasons"] == [kill]
        handle.call("run.end", {"run": run, "reason": "over"})
        assert handle.call("escalation.preview", body)["reasons"] == ["run"]
        for wrong, code in ((body | {"escalation": "esc_" + "0" * 32}, "approval_unknown"), ({}, "bad_argument")):
            assert code_of(lambda wrong=wrong: handle.call("escalation.preview", wrong)) == code
        say(handle, made, "anna", "refuse")
        assert code_of(lambda: handle.call("escalation.preview", body)) == "approval_closed"
    assert unsound(tmp_path / "d") == []


def test_the_preview_is_what_is_decided(tmp_path: Path) -> None:
    """The very judgement: disposition, code, reasons and facts of the decision that follows the last approval."""
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        say(handle, made, "anna")
        said = handle.call("escalation.preview", {"escalation": only(handle)["escalation"]})
        say(handle, made, "controller")
    decided = bodies(tmp_path / "d", "action.decided")[-1]
    assert {name: decided[name] for name in said if name != "against"} == {n: said[n] for n in said if n != "against"}


def test_too_many_waiting_is_counted_for_each_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound counts what waits now, not what ever waited."""
    monkeypatch.setattr("countermark.gate.actions.PARKED_MAX", 2)
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        pay(handle, 2, LARGE)
        with pytest.raises(AuthorityError) as caught:
            pay(handle, 3, LARGE)
        assert (caught.value.code, caught.value.retryable) == ("too_many_waiting", True)
        handle.call("answer", signed_answer(made, waiting(handle)[0], "refuse", "anna"))
        assert pay(handle, 3, LARGE).status == "escalated"


def test_the_list_is_read_in_pages(tmp_path: Path) -> None:
    """The newest first, from where the page before ended, without what was answered meanwhile."""
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        for number in range(6):
            pay(handle, number, LARGE)
        seqs = [asked["seq"] for asked in waiting(handle)][::-1]
        first = handle.call("escalations", {"limit": 2})
        assert [asked["seq"] for asked in first] == seqs[:2]
        gone = waiting(handle)[3]
        handle.call("answer", signed_answer(made, gone, "refuse", "anna"))
        second = handle.call("escalations", {"limit": 2, "after": first[-1]["seq"]})
        assert [asked["seq"] for asked in second] == [seq for seq in seqs[2:] if seq != gone["seq"]][:2]
        assert handle.call("escalations", {"after": seqs[-1]}) == []
        with pytest.raises(ArgumentError):
            handle.call("escalations", {"after": "x"})
