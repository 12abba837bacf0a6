"""The kill switch: after its answer nothing new starts, and only a person's signature undoes it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from rig import (
    ACME,
    AGENT,
    BOREALIS,
    TOOL,
    Provider,
    bodies,
    clear_kill,
    hold,
    make,
    pay,
    signed_revocation,
    unsound,
)  # fmt: skip
from support import records

from countermark import Deployment, Result
from countermark.authority import clear, generate
from countermark.model.errors import CountermarkError

CALLERS = 12
KILLS = 6


@pytest.mark.parametrize(
    ("kind", "value"),
    [("deployment", ""), ("agent", AGENT), ("tool", TOOL), ("payee", "acme-paper"), ("mandate", None)],
)
def test_a_kill_stops_its_scope_until_people_clear_it(tmp_path: Path, kind: str, value: str | None) -> None:
    """Each kind of scope denies what it covers and nothing else, also after a restart, until a signed clearance."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    value = made.mandates[AGENT] if value is None else value
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        kill = handle.call("kill.set", {"kind": kind, "value": value, "reason": "strange"})["kill"]
        assert pay(handle, 1, run=run).code == "killed"
    with hold(tmp_path / "d", provider) as handle:
        assert pay(handle, 2, run=run).code == "killed"
        elsewhere = pay(handle, 3, run=run, destination=BOREALIS)
        assert elsewhere.status == ("confirmed" if kind == "payee" else "denied")
        sent = len(provider.sent)
        clear_kill(handle, made, kill)
        assert pay(handle, 4, run=run).status == "confirmed"
        assert len(provider.sent) == sent + 1
        assert pay(handle, 1, run=run).code == "killed"  # an answer stays the answer
    assert unsound(tmp_path / "d") == []


def test_a_kill_of_something_else_stops_nothing(tmp_path: Path) -> None:
    """A scope that does not cover the action leaves it alone; an unknown kind of scope, or name in it, is refused."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        for kind, value in (("payee", "p:" + "0" * 32), ("payee", "borealis-hosting")):
            handle.call("kill.set", {"kind": kind, "value": value, "reason": ""})
        misspelt = [(kind, "Treasury") for kind in ("agent", "tool", "payee", "mandate")]
        for kind, value in [*misspelt, ("payee", "p:0"), ("payee", ACME), ("everything", "")]:
            with pytest.raises(CountermarkError) as caught:
                handle.call("kill.set", {"kind": kind, "value": value, "reason": ""})
            assert caught.value.code == "bad_argument"
        assert len(handle.call("status", {})["kills"]) == 2
        assert pay(handle, 1).status == "confirmed"


def test_clearing_needs_an_enrolled_signature(tmp_path: Path) -> None:
    """No signature, a stranger's key, another deployment's order, another kill: the kill stays."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        kill = handle.call("kill.set", {"kind": "deployment", "value": "", "reason": ""})["kill"]
        order = {"deployment": "test", "kill": kill, "person": "treasurer", "reason": "please"}
        stranger = clear(order, generate())
        elsewhere = clear({**order, "deployment": "elsewhere"}, generate())
        bad = [{}, {"clearance": order}, {**stranger, "sig": ""}, stranger, elsewhere, {"kill": kill}]
        for body in bad:
            with pytest.raises(CountermarkError):
                handle.call("kill.clear", body)
        with pytest.raises(CountermarkError):
            clear_kill(handle, made, "kill_" + "0" * 16)
        assert pay(handle, 1).code == "killed"
        assert [k["kill"] for k in handle.call("status", {})["kills"]] == [kill]
    assert provider.sent == []


def test_after_the_answer_no_new_effect_starts(tmp_path: Path) -> None:
    """Under load, every effect that starts after a kill's answer is a breach; there is none, over several kills."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    numbers = iter(range(1, 1_000_000))
    lock, stop = threading.Lock(), threading.Event()
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()

        def caller() -> None:
            while not stop.is_set():
                with lock:
                    number = next(numbers)
                pay(handle, number, run=run)

        threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        breaches = 0
        for _ in range(KILLS):
            while not provider.sent:
                stop.wait(0.001)
            reply = handle.call("kill.set", {"kind": "deployment", "value": "", "reason": "drill"})
            # What may still reach the provider is what the answer lists; whatever else does started too late.
            sent = set(provider.sent)
            listed = {entry["id"] for entry in reply["in_flight"]}
            stop.wait(0.02)
            late = set(provider.sent) - sent
            breaches += len(late - _keys_of(handle, listed))
            clear_kill(handle, made, reply["kill"])
            with provider._lock:
                provider.sent.clear()
        stop.set()
        for thread in threads:
            thread.join()
    assert breaches == 0
    assert len(provider.effects) > KILLS
    assert unsound(tmp_path / "d") == []


def _keys_of(handle: Deployment, ids: set[str]) -> set[str]:
    """Provider keys of actions, from the journal beside its owner."""
    return {r.body["key"] for r in records(handle.config.root) if r.kind == "action.decided" and r.body["id"] in ids}


@pytest.mark.parametrize("how", ["kill", "revoke"])
def test_what_is_under_way_is_listed_and_finishes(tmp_path: Path, how: str) -> None:
    """An effect that left before the order is named in the answer, is not cut off, and is settled as what it was."""
    provider = Provider(["hold"])
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        answers: list[Result] = []
        thread = threading.Thread(target=lambda: answers.append(pay(handle, 1, run=run)))
        thread.start()
        assert provider.held.acquire(timeout=10)
        if how == "kill":
            reply = handle.call("kill.set", {"kind": "agent", "value": AGENT, "reason": ""})
        else:
            reply = handle.call("mandate.revoke", signed_revocation(made, made.mandates[AGENT]))
        assert [entry["tool"] for entry in reply["in_flight"]] == [TOOL]
        assert pay(handle, 2, run=run).status == "denied"
        provider.go.set()
        thread.join()
        assert answers[0].status == "confirmed"
    assert len(provider.effects) == 1


def test_a_kill_stops_further_attempts(tmp_path: Path) -> None:
    """A kill while an uncertain effect is tried again: it is looked up, not sent another time, and stays unknown."""
    provider = Provider(["hold_lost", "lost_before", "lost_before"], lookup="provider_error")
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        answers: list[Result] = []
        thread = threading.Thread(target=lambda: answers.append(pay(handle, 1, run=run)))
        thread.start()
        assert provider.held.acquire(timeout=10)
        handle.call("kill.set", {"kind": "deployment", "value": "", "reason": ""})
        provider.go.set()
        thread.join()
        assert answers[0].status == "unknown"
        handle.call("recover", {})
        assert len(provider.sent) == 1
        assert len(provider.asked) >= 2
    assert bodies(tmp_path / "d", "action.settled")[-1]["outcome"] == "unknown"
