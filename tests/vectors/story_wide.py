"""Two more honest histories: one for every kind of fact at the edges of its window, one for approvals that lapse."""

from __future__ import annotations

import json
from typing import Any

from bundle import LEAN, PAYEES, bundle_doc
from fields import payment
from scribe import ALLOWED, READ, WINTER_US, Action, Answer, Story
from story import CHECK, PAYOUT, TRANSFER, args_of, ask, opened, run_of

HOUR_US = 3_600_000_000
PERMIT: Answer = ("allow", "policy", "allowed", ["any"])
CEDAR = """\
@id("any")
permit (principal, action in Action::"money", resource);
@id("read")
permit (principal, action in Action::"read", resource);
"""
_BUILT_IN = "payee_known: Bool, local_minute: Long, local_weekday: Long, instructed: Set<String>"
_AGE = "{known: Bool, age_s?: Long}"
SCHEMA = f"""\
entity Agent = {{ owner: String }};
entity Payee;
type Limits = {{}};
action "money", "read";
action "{CHECK}" in ["read"] appliesTo {{ principal: Agent, resource: Payee,
  context: {{ args: {{ account: String }}, facts: {{ {_BUILT_IN} }}, limits: Limits }} }};
action "{TRANSFER}" in ["money"] appliesTo {{ principal: Agent, resource: Payee,
  context: {{ amount: Long, currency: String, limits: Limits,
    args: {{ amount: Long, currency: String, destination: String, invoice: String, urgent?: Bool }},
    facts: {{ {_BUILT_IN}, actions: Long, grounded: {{known: Bool, equal: Bool}}, invoices: Long,
      last_asked: {_AGE}, last_paid: {_AGE}, paid: Long, payees_paid: Long, runs_spent: Long, urgent: Long }} }} }};
"""


def _fact(name: str, kind: str, use: str, of: str | None, group: list[str], **more: Any) -> dict[str, Any]:
    base = {"name": name, "kind": kind, "use": use, "of": of, "group": group, "over_us": HOUR_US, "where": []}
    return base | {"tool": None, "field": None} | more


_PAYMENTS = [["tool", [TRANSFER]]]
FACTS = [
    _fact("actions", "window", "cap", "count", ["agent"]),
    _fact("grounded", "grounded", "floor", "amount", [], over_us=0, tool=CHECK, field="balance"),
    _fact("invoices", "distinct", "cap", "args.invoice", ["payee"], where=_PAYMENTS),
    _fact("last_asked", "slot", "cap", None, ["payee"], over_us=0, where=_PAYMENTS),
    _fact("last_paid", "slot", "floor", None, ["payee"], over_us=600_000_000, where=_PAYMENTS),
    _fact("paid", "window", "floor", "amount", ["payee", "currency"], where=_PAYMENTS),
    _fact("payees_paid", "distinct", "floor", "payee", ["agent"], where=_PAYMENTS),
    _fact("runs_spent", "window", "cap", "amount", ["run", "mandate"], where=_PAYMENTS),
    _fact("urgent", "window", "cap", "amount", ["currency"], where=[*_PAYMENTS, ["args.urgent", [True]]]),
]


def wide_bundle() -> dict[str, Any]:
    bundle = bundle_doc("wide", LEAN)
    compiled = bundle["compiled"]
    agents = [("Agent", name, {"owner": "bookkeeper"}) for name in ("clerk", "payer")]
    rows = [*agents, *(("Payee", name, {}) for name in ("$none", "$unknown", *PAYEES))]
    entities = [{"uid": {"type": kind, "id": name}, "attrs": attrs, "parents": []} for kind, name, attrs in rows]
    tools = [
        tool | {"facts": [f["name"] for f in FACTS] if tool["name"] == TRANSFER else []} for tool in compiled["tools"]
    ]
    compiled |= {"cedar": CEDAR, "schema": SCHEMA, "facts": FACTS, "limits": {}, "tools": tools}
    compiled["entities"] = json.dumps(entities, separators=(",", ":"))
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
    story.settle(check, output={"balance": 7_000})
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
    story.answer(stopped, "controller")
    kill = story.kill("tool", TRANSFER)
    story.again(stopped, args_of(stopped), ("deny", "kill", "killed", [kill]))
    return story
