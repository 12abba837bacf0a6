"""Tools that are only monitored (docs/spec/decision.md): an honest fortnight, and insiders who stretch or bend it."""

from __future__ import annotations

from typing import Any

from acts import Action
from build import Key
from bundle import ASK_TREASURY, DAY_US, LEAN, LIMITS, PERMIT, person_key, plain_bundle
from fields import payment
from lies import FOREIGN, OTHER, lie, put
from scribe import ALLOWED, START_US, Alter, Answer, Second, Story
from story import PAYOUT, TRANSFER, args_of, ask, opened, pay, run_of

FIRST_US = START_US + 2_000_000  # when `opened` activates its bundle
FORTNIGHT_US = 14 * DAY_US
RULES = f"""\
{PERMIT}{ASK_TREASURY}@id("no-odd")
forbid (principal, action in Action::"money", resource) when {{ context.amount == 70007 || context.amount == 333 }};
@id("limits.cap")
forbid (principal, action in Action::"money", resource) when {{ context.amount > Limits::"limits".cap }};
"""
NUMBERS = {"ask_above": LIMITS["ask_above"], "cap": 100_000}
# Beyond the range of Cedar's integers: an error, whatever the amount.
ERRING = (
    PERMIT
    + """\
@id("too-far")
forbid (principal, action in Action::"money", resource) when { context.amount * 9223372036854775807 > 0 };
"""
)
WOULD_ASK: Answer = ("allow", "monitor", "would_escalate", ["ask-treasury"])
WOULD_DENY: Answer = ("allow", "monitor", "would_deny", ["no-odd"])
OVER: Answer = ("deny", "monitor", "monitor_over", [])


def watching(
    until: Any = FIRST_US + FORTNIGHT_US, note: str = "watching", author: str = "steward", **more: Any
) -> dict[str, Any]:
    """A bundle that monitors transfers until a time, and nothing else; None for one that monitors nothing."""
    bundle = plain_bundle(note, **({"cedar": RULES, "limits": NUMBERS} | more))
    bundle["compiled"]["author"] = author
    for tool in bundle["compiled"]["tools"]:
        if tool["name"] == TRANSFER and until is not None:
            tool["monitor"] = until
    return bundle


def by(person: str, key: Key | None = None, alter: Alter | None = None) -> Second:
    """Somebody's second signature of the activation, or of what `alter` makes of it."""

    def sign(activation: dict[str, Any]) -> dict[str, str]:
        document, own = dict(activation), key or person_key(person)
        if alter is not None:
            alter(document)
        return {"person": person, "key": own.text, "sig": own.sign_doc("activation", document)}

    return sign


SECOND = by("controller")
WATCHED: dict[str, Any] = {"bundle": watching(), "second": SECOND}


def monitored() -> Story:
    """A fortnight to its last second, what holds meanwhile, its end, and approvals that meet it."""
    story = opened("monitored", bundle=watching(tools=[PAYOUT, *LEAN]), second=SECOND)
    story.settle(pay(story, 1))
    asked = pay(story, 2, 60_000, answer=WOULD_ASK)
    story.settle(asked)
    story.settle(pay(story, 3, 333, answer=WOULD_DENY), "failed")
    both: Answer = ("allow", "monitor", "would_deny", ["ask-treasury", "no-odd"])
    again = story.decide(run_of(story), "call-13", TRANSFER, payment(70_007, "aurora", "INV-3"), both)
    story.settle(again, "unknown")
    story.settle(pay(story, 4, 500, "stranger", ("allow", "monitor", "would_deny", [])))
    pay(story, 5, 150_000, answer=("deny", "policy", "denied_by_policy", ["ask-treasury", "limits.cap"]))
    taken = ("deny", "obligation", "duplicate_obligation", [f"seq:{asked.seq}"])
    story.decide(run_of(story), "call-6", TRANSFER, payment(60_000, "aurora", "INV-2"), taken)
    payout = payment(60_000, "aurora", "INV-7")
    question = story.escalate(run_of(story), "call-7", PAYOUT, payout, {"treasury": ["ask-treasury"]})
    story.answer(question, "treasurer")
    story.settle(story.again(question, payout, ALLOWED, lifted=["ask-treasury"]))
    story.now = FIRST_US + FORTNIGHT_US - 2_000_000
    last = pay(story, 8, 60_000, answer=WOULD_ASK)
    pay(story, 9, answer=OVER)
    story.settle(last)
    story.settle(again, via="lookup")
    _afterwards(story)
    return story


def _afterwards(story: Story) -> None:
    """Governed as ever, then monitored anew while people are still asked: nothing is waived after an answer."""
    story.activate(watching(None, "governed"))
    overtaken, late = ask(story, 10, 60_000), ask(story, 11, 60_000, "borealis")
    until = story.now + 700_000_000
    story.activate(watching(until, "again", author="controller"), person="treasurer", second=by("activator"))
    story.answer(overtaken, "treasurer")
    story.again(overtaken, args_of(overtaken), ("deny", "approval", "approval_void", ["bundle"]))
    story.settle(pay(story, 12, 60_000, "borealis", WOULD_ASK))
    story.now = until
    story.answer(late, "steward")  # who wrote the policy that asked, not the one in force
    story.again(late, args_of(late), OVER)


