"""Insiders who falsify what actions did and why they were decided so (V11 to V14)."""

from __future__ import annotations

from typing import Any

from acts import Action
from bundle import LEAN, asking_bundle, bundle_doc, bundle_with
from fields import payment
from lies import OTHER, lie, put
from scribe import ALLOWED, ASK, Story
from story import TRANSFER, args_of, ask, child, pay, root_of_story, run_of

# --- V11: life ---


@lie("V11.effect_without_intent")
def effect_without_intent(story: Story) -> int:
    action = pay(story, 1)
    story.settle(action)
    ghost = Action(action.body | {"id": "act_" + "0" * 32}, 3, story.now)
    return story.settle(ghost)


@lie("V11.effect_without_intent", "V11.outcome")
def outcome_for_denied_action(story: Story) -> int:
    return story.settle(pay(story, 1, 500, "stranger", ("deny", "policy", "not_permitted", [])))


@lie("V11.effect_without_intent", "V11.outcome", "V11.escalation", bundle=asking_bundle())
def outcome_for_parked_action(story: Story) -> int:
    return story.settle(ask(story, 1, 60_000).action)


@lie("V11.outcome", "V11.double")
def two_outcomes(story: Story) -> int:
    action = pay(story, 1)
    story.settle(action)
    return story.settle(action)


@lie("V11.outcome", "V11.double")
def outcome_failed_then_confirmed(story: Story) -> int:
    action = pay(story, 1)
    story.settle(action, "failed")
    return story.settle(action)


@lie("V11.outcome", "V12.terms")
def outcome_other_terms(story: Story) -> int:
    return story.settle(pay(story, 1), alter=put("terms", value={"amount": 1, "currency": "EUR", "payee": "aurora"}))


@lie("V11.outcome", "V11.effect_without_intent")
def outcome_other_intent_digest(story: Story) -> int:
    return story.settle(pay(story, 1), alter=put("intent_digest", value=OTHER))


@lie("V11.obligation")
def obligation_twice(story: Story) -> int:
    story.settle(pay(story, 1))
    again = story.decide(run_of(story), "call-2", TRANSFER, payment(10_000, "aurora", "INV-1"), ALLOWED)
    story.settle(again)
    return again.seq


@lie("V11.double")
def identity_with_two_actions(story: Story) -> int:
    story.settle(pay(story, 1))
    other = story.decide(run_of(story), "call-1", TRANSFER, payment(10_000, "borealis", "INV-2"), ALLOWED)
    story.settle(other)
    return other.seq


@lie("V11.run")
def run_never_started(story: Story) -> int:
    story.runs["run_ghost"] = ("payer", root_of_story(story))
    return pay(story, 1, run="run_ghost").seq


@lie("V11.run")
def run_already_ended(story: Story) -> int:
    run = run_of(story)
    body = {"run": run, "agent": "payer", "reason": "done"}
    story.add("run.ended", "agent:payer", story.streams("payer", run), body)
    return pay(story, 1).seq


@lie("V11.run")
def run_of_another_agent(story: Story) -> int:
    return pay(story, 1, agent="clerk").seq


@lie("V11.escalation", bundle=asking_bundle())
def escalation_never_answered(story: Story) -> int:
    escalation = ask(story, 1, 60_000)
    return story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury"]).seq


@lie("V11.escalation", bundle=asking_bundle())
def escalation_refused_yet_executed(story: Story) -> int:
    escalation = ask(story, 1, 60_000)
    story.answer(escalation, "treasurer", "refuse")
    return story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury"]).seq


@lie("V11.escalation", bundle=asking_bundle())
def escalation_expired_yet_executed(story: Story) -> int:
    escalation = ask(story, 1, 60_000)
    story.wait(3600)
    story.expire(escalation)
    return story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury"]).seq


@lie("V11.escalation", bundle=asking_bundle())
def escalation_expired_before_its_deadline(story: Story) -> int:
    return story.expire(ask(story, 1, 60_000))


