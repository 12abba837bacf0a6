"""The honest history: `small` is a morning of three payments, `whole` a day in which everything happens once.

`whole` begins with the records of `small`, so the head of the one is an earlier head of the other.
"""

from __future__ import annotations

from typing import Any

from acts import Action
from build import Key, Pack, log_line, make_pack, note_text, pseudonym, root_of
from bundle import DAY_US, bundle_doc, person_key
from fields import payment
from scribe import ALLOWED, FLAGGED, NOTED, READ, Alter, Answer, Escalation, Second, Story

TRANSFER = "bank.transfers.create"
PAYOUT = "bank.payouts.create"
CHECK = "bank.accounts.check"
NOTE = "bank.notes.add"


def opened(
    label: str,
    bundle_tools: list[str] | None = None,
    log_key: Key | None = None,
    bundle_key: Key | None = None,
    bundle: dict[str, Any] | None = None,
    start: Alter | None = None,
    tier: str = "enforcing",
    second: Second | None = None,
    **grant: Any,
) -> Story:
    """A gate with a policy, a root mandate for the agent `payer`, and a run under it."""
    story = Story(label, log_key or Key("log"), tier=tier)
    story.start(start)
    story.activate(bundle or bundle_doc(tools=bundle_tools), key=bundle_key, second=second)
    named = [pseudonym("named", "inv-1001")]
    limits = grant.pop("limits", [[1_000_000, None], [50_000, DAY_US, "CHF"], [300_000, 0]])
    root = story.grant("payer", limits, **({"named": named} | grant))
    story.run("payer", root)
    return story


def run_of(story: Story, index: int = 0) -> str:
    return list(story.runs)[index]


def root_of_story(story: Story) -> str:
    return next(iter(story.mandates))


def pay(
    story: Story,
    number: int,
    amount: int = 10_000,
    payee: str = "aurora",
    answer: Answer = ALLOWED,
    run: str | None = None,
    alter: Alter | None = None,
    **more: Any,
) -> Action:
    """One transfer for invoice `number`, not settled yet."""
    args = payment(amount, payee, f"INV-{number}")
    return story.decide(run or run_of(story), f"call-{number}", TRANSFER, args, answer, alter=alter, **more)


def small(label: str = "whole", log_key: Key | None = None, first_amount: int = 12_000) -> Story:
    story = opened(label, log_key=log_key)
    story.settle(pay(story, 1001, first_amount))
    story.settle(pay(story, 1002, 30_000, "borealis", FLAGGED), "failed")
    args = payment(15_000, "borealis", "INV-1002", memo="for the roof of the old town hall")
    # The same obligation as the payment that failed: a failure frees it.
    payout = story.decide(run_of(story), "call-1003", PAYOUT, args, ALLOWED, reason="second attempt after a decline")
    story.settle(payout, "unknown")
    story.wait(90)
    story.settle(payout, amount=14_000, via="lookup")
    return story


def second_morning(story: Story) -> None:
    """Another currency, a tool's sensitive argument left out, an unknown outcome that turns out to have failed."""
    story.clear()
    run = run_of(story)
    francs = payment(8_000, "aurora", "INV-1010", currency="CHF")
    story.settle(story.decide(run, "call-1010", TRANSFER, francs, ALLOWED))
    story.settle(story.decide(run, "call-1011", PAYOUT, payment(500, "aurora", "INV-1011"), ALLOWED))
    uncertain = pay(story, 1012, 700)
    story.settle(uncertain, "unknown")
    story.settle(uncertain, "failed", via="recovery")
    again = story.decide(run, "call-1013", TRANSFER, payment(700, "aurora", "INV-1012"), ALLOWED)
    story.settle(again)
    more = payment(43_000, "aurora", "INV-1014", currency="CHF")
    no = ("deny", "mandate", "mandate_limit", [root_of_story(story)])
    story.decide(run, "call-1014", TRANSFER, more, no)