def _waived(story: Story, amount: int, answer: Answer, tool: str = TRANSFER) -> int:
    action: Action = story.decide(run_of(story), "call-1", tool, payment(amount, "aurora", "INV-1"), answer)
    story.settle(action)
    return action.seq


# --- decisions ---


@lie("V14.decision", **WATCHED)
def waived_over_a_hard_limit(story: Story) -> int:
    return _waived(story, 150_000, ("allow", "monitor", "would_deny", ["ask-treasury", "limits.cap"]))


@lie("V14.decision", **WATCHED)
def waived_over_a_hard_limit_that_is_not_named(story: Story) -> int:
    return _waived(story, 150_000, WOULD_ASK)


@lie("V14.decision", **WATCHED)
def waived_after_its_time(story: Story) -> int:
    story.now = FIRST_US + FORTNIGHT_US - 1_000_000
    return _waived(story, 333, WOULD_DENY)


@lie("V14.decision", **WATCHED)
def allowed_after_the_time_of_monitoring(story: Story) -> int:
    story.now = FIRST_US + FORTNIGHT_US - 1_000_000
    return _waived(story, 10_000, ALLOWED)


@lie("V14.decision", bundle=watching(cedar=ERRING, limits={}), second=SECOND)
def policy_error_waived(story: Story) -> int:
    return _waived(story, 10_000, ("allow", "monitor", "would_deny", []))


@lie("V14.decision", bundle=watching(tools=[PAYOUT, *LEAN]), second=SECOND)
def waived_in_a_tool_that_is_not_monitored(story: Story) -> int:
    return _waived(story, 60_000, WOULD_ASK, PAYOUT)


@lie("V14.decision", **WATCHED)
def allowed_payment_dressed_as_waived(story: Story) -> int:
    return _waived(story, 10_000, ("allow", "monitor", "would_deny", []))


@lie("V14.decision", **WATCHED)
def waived_denial_dressed_as_a_question(story: Story) -> int:
    return _waived(story, 333, ("allow", "monitor", "would_escalate", ["no-odd"]))


@lie("V14.decision", **WATCHED)
def waived_payment_dressed_as_allowed(story: Story) -> int:
    # Nobody shall see that the policy would have asked.
    return _waived(story, 60_000, ALLOWED)


@lie("V14.decision", bundle=watching(None))
def waived_after_an_approval_for_something_else(story: Story) -> int:
    # People said yes under the policy that governs; what they said is void under the one that monitors.
    question = ask(story, 1, 60_000)
    story.activate(watching(story.now + DAY_US), second=SECOND)
    story.answer(question, "treasurer")
    action = story.again(question, args_of(question), WOULD_ASK)
    story.settle(action)
    return action.seq


@lie("V13.budget", **WATCHED)
def waived_without_its_budgets(story: Story) -> int:
    action = pay(story, 1, 60_000, answer=WOULD_ASK, alter=put("budgets", value=[]))
    story.settle(action)
    return action.seq


@lie("V14.decision", **WATCHED)
def asked_although_only_monitored(story: Story) -> int:
    return ask(story, 1, 60_000).action.seq


# --- activations ---


@lie("V09.monitor", bundle=watching())
def monitored_without_a_second_signature(story: Story) -> int:
    return 1


@lie("V09.monitor", bundle=watching(), second=by("activator"))
def monitored_by_one_person_twice(story: Story) -> int:
    return 1


@lie("V09.monitor", bundle=watching(), second=by("steward"))
def monitored_by_two_without_independence(story: Story) -> int:
    # The second has a role of a ladder, and wrote the policy.
    return 1


@lie("V09.monitor")
def monitored_by_the_author_of_what_is_new(story: Story) -> int:
    # Of the policy in force somebody else is the author; of this one, the only signer with a role of a ladder.
    return story.activate(watching(story.now + DAY_US, author="controller"), second=SECOND)


@lie("V09.signature", bundle=watching(), second=by("controller", alter=put("bundle", value=OTHER)))
def second_signature_of_another_activation(story: Story) -> int:
    return 1


@lie("V09.signature", bundle=watching(), second=by("controller", key=FOREIGN))
def second_signature_by_a_foreign_key(story: Story) -> int:
    return 1


@lie("V09.signature", people={"stranger": FOREIGN.text}, bundle=watching(), second=by("stranger", key=FOREIGN))
def second_signature_by_somebody_not_in_the_bundle(story: Story) -> int:
    return 1


@lie("V09.monitor", bundle=watching(FIRST_US + FORTNIGHT_US + 1), second=SECOND)
def monitored_for_longer_than_a_fortnight(story: Story) -> int:
    return 1


@lie("V09.monitor", bundle=watching(FIRST_US), second=SECOND)
def monitored_until_a_time_that_is_past(story: Story) -> int:
    return 1


@lie("V09.monitor", second=SECOND)
def second_signature_where_nothing_is_monitored(story: Story) -> int:
    return 1


@lie("V09.bundle", bundle=watching("2026-11-16"), second=SECOND)
def monitor_as_text(story: Story) -> int:
    return 1
