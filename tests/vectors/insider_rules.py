"""Insiders who bend a rule of docs/spec/record.md that a record alone, or the one before it, shows (V03 to V14)."""

from __future__ import annotations

from typing import Any

from build import ORIGIN, pseudonym, verifier_key
from bundle import CHECKED, asking_bundle, plain_bundle
from cases import UNSET
from fields import payment
from lies import FOREIGN, lie, put
from scribe import ALLOWED, ASK, READ, Answer, Story
from story import CHECK, PAYOUT, TRANSFER, args_of, ask, pay, root_of_story, run_of

FOREIGN_LOG = verifier_key(ORIGIN, FOREIGN)
NO_PERMIT: Answer = ("deny", "policy", "not_permitted", [])

# --- envelopes: nonce, by, the log's key ---


@lie("V04", "V06")
def nonce_repeated(story: Story) -> int:
    # Two records under one nonce: whoever has the leaf hashes learns what a small change is.
    action = pay(story, 1)
    return story.settle(action, envelope=put("nonce", value=story.log.records[action.seq]["nonce"]))


@lie("V04.record")
def act_of_an_agent_laid_to_the_gate(story: Story) -> int:
    return pay(story, 1, envelope=put("by", value="gate")).seq


@lie("V04.record")
def act_of_an_agent_laid_to_another(story: Story) -> int:
    return pay(story, 1, envelope=put("by", value="agent:clerk")).seq


@lie("V04.record", bundle=asking_bundle())
def decision_after_approval_laid_to_the_agent(story: Story) -> int:
    escalation = ask(story, 1, 60_000)
    story.answer(escalation, "treasurer")
    forged = put("by", value="agent:payer")
    return story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury"], envelope=forged).seq


@lie("V04.record", bundle=asking_bundle())
def answer_laid_to_another_person(story: Story) -> int:
    return story.answer(ask(story, 1, 60_000), "treasurer", envelope=put("by", value="person:controller"))


@lie("V04.record", forge={"envelope": put("by", value="person:treasurer")})
def mandate_laid_to_another_person(story: Story) -> int:
    return 2


@lie("V04.record")
def revocation_laid_to_the_gate(story: Story) -> int:
    return story.revoke(root_of_story(story), envelope=put("by", value="gate"))


@lie("V03", "V04", start=put("log_key", value=FOREIGN_LOG))
def log_key_of_the_first_start_differs(story: Story) -> Any:
    return UNSET


@lie("V03", "V04")
def log_key_of_a_restart_differs(story: Story) -> Any:
    story.start(put("log_key", value=FOREIGN_LOG))
    return UNSET


@lie("V03.mismatch")
def restart_found_more_than_there_is(story: Story) -> int:
    # The gate came up over a log of nine records; five of them are not here.
    return story.start(put("recovered", value=9))


# --- decisions ---


@lie("V11", "V14")
def dispatch_time_stretched(story: Story) -> int:
    # The tool gives two minutes; a later effect would still look in time.
    return pay(story, 1, alter=lambda body: body.update(not_after=body["not_after"] + 1_000_000)).seq


@lie("V12.request", "V04.record", bundle=plain_bundle(tools=[PAYOUT]))
def salt_hidden_without_a_sealed_argument(story: Story) -> int:
    # The tool has a sensitive argument, this action does not use it.
    args = payment(1_000, "aurora", "INV-1")
    return story.decide(run_of(story), "call-1", PAYOUT, args, ALLOWED, alter=put("salt", value=None)).seq


@lie("V12.request", "V04.record", bundle=plain_bundle(tools=[PAYOUT]))
def salt_shown_beside_a_sealed_argument(story: Story) -> int:
    # With the salt anybody can try memos until the request's digest fits.
    def show(body: dict[str, Any]) -> None:
        body["salt"] = story.request_salts.pop()["salt"]

    args = payment(1_000, "aurora", "INV-1", memo="x")
    return story.decide(run_of(story), "call-1", PAYOUT, args, ALLOWED, alter=show).seq


@lie("V13.budget")
def budget_row_missing(story: Story) -> int:
    return pay(story, 1, alter=lambda body: body["budgets"].pop()).seq


@lie("V13.budget")
def budget_of_another_currency(story: Story) -> int:
    return pay(story, 1, alter=lambda body: body["budgets"].insert(1, [root_of_story(story), 1, 10_000])).seq


@lie("V14.decision")
def facts_on_an_early_denial(story: Story) -> int:
    kill = story.kill("agent", "payer")
    return pay(story, 1, answer=("deny", "kill", "killed", [kill]), alter=put("facts", "local_minute", value=540)).seq


@lie("V14.decision", "V11.escalation", bundle=asking_bundle())
def lifted_on_a_denial(story: Story) -> int:
    escalation = ask(story, 1, 60_000)
    kill = story.kill("agent", "payer")
    story.answer(escalation, "treasurer")
    denied: Answer = ("deny", "kill", "killed", [kill])
    return story.again(escalation, args_of(escalation), denied, lifted=["ask-treasury"]).seq


@lie("V04", "V12", "V13")
def named_leaves_out_an_argument(story: Story) -> int:
    # The mandate names this invoice; without its pseudonym the payment does not count as instructed.
    def hide(body: dict[str, Any]) -> None:
        del body["named"]["invoice"]

    return pay(story, 1001, derive=hide).seq


