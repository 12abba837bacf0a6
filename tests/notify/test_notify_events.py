"""What committed records mean for people, and what of an action leaves the house."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from notify_support import INVOICE_HEAD, LARGE, SEALED_INVOICE, Desk, Receiver, webhook
from rig import BOREALIS, Provider

from countermark.model.clock import US


def told(receiver: Receiver) -> list[dict[str, Any]]:
    return [got.json["data"] for got in receiver.got]


def test_a_thread_is_told_from_the_question_to_the_outcome(tmp_path: Path) -> None:
    """Asked, approved, sent, confirmed: in this order, each with the same escalation, amount, payee and link."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        escalation = desk.ask()
        desk.tell()
        desk.answer(escalation)
        desk.tell()
        found = told(receiver)
    assert [doc["event"] for doc in found] == ["asked", "approved", "sent", "confirmed"]
    assert receiver.got[0].json["type"] == "escalation.asked"
    for doc in found:
        assert doc["escalation"] == escalation
        assert (doc["amount"], doc["currency"], doc["amount_text"]) == (LARGE, "eur", "6,000.00 EUR")
        assert (doc["payee_name"], doc["account_last4"]) == ("Acme Paper GmbH", "aper")
        assert doc["link"] == f"http://localhost:8521/waiting/{escalation}"
        assert doc["references"] == {"invoice": "INV-1"}
    assert found[0]["rules"]["finance"]
    assert found[1]["person"] == "controller"
    assert found[3]["moved"] == "" or "EUR" in found[3]["moved"]
    assert found[3]["reference"].startswith("tr_")


def test_the_text_says_what_a_person_needs_in_plain_words(tmp_path: Path) -> None:
    """Amount, payee, last four, rule, deadline in the bundle's zone, the link on a line of its own."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        escalation = desk.ask()
        due = desk.clock.now_us() + 4 * 3_600 * US
        desk.tell()
        doc = told(receiver)[0]
        text = doc["text"]
    assert text.splitlines()[0] == "Waiting for an answer: 6,000.00 EUR to Acme Paper GmbH"
    assert "Account: ends in aper" in text
    assert "(ladder finance)" in text
    assert "(Europe/Berlin)" in text
    assert doc["due"] <= due
    assert f"\nhttp://localhost:8521/waiting/{escalation}\n" in text
    assert "No answer means no" in text
    assert "carries no authority" in text


@pytest.mark.parametrize(
    ("amount", "currency", "words"),
    [(990_000, "eur", "9,900.00 EUR"), (990_000, "jpy", "990,000 JPY"), (990_001, "kwd", "990.001 KWD")],
)
def test_amounts_have_the_digits_of_their_currency(amount: int, currency: str, words: str) -> None:
    """Yen have no minor unit, dinars three digits."""
    from countermark.model.words import money

    assert money(amount, currency) == words


def test_a_refusal_and_an_expiry_end_the_thread(tmp_path: Path) -> None:
    """A refusal names who refused; without an answer people hear that nothing is sent."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        first, second = desk.ask(1), desk.ask(2)
        desk.answer(first, "refuse")
        desk.clock.advance(5 * 3_600)
        desk.handle.gate.wait(desk.handle.gate._expire())
        desk.tell()
        ends = [(doc["event"], doc["escalation"], doc.get("person", "")) for doc in told(receiver)[2:]]
    assert ends == [("refused", first, "controller"), ("expired", second, "")]


@pytest.mark.parametrize(("fault", "event"), [("refused", "failed"), ("lost_before", "unknown")])
def test_what_went_wrong_at_the_provider_is_told(tmp_path: Path, fault: str, event: str) -> None:
    """A refusal of the provider is `failed`; no answer is `unknown`, which is not the end of the thread."""
    provider = Provider([fault] * (1 if fault == "refused" else 9), lookup="timeout")
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin), provider=provider) as desk:
        desk.answer(desk.ask())
        desk.tell()
        assert [doc["event"] for doc in told(receiver)] == ["asked", "approved", "sent", event]
        if event == "unknown":
            provider.lookup_says = ""
            provider.script.clear()
            provider.effects.append(provider.sent[0])
            desk.handle.call("recover", {})
            desk.tell()
            assert told(receiver)[-1]["event"] == "confirmed"


