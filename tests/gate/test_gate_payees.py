"""The register of payees in the gate: who may change it, what a change stops, and what people are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from paying import order, with_anna
from rig import (
    ACME,
    AGENT,
    BOREALIS,
    Provider,
    bodies,
    clear_kill,
    edited,
    hold,
    make,
    pay,
    rebuilt_equally,
    signed_answer,
    unsound,
    waiting,
)
from test_gate_escalation import activate_again

from countermark.gate import Caller
from countermark.model.clock import US, FakeClock
from countermark.model.errors import AuthorityError, CountermarkError

LARGE = 600_000
NEW = "acct_1AcmeNewBank"


def test_a_changed_account_is_asked_about_until_it_has_cooled_off(tmp_path: Path) -> None:
    """Payments to the account of the first policy go through; to a new one people are asked for 48 hours, no longer."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock, edit=with_anna())
    with hold(tmp_path / "d", provider, clock) as handle:
        assert pay(handle, 1).status == "confirmed"
        handle.call("payee.set", order(handle, made, "acme-paper", NEW))
        clock.advance(48 * 3600 - 1)
        parked = pay(handle, 2, destination=NEW)
        assert (parked.status, waiting(handle)[0]["reasons"]) == ("escalated", ["limits.cool_off"])
        assert waiting(handle)[0]["facts"]["payee_details"] == {"known": True, "age_s": 48 * 3600 - 1}
        clock.advance(1)
        assert pay(handle, 3, destination=NEW).status == "confirmed"
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_an_account_that_was_replaced_is_paid_no_more(tmp_path: Path) -> None:
    """The old account is nobody's any more: it is refused, not asked about, and so is a closed payee's."""
    provider = Provider()
    made = make(tmp_path / "d", provider, edit=with_anna())
    with hold(tmp_path / "d", provider) as handle:
        handle.call("payee.set", order(handle, made, "acme-paper", NEW))
        assert (pay(handle, 1).status, pay(handle, 1).code) == ("denied", "account_replaced")
        handle.call("payee.set", order(handle, made, "borealis-hosting", ""))
        assert pay(handle, 2, destination=BOREALIS).code == "account_replaced"
        handle.call("payee.set", order(handle, made, "borealis-hosting", BOREALIS))
        assert pay(handle, 3, destination=BOREALIS).status == "escalated"  # known again, and its account is new
    assert provider.sent == []
    reasons = [body["reasons"] for body in bodies(tmp_path / "d", "action.decided")]
    assert reasons[0][0] == "acme-paper"
    assert unsound(tmp_path / "d") == []


def test_who_set_the_account_does_not_approve_a_payment_to_it(tmp_path: Path) -> None:
    """Anna has the role of the ladder; for a payee whose account she set, she is refused with a reason of her own."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock, edit=with_anna())
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        assert handle.call("answer", signed_answer(made, waiting(handle)[0], person="anna"))["state"] == "approved"
        handle.call("payee.set", order(handle, made, "acme-paper", NEW))
        pay(handle, 2, destination=NEW)
        assert waiting(handle)[0]["rungs"]["finance"]["people"] == ["controller"]  # nor is she said to be asked
        with pytest.raises(AuthorityError) as caught:
            handle.call("answer", signed_answer(made, waiting(handle)[0], person="anna"))
        assert caught.value.code == "approval_payee_setter"
        # A new name is no new account: she still set it.
        handle.call("payee.set", order(handle, made, "acme-paper", NEW, name="Acme Paper", person="treasurer"))
        pay(handle, 3, destination=NEW)
        with pytest.raises(AuthorityError) as caught:
            handle.call("answer", signed_answer(made, waiting(handle)[-1], person="anna"))
        assert caught.value.code == "approval_payee_setter"
        assert handle.call("answer", signed_answer(made, waiting(handle)[-1]))["state"] == "approved"
    assert unsound(tmp_path / "d") == []


def test_a_change_between_question_and_answer_voids_the_approval(tmp_path: Path) -> None:
    """People approved a payment to Acme's account; by the answer Acme's account is another, so nothing is sent."""
    provider = Provider()
    made = make(tmp_path / "d", provider, edit=with_anna())
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        answer = signed_answer(made, waiting(handle)[0])
        handle.call("payee.set", order(handle, made, "acme-paper", NEW))
        reply = handle.call("answer", answer)
        assert reply["result"]["code"] == "approval_void"
    assert provider.sent == []
    assert bodies(tmp_path / "d", "action.decided")[-1]["reasons"] == ["payee", "reasons"]  # cool-off too
    assert unsound(tmp_path / "d") == []


def test_a_change_between_approval_and_dispatch_blocks_the_effect(tmp_path: Path) -> None:
    """The intent is durable; the account is replaced before the first byte: nothing is sent, and why is recorded."""
    provider = Provider()
    made = make(tmp_path / "d", provider, edit=with_anna())
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, LARGE)
        change, run = order(handle, made, "acme-paper", NEW), handle.gate._executor.run

        async def late(lane, effect):
            await handle.gate.call("payee.set", change, Caller(AGENT, "embedded"))
            return await run(lane, effect)

        handle.gate._executor.run = late
        reply = handle.call("answer", signed_answer(made, waiting(handle)[0]))
        assert (reply["result"]["status"], reply["result"]["code"]) == ("failed", "not_sent")
    assert provider.sent == []
    assert bodies(tmp_path / "d", "action.settled")[-1]["request_id"] == "payee_changed"
    assert unsound(tmp_path / "d") == []


def test_a_stop_is_not_evaded_by_another_name(tmp_path: Path) -> None:
    """The account of a payee whom people stopped is not paid again as somebody else's; its own payee may have it."""
    provider = Provider()
    made = make(tmp_path / "d", provider, edit=with_anna())
    with hold(tmp_path / "d", provider) as handle:
        kill = handle.call("kill.set", {"kind": "payee", "value": "acme-paper", "reason": "odd"})["kill"]
        handle.call("payee.set", order(handle, made, "acme-paper", NEW))
        with pytest.raises(AuthorityError) as caught:
            handle.call("payee.set", order(handle, made, "cirrus", ACME, name="Cirrus Cables"))
        assert caught.value.code == "payee_stopped"
        handle.call("payee.set", order(handle, made, "acme-paper", ACME))
        assert pay(handle, 1).code == "killed"
        clear_kill(handle, made, kill)
        parked = pay(handle, 2, destination="acct_1Stranger")
        stranger = waiting(handle)[0]["terms"]["payee"]
        handle.call("kill.set", {"kind": "payee", "value": stranger, "reason": "odd"})
        with pytest.raises(AuthorityError) as caught:
            handle.call("payee.set", order(handle, made, "cirrus", "acct_1Stranger", name="Cirrus Cables"))
        assert caught.value.code == "payee_stopped"
        assert parked.status == "escalated"
    assert provider.sent == []
    assert unsound(tmp_path / "d") == []


