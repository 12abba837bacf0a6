"""The approval page without a browser: what it shows, and which answers count."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import AGENT, Stage
from visitor import Visitor, args_for, fields_of, order, text_of

import countermark
from countermark.authority import build_approval, challenge_of, encode64
from countermark.model.clock import FakeClock
from countermark.model.digest import APPROVAL
from countermark.model.errors import ArgumentError
from countermark.server.console import waiting
from countermark.server.console.waiting import SHARED_MS


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def stage(tmp_path: Path, clock: FakeClock) -> Iterator[Stage]:
    with Stage(tmp_path / "d", clock=clock) as found:
        yield found


def entry(stage: Stage, name: str) -> dict[str, Any]:
    return next(one for one in stage.waiting() if one["escalation"] == name)


def words_of(visitor: Visitor, target: str) -> str:
    """What a page says, without its markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", text_of(visitor.get(target))).split())


def form_of(visitor: Visitor, name: str, verdict: str) -> dict[str, str]:
    """The hidden fields of one of the page's two forms."""
    page = text_of(visitor.get(f"/waiting/{name}"))
    part = page.partition(f'<form id="{verdict}"')[2]
    assert part, page
    return fields_of(part, f"/waiting/{name}/answer")


def send(stage: Stage, visitor: Visitor, name: str, verdict: str, changes: dict[str, str] | None = None) -> Any:
    """Answer as the page's script would; ``changes`` replace fields after the passkey answered."""
    fields = form_of(visitor, name, verdict)
    fields |= stage.answered("controller", fields["challenge"])
    return visitor.post(f"/waiting/{name}/answer", {**fields, **(changes or {})})


def test_the_challenge_is_the_digest_of_exactly_what_the_gate_asks(stage: Stage) -> None:
    """Each button's challenge is the approval's own digest, so that a passkey signs what the gate will verify."""
    name = stage.ask_people(1)
    visitor = stage.visitor("controller")
    for verdict in ("approve", "refuse"):
        document = build_approval(
            entry(stage, name), deployment="test", ladder="finance", verdict=verdict, person="controller"
        )  # type: ignore[arg-type]
        assert form_of(visitor, name, verdict)["challenge"] == encode64(challenge_of(APPROVAL, document))


def test_an_approval_pays_and_its_thread_says_so(stage: Stage) -> None:
    """After the passkey's yes the payment is sent once, and the page tells asked, approved, sent, confirmed."""
    name = stage.ask_people(1)
    visitor = stage.visitor("controller")
    answer = send(stage, visitor, name, "approve")
    assert (answer.status, answer.headers.get("location")) == (303, f"/waiting/{name}"), text_of(answer)
    page = text_of(visitor.get(f"/waiting/{name}"))
    assert re.findall(r'class="step step-(\w+)"', page) == ["asked", "approved", "sent", "confirmed"]
    assert "Cleo Controller (controller) approved." in page
    assert len(stage.provider.effects) == 1
    assert 'data-passkey="get"' not in page


@pytest.mark.parametrize(
    ("fault", "steps", "said"),
    [
        ("not_sent", ["asked", "approved", "allowed", "failed"], "It failed: nothing was moved."),
        ("lost_before", ["asked", "approved", "sent", "unknown"], "it may or may not have happened"),
        ("refused", ["asked", "approved", "sent", "failed"], "The provider refused it"),
    ],
)
def test_what_was_not_confirmed_is_not_called_so(stage: Stage, fault: str, steps: list[str], said: str) -> None:
    """A request that never left, one that was lost and one that was refused each have their own thread."""
    stage.provider.script.extend([fault] * 20)  # however often it is tried
    stage.provider.lookup_says = "timeout"
    name = stage.ask_people(1)
    visitor = stage.visitor("controller")
    assert send(stage, visitor, name, "approve").status == 303
    page = text_of(visitor.get(f"/waiting/{name}"))
    assert re.findall(r'class="step step-(\w+)"', page) == steps
    assert said in page


