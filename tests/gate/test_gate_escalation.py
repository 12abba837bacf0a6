"""Escalations: what an answer does, and every answer that must not count."""

from __future__ import annotations

from collections.abc import Mapping
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
    edited,
    hold,
    kinds,
    make,
    pay,
    rebuilt_equally,
    signed_answer,
    signed_revocation,
    unsound,
    waiting,
)  # fmt: skip
from support import records

from countermark import Deployment
from countermark.authority import activate, load_private, public_of, sign_approval
from countermark.gate import actions, caches
from countermark.model.clock import FakeClock
from countermark.model.errors import AuthorityError, CountermarkError
from countermark.policy import compile_bundle, load_sources, with_keys
from countermark.wiring import open_deployment
from countermark.wiring.connectors import drafts
from countermark.wiring.init import Made

LARGE = 600_000
APPROVER = 'roles = ["principal", "operator", "payees"]'


def activate_again(root: Path, made: Made, handle: Deployment, files: Mapping[str, str]) -> None:
    """Put another policy in force, with the same people."""
    keys = {person: str(public_of(load_private(path))) for person, path in made.people.items()}
    for path, text in with_keys(files, keys).items():
        (root / "policy" / path).write_text(text, "utf-8")
    bundle = compile_bundle(load_sources(root / "policy"), drafts())
    previous = handle.call("status", {})["activation"]
    order = {"deployment": made.deployment, "bundle": bundle.digest, "previous": previous,
             "author": bundle.compiled.author, "activator": "treasurer"}  # fmt: skip
    handle.call("activate", {**activate(order, load_private(made.people["treasurer"])), "document": bundle.document})


def test_an_approval_executes_exactly_once(tmp_path: Path) -> None:
    """Nothing moves while an action waits; the last approval needed moves it; asking again tells the outcome."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        parked = pay(handle, 1, LARGE)
        assert (parked.status, parked.code, provider.sent) == ("escalated", "needs_approval", [])
        (asked,) = waiting(handle)
        assert asked["values"]["amount"] == LARGE
        assert asked["escalation"] == parked.escalation
        reply = handle.call("answer", signed_answer(made, asked))
        assert (reply["state"], reply["result"]["status"]) == ("approved", "confirmed")
        again = pay(handle, 1, LARGE)
        assert (again.status, again.ref) == ("confirmed", reply["result"]["ref"])
        assert waiting(handle) == []
    assert len(provider.effects) == 1
    approved = bodies(tmp_path / "d", "action.decided")[-1]
    assert approved["escalation"] == parked.escalation
    assert approved["lifted"] == sorted(asked["ladders"]["finance"])
    assert unsound(tmp_path / "d") == []


def test_a_replayed_approval_is_refused(tmp_path: Path) -> None:
    """An approval is used up by its escalation; the same signed bytes move nothing again."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        answer = signed_answer(made, waiting(handle)[0])
        handle.call("answer", answer)
        with pytest.raises(AuthorityError) as caught:
            handle.call("answer", answer)
        assert caught.value.code == "approval_closed"
        assert pay(handle, 2, LARGE).status == "escalated"
        with pytest.raises(AuthorityError):
            handle.call("answer", answer)
        assert len(waiting(handle)) == 1
    assert len(provider.effects) == 1


def test_a_refusal_binds_the_obligation(tmp_path: Path) -> None:
    """After a refusal the invoice is refused under every call_id and every run, also after a restart."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        reply = handle.call("answer", signed_answer(made, waiting(handle)[0], "refuse"))
        assert reply["state"] == "refused"
        assert pay(handle, 1, LARGE).code == "not_approved"
        assert pay(handle, 1, 100, call_id="small").code == "refused_by_person"
    with hold(tmp_path / "d", provider) as handle:
        other = pay(handle, 1, 100, run=handle.start_run(), call_id="anew")
        assert (other.status, other.code) == ("denied", "refused_by_person")
        assert pay(handle, 2, 100).status == "confirmed"
    assert len(provider.effects) == 1
    assert unsound(tmp_path / "d") == []


def test_no_answer_in_time_means_no(tmp_path: Path) -> None:
    """At the deadline the escalation is over: it is recorded as expired, a late approval moves nothing."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        answer = signed_answer(made, waiting(handle)[0])
        clock.advance(4 * 3600)
        with pytest.raises(AuthorityError) as caught:
            handle.call("answer", answer)
        assert caught.value.code == "approval_expired"
        handle.gate.wait(handle.gate._expire())
        assert pay(handle, 1, LARGE).code == "not_approved"
    assert provider.sent == []
    assert kinds(tmp_path / "d").count("escalation.expired") == 1
    assert unsound(tmp_path / "d") == []