def child(story: Story) -> str:
    """A narrower mandate for the agent `clerk`, signed by the parent's agent; answers its run."""
    narrow = {"tools": [TRANSFER], "payees": ["aurora", "borealis"], "not_after": story.now + DAY_US}
    mandate = story.grant("clerk", [[50_000, DAY_US]], root_of_story(story), **narrow)
    return story.run("clerk", mandate)


def grandchild(story: Story, clerk_run: str) -> str:
    """A third mandate in the chain, with no limits of its own, signed by a principal; answers its run."""
    parent = story.runs[clerk_run][1]
    narrow = {"tools": [TRANSFER], "payees": ["aurora"], "not_after": story.mandates[parent]["not_after"]}
    return story.run("clerk", story.grant("clerk", [], parent, key=person_key("director"), **narrow))


def denials(story: Story, clerk_run: str) -> None:
    """A denial by each stage that stands before an approval."""
    child_mandate = story.runs[clerk_run][1]
    run = run_of(story)
    story.settle(pay(story, 1101, 9_000, run=clerk_run))
    pay(story, 1102, 45_000, answer=("deny", "mandate", "mandate_limit", [child_mandate]), run=clerk_run)
    pay(story, 1103, 1_000, "cirrus", ("deny", "mandate", "mandate_payee", [child_mandate]), run=clerk_run)
    francs = payment(1_000, "aurora", "INV-1103", currency="CHF")
    no = ("deny", "mandate", "mandate_currency", [child_mandate])
    story.decide(clerk_run, "call-1113", TRANSFER, francs, no)
    taken = ("deny", "obligation", "duplicate_obligation", ["seq:4"])
    story.decide(run, "call-1104", TRANSFER, payment(12_000, "aurora", "inv - 1001"), taken)
    note = {"text": "paid \u00fc \u20ac"}
    story.decide(run, "call-1105", NOTE, note, ("deny", "facts", "fact_missing", ["notes_on_topic"]))
    story.settle(story.decide(run, "call-1115", NOTE, note | {"topic": "roof"}, NOTED))
    pay(story, 1106, 500, "stranger", ("deny", "policy", "not_permitted", []))
    # Whoever writes a payee's id where an account belongs has named a stranger.
    odd = payment(500, "", "INV-1116", destination="aurora")
    story.decide(run, "call-1116", TRANSFER, odd, ("deny", "policy", "not_permitted", []))
    forbids = ["ask-treasury", "check-first"]
    pay(story, 1107, 95_000, answer=("deny", "policy", "denied_by_policy", forbids))
    kill = story.kill("agent", "clerk")
    pay(story, 1108, 1_000, answer=("deny", "kill", "killed", [kill]), run=clerk_run)
    story.clear(kill)
    body = {"agent": "payer", "run": run, "call_id": "call-1109", "tool": TRANSFER, "code": "type", "field": "amount"}
    story.add("action.refused", "agent:payer", story.streams("payer", run), body)


def ask(
    story: Story,
    number: int,
    amount: int,
    payee: str = "aurora",
    board: bool = False,
    **more: Any,
) -> Escalation:
    """An escalated transfer: its decision and the question."""
    ladders = {"treasury": ["ask-treasury"]} | ({"board": ["ask-board"]} if board else {})
    args = payment(amount, payee, f"INV-{number}")
    return story.escalate(run_of(story), f"call-{number}", TRANSFER, args, ladders, **more)


def args_of(escalation: Escalation) -> dict[str, object]:
    args: dict[str, object] = escalation.action.body["args"]
    return args


def approved(story: Story, number: int = 1201, amount: int = 60_000, person: str = "treasurer") -> Action:
    escalation = ask(story, number, amount)
    story.wait(40)
    story.answer(escalation, person)
    return story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury"])


