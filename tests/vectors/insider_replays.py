"""Insiders who use what was once true a second time, too late, or in another's place (V09 to V14)."""

from __future__ import annotations

from typing import Any

from build import Key, head_of
from bundle import asking_bundle, person_key, plain_bundle
from cases import UNSET, Case, case, tiny_story, trust
from fields import payment
from lies import lie, put
from scribe import ALLOWED, Answer, Story
from story import TRANSFER, args_of, ask, opened, pack_of, pay, root_of_story, run_of

INTRUDER = Key("person/intruder")
OLD = person_key("director")
NEW = Key("person/director/new")

# --- activations and mandates ---


@lie("V09.chain")
def activation_replayed(story: Story) -> int:
    # A, B, A: the rules of B were given up; what the activator signed for B is brought once more.
    first, second = story.bundles[0], plain_bundle("second")
    seq = story.activate(second)
    story.activate(first)
    story.bundles.append(second)
    return story.replay(seq)


@lie("V09", "V10.no_role", people={"intruder": INTRUDER.text})
def activation_by_somebody_whom_only_the_new_bundle_knows(story: Story) -> int:
    return story.activate(plain_bundle("second", keys={"intruder": INTRUDER}), person="intruder")


@lie("V10.clearance", "V10.no_role", people={"intruder": INTRUDER.text})
def clearance_by_somebody_not_in_the_bundle(story: Story) -> int:
    story.kill("deployment", "acme")
    return story.clear(person="intruder")


@lie("V10.mandate", people={"director": [OLD.text, NEW.text]})
def mandate_under_a_replaced_key(story: Story) -> int:
    # The director's key was replaced, perhaps because it was lost; the auditor knows both.
    story.activate(plain_bundle("second", keys={"director": NEW}))
    story.grant("payer", [[1_000_000, None]], key=OLD)
    return len(story.log.leaves) - 1


@lie("V10.mandate")
def revoked_mandate_granted_again(story: Story) -> int:
    # The principal signed it once; the same signature revives what was revoked.
    story.revoke(root_of_story(story))
    seq = story.replay(2)
    pay(story, 1)
    return seq


# --- kills ---


@lie("V04.record", "V10.clearance", "V11", "V14.decision")
def kill_id_used_again(story: Story) -> int:
    # The second kill overwrites the first, which covers the whole deployment.
    kill = story.kill("deployment", "acme")
    story.kill("payee", "borealis", name=kill)
    pay(story, 1)
    return 5


@lie("V10.clearance", "V14.decision")
def clearance_replayed(story: Story) -> Any:
    story.kill("tool", TRANSFER)
    seq = story.clear()
    story.kill("tool", TRANSFER)
    story.replay(seq)
    pay(story, 1)
    return UNSET


@lie("V04.record", "V11", "V14.decision")
def different_booking_without_its_kill(story: Story) -> Any:
    story.settle(pay(story, 1), amount=4_000, stop=False)
    pay(story, 2)
    return UNSET


@lie("V11.outcome")
def different_booking_stopped_for_another_reason(story: Story) -> int:
    # Whoever clears this kill is not told that the provider moved another amount.
    seq = story.settle(pay(story, 1), amount=4_000, stop=False) + 1
    story.kill("tool", TRANSFER, "looks wrong")
    return seq


# --- approvals ---


@lie("V10.approval", "V11.escalation", "V14.decision", bundle=asking_bundle())
def approval_kept_for_later(story: Story) -> Any:
    # The treasurer said yes in time; the payment is decided the day after, when nobody remembers.
    escalation = ask(story, 1, 60_000)
    story.answer(escalation, "treasurer")
    pay(story, 2)
    story.wait(86_400)
    story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury"])
    return UNSET