def test_an_approval_that_no_longer_stands_is_told(tmp_path: Path) -> None:
    """A stop between question and answer: approved, and not sent."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        escalation = desk.ask()
        desk.handle.call("kill.set", {"kind": "deployment", "value": "", "reason": "drill"})
        desk.answer(escalation)
        desk.tell()
        found = told(receiver)
    assert [doc["event"] for doc in found] == ["stopped", "asked", "approved", "voided"]
    assert found[0]["title"] == "Stopped: everything"
    assert found[3]["code"] == "killed"


def test_an_ordinary_payment_is_nobodys_news(tmp_path: Path) -> None:
    """What nobody was asked about makes no message, whatever becomes of it."""
    from rig import pay

    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        for number in range(5):
            pay(desk.handle, number)
        assert desk.tell() == 0
        assert desk.notices.outbox.cursors() != {}


def test_what_was_before_a_channel_is_not_told(tmp_path: Path) -> None:
    """A channel begins at the end of the log: nobody is flooded with old news."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.ask(1)
        desk.tell()
        desk.configure(webhook(receiver.origin) + webhook(receiver.origin, "late"))
        desk.reopen()
        desk.ask(2)
        desk.tell("ops", "late")
        assert desk.events() == [("ops", "asked"), ("ops", "asked"), ("late", "asked")]


def test_a_sensitive_value_never_leaves(tmp_path: Path) -> None:
    """An argument that the tool declares sensitive stands in no message, nor does the agent's reason."""
    secret = "INV-for-Anna-Example"
    with Receiver() as receiver:
        desk = Desk(tmp_path / "d", webhook(receiver.origin), tools={INVOICE_HEAD: SEALED_INVOICE})
        with desk:
            args = {"amount": LARGE, "currency": "eur", "destination": BOREALIS, "metadata[invoice]": secret}
            result = desk.handle.act("stripe.transfers.create", args, call_id="c1", reason=f"because {secret}")
            assert result.escalation
            desk.answer(result.escalation)
            desk.tell()
        raw = b"".join(got.body for got in receiver.got)
        assert len(receiver.got) == 4
        assert b"Anna" not in raw
        assert b"because" not in raw
        assert json.loads(receiver.got[0].body)["data"]["references"] == {}
        assert b"Anna" not in (tmp_path / "d" / "data" / "notify.db").read_bytes()


def test_a_sensitive_account_shows_no_last_four(tmp_path: Path) -> None:
    """Where the account itself is sealed, not even its end is told; the payee's name is the policy's."""
    head = '[tool."stripe.transfers.create".args."metadata[invoice]"]'
    sealed = '[tool."stripe.transfers.create".args.destination]\nsensitive = true\n\n' + head
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin), tools={head: sealed}) as desk:
        desk.ask()
        desk.tell()
        doc = told(receiver)[0]
    assert doc["account_last4"] == ""
    assert doc["payee_name"] == "Acme Paper GmbH"
    assert "ends in" not in doc["text"]


def test_filters_choose_ladders_roles_and_events(tmp_path: Path) -> None:
    """A channel hears of its ladders, of rungs that ask its roles, and of its events only; of a stop all hear."""
    with Receiver() as receiver:
        channels = (
            webhook(receiver.origin, "mine", ladders='["finance"]')
            + webhook(receiver.origin, "other", ladders='["board"]')
            + webhook(receiver.origin, "role", roles='["approver"]')
            + webhook(receiver.origin, "norole", roles='["cfo"]')
            + webhook(receiver.origin, "ends", events='["confirmed", "failed"]')
        )
        with Desk(tmp_path / "d", channels) as desk:
            desk.answer(desk.ask())
            desk.handle.call("kill.set", {"kind": "agent", "value": "treasury", "reason": "drill"})
            desk.read()
            heard: dict[str, list[str]] = {}
            for channel, event in desk.events():
                heard.setdefault(channel, []).append(event)
    whole = ["asked", "approved", "sent", "confirmed", "stopped"]
    assert heard == {"mine": whole, "role": whole, "other": ["stopped"], "norole": ["stopped"], "ends": ["confirmed"]}


def test_a_payee_that_nobody_knows_has_no_name_of_the_agents(tmp_path: Path) -> None:
    """An account outside of the policy is told as such, with its last four characters."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.ask(1, 1_000, destination="acct_1NobodyKnows")
        desk.tell()
        doc = told(receiver)[0]
    assert doc["title"] == "Waiting for an answer: 10.00 EUR to a payee that is not known"
    assert doc["payee"].startswith("p:")
    assert doc["account_last4"] == "nows"