def test_a_refusal_sends_nothing(stage: Stage) -> None:
    """The passkey's no is recorded, nothing was sent, and the page says who refused."""
    name = stage.ask_people(1)
    visitor = stage.visitor("controller")
    assert send(stage, visitor, name, "refuse").status == 303
    page = text_of(visitor.get(f"/waiting/{name}"))
    assert re.findall(r'class="step step-(\w+)"', page) == ["asked", "refused"]
    assert stage.provider.effects == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"verdict": "approve"}, "challenge_changed"),  # of a refusal
        ({"ladder": "other"}, "approval_ladder"),
        ({"challenge": "A" * 43}, "challenge_changed"),
        ({"assertion": "{}"}, "bad_signature"),
        ({"assertion": ""}, "bad_signature"),
        ({"credential": "AAAA"}, "bad_signature"),
        ({"verdict": "freeze"}, "bad_argument"),
    ],
)
def test_an_altered_answer_is_refused(stage: Stage, changes: dict[str, str], code: str) -> None:
    """A signed refusal whose form was altered on its way is nothing, and each alteration has its own code."""
    name = stage.ask_people(1)
    answer = send(stage, stage.visitor("controller"), name, "refuse", changes)
    assert answer.status in (400, 403, 409)
    assert f"<code>{code}</code>" in text_of(answer)
    assert [one["escalation"] for one in stage.waiting()] == [name]
    assert stage.provider.effects == []


def test_one_questions_answer_is_not_anothers(stage: Stage) -> None:
    """The assertion for one question, sent to another of the same amount, is refused; so is its form as a whole."""
    first, second = stage.ask_people(1), stage.ask_people(2)
    visitor = stage.visitor("controller")
    fields = form_of(visitor, first, "approve")
    fields |= stage.answered("controller", fields["challenge"])
    assert "challenge_changed" in text_of(visitor.post(f"/waiting/{second}/answer", fields))
    there = form_of(visitor, second, "approve")["challenge"]
    answer = visitor.post(f"/waiting/{second}/answer", {**fields, "challenge": there})
    assert "bad_signature" in text_of(answer)
    assert stage.provider.effects == []


def test_an_answer_counts_once(stage: Stage) -> None:
    """The same form sent again changes nothing: the question waits no more."""
    name = stage.ask_people(1)
    visitor = stage.visitor("controller")
    fields = form_of(visitor, name, "approve")
    fields |= stage.answered("controller", fields["challenge"])
    assert visitor.post(f"/waiting/{name}/answer", fields).status == 303
    assert "approval_expired" in text_of(visitor.post(f"/waiting/{name}/answer", fields))
    assert len(stage.provider.effects) == 1


def test_a_session_without_a_passkey_answers_nothing(stage: Stage) -> None:
    """Who signed in with a key file and has no passkey sees the command to answer with, and no button."""
    name = stage.ask_people(1)
    for person in ("auditor", "visitor", "treasurer", "chief"):
        page = text_of(stage.visitor(person).get(f"/waiting/{name}"))
        assert 'data-passkey="get"' not in page, person
    visitor = stage.visitor("controller")
    fields = form_of(visitor, name, "approve")
    bare = {key: value for key, value in fields.items() if value}
    assert visitor.post(f"/waiting/{name}/answer", bare).status == 403
    assert stage.provider.effects == []


def test_another_persons_session_does_not_carry_an_answer(stage: Stage) -> None:
    """The chief's browser, with the controller's assertion in its form, answers nothing."""
    name = stage.ask_people(1)
    fields = form_of(stage.visitor("controller"), name, "approve")
    fields |= stage.answered("controller", fields["challenge"])
    chief = stage.visitor("chief")
    answer = chief.post(f"/waiting/{name}/answer", {**fields, "token": chief.token()})
    assert "challenge_changed" in text_of(answer)
    assert stage.provider.effects == []


