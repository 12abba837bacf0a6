"""Insiders who falsify what people are said to have found out afterwards (V10, V11, V12), and the honest history."""

from __future__ import annotations

from typing import Any

from acts import Action
from build import doc_digest
from bundle import CHECKED, asking_bundle, bundle_doc, person_key, plain_bundle
from fields import payment
from hindsight import imported, read, reopen, resolve, review
from lies import FOREIGN, OTHER, lie, put
from scribe import ALLOWED, FLAGGED, Escalation, Story
from story import CHECK, TRANSFER, args_of, ask, opened, pay, run_of

TWICE = person_key("controller")


def hindsight() -> Story:
    """Two unknowns settled by people, a flagged payment looked at, invoices imported, the log read."""
    story = opened("hindsight", bundle=bundle_doc(tools=[TRANSFER]))
    run = run_of(story)
    old = imported(story, "INV-1")
    imported(story, "INV-2", "acct-of-a-stranger")
    taken = ("deny", "obligation", "duplicate_obligation", [f"seq:{old}"])
    story.decide(run, "call-1", TRANSFER, payment(500, "aurora", "inv - 1"), taken)
    uncertain, lost, unasked = unknown(story, 3), unknown(story, 4), pay(story, 5)
    story.wait(600)
    resolve(story, uncertain)
    resolve(story, lost, "failed", people=("bookkeeper", "controller"))
    resolve(story, unasked, people=("steward", "director"))
    story.settle(story.decide(run, "call-6", TRANSFER, payment(10_000, "aurora", "INV-4"), ALLOWED))
    flagged = pay(story, 7, 30_000, answer=FLAGGED)
    story.settle(flagged)
    review(story, flagged)
    read(story)
    read(story, 3, 4, "explain", reader="person:controller")
    differing = unknown(story, 8)
    story.wait(600)
    resolve(story, differing, amount=9_999)
    return story


def unknown(story: Story, number: int) -> Action:
    """A payment of which the provider could not say what became."""
    action = pay(story, number)
    story.settle(action, "unknown")
    return action


def _late(story: Story) -> Action:
    action = unknown(story, 1)
    story.wait(600)
    return action


# --- resolutions ---


@lie("V10.resolution")
def resolved_by_a_foreign_key(story: Story) -> int:
    return resolve(story, _late(story), keys={"treasurer": FOREIGN})


@lie("V10.separation")
def resolved_by_one_person_twice(story: Story) -> int:
    return resolve(story, _late(story), people=("controller", "controller"))


@lie("V10.separation")
def resolved_by_owner_and_author(story: Story) -> int:
    # Whoever owns the agent and whoever wrote its policy agree that nothing was paid, so that it may be paid again.
    return resolve(story, _late(story), "failed", people=("bookkeeper", "steward"))


@lie("V10.resolution")
def resolution_of_another_intent(story: Story) -> int:
    return resolve(story, _late(story), sign=put("intent_digest", value=OTHER))


@lie("V10.resolution")
def resolution_kept_for_another_action(story: Story) -> int:
    return resolve(story, _late(story), sign=put("action", value="act_" + "0" * 32))


@lie("V11.outcome")
def resolved_otherwise_than_signed(story: Story) -> int:
    return resolve(story, _late(story), told=put("outcome", value="failed")) + 1


@lie("V11.outcome", "V11.escalation")
def resolved_and_left_open(story: Story) -> int:
    seq = resolve(story, _late(story), outcome_follows=False)
    pay(story, 2)
    return seq + 1


@lie("V11.outcome")
def outcome_by_people_whom_nobody_asked(story: Story) -> int:
    return story.settle(_late(story), via="people")


@lie("V11.outcome")
def resolved_before_its_time_to_start_was_over(story: Story) -> int:
    return resolve(story, unknown(story, 1))


@lie("V11.outcome", "V11.effect_without_intent")
def resolved_after_it_was_confirmed(story: Story) -> int:
    action = pay(story, 1)
    story.settle(action)
    story.wait(600)
    return resolve(story, action, "failed")


@lie("V10.resolution")
def resolution_for_another_deployment(story: Story) -> int:
    return resolve(story, _late(story), sign=put("deployment", value="elsewhere"))


@lie("V11.outcome")
def resolved_without_saying_how_much(story: Story) -> int:
    return resolve(story, _late(story), sign=put("amount", value=None), told=put("settled", value=None))


@lie("V11.outcome")
def resolved_as_failed_and_yet_moved(story: Story) -> int:
    return resolve(story, _late(story), "failed", sign=put("amount", value=4_000))


@lie("V11.outcome")
def resolved_under_another_reference(story: Story) -> int:
    return resolve(story, _late(story), told=put("ref", value="another statement")) + 1


@lie("V11.outcome")
def resolved_by_hand_after_an_attempt(story: Story) -> int:
    return resolve(story, _late(story), told=put("attempts", value=1)) + 1


