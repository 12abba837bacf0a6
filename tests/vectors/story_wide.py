"""Two more honest histories: one for every kind of fact at the edges of its window, one for approvals that lapse."""

from __future__ import annotations

from typing import Any

from acts import Action
from bundle import AGE, CHECKED, LEAN, bundle_doc, fact_of, rules
from fields import payee_of, payment
from scribe import ALLOWED, READ, WINTER_US, Answer, Story
from story import CHECK, PAYOUT, TRANSFER, args_of, ask, opened, pay, root_of_story, run_of

HOUR_US = 3_600_000_000
PERMIT: Answer = ("allow", "policy", "allowed", ["any"])
CEDAR = """\
@id("any")
permit (principal, action in Action::"money", resource) // whatever the currency, which is therefore listed too
;
@id("urgent-strangers")
forbid (principal, action in Action::"money", resource)
when { context has args && context.args has urgent && context.args.urgent && !context.facts.payee_known };
@id("far-beyond")
forbid (principal, action in Action::"money", resource)
when {
  context.facts.actions > 1000 || context.facts.invoices > 1000 || context.facts.payees_paid > 1000 ||
  context.facts.paid > 1000000 || context.facts.runs_spent > 1000000 || context.facts.urgent > 1000000
};
@id("long-silence")
forbid (principal, action in Action::"money", resource)
when {
  context.facts.last_asked has age_s && context.facts.last_asked.age_s > 86400 && !context.facts.last_paid.known
};
@id("half-grounded")
forbid (principal, action in Action::"money", resource)
when { context.facts.grounded.equal && !context.facts.grounded.known };
@id("read")
permit (principal, action in Action::"read", resource);
"""
_PAYMENTS = [["tool", [TRANSFER]]]
FACTS = [
    fact_of("actions", "window", "cap", "count", ["agent"], over_us=HOUR_US),
    fact_of("grounded", "grounded", "floor", "amount", [], over_us=0, tool=CHECK, field="balance"),
    fact_of("invoices", "distinct", "cap", "args.invoice", ["payee"], over_us=HOUR_US, where=_PAYMENTS),
    fact_of("last_asked", "slot", "cap", "", ["payee"], over_us=0, where=_PAYMENTS),
    fact_of("last_paid", "slot", "floor", "", ["payee"], over_us=600_000_000, where=_PAYMENTS),
    fact_of("paid", "window", "floor", "amount", ["payee", "currency"], over_us=HOUR_US, where=_PAYMENTS),
    fact_of("payees_paid", "distinct", "floor", "payee", ["agent"], over_us=HOUR_US, where=_PAYMENTS),
    fact_of("runs_spent", "window", "cap", "amount", ["run", "mandate"], over_us=HOUR_US, where=_PAYMENTS),
    fact_of(
        "urgent", "window", "cap", "amount", ["currency"], over_us=HOUR_US, where=[*_PAYMENTS, ["args.urgent", [True]]]
    ),
]
TYPES = {fact["name"]: AGE if fact["kind"] == "slot" else "Long" for fact in FACTS}
TYPES["grounded"] = "{known: Bool, equal: Bool}"


def wide_bundle() -> dict[str, Any]:
    """Every kind of fact, each read by a policy that forbids nothing here, and no limits."""
    bundle = bundle_doc("wide", CHECKED)
    compiled = bundle["compiled"]
    compiled |= rules(compiled["tools"], CEDAR, FACTS, TYPES, {})
    return bundle


def wide() -> Story:
    """Payments around the ends of an hour's window, over the night in which the clocks go back."""
    story = Story("wide", now=WINTER_US - 1_800_000_000)
    story.start()
    story.activate(wide_bundle())
    validity: dict[str, Any] = {"not_before": WINTER_US - HOUR_US, "not_after": WINTER_US + 24 * HOUR_US}
    story.run("payer", story.grant("payer", [[500_000, HOUR_US], [40_000, 0]], **validity))
    run = run_of(story)
    number = 0

    def go(amount: int, payee: str, at_s: int, outcome: str = "confirmed", **more: Any) -> Action:
        nonlocal number
        number += 1
        story.now = max(story.now, WINTER_US - 1_800_000_000 + at_s * 1_000_000)
        args = payment(amount, payee, f"INV-{number}", **more.pop("args", {}))
        action = story.decide(run, f"call-{number}", TRANSFER, args, PERMIT, **more)
        story.settle(action, outcome, amount=more.get("paid"))
        return action

    go(10_000, "aurora", 60)
    check = story.decide(run, "check", CHECK, {"account": "aurora"}, READ)
    story.settle(check, output={"balance": 7_000, "open": True})
    go(7_000, "aurora", 120, because=[check], args={"urgent": True})
    go(7_001, "borealis", 130, because=[check], args={"urgent": False})
    go(3_000, "borealis", 400, "failed", because=[], args={"urgent": True})
    go(2_000, "aurora", 718)
    go(2_500, "aurora", 1400)  # the age of the newest confirmation is beyond ten minutes
    # One hour after the first payment: a cap still counts it for up to a bucket more, a floor has let go of it before.
    for at_s in (3590, 3630, 3662, 3700, 3725, 3800):
        go(1_000, "aurora", at_s)
    go(900, "nobody", 7_300)
    return story