def test_the_ladder_climbs_to_the_next(stage: Stage, clock: FakeClock) -> None:
    """When the first rung is over, the chief may answer and the controller no longer; then nobody, which is no."""
    name = stage.ask_people(1)
    controller = text_of(stage.visitor("controller").get(f"/waiting/{name}"))
    assert "Cleo Controller answers until" in controller
    assert "Then Farah Chief is asked." in controller
    clock.advance(4 * 3_600 + 1)
    stage.tick()
    late = text_of(stage.visitor("controller").get(f"/waiting/{name}"))
    assert "You are not one of those who are asked now." in late
    chief = stage.visitor("chief")
    page = text_of(chief.get(f"/waiting/{name}"))
    assert "Farah Chief answers until" in page
    assert '<form id="approve"' in page
    clock.advance(2 * 3_600 + 1)
    stage.tick()
    over = text_of(stage.visitor("chief").get(f"/waiting/{name}"))
    assert "Nobody answered in time, which means no." in over
    assert stage.provider.effects == []


def test_what_can_no_longer_be_approved_has_no_button(tmp_path: Path, clock: FakeClock) -> None:
    """When others used the limit up meanwhile, the page says so instead of the button; refusing stays possible."""
    tight = {'max = 900000000\nabove = "refuse"': 'max = 1000000\nabove = "refuse"'}  # of the day's total
    with Stage(tmp_path / "d", clock=clock, changes=tight) as stage:
        first, second = stage.ask_people(1), stage.ask_people(2, 500_001)
        visitor = stage.visitor("controller")
        assert '<form id="approve"' in text_of(visitor.get(f"/waiting/{second}"))
        assert send(stage, visitor, first, "approve").status == 303
        page = text_of(visitor.get(f"/waiting/{second}"))
        assert "Cannot approve: limit now used up" in page
        assert '<form id="approve"' not in page
        assert send(stage, visitor, second, "refuse").status == 303


def test_freezing_needs_no_key_and_stops_the_agent(stage: Stage) -> None:
    """Whoever is signed in freezes the agent that asks; what it asks then is refused, and the reason is recorded."""
    name = stage.ask_people(1)
    visitor = stage.visitor("visitor")
    token = visitor.token(f"/waiting/{name}")
    answer = visitor.post(f"/waiting/{name}/freeze", {"token": token, "reason": "looks\u202e odd\x00"})
    assert answer.status == 303, text_of(answer)
    kills = stage.handle.call("status", {})["kills"]
    assert [(one["kind"], one["value"]) for one in kills] == [("agent", "treasury")]
    page = text_of(stage.visitor("controller").get(f"/waiting/{name}"))
    assert "Cannot approve: people have stopped this" in page
    assert stage.visitor().post(f"/waiting/{name}/freeze", {"token": token}).status == 403


def test_what_an_agent_says_stays_text(stage: Stage) -> None:
    """Markup is escaped, direction marks are spelled out, long texts are cut, and nothing becomes a link."""
    text = "<script>alert(1)</script> \u202e\u2066 https://evil.example/?a=1&b=2 " + "x" * 450
    name = stage.ask_people(1, reason=text)
    raw = stage.visitor("controller").get(f"/waiting/{name}").body.decode()
    part = raw.partition('<p class="claim">')[2].partition("</p>")[0]
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\u202e\\u2066 https://evil.example/?a=1&amp;b=2" in part
    assert "more characters" in part
    assert "<script>alert" not in raw
    assert 'href="https://evil' not in raw
    assert "\u202e" not in raw


def test_words_are_withheld_from_who_has_no_role(stage: Stage) -> None:
    """Somebody without a role sees amount and payee, not what the agent says nor what is kept encrypted."""
    name = stage.ask_people(1, reason="for the auditor's eyes")
    assert "for the auditor's eyes" in text_of(stage.visitor("auditor").get(f"/waiting/{name}"))
    page = text_of(stage.visitor("visitor").get(f"/waiting/{name}"))
    assert "6,000.00 EUR" in page
    assert "for the auditor's eyes" not in page
    assert "Withheld from your role." in page