def test_a_changed_policy_voids_an_approval(tmp_path: Path) -> None:
    """When another bundle is in force at the answer, the approval lifts nothing: the action is denied, not paid."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        answer = signed_answer(made, waiting(handle)[0])
        activate_again(
            tmp_path / "d",
            made,
            handle,
            {"limits.toml": edited({"flag_above = 200000": "flag_above = 100000"})["limits.toml"]},
        )
        reply = handle.call("answer", answer)
        assert reply["result"]["code"] == "approval_void"
        assert pay(handle, 1, LARGE).code == "approval_void"
    assert provider.sent == []
    assert bodies(tmp_path / "d", "action.decided")[-1]["reasons"] == ["bundle"]
    assert unsound(tmp_path / "d") == []


@pytest.mark.parametrize("change", ["tool gone", "ladder gone", "agent gone"])
def test_a_policy_without_what_was_asked_takes_no_approval(tmp_path: Path, change: str) -> None:
    """A bundle that no longer knows tool, ladder or agent refuses the answer; the gate goes on working."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    files = edited()
    if change == "tool gone":
        head, rest = files["tools.toml"].split('[tool."stripe.transfers.create"]', 1)
        files["tools.toml"] = head + rest[rest.index('[tool."stripe.refunds.create"]') :]
        files["policies/vendors.cedar"] = (
            '@id("own.payouts")\nforbid (principal, action == Action::"stripe.payouts.create", resource)\n'
            'unless { resource == Payee::"own-bank" };\n'
        )
        files["tests/vendors.toml"] = ""
        del_fact = files["facts.toml"].split("[facts.refunds_day]")
        files["facts.toml"] = "[facts.refunds_day]" + del_fact[1]
    elif change == "ladder gone":
        for path in ("limits.toml", "policies/vendors.cedar"):
            files[path] = files[path].replace("ladder.finance", "ladder.money").replace('"finance"', '"money"')
    else:
        files["limits.toml"] = files["limits.toml"].replace("[agents.treasury]", "[agents.other]")
        files["tests/vendors.toml"] = ""
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        answer = signed_answer(made, waiting(handle)[0])
        activate_again(tmp_path / "d", made, handle, files)
        with pytest.raises(CountermarkError) as caught:
            handle.call("answer", answer)
        assert caught.value.code in ("approval_void", "approval_mismatch")
        assert handle.call("status", {})["waiting"] == 1
    assert provider.sent == []
    assert unsound(tmp_path / "d") == []


def test_an_approval_after_the_run_ended_is_refused(tmp_path: Path) -> None:
    """When the run has ended meanwhile, an approval is refused without halting the lane; a refusal still binds."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        pay(handle, 1, LARGE, run=run)
        pay(handle, 2, LARGE, run=run)
        first, second = waiting(handle)
        handle.call("run.end", {"run": run, "reason": "over"})
        with pytest.raises(AuthorityError) as caught:
            handle.call("answer", signed_answer(made, first))
        assert caught.value.code == "approval_void"
        assert handle.call("answer", signed_answer(made, second, "refuse"))["state"] == "refused"
        assert pay(handle, 2, 100, run=handle.start_run()).code == "refused_by_person"
    assert provider.sent == []
    assert "gate_halted" not in str(kinds(tmp_path / "d"))
    assert unsound(tmp_path / "d") == []


def test_an_approval_does_not_lift_a_kill(tmp_path: Path) -> None:
    """An agent that was killed meanwhile is not served by an approval, and clearing the kill later revives nothing."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        (asked,) = waiting(handle)
        kill = handle.call("kill.set", {"kind": "agent", "value": AGENT, "reason": "strange"})["kill"]
        reply = handle.call("answer", signed_answer(made, asked))
        assert (reply["result"]["status"], reply["result"]["code"]) == ("denied", "killed")
        clear_kill(handle, made, kill)
        assert pay(handle, 1, LARGE).code == "killed"
    assert provider.sent == []
    assert unsound(tmp_path / "d") == []