def test_the_list_of_payees_has_pages(tmp_path: Path) -> None:
    """A page begins behind an id and ends after its limit; odd limits are refused."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        pages = [handle.call("payees", {"limit": 2})]
        while pages[-1]:
            pages.append(handle.call("payees", {"limit": 2, "after": pages[-1][-1]["payee"]}))
        assert [[row["payee"] for row in page] for page in pages] == [
            ["acme-paper", "borealis-hosting"], ["own-bank"], [],
        ]  # fmt: skip
        for odd in ({"limit": 0}, {"limit": True}, {"after": 5}, {"more": 1}):
            with pytest.raises(CountermarkError):
                handle.call("payees", odd)


REFUSED = {
    "by somebody without the role": ({"person": "controller"}, "not_authorised"),
    "for another deployment": ({"deployment": "elsewhere"}, "not_authorised"),
    "after its time": ({"not_after": 1}, "payee_expired"),
    "that replaces other details": ({"previous": {"account": NEW, "record": None}}, "payee_stale"),
    "that changes nothing": ({"account": ACME}, "payee_unchanged"),
    "with another payee's account": ({"account": BOREALIS}, "payee_account_taken"),
    "with another payee's id as account": ({"account": "own-bank"}, "payee_account_taken"),
    "with a look-alike name": ({"name": "B0realis Hostlng AB"}, "payee_alike"),
    "with a look-alike account": ({"account": "acct_1BoreaIisHosting"}, "payee_alike"),
    "without a reason": ({"reason": " "}, "bad_payee"),
    "with a name that nobody can see": ({"name": " "}, "bad_payee"),
    "closing who is not there": ({"payee": "ghost", "account": "", "previous": None}, "payee_unknown"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_an_order_is_refused_with_its_own_reason(tmp_path: Path, why: str) -> None:
    """Each order that must not count is refused under its code, and nothing is recorded of it."""
    changes, code = REFUSED[why]
    provider = Provider()
    made = make(tmp_path / "d", provider, edit=with_anna())
    with hold(tmp_path / "d", provider) as handle:
        with pytest.raises(CountermarkError) as caught:
            handle.call("payee.set", order(handle, made, **{"payee": "acme-paper", "account": NEW, **changes}))
        assert caught.value.code == code
        assert pay(handle, 1).status == "confirmed"
    assert bodies(tmp_path / "d", "payee.changed") == []


def test_an_order_is_good_for_one_change(tmp_path: Path) -> None:
    """Replayed after the account was changed back, it names details that are not the present ones."""
    provider = Provider()
    made = make(tmp_path / "d", provider, edit=with_anna())
    with hold(tmp_path / "d", provider) as handle:
        first = order(handle, made, "acme-paper", NEW)
        handle.call("payee.set", first)
        handle.call("payee.set", order(handle, made, "acme-paper", ACME))
        with pytest.raises(AuthorityError) as caught:
            handle.call("payee.set", first)
        assert caught.value.code == "payee_stale"
    assert unsound(tmp_path / "d") == []


def test_a_payee_of_the_register_is_known_and_named_by_no_policy(tmp_path: Path) -> None:
    """It is no unknown payee; the rule for `own-bank` does not mean it; after the cool-off it is simply paid."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock, edit=with_anna())
    with hold(tmp_path / "d", provider, clock) as handle:
        handle.call("payee.set", order(handle, made, "cirrus-cables", "acct_1Cirrus", name="Cirrus Cables"))
        pay(handle, 1, destination="acct_1Cirrus")
        assert waiting(handle)[0]["reasons"] == ["limits.cool_off"]
        assert waiting(handle)[0]["terms"]["payee"] == "cirrus-cables"
        assert waiting(handle)[0]["facts"]["payee_known"] is True
        clock.advance(48 * 3600)
        assert pay(handle, 2, destination="acct_1Cirrus").status == "confirmed"
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_a_policy_may_not_give_two_payees_one_account(tmp_path: Path) -> None:
    """Activation is refused while the register has the account; a policy's new account is new for the cool-off too."""
    provider, clock = Provider(), FakeClock()
    files = with_anna()
    made = make(tmp_path / "d", provider, clock=clock, edit=files)
    with hold(tmp_path / "d", provider, clock) as handle:
        handle.call("payee.set", order(handle, made, "cirrus-cables", "acct_1Cirrus", name="Cirrus Cables"))
        other = {**files, "limits.toml": files["limits.toml"].replace(BOREALIS, "acct_1Cirrus")}
        with pytest.raises(CountermarkError) as caught:
            activate_again(tmp_path / "d", made, handle, other)
        assert caught.value.code == "payee_account_taken"
        moved = {**files, "limits.toml": files["limits.toml"].replace(BOREALIS, "acct_1Borealis2")}
        activate_again(tmp_path / "d", made, handle, moved)
        pay(handle, 1, destination="acct_1Borealis2")
        assert waiting(handle)[0]["reasons"] == ["limits.cool_off"]
        assert pay(handle, 2).status == "confirmed"
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_people_are_told_what_changed(tmp_path: Path) -> None:
    """The history of a payee has each change with its person and time, and how much was paid to which account."""
    provider, clock = Provider(), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock, edit=with_anna())
    with hold(tmp_path / "d", provider, clock) as handle:
        for number in range(3):
            pay(handle, number)
        clock.advance(60)
        handle.call("payee.set", order(handle, made, "acme-paper", NEW))
        clock.advance(49 * 3600)
        pay(handle, 9, destination=NEW)
        told = handle.call("payee.history", {"payee": "acme-paper"})
        assert (told["last4"], told["by"], told["registered"]) == ("Bank", "anna", True)
        (change,) = told["changes"]
        assert (change["by"], change["from"], change["to"]) == ("anna", "aper", "Bank")
        assert clock.now_us() - change["at"] == 49 * 3600 * US
        assert told["paid"] == [{"last4": "aper", "count": 3}, {"last4": "Bank", "count": 1}]
        with pytest.raises(CountermarkError) as caught:
            handle.call("payee.history", {"payee": "ghost"})
        assert caught.value.code == "unknown_payee"