def test_unknown_questions_are_said_to_be_unknown(stage: Stage) -> None:
    """An ID that nobody has, or that is none, gives 404 on every route of the page."""
    visitor = stage.visitor("controller")
    token = visitor.token()
    for name in ("esc_" + "0" * 32, "esc_1", "x", "..%2f..%2fetc"):
        assert visitor.get(f"/waiting/{name}").status == 404
        assert visitor.poll(f"/waiting/{name}/thread").status == 404
        assert visitor.post(f"/waiting/{name}/freeze", {"token": token}).status == 404
        assert visitor.post(f"/waiting/{name}/answer", {"token": token, "verdict": "approve"}).status == 404


def test_an_unknown_payee_is_named_as_such(stage: Stage) -> None:
    """The whole account is shown for somebody whom the policy does not know, with a warning."""
    name = stage.ask_people(1, destination="acct_1Stranger")
    page = text_of(stage.visitor("controller").get(f"/waiting/{name}"))
    assert "somebody whom the policy does not know" in page
    assert "acct_1Stranger" in page
    assert "Nobody has vouched for this account." in page


def test_the_account_that_is_shown_is_the_one_that_is_paid(stage: Stage) -> None:
    """After a change of the register page and list say its name and account, not those that the policy still has."""
    for payee, account, name in (
        ("acme-paper", "acct_1AcmeNew7712", "Acme Paper SE"),
        ("cirrus", "acct_1Cirrus4455", ""),
    ):
        signed = order(stage.handle, stage.made, payee, account, name=name or payee, person="treasurer")
        stage.handle.call("payee.set", signed)
    changed, added = (
        stage.ask_people(n, destination=to) for n, to in enumerate(("acct_1AcmeNew7712", "acct_1Cirrus4455"))
    )
    visitor = stage.visitor("controller")
    page = words_of(visitor, f"/waiting/{changed}")
    assert "Acme Paper SE" in page
    assert "Account …7712 for invoice" in page
    page = words_of(visitor, f"/waiting/{added}")
    assert "to cirrus" in page
    assert "Account …4455 for invoice" in page
    assert "Nobody has vouched for this account." not in page
    listed = words_of(visitor, "/waiting")
    assert "6,000.00 EUR to Acme Paper SE" in listed
    assert "6,000.00 EUR to cirrus" in listed