def escalations(story: Story) -> None:
    """Approved by one, approved by three, refused, expired, and overtaken by another payment."""
    story.settle(approved(story))
    board = ask(story, 1202, 250_000, "cirrus", board=True)
    story.answer(board, "treasurer", state="pending")
    story.answer(board, "controller", state="pending", ladder="board")
    story.answer(board, "director", ladder="board")
    story.settle(story.again(board, args_of(board), ALLOWED, lifted=["ask-board", "ask-treasury"]))
    refused = ask(story, 1203, 55_000)
    seq = story.answer(refused, "controller", "refuse")
    no = ("deny", "obligation", "refused_by_person", [f"seq:{seq}"])
    story.decide(run_of(story), "call-1204", TRANSFER, payment(55_000, "aurora", "INV-1203"), no)
    overtaken = ask(story, 1205, 52_000)
    story.settle(pay(story, 1206, 20_000, "borealis", FLAGGED))
    story.answer(overtaken, "treasurer")
    story.again(overtaken, args_of(overtaken), ("deny", "approval", "approval_void", ["reasons"]))
    expired = ask(story, 1207, 51_000)
    story.wait(3600)
    story.expire(expired)


def whole() -> Story:
    story = small()
    second_morning(story)
    clerk_run = child(story)
    third_run = grandchild(story, clerk_run)
    story.settle(pay(story, 1100, 200, run=third_run))
    denials(story, clerk_run)
    check = story.decide(run_of(story), "call-1110", CHECK, {"account": "cirrus"}, READ)
    story.settle(check, output={"balance": 1_250_000, "open": True})
    escalations(story)
    pay(story, 1301, 1_000, "drift", ("deny", "policy", "denied_by_policy", ["payee-spread"]))
    story.activate(bundle_doc("second"))
    mandate = story.runs[clerk_run][1]
    story.revoke(mandate)
    pay(story, 1302, 1_000, answer=("deny", "mandate", "mandate_not_in_force", [mandate]), run=clerk_run)
    pay(story, 1304, 1_000, answer=("deny", "mandate", "mandate_not_in_force", [mandate]), run=third_run)
    # The next day: yesterday's spending has left the window, bucket by bucket.
    story.wait(26 * 3600)
    run = run_of(story)
    args = payment(40_000, "drift", "INV-1303", urgent=True)
    story.settle(story.decide(run, "call-1303", TRANSFER, args, FLAGGED))
    story.add("run.ended", "agent:payer", story.streams("payer", run), {"run": run, "agent": "payer", "reason": "done"})
    story.add("gate.stopped", "gate", [], {"reason": "end of the week"})
    return story


def restarts(count: int = 129) -> Story:
    """Many records without an action, so that a tree of two hash-tile levels stays small: 2 * `count` of them."""
    story = Story("restarts")
    for _ in range(count):
        story.start()
        story.add("gate.stopped", "gate", [], {"reason": "maintenance"})
    return story


OF_RUNS = ("$inputs", "$output", "$message", "$outputs")  # values of sealed runs


def disclosures_of(story: Story, aliases: tuple[str, ...]) -> tuple[dict[str, object], int]:
    """Disclose these aliases, and request salts with `memo`; answers the document and the number withheld."""
    there = [row for row in story.sealed if row["seq"] not in story.erased]
    shown = [row for row in there if row["alias"] in aliases]
    fields = sorted(shown, key=lambda row: (row["seq"], row["alias"]))
    requests = [row for row in story.request_salts if row["seq"] not in story.erased] if "memo" in aliases else []
    return {"v": 1, "fields": fields, "requests": requests}, len(there) - len(shown)


def next_line(story: Story) -> bytes:
    """The head's line by the key that the log was handed over to."""
    text = note_text(len(story.log.leaves), root_of(story.log.leaves))
    return log_line(text, story.next_key) if story.next_key is not None else b""


def pack_of(story: Story, aliases: tuple[str, ...] = ("memo", *OF_RUNS)) -> Pack:
    disclosures, withheld = disclosures_of(story, aliases)
    pack = make_pack(story.log.leaves, story.bundles, story.log_key, disclosures, withheld)
    pack.predicate["erased"] = sum(row["seq"] in story.erased for row in story.sealed)
    pack.members["log/checkpoint"] += next_line(story)
    return pack.sealed()