def test_an_unknown_account_that_looks_like_a_known_one_says_so(tmp_path: Path) -> None:
    """The list of what waits names the payee whose account is one letter away."""
    provider = Provider()
    make(tmp_path / "d", provider, edit=edited())
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1, destination="acct_1AcmePapar")
        pay(handle, 2, destination="acct_1SomebodyElse")
        pay(handle, 3, LARGE)
        alike = [entry["alike"] for entry in waiting(handle)]
        assert [[row["payee"] for row in rows] for rows in alike] == [["acme-paper"], [], []]
        assert alike[0][0]["because"] == "account"


def test_what_stands_against_a_registered_payee_is_what_would_be_decided(tmp_path: Path) -> None:
    """A preview takes a payee that only the register knows for known, as the decision does."""
    provider = Provider()
    tight = {'max = 900000000\nabove = "refuse"': 'max = 5000000\nabove = "refuse"'}
    made = make(tmp_path / "d", provider, edit=with_anna(tight))
    with hold(tmp_path / "d", provider) as handle:
        handle.call("payee.set", order(handle, made, "cirrus", "acct_1Cirrus"))
        for number, account in enumerate((ACME, BOREALIS, "acct_1Cirrus")):
            pay(handle, number, 2_000_000, destination=account)
        for parked in waiting(handle)[:2]:
            assert handle.call("answer", signed_answer(made, parked))["state"] == "approved"
        outlook = handle.call("escalation.preview", {"escalation": waiting(handle)[0]["escalation"]})
    assert (outlook["code"], outlook["against"]) == ("approval_void", ["limits.window.day_total"])