@lie("V11.outcome")
def resolved_for_less_than_was_signed(story: Story) -> int:
    # What people signed as paid in full is booked as half of it, so that the other half can be spent again.
    def half(settled: dict[str, Any]) -> None:
        settled |= {"settled": settled["settled"] | {"amount": 5_000}, "code": "booked_differently"}

    return resolve(story, _late(story), told=half) + 1


@lie("V04.record")
def resolution_without_a_reason(story: Story) -> int:
    return resolve(story, _late(story), sign=put("reason", value=" "))


# --- reviews ---


@lie("V10.separation", bundle=bundle_doc(tools=[TRANSFER]))
def review_by_the_agents_owner(story: Story) -> int:
    action = pay(story, 1, 30_000, answer=FLAGGED)
    story.settle(action)
    return review(story, action, "bookkeeper")


@lie("V10.review", bundle=bundle_doc(tools=[TRANSFER]))
def review_by_a_foreign_key(story: Story) -> int:
    action = pay(story, 1, 30_000, answer=FLAGGED)
    story.settle(action)
    return review(story, action, key=FOREIGN)


@lie("V10.review", bundle=bundle_doc(tools=[TRANSFER]))
def review_of_another_decision(story: Story) -> int:
    action = pay(story, 1, 30_000, answer=FLAGGED)
    story.settle(action)
    return review(story, action, sign=put("decided_digest", value=OTHER))


@lie("V11.review", bundle=bundle_doc(tools=[TRANSFER]))
def review_given_twice(story: Story) -> int:
    action = pay(story, 1, 30_000, answer=FLAGGED)
    story.settle(action)
    review(story, action)
    return review(story, action, "treasurer")


@lie("V11.review")
def review_of_what_was_never_flagged(story: Story) -> int:
    action = pay(story, 1)
    story.settle(action)
    return review(story, action)


@lie("V10.review", bundle=bundle_doc(tools=[TRANSFER]))
def review_for_another_deployment(story: Story) -> int:
    action = pay(story, 1, 30_000, answer=FLAGGED)
    story.settle(action)
    return review(story, action, sign=put("deployment", value="elsewhere"))


@lie("V10.review", bundle=bundle_doc(tools=[TRANSFER]))
def review_kept_for_another_action(story: Story) -> int:
    looked_at, hidden = pay(story, 1, 30_000, answer=FLAGGED), pay(story, 2, 30_000, answer=FLAGGED)
    for action in (looked_at, hidden):
        story.settle(action)
    return review(story, hidden, sign=put("action", value=looked_at.body["id"]))


# --- reopenings ---


def reopened() -> Story:
    """What was refused is asked about again after two people reopened it, refused and reopened again, and paid once."""
    story = opened("reopened", bundle=asking_bundle())
    run = run_of(story)
    less = payment(10_000, "aurora", "inv-1")
    refusal = story.answer(ask(story, 1, 60_000), "treasurer", "refuse")
    story.decide(run, "call-2", TRANSFER, less, ("deny", "obligation", "refused_by_person", [f"seq:{refusal}"]))
    reopen(story, refusal)
    again = story.answer(_anew(story, 3), "controller", "refuse")
    story.decide(run, "call-4", TRANSFER, less, ("deny", "obligation", "refused_by_person", [f"seq:{again}"]))
    reopen(story, again, people=("bookkeeper", "controller"))
    answered = _anew(story, 5)
    story.answer(answered, "treasurer")
    paid = story.again(answered, args_of(answered), ALLOWED, lifted=["ask-treasury"])
    story.settle(paid)
    story.decide(run, "call-6", TRANSFER, less, ("deny", "obligation", "duplicate_obligation", [f"seq:{paid.seq}"]))
    return story


def _anew(story: Story, number: int) -> Escalation:
    """People are asked about the first invoice again."""
    args = payment(60_000, "aurora", "INV-1")
    return story.escalate(run_of(story), f"call-{number}", TRANSFER, args, {"treasury": ["ask-treasury"]})


def _refused(story: Story) -> int:
    return story.answer(ask(story, 1, 60_000), "treasurer", "refuse")


@lie("V10.separation", bundle=asking_bundle())
def reopened_by_one_person_twice(story: Story) -> int:
    return reopen(story, _refused(story), people=("controller", "controller"))


@lie("V10.separation", bundle=asking_bundle())
def reopened_by_two_without_independence(story: Story) -> int:
    return reopen(story, _refused(story), people=("activator", "steward"))


@lie("V10.reopening", bundle=asking_bundle())
def reopened_by_a_foreign_key(story: Story) -> int:
    return reopen(story, _refused(story), keys={"treasurer": FOREIGN})


@lie("V10.reopening", bundle=asking_bundle())
def reopened_for_another_deployment(story: Story) -> int:
    return reopen(story, _refused(story), sign=put("deployment", value="elsewhere"))