@lie("V11.double", bundle=asking_bundle())
def escalation_executed_twice(story: Story) -> int:
    escalation = ask(story, 1, 60_000)
    story.answer(escalation, "treasurer")
    story.settle(story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury"]))
    return story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury"]).seq


@lie("V11.run")
def run_under_mandate_of_another_agent(story: Story) -> int:
    story.run("clerk", root_of_story(story))
    return len(story.log.leaves) - 1


@lie("V11.run", "V13.budget", "V14.decision")
def mandate_chain_without_its_root(story: Story) -> int:
    def shorten(body: dict[str, Any]) -> None:
        body["mandates"].pop()
        body["budgets"] = body["budgets"][:1]

    return pay(story, 1, 9_000, run=child(story), alter=shorten).seq


# --- V12: digests ---


@lie("V12.request", "V04.record")
def request_salt_hidden(story: Story) -> int:
    # Without its salt the request cannot be compared; only a tool with sensitive arguments may seal it.
    return pay(story, 1, alter=put("salt", value=None)).seq


@lie("V12.action")
def action_digest_wrong(story: Story) -> int:
    return pay(story, 1, derive=put("action", value=OTHER)).seq


@lie("V12.action")
def action_id_wrong(story: Story) -> int:
    return pay(story, 1, derive=put("id", value="act_" + "0" * 32)).seq


@lie("V12.key")
def provider_key_wrong(story: Story) -> int:
    return pay(story, 1, alter=put("key", value="cm_" + "0" * 48)).seq


@lie("V12.request")
def request_digest_wrong(story: Story) -> int:
    return pay(story, 1, alter=put("request", value=OTHER)).seq


@lie("V12.obligation")
def obligation_wrong(story: Story) -> int:
    return pay(story, 1, alter=put("obligation", value=OTHER)).seq


@lie("V12.terms")
def terms_smaller_than_arguments(story: Story) -> int:
    return pay(story, 1, derive=put("terms", "amount", value=1_000)).seq


@lie("V12.terms")
def terms_other_payee(story: Story) -> int:
    return pay(story, 1, derive=put("terms", "payee", value="borealis")).seq


# --- V13, V14: facts and decisions ---


@lie("V13.fact", bundle_tools=LEAN)
def fact_window_altered(story: Story) -> int:
    story.settle(pay(story, 1))
    return pay(story, 2, alter=put("facts", "spent_day", value=10_000)).seq


@lie("V13.fact", bundle_tools=LEAN)
def fact_distinct_altered(story: Story) -> int:
    story.settle(pay(story, 1))
    return pay(story, 2, payee="borealis", alter=put("facts", "payees_day", value=1)).seq


@lie("V13.fact", bundle_tools=LEAN)
def fact_slot_altered(story: Story) -> int:
    return pay(story, 1, alter=put("facts", "checked", value={"known": True, "age_s": 60})).seq


@lie("V13.fact")
def fact_clock_altered(story: Story) -> int:
    return pay(story, 1, alter=put("facts", "local_minute", value=600)).seq


@lie("V13.fact", bundle_tools=LEAN)
def fact_left_out(story: Story) -> int:
    return pay(story, 1, alter=lambda body: body["facts"].pop("spent_day")).seq


@lie("V13.fact", "V13.budget", bundle_tools=LEAN)
def fact_ignores_settled_amount(story: Story) -> int:
    action = pay(story, 1)
    story.settle(action, amount=4_000)
    story.clear()
    action.settled = None  # the next fact counts the intent's amount
    return pay(story, 2).seq


@lie("V13.budget")
def budget_altered(story: Story) -> int:
    return pay(story, 1, alter=lambda body: body["budgets"][0].__setitem__(2, 1)).seq


@lie("V14.decision", bundle=bundle_with(day=15_000))
def window_limit_ignored(story: Story) -> int:
    return [pay(story, number).seq for number in (1, 2)][-1]


@lie("V14.decision", bundle=asking_bundle())
def escalation_skipped(story: Story) -> int:
    return pay(story, 1, 60_000).seq


@lie("V14.decision", bundle_tools=LEAN)
def disposition_altered(story: Story) -> int:
    return pay(story, 1, 30_000, answer=ALLOWED).seq


@lie("V14.decision")
def reasons_altered(story: Story) -> int:
    return pay(story, 1, answer=("allow", "policy", "allowed", ["read"])).seq


@lie("V14.decision", bundle_tools=LEAN)
def denied_without_ground(story: Story) -> int:
    return pay(story, 1, answer=("deny", "policy", "denied_by_policy", ["day-limit"])).seq


@lie("V14.decision", bundle=asking_bundle())
def parked_without_ground(story: Story) -> int:
    return pay(story, 1, answer=ASK).seq


@lie("V14.decision", "V11.escalation", bundle=bundle_with(day=65_000))
def approval_lifts_more_than_asked(story: Story) -> int:
    # After the question was put the day's limit is used up; the approval covered only the size of the payment.
    escalation = ask(story, 1, 60_000)
    pay(story, 2)
    story.answer(escalation, "treasurer")
    return story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury", "day-limit"]).seq


@lie("V14.decision", "V09.bundle", "V09.chain")
def bundle_not_in_force(story: Story) -> int:
    old = story.bundle
    story.activate(bundle_doc("second", LEAN))
    return pay(story, 1, alter=put("bundle", value=old)).seq