def test_an_approval_does_not_revive_a_mandate(tmp_path: Path) -> None:
    """A mandate revoked while the action waited denies it at the answer."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        (asked,) = waiting(handle)
        handle.call("mandate.revoke", signed_revocation(made, made.mandates[AGENT]))
        reply = handle.call("answer", signed_answer(made, asked))
        assert reply["result"]["code"] == "mandate_not_in_force"
    assert provider.sent == []


def test_an_approval_is_decided_with_fresh_facts(tmp_path: Path) -> None:
    """What was paid meanwhile counts: a window that is full at the answer denies what people approved."""
    provider = Provider()
    made = make(tmp_path / "d", provider, changes={"max = 5000000\n": "max = 1000000\n"})
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        (asked,) = waiting(handle)
        assert pay(handle, 2, 200_000).status == "confirmed"
        assert pay(handle, 3, 240_000, destination=BOREALIS).status == "confirmed"
        reply = handle.call("answer", signed_answer(made, asked))
        assert (reply["result"]["code"], reply["result"]["status"]) == ("approval_void", "denied")
    assert len(provider.effects) == 2
    assert unsound(tmp_path / "d") == []


@pytest.mark.parametrize("snapshots", [False, True])
def test_people_are_asked_once_about_an_obligation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshots: bool
) -> None:
    """While an invoice waits, every other action for it is denied with the question's seq; also after a restart."""
    if snapshots:
        monkeypatch.setattr(caches, "SNAPSHOT_RECORDS", 1)
        monkeypatch.setattr(caches, "SNAPSHOT_PART", 0)
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        pay(handle, 1, LARGE, run=run)
        for call, amount in (("part", 1000), ("other", LARGE + 1)):
            assert pay(handle, 1, amount, call_id=call).code == "already_waiting"
        assert len(waiting(handle)) == 1
    with hold(tmp_path / "d", provider) as handle:
        assert pay(handle, 1, 1000, call_id="after").code == "already_waiting"
        (asked,) = waiting(handle)
        assert handle.call("answer", signed_answer(made, asked))["result"]["status"] == "confirmed"
        assert pay(handle, 1, 1000, call_id="later").code == "duplicate_obligation"
        pay(handle, 2, LARGE)
        handle.call("answer", signed_answer(made, waiting(handle)[0], "refuse"))
        assert pay(handle, 2, 1000, call_id="refused").code == "refused_by_person"
    (first, *_) = [record for record in records(tmp_path / "d") if record.kind == "escalation.raised"]
    denied = [body for body in bodies(tmp_path / "d", "action.decided") if body["code"] == "already_waiting"]
    assert [(body["stage"], body["reasons"]) for body in denied] == [("obligation", [f"seq:{first.seq}"])] * 3
    assert len(provider.effects) == 1
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_an_obligation_waits_no_longer_than_its_question(tmp_path: Path) -> None:
    """After the deadline, and after an approval that paid nothing, the invoice may be asked about anew."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        clock.advance(4 * 3600)
        handle.gate.wait(handle.gate._expire())
        assert pay(handle, 1, LARGE, call_id="anew").status == "escalated"
        kill = handle.call("kill.set", {"kind": "agent", "value": AGENT, "reason": "strange"})["kill"]
        assert handle.call("answer", signed_answer(made, waiting(handle)[0]))["result"]["code"] == "killed"
        clear_kill(handle, made, kill)
        assert pay(handle, 1, 1000, call_id="third").status == "confirmed"
    assert unsound(tmp_path / "d") == []


@pytest.mark.parametrize("snapshots", [False, True])
def test_a_question_of_another_policy_stands_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshots: bool
) -> None:
    """Asked for again, by the same call or another, it is withdrawn first; the same policy withdraws nothing."""
    if snapshots:
        monkeypatch.setattr(caches, "SNAPSHOT_RECORDS", 1)
        monkeypatch.setattr(caches, "SNAPSHOT_PART", 0)
    provider, root = Provider(), tmp_path / "d"
    made = make(root, provider)
    with hold(root, provider) as handle:
        run = handle.start_run()
        for number in (1, 2):
            pay(handle, number, LARGE, run=run, call_id=f"first-{number}")
        assert pay(handle, 1, LARGE, run=run, call_id="early").code == "already_waiting"
        assert pay(handle, 1, LARGE, run=run, call_id="first-1").status == "escalated"
        assert len(waiting(handle)) == 2
        activate_again(root, made, handle, edited({"max = 5000000\n": "max = 4900000\n"}))
        old = waiting(handle)[1]
    with hold(root, provider) as handle:
        anew = pay(handle, 1, LARGE, run=run, call_id="anew")
        assert (anew.status, anew.code) == ("escalated", "needs_approval")
        again = pay(handle, 2, LARGE, run=run, call_id="first-2")
        assert (again.status, again.code, again.retryable) == ("denied", "approval_void", False)
        assert pay(handle, 2, LARGE, run=run, call_id="first-2") == again
        assert pay(handle, 1, LARGE, run=run, call_id="first-1").code == "approval_void"
        with pytest.raises(AuthorityError) as refused:
            handle.call("answer", signed_answer(made, old))
        assert refused.value.code == "approval_void"
        assert pay(handle, 1, LARGE, run=run, call_id="third").code == "already_waiting"
        (asked,) = waiting(handle)
        assert handle.call("answer", signed_answer(made, asked))["result"]["status"] == "confirmed"
        assert pay(handle, 2, 1000, run=run, call_id="small").status == "confirmed"
        assert pay(handle, 1, LARGE, run=run, call_id="fourth").code == "duplicate_obligation"
    assert [body["because"] for body in bodies(root, "escalation.expired")] == ["policy", "policy"]
    assert len(provider.effects) == 2
    assert unsound(root) == []
    assert rebuilt_equally(root)


def test_what_another_gate_asked_is_decided_in_the_tier_of_the_one_that_is_answered(tmp_path: Path) -> None:
    """Asked of a server, answered at the command line while it is down: the receipt claims no more than that."""
    provider, root = Provider(), tmp_path / "d"
    made = make(root, provider)
    with open_deployment(root, agent=AGENT, connectors={"stripe": provider}, tier="enforcing") as handle:
        pay(handle, 1, LARGE)
    with hold(root, provider) as handle:
        (asked,) = waiting(handle)
        assert handle.call("answer", signed_answer(made, asked))["result"]["receipt"]["tier"] == "embedded"
    assert [body["tier"] for body in bodies(root, "action.decided")] == ["enforcing", "embedded"]
    assert unsound(root) == []


def test_a_question_is_not_withdrawn_for_one_that_finds_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is recorded then, and the lane goes on; the question that would go makes room itself."""
    provider, root = Provider(), tmp_path / "d"
    made = make(root, provider)
    with hold(root, provider) as handle:
        run = handle.start_run()
        for number in (1, 2):
            pay(handle, number, LARGE, run=run)
        activate_again(root, made, handle, edited({"max = 5000000\n": "max = 4900000\n"}))
        before = kinds(root)
        monkeypatch.setattr(actions, "PARKED_MAX", 1)
        with pytest.raises(AuthorityError) as refused:
            pay(handle, 1, LARGE, run=run, call_id="anew")
        assert (refused.value.code, kinds(root), len(waiting(handle))) == ("too_many_waiting", before, 2)
        monkeypatch.setattr(actions, "PARKED_MAX", 2)
        assert pay(handle, 1, LARGE, run=run, call_id="anew").status == "escalated"
    assert unsound(root) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"action": "sha256:" + "0" * 64}, "approval_mismatch"),
        ({"request": "sha256:" + "0" * 64}, "approval_mismatch"),
        ({"bundle": "sha256:" + "0" * 64}, "approval_mismatch"),
        ({"mandate": "sha256:" + "0" * 64}, "approval_mismatch"),
        ({"terms": {"amount": LARGE - 1, "currency": "eur", "payee": "acme-paper"}}, "approval_mismatch"),
        ({"ids": ["limits.payment.max"]}, "approval_ladder"),
        ({"ladder": "other"}, "approval_ladder"),
        ({"deployment": "elsewhere"}, "approval_deployment"),
        ({"escalation": "esc_" + "0" * 32}, "approval_unknown"),
        ({"not_after": 4_102_444_800_000_000}, "approval_mismatch"),
    ],
)
def test_an_answer_to_something_else_counts_for_nothing(tmp_path: Path, changes: dict[str, object], code: str) -> None:
    """A signature over anything but exactly what was asked is refused, recorded nowhere, and nothing moves."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        before = handle.call("status", {})["records"]
        with pytest.raises(CountermarkError) as caught:
            handle.call("answer", signed_answer(made, waiting(handle)[0], **changes))
        assert caught.value.code == code
        assert handle.call("status", {})["records"] == before
        assert len(waiting(handle)) == 1
    assert provider.sent == []


def test_who_asked_does_not_answer(tmp_path: Path) -> None:
    """The agent's owner and policy's author is refused even with the approver's role; so is a person without it."""
    provider = Provider()
    made = make(tmp_path / "d", provider, changes={APPROVER: 'roles = ["principal", "operator", "approver"]'})
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        with pytest.raises(AuthorityError) as caught:
            handle.call("answer", signed_answer(made, waiting(handle)[0], person="treasurer"))
        assert caught.value.code == "approval_same_person"
    made = make(tmp_path / "e", provider)
    with hold(tmp_path / "e", provider) as handle:
        pay(handle, 1, LARGE)
        with pytest.raises(AuthorityError) as caught:
            handle.call("answer", signed_answer(made, waiting(handle)[0], person="treasurer"))
        assert caught.value.code == "approval_not_eligible"
    assert provider.sent == []


