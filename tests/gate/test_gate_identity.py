"""G3: one call is one action, one obligation is one payment, whoever asks and however often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
from rig import ACME, TOOL, Provider, args_for, bodies, doubled, hold, kinds, make, pay, unsound, waiting

from countermark.model.errors import CountermarkError


def test_the_same_call_again_is_the_same_answer(tmp_path: Path) -> None:
    """Asked again, also after a restart, a call gives its recorded answer and records nothing."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        first = pay(handle, 1, run=run)
        size = handle.call("status", {})["records"]
        again = pay(handle, 1, run=run)
        assert (again.status, again.ref, again.action) == (first.status, first.ref, first.action)
        assert handle.call("status", {})["records"] == size
    with hold(tmp_path / "d", provider) as handle:
        later = pay(handle, 1, run=run)
        assert (later.status, later.ref) == (first.status, first.ref)
    assert len(provider.sent) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 1001}, {"destination": "acct_1BorealisHosting"}, {"metadata[invoice]": "INV-2"},
        {"description": "x"}, {"amount": 1},
    ],
)  # fmt: skip
def test_a_call_id_is_used_once(tmp_path: Path, change: dict[str, object]) -> None:
    """The same call_id for anything else is a conflict: refused, recorded without values, nothing sent."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1)
        with pytest.raises(CountermarkError) as caught:
            handle.act(TOOL, {**args_for(1), **change}, call_id="pay-1")
        assert caught.value.code == "identity_conflict"
    assert len(provider.sent) == 1
    assert bodies(tmp_path / "d", "action.refused")[-1]["field"] == "call_id"


def test_one_invoice_is_one_obligation(tmp_path: Path) -> None:
    """Case and spaces of a reference do not make another obligation."""
    root, provider = tmp_path / "d", Provider()
    make(root, provider)
    with hold(root, provider) as handle:
        pay(handle, 7)
        forms = ("INV-7", "inv-7", "Inv-7", "INV -7", "INV- 7", "I N V - 7")
        for number, (form, tail) in enumerate(product(forms, ("", " ", "  "))):
            args = {**args_for(7), "metadata[invoice]": form + tail}
            result = handle.act(TOOL, args, call_id=f"again-{number}", run=handle.start_run())
            assert (result.status, result.code) == ("denied", "duplicate_obligation"), form + tail
    assert len(provider.effects) == 1


def test_an_obligation_is_taken_across_runs_and_restarts(tmp_path: Path) -> None:
    """Another run, another call_id, another process: the invoice stays paid."""
    provider = Provider()
    make(tmp_path / "d", provider)
    for turn in range(3):
        with hold(tmp_path / "d", provider) as handle:
            result = pay(handle, 1, call_id=f"turn-{turn}", run=handle.start_run())
            assert (result.status == "confirmed") == (turn == 0)
    assert len(provider.effects) == 1
    assert unsound(tmp_path / "d") == []


def test_a_settled_failure_frees_the_obligation(tmp_path: Path) -> None:
    """What the provider refused for certain may be asked again under a new call_id; the old call keeps its answer."""
    provider = Provider(["refused"])
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        assert pay(handle, 1).status == "failed"
        assert pay(handle, 1, call_id="second").status == "confirmed"
        assert pay(handle, 1).status == "failed"
        assert pay(handle, 1, call_id="third").code == "duplicate_obligation"
    assert len(provider.effects) == 1
    assert unsound(tmp_path / "d") == []


def test_an_uncertain_outcome_keeps_the_obligation(tmp_path: Path) -> None:
    """While nobody knows whether money moved, the invoice cannot be paid again."""
    provider = Provider(["lost_before"] * 3, lookup="provider_error")
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        assert pay(handle, 1).status == "unknown"
        assert pay(handle, 1, call_id="second").code == "duplicate_obligation"
    assert len(set(provider.sent)) == 1


def test_a_denied_action_takes_nothing(tmp_path: Path) -> None:
    """A denial holds neither obligation nor budget; a parked action no budget."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        assert pay(handle, 1, 2_500_001).status == "denied"
        assert pay(handle, 2, 600_000).status == "escalated"
        assert pay(handle, 1, 100, call_id="less").status == "confirmed"
        assert pay(handle, 3, 100).status == "confirmed"
        assert waiting(handle)[0]["facts"]["day_total"] == 600_000
    paid = [body for body in bodies(tmp_path / "d", "action.decided") if body["disposition"] == "allow"]
    assert [body["facts"]["day_total"] for body in paid] == [100, 200]


def test_fifty_threads_on_one_call_are_one_payment(tmp_path: Path) -> None:
    """Fifty threads with the same call_id: one effect, and every thread hears of that one or that it is under way."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle, ThreadPoolExecutor(50) as pool:
        run = handle.start_run()
        answers = list(pool.map(lambda _: pay(handle, 1, run=run), range(50)))
        assert {answer.status for answer in answers} <= {"confirmed", "pending"}
        assert len({answer.action for answer in answers}) == 1
        assert pay(handle, 1, run=run).status == "confirmed"
    assert len(provider.sent) == 1
    assert kinds(tmp_path / "d").count("action.decided") == 1


def test_fifty_threads_on_one_obligation_are_one_payment(tmp_path: Path) -> None:
    """Fifty threads, each with a call_id and a run of its own, on one invoice: one pays, forty-nine hear no."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle, ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: pay(handle, 1, call_id=f"c-{n}", run=handle.start_run()), range(50)))
    assert sorted(answer.code for answer in answers) == ["duplicate_obligation"] * 49 + ["ok"]
    assert len(provider.sent) == 1
    assert doubled(provider.effects) == set()
    assert unsound(tmp_path / "d") == []


def test_an_agent_sees_and_uses_its_own_runs_only(tmp_path: Path) -> None:
    """A run belongs to one agent: another one cannot act in it, end it, or learn a call's answer through it."""
    other = '[agents.other]\nowner = "treasurer"\n\n[payees.acme-paper]'
    provider = Provider()
    make(tmp_path / "d", provider, changes={"[payees.acme-paper]": other})
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        pay(handle, 1, run=run)
        with pytest.raises(CountermarkError) as caught:
            handle.act(TOOL, args_for(1, destination=ACME), run=run, call_id="pay-1", agent="other")
        assert caught.value.code == "unknown_run"
        with pytest.raises(CountermarkError):
            handle.call("run.end", {"run": run, "reason": ""}, "other")
        assert pay(handle, 2, run=run).status == "confirmed"
        handle.call("run.end", {"run": run, "reason": "done"})
        with pytest.raises(CountermarkError) as ended:
            pay(handle, 3, run=run)
        assert ended.value.code == "unknown_run"
        assert pay(handle, 2, run=run).status == "confirmed"  # what was answered stays answered
    assert len(provider.sent) == 2