def test_questions_without_end_hide_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that floods the list has its share of it; what another one asked before stays on it, and counts."""
    monkeypatch.setattr(waiting, "LISTED_MAX", 20)
    monkeypatch.setattr(waiting, "ASKED_AT_ONCE", 7)
    clerk = {"[agents.treasury]\n": '[agents.clerk]\nowner = "treasurer"\n\n[agents.treasury]\n'}
    with Stage(tmp_path / "d", changes=clerk) as stage:
        clerks = countermark.open(tmp_path / "d", agent="clerk")
        asked = clerks.act("stripe.transfers.create", args_for("0", 600_000), call_id="c").escalation
        for number in range(1, 60):
            stage.ask_people(number)
        visitor = stage.visitor("controller")
        assert f'id="{asked}"' in text_of(visitor.get("/waiting"))
        said = words_of(visitor, "/waiting")
        clerks.close()
    assert "60 wait, of which 11 are yours to answer." in said
    assert f"Only 11 are listed, the newest of each agent; 59 are {AGENT}’s." in said


CHANGED = {
    "payee": "acme-paper", "name": "Acme Paper GmbH", "last4": "7712", "closed": False, "registered": True,
    "since": 0, "by": "chief", "changes": [{"seq": 9, "at": 0, "by": "chief", "from": "1111", "to": "7712"}],
    "paid": [{"last4": "1111", "count": 11}, {"last4": "7712", "count": 0}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (CHANGED, ["Bank details changed 2 days ago by Farah Chief: from …1111 to …7712.",
                   "11 earlier payments went to …1111. 0 went to the new one."]),
        ({**CHANGED, "changes": [{**CHANGED["changes"][0], "by": None}], "paid": [{"last4": "7712", "count": 3}]},
         ["Bank details changed 2 days ago with a new policy", "No payment went to the account before. 3 went to"]),
        ({**CHANGED, "changes": [], "registered": False, "since": None, "paid": [{"last4": "7712", "count": 1}]},
         ["Nothing. The account is the one that the policy has had; 1 earlier payment went to it."]),
        (None, ["Not known here: the account is the one that the policy names."]),
    ],
)  # fmt: skip
def test_what_changed_about_a_payee_is_said(
    stage: Stage, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, history: dict[str, Any] | None, said: list[str]
) -> None:
    """Who changed the bank details when, from which to which, and how many payments went to the account before."""
    name = stage.ask_people(1)
    console = stage.listener.front._console
    assert console is not None
    call, now = console.call, clock.now_us()

    async def answered(op: str, body: Any = None) -> Any:
        if op != "payee.history":
            return await call(op, body)
        if history is None:
            raise ArgumentError("no payee has this ID", code="unknown_payee")
        return {**history, "changes": [{**one, "at": now - 2 * 86_400_000_000} for one in history["changes"]]}

    monkeypatch.setattr(console, "call", answered)
    page = re.sub(r"<[^>]+>", "", text_of(stage.visitor("controller").get(f"/waiting/{name}")))
    page = " ".join(page.split())
    for text in said:
        assert text in page, page


def test_the_order_on_the_page_is_fixed(stage: Stage) -> None:
    """Amount, payee, account; what changed; the rule; checks; the agent's words; until when; then the answers."""
    name = stage.ask_people(1, reason="please")
    page = text_of(stage.visitor("controller").get(f"/waiting/{name}"))
    page = page.partition("<main")[2]
    marks = ["6,000.00 EUR", "to Acme Paper GmbH", "…aper", "What changed", "Why people are asked", "Checks",
             "Agent says (unverified)", "please", "No answer = refused", ">Refuse<", "Approve 6,000.00 EUR",
             "Freeze agent treasury"]  # fmt: skip
    places = [page.index(mark) for mark in marks]
    assert places == sorted(places)


def test_the_page_reloads_itself_when_it_would_be_another(stage: Stage) -> None:
    """A page that waits hears 204 while nothing changed, and is told to reload once somebody answered."""
    name = stage.ask_people(1)
    visitor = stage.visitor("controller")
    page = text_of(visitor.get(f"/waiting/{name}"))
    poll = re.search(r'hx-get="(/waiting/esc_[0-9a-f]+/thread\?seen=[0-9a-f]+&open=1)"', page)
    assert poll is not None
    assert visitor.poll(poll[1]).status == 204
    assert send(stage, visitor, name, "refuse").status == 303
    assert visitor.poll(poll[1]).headers["hx-refresh"] == "true"


def test_the_list_is_sent_again_only_when_it_changed(stage: Stage, clock: FakeClock) -> None:
    """An unchanged list swaps nothing but the time; a new question brings the list."""
    stage.ask_people(1)
    visitor = stage.visitor("controller")
    page = text_of(visitor.get("/waiting"))
    poll = re.search(r'hx-get="(/waiting/rows\?page=1&seen=[0-9a-f]+)"', page)
    assert poll is not None
    same = visitor.poll(poll[1])
    assert (same.status, same.headers["hx-reswap"], b"esc_" in same.body) == (200, "none", False)
    stage.ask_people(2)
    clock.advance(SHARED_MS / 1_000)  # pages that refresh themselves share one look for so long
    assert text_of(visitor.poll(poll[1])).count('href="/waiting/esc_') == 2


def test_the_list_puts_what_is_mine_and_most_urgent_first(stage: Stage, clock: FakeClock) -> None:
    """Questions that I may answer come first, by their deadline; those of others after them."""
    names = []
    for number in range(3):
        names.append(stage.ask_people(number))
        clock.advance(60)
    order = re.findall(r'id="(esc_[0-9a-f]+)"', text_of(stage.visitor("controller").get("/waiting")))
    assert order == names
    page = text_of(stage.visitor("chief").get("/waiting"))
    assert "none of them yours to answer" in page
    assert "yours to answer</span>" not in page