@case
def approved_but_never_decided() -> Case:
    # Answer and decision are one commit. Without the decision the pack shows neither effect nor refusal.
    story = opened("approved-but-never-decided", bundle=asking_bundle())
    escalation = ask(story, 1, 60_000)
    story.answer(escalation, "treasurer")
    shown = trust([head_of(story.log.leaves)])
    return Case(pack_of(story).write(), ["incomplete", "refuted"], ["V11"], UNSET, shown)


# --- what the obligation and mandate stages answer first ---


@lie("V14.decision", bundle=asking_bundle())
def refusal_told_as_a_duplicate(story: Story) -> int:
    # A person said no; the record says only that somebody was faster.
    escalation = ask(story, 1, 60_000)
    story.answer(escalation, "treasurer", "refuse")
    duplicate: Answer = ("deny", "obligation", "duplicate_obligation", [f"seq:{escalation.action.seq}"])
    return story.decide(run_of(story), "call-3", TRANSFER, payment(10_000, "aurora", "INV-1"), duplicate).seq


@lie("V14.decision", "V11.obligation", bundle=asking_bundle())
def paid_while_the_same_invoice_waits(story: Story) -> int:
    # A smaller amount needs no approval, and the invoice is settled before anybody has answered.
    ask(story, 1, 60_000)
    return story.decide(run_of(story), "call-2", TRANSFER, payment(40_000, "aurora", "INV-1"), ALLOWED).seq


@lie("V14.decision", "V11.obligation", "V11.escalation", bundle=asking_bundle())
def invoice_asked_about_twice_at_once(story: Story) -> int:
    # Two people are asked about one invoice, and neither hears of the other.
    ask(story, 1, 60_000)
    args = payment(60_000, "aurora", "INV-1")
    return story.escalate(run_of(story), "call-2", TRANSFER, args, {"treasury": ["ask-treasury"]}).action.seq


@lie("V14.decision")
def limit_told_before_the_revoked_parent(story: Story) -> int:
    child = story.grant("clerk", [[5_000, 0]], root_of_story(story))
    run = story.run("clerk", child)
    story.revoke(root_of_story(story))
    return pay(story, 1, run=run, answer=("deny", "mandate", "mandate_limit", [child])).seq


# --- outcomes, tiers, starts and counts ---


@lie("V11.outcome")
def confirmed_without_an_attempt(story: Story) -> int:
    # Executed an hour after the intent had to start, and never tried.
    action = pay(story, 1)
    story.wait(3_600)
    return story.settle(action, alter=put("attempts", value=0))


@lie("V11.outcome", limits=[[10_000, None]])
def nothing_booked_under_an_ordinary_code(story: Story) -> int:
    # The budget is free again, and nothing stops the tool.
    seq = story.settle(pay(story, 1), alter=put("settled", "amount", value=0))
    pay(story, 2)
    return seq


@lie("V03.mismatch", "V04.record", "V11", "V14.decision")
def tier_of_a_decision_differs_from_the_start(story: Story) -> int:
    return pay(story, 1, alter=put("tier", value="embedded")).seq


@lie("V04.record", "V06", "V11", "V14")
def payment_after_the_gate_stopped(story: Story) -> int:
    story.add("gate.stopped", "gate", [], {"reason": "maintenance"})
    return pay(story, 1).seq


@case
def erased_value_declared() -> Case:
    # Nothing in the log erases a value; a deployment that will not show it calls it gone.
    story = opened("erased-value-declared", bundle=plain_bundle())
    story.settle(pay(story, 1, reason="due today"))
    pack = pack_of(story, ())
    pack.predicate |= {"withheld": 0, "erased": 1}
    return Case(pack.sealed().write(), "refuted", ["V15.erased"], None, trust=trust([head_of(story.log.leaves)]))


@case
def erased_value_where_none_is_sealed() -> Case:
    story = tiny_story()
    pack = pack_of(story)
    pack.predicate["erased"] = 1
    return Case(pack.sealed().write(), "refuted", ["V15.count"], trust=trust([head_of(story.log.leaves)]))