@lie("V13.budget", "V13.fact", tier="observing")
def failure_of_an_observer_releases(story: Story) -> int:
    action = pay(story, 1)
    story.settle(action, "failed")
    action.body = action.body | {"tier": "enforcing"}  # what follows counts as if the gate itself had seen the failure
    return pay(story, 2).seq


@lie("V13.fact", bundle_tools=CHECKED, tier="observing")
def confirmation_of_an_observer_counts(story: Story) -> int:
    check = story.decide(run_of(story), "call-1", CHECK, {"account": "acct-aurora"}, READ)
    story.settle(check, output={"balance": 1})
    check.body = check.body | {"tier": "enforcing"}
    return pay(story, 2).seq


@lie("V11.obligation", tier="observing")
def failure_of_an_observer_frees_its_obligation(story: Story) -> int:
    story.settle(pay(story, 1), "failed")
    return story.decide(run_of(story), "call-2", TRANSFER, payment(10_000, "aurora", "INV-1"), ALLOWED).seq


# --- terms: who is paid ---


@lie("V12.terms")
def known_payee_behind_a_pseudonym(story: Story) -> int:
    hidden = put("terms", "payee", value="p:" + pseudonym("payee", "acct-aurora"))
    return pay(story, 1, answer=NO_PERMIT, derive=hidden).seq


@lie("V12.terms")
def unknown_account_as_known_payee(story: Story) -> int:
    return pay(story, 1, payee="stranger", derive=put("terms", "payee", value="aurora")).seq


@lie("V12.terms")
def payee_id_taken_for_an_account(story: Story) -> int:
    args = payment(10_000, "", "INV-1", destination="aurora")
    derive = put("terms", "payee", value="aurora")
    return story.decide(run_of(story), "call-1", TRANSFER, args, ALLOWED, derive=derive).seq


@lie("V12.terms", "V06.stream")
def unknown_account_with_two_pseudonyms(story: Story) -> int:
    # Limits by payee never fill up when the payee has a new name every time.
    pay(story, 1, payee="stranger", answer=NO_PERMIT)
    other = put("terms", "payee", value="p:" + pseudonym("payee", "somebody else"))
    return pay(story, 2, payee="stranger", answer=NO_PERMIT, derive=other).seq


# --- questions ---


@lie("V11.escalation", bundle=asking_bundle())
def question_never_put(story: Story) -> Any:
    pay(story, 1, 60_000, answer=ASK)
    story.settle(pay(story, 2))
    return UNSET


@lie("V11.escalation", bundle=asking_bundle())
def question_never_put_at_the_end(story: Story) -> int:
    # Decision and question are one commit, so no head lies between them.
    return pay(story, 1, 60_000, answer=ASK).seq


@lie("V11.escalation", bundle=asking_bundle())
def question_put_late(story: Story) -> Any:
    ask(story, 1, 60_000, between=lambda: pay(story, 2))
    return UNSET


@lie("V11.escalation", "V10.approval", bundle=asking_bundle())
def question_open_as_long_as_the_longer_ladder(story: Story) -> int:
    def stretch(raised: dict[str, Any]) -> None:
        raised["not_after"] += 3_600_000_000  # the board's two hours; the treasury has one

    return ask(story, 1, 60_000, alter=stretch).action.seq + 1


@lie("V11.escalation", bundle_tools=CHECKED)
def question_leaves_out_a_ladder(story: Story) -> int:
    # Two ladders must answer; the question names one of them.
    def shorten(raised: dict[str, Any]) -> None:
        del raised["ladders"]["board"]

    check = story.decide(run_of(story), "call-0", CHECK, {"account": "acct-aurora"}, READ)
    story.settle(check, output={"balance": 1})
    return ask(story, 1, 250_000, board=True, alter=shorten).action.seq + 1


# --- outcomes ---


@lie("V11.outcome", "V12.terms")
def settled_in_another_currency(story: Story) -> int:
    return story.settle(pay(story, 1), alter=put("settled", "currency", value="CHF"))


@lie("V11.outcome")
def settled_under_another_tier(story: Story) -> int:
    # What the agent's process reported is passed off as what the gate saw, or the reverse.
    return story.settle(pay(story, 1), alter=put("tier", value="observing"))


@lie("V11.outcome", "V04.record")
def output_not_declared(story: Story) -> int:
    return story.settle(pay(story, 1), output={"balance": 1})


@lie("V11.outcome", "V04.record", bundle_tools=CHECKED)
def output_of_another_type(story: Story) -> int:
    check = story.decide(run_of(story), "call-1", CHECK, {"account": "acct-aurora"}, READ)
    return story.settle(check, output={"balance": "1250000"})


@lie("V11.outcome", "V11.double")
def unknown_twice(story: Story) -> int:
    action = pay(story, 1)
    story.settle(action, "unknown")
    return story.settle(action, "unknown", via="lookup")


def _after_unknown(story: Story, first: str, second: str) -> int:
    action = pay(story, 1)
    story.settle(action, "unknown")
    story.settle(action, first, via="lookup")
    return story.settle(action, second, via="recovery")


@lie("V11.outcome", "V11.double")
def confirmed_twice_after_unknown(story: Story) -> int:
    return _after_unknown(story, "confirmed", "confirmed")


@lie("V11.outcome", "V11.double")
def confirmed_after_unknown_and_failed(story: Story) -> int:
    return _after_unknown(story, "failed", "confirmed")