def test_a_quorum_takes_different_people(tmp_path: Path) -> None:
    """With a quorum of two, one person's two answers are one; a forged signature is none."""
    second = (
        '[people.deputy]\nname = "Deputy controller"\nroles = ["approver"]\nkey = "{{KEY:deputy}}"\n\n[agents.treasury]'
    )
    provider = Provider()
    made = make(tmp_path / "d", provider, changes={"quorum = 1": "quorum = 2", "[agents.treasury]": second})
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        (asked,) = waiting(handle)
        assert handle.call("answer", signed_answer(made, asked))["state"] == "pending"
        with pytest.raises(AuthorityError) as caught:
            handle.call("answer", signed_answer(made, asked))
        assert caught.value.code == "approval_same_person"
        forged = {**signed_answer(made, asked, person="deputy"), "sig": signed_answer(made, asked)["sig"]}
        borrowed = sign_approval(
            {**signed_answer(made, asked)["approval"], "person": "deputy"}, load_private(made.people["controller"])
        )
        for bad, code in ((forged, "bad_signature"), (borrowed, "not_authorised")):
            with pytest.raises(CountermarkError) as wrong:
                handle.call("answer", bad)
            assert wrong.value.code == code
        assert provider.sent == []
    with hold(tmp_path / "d", provider) as handle:  # the first answer is still there after a restart
        reply = handle.call("answer", signed_answer(made, asked, person="deputy"))
        assert (reply["state"], reply["result"]["status"]) == ("approved", "confirmed")
    assert len(provider.effects) == 1
    assert unsound(tmp_path / "d") == []


def test_a_call_that_waits_cannot_become_another(tmp_path: Path) -> None:
    """While an action waits, its call_id with another amount or payee is a conflict and changes nothing."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        for amount, payee in ((LARGE + 1, ACME), (LARGE, BOREALIS), (10, ACME)):
            with pytest.raises(CountermarkError) as caught:
                pay(handle, 1, amount, destination=payee)
            assert caught.value.code == "identity_conflict"
        assert waiting(handle)[0]["terms"]["amount"] == LARGE
        assert handle.call("status", {})["waiting"] == 1
    assert TOOL in str(bodies(tmp_path / "d", "action.refused"))
    assert provider.sent == []