@lie("V10.reopening", bundle=asking_bundle())
def reopened_by_what_was_signed_for_another_refusal(story: Story) -> int:
    return reopen(story, _refused(story), sign=put("refusal_digest", value=OTHER))


@lie("V10.reopening", bundle=asking_bundle())
def reopened_by_what_was_signed_for_another_action(story: Story) -> int:
    return reopen(story, _refused(story), sign=put("action", value="act_" + "0" * 32))


@lie("V11.obligation", bundle=asking_bundle())
def reopened_by_an_order_that_was_used(story: Story) -> int:
    first = _refused(story)
    reopen(story, first)
    story.answer(_anew(story, 2), "treasurer", "refuse")
    return reopen(story, first)


@lie("V11.obligation", bundle=asking_bundle())
def reopened_for_other_terms(story: Story) -> int:
    return reopen(story, _refused(story), alter=put("terms", "amount", value=1))


@lie("V14.decision", "V11.obligation", bundle=asking_bundle())
def reopened_and_paid_twice(story: Story) -> int:
    reopen(story, _refused(story))
    less = payment(10_000, "aurora", "INV-1")
    story.settle(story.decide(run_of(story), "call-2", TRANSFER, less, ALLOWED))
    return story.decide(run_of(story), "call-3", TRANSFER, less, ALLOWED).seq


@lie("V14.decision", "V11.obligation", bundle=asking_bundle())
def paid_though_a_person_refused_it_again(story: Story) -> int:
    reopen(story, _refused(story))
    story.answer(_anew(story, 2), "treasurer", "refuse")
    return story.decide(run_of(story), "call-3", TRANSFER, payment(10_000, "aurora", "INV-1"), ALLOWED).seq


# --- imports ---


@lie("V14.decision", "V11.obligation")
def imported_invoice_paid_again(story: Story) -> int:
    imported(story, "INV-1")
    return pay(story, 1).seq


@lie("V12.obligation")
def import_takes_another_key_than_it_says(story: Story) -> int:
    return imported(story, "INV-1", obligation=OTHER)


@lie("V12.obligation")
def import_in_a_spelling_that_no_payment_has(story: Story) -> int:
    # The invoice stands in the log as imported, and its true key is still free.
    return imported(story, "INV-1", sign=put("pairs", value=[["invoice", "INV-1"], ["payee", "aurora"]]))


@lie("V12.obligation")
def import_without_the_payee(story: Story) -> int:
    return imported(story, "INV-1", sign=put("pairs", value=[["invoice", "inv-1"]]))


@lie("V11.obligation")
def import_of_what_the_gate_paid(story: Story) -> int:
    story.settle(pay(story, 1))
    return imported(story, "INV-1")


@lie("V10.separation")
def import_by_two_without_independence(story: Story) -> int:
    return imported(story, "INV-1", people=("activator", "steward"))


@lie("V10.import")
def import_by_a_foreign_key(story: Story) -> int:
    return imported(story, "INV-1", keys={"controller": FOREIGN})


@lie("V10.import", bundle=plain_bundle())
def import_for_another_deployment(story: Story) -> int:
    return imported(story, "INV-1", sign=put("deployment", value="elsewhere"))


@lie("V10.import")
def import_of_a_day_that_is_none(story: Story) -> int:
    return imported(story, "INV-1", sign=put("date", value="2026-02-30"))


@lie("V11.obligation", bundle=asking_bundle())
def import_of_what_a_person_refused(story: Story) -> int:
    story.answer(ask(story, 1, 60_000), "treasurer", "refuse")
    return imported(story, "INV-1")


@lie("V11.obligation")
def import_given_twice(story: Story) -> int:
    return story.replay(imported(story, "INV-1"))


@lie("V12.obligation", bundle=plain_bundle(tools=CHECKED))
def import_for_a_tool_that_pays_nothing(story: Story) -> int:
    # Its digest is right, and stands for no payment at all.
    def sign(doc: dict[str, Any]) -> None:
        doc |= {"tool": CHECK, "pairs": []}

    return imported(story, "INV-1", sign=sign, obligation=doc_digest("obligation", [CHECK, []]))


@lie("V09.bundle", bundle=plain_bundle(keys={"activator": TWICE}), bundle_key=TWICE)
def one_key_enrolled_for_two_people(story: Story) -> Any:
    # Whoever has it signs for both.
    imported(story, "INV-1", people=("activator", "controller"), keys={"activator": TWICE})
    return 1


# --- readings ---


@lie("V11.read")
def reading_of_what_was_not_there(story: Story) -> int:
    return read(story, 0, 10)


@lie("V11.read")
def reading_by_somebody_unknown(story: Story) -> int:
    return read(story, 0, 2, reader="person:nobody")


@lie("V04.record")
def reading_by_who_is_neither_user_nor_person(story: Story) -> int:
    return read(story, 0, 2, reader="auditor")


@lie("V11.read")
def reading_of_nothing(story: Story) -> int:
    return read(story, 2, 2)