def voided() -> Story:
    """A sealed argument approved, and approvals that lapse: the bundle changed, or a kill came between."""
    story = opened("voided", [*LEAN, PAYOUT])
    args = payment(60_000, "aurora", "INV-0", memo="for the bridge")
    sealed = story.escalate(run_of(story), "call-0", PAYOUT, args, {"treasury": ["ask-treasury"]})
    story.answer(sealed, "treasurer")
    story.settle(story.again(sealed, args, ALLOWED, lifted=["ask-treasury"]))
    changed = ask(story, 1, 60_000)
    story.activate(bundle_doc("second", LEAN))
    story.answer(changed, "treasurer")
    story.again(changed, args_of(changed), ("deny", "approval", "approval_void", ["bundle"]))
    stopped = ask(story, 2, 60_000)
    kill = story.kill("tool", TRANSFER)
    story.answer(stopped, "controller")
    story.again(stopped, args_of(stopped), ("deny", "kill", "killed", [kill]))
    story.clear(kill)
    overtaken(story)
    killed(story)
    # Answered within the last microsecond; the next question expires at its deadline.
    late = ask(story, 8, 60_000)
    story.now = late.body["not_after"] - 1_000_001
    story.answer(late, "treasurer")
    story.settle(story.again(late, args_of(late), ALLOWED, lifted=["ask-treasury"]))
    silent = ask(story, 6, 60_000)
    story.now = silent.body["not_after"] - 1_000_000
    story.expire(silent)
    revoked = ask(story, 7, 60_000)
    root = root_of_story(story)
    story.revoke(root)
    story.answer(revoked, "treasurer")
    story.again(revoked, args_of(revoked), ("deny", "mandate", "mandate_not_in_force", [root]))
    return story


def overtaken(story: Story) -> None:
    """Two requests for one invoice: the second finds the first one waiting, the third finds it paid."""
    first, args = ask(story, 3, 60_000), payment(60_000, "aurora", "INV-3")
    story.decide(run_of(story), "call-4", TRANSFER, args, first.waiting)
    story.answer(first, "treasurer")
    paid = story.again(first, args, ALLOWED, lifted=["ask-treasury"])
    story.settle(paid)
    taken = ("deny", "obligation", "duplicate_obligation", [f"seq:{paid.seq}"])
    story.decide(run_of(story), "call-5", TRANSFER, args, taken)


def killed(story: Story) -> None:
    """A kill of every scope, a restart in between, then two kills at once."""
    stranger = payee_of("acct-stranger", story.bundles[-1]["compiled"]["payees"])
    scopes = [("deployment", "acme"), ("mandate", root_of_story(story)), ("payee", stranger)]
    for number, (kind, value) in enumerate(scopes):
        kill = story.kill(kind, value)
        payee = "stranger" if value == stranger else "aurora"
        pay(story, 90 + number, payee=payee, answer=("deny", "kill", "killed", [kill]))
        story.clear(kill)
        if kind == "deployment":
            story.add("gate.stopped", "gate", [], {"reason": "maintenance"})
            story.start()
    both = [story.kill("agent", "payer"), story.kill("tool", TRANSFER)]
    pay(story, 99, answer=("deny", "kill", "killed", sorted(both)))
    for kill in both:
        story.clear(kill)


def observed() -> Story:
    """The agent's process reports the outcomes: its failures give nothing back, its confirmations prove nothing."""
    story = Story("observed", tier="observing")
    story.start()
    story.activate(wide_bundle())
    mandate = story.grant("payer", [[60_000, None]])
    run = story.run("payer", mandate)

    def go(number: int, amount: int, outcome: str = "confirmed", paid: int | None = None, **more: Any) -> None:
        args = payment(amount, "aurora", f"INV-{number}")
        action = story.decide(run, f"call-{number}", TRANSFER, args, PERMIT, **more)
        story.settle(action, outcome, amount=paid)
        if paid is not None:
            story.clear()

    check = story.decide(run, "check", CHECK, {"account": "aurora"}, READ)
    story.settle(check, output={"balance": 9_000, "open": False})
    go(1, 20_000, "failed")
    go(2, 9_000, because=[check])
    go(3, 6_000, paid=1_000)
    over = ("deny", "mandate", "mandate_limit", [mandate])
    story.decide(run, "call-4", TRANSFER, payment(25_001, "aurora", "INV-4"), over)
    go(5, 5_000)
    # Nor does a failure that only the agent's process saw free the invoice.
    first = story.intents()[1]
    taken = ("deny", "obligation", "duplicate_obligation", [f"seq:{first.seq}"])
    story.decide(run, "call-6", TRANSFER, payment(20_000, "aurora", "INV-1"), taken)
    return story
