"""Tools that the asking program runs itself and reports, beside a JSON API: an honest history, and insiders who lie."""

from __future__ import annotations

from typing import Any

from acts import Action
from bundle import ASK_TREASURY, LIMITS, PERMIT, plain_bundle, rules
from cases import UNSET
from fields import payment, request_digest
from lies import lie, put
from scribe import ALLOWED, Alter, Story
from story import TRANSFER, opened, pay, root_of_story, run_of

DESK, WIRE = "desk.refunds.make", "bank.wires.create"
NAMES = {"amount": "sum.value", "currency": "sum.currency", "destination": "to", "invoice": "invoice"}
ANSWERS = {
    "confirmed": [201],
    "failed": [400, 422],
    "ref": "/id",
    "amount": "/sum/value",
    "currency": "/sum/currency",
    "lookup": "GET https://bank.example/v1/wires?key={key}",
}


def callers_bundle(wire: dict[str, Any] | None = None, **desk: Any) -> dict[str, Any]:
    """The plain transfer, a wire over a JSON API, and a refund that the support desk makes. `desk` bends the latter."""
    bundle = plain_bundle("callers")
    compiled = bundle["compiled"]
    [transfer] = compiled["tools"]
    args = [arg | {"name": NAMES[arg["alias"]]} for arg in transfer["args"]]
    called = {
        "name": DESK, "connector": "caller", "args": args, "recovery": "escalate", "encoding": "object-v1",
        "key_ttl_s": 0, "endpoint": f"CALL {DESK}", "headers": [], "outputs": [["receipt", "string"]],
    }  # fmt: skip
    sent = {
        "name": WIRE, "args": args, "encoding": "object-v1", "endpoint": "POST https://bank.example/v1/wires",
        "recovery": "lookup", "answers": ANSWERS,
    }  # fmt: skip
    tools = [transfer | sent | (wire or {}), transfer, transfer | called | desk]
    payees = [row["id"] for row in compiled["payees"]]
    cedar = PERMIT + ASK_TREASURY
    compiled |= rules(tools, cedar, [], {}, {"ask_above": LIMITS["ask_above"]}, payees)
    return bundle


def desk(story: Story, number: int, amount: int = 10_000, alter: Alter | None = None) -> Action:
    """A refund of the desk's own, admitted."""
    args = payment(amount, "aurora", f"INV-{number}")
    return story.decide(run_of(story), f"desk-{number}", DESK, args, ALLOWED, alter=alter)


def told(story: Story, action: Action, outcome: str = "confirmed", **members: Any) -> int:
    """What the desk says of it; `members` falsify the record."""

    def alter(settled: dict[str, Any]) -> None:
        settled |= {"code": "reported", "settled": None, "http_status": 0, "attempts": 0, "request_id": ""}
        settled |= {"response": "", **members}

    return story.settle(action, outcome, via=members.get("via", "report"), alter=alter)


def callers() -> Story:
    """Reported, silent and then reported, failed without giving anything back, asked and approved; and a wire."""
    story = opened("callers", bundle=callers_bundle(), limits=[[100_000, None]])
    told(story, desk(story, 1), output={"receipt": "r-1"})
    silent = desk(story, 2)
    story.wait(121)
    told(story, silent, "unknown", code="not_reported", via="recovery")
    told(story, silent)
    told(story, desk(story, 3), "failed")
    first = story.intents()[-1]
    again = ("deny", "obligation", "duplicate_obligation", [f"seq:{first.seq}"])
    story.decide(run_of(story), "desk-4", DESK, payment(10_000, "aurora", "INV-3"), again)
    args = payment(60_000, "aurora", "INV-5")
    asked = story.escalate(run_of(story), "desk-5", DESK, args, {"treasury": ["ask-treasury"]})
    story.answer(asked, "treasurer")
    told(story, story.again(asked, args, ALLOWED, lifted=["ask-treasury"]))
    # 90,000 are held, the failed refund among them.
    over = ("deny", "mandate", "mandate_limit", [root_of_story(story)])
    pay(story, 6, 10_001, answer=over)
    wire = payment(4_000, "borealis", "INV-7")
    story.settle(story.decide(run_of(story), "wire-7", WIRE, wire, ALLOWED))
    return story


@lie("V13.budget", bundle=callers_bundle())
def failure_that_its_caller_reported_releases(story: Story) -> int:
    action = desk(story, 1)
    told(story, action, "failed")
    action.body = action.body | {"tier": "enforcing"}  # what follows counts as if the gate itself had seen the failure
    return pay(story, 2).seq


@lie("V11.run", bundle=callers_bundle())
def caller_ran_it_and_the_gate_claims_it(story: Story) -> int:
    return desk(story, 1, alter=put("tier", value="enforcing")).seq


@lie("V11.run", bundle=callers_bundle())
def gate_ran_it_and_calls_it_observed(story: Story) -> int:
    return pay(story, 1, alter=put("tier", value="observing")).seq


@lie("V11.outcome", bundle=callers_bundle())
def report_about_what_the_gate_executes(story: Story) -> int:
    return told(story, pay(story, 1))


@lie("V11.outcome", bundle=callers_bundle())
def execution_of_what_its_caller_ran(story: Story) -> int:
    return told(story, desk(story, 1), via="execute", attempts=1)


@lie("V11.outcome", bundle=callers_bundle())
def report_with_an_answer_of_a_provider(story: Story) -> int:
    return told(story, desk(story, 1), http_status=200)


@lie("V11.outcome", bundle=callers_bundle())
def silence_of_a_caller_taken_for_failure(story: Story) -> int:
    return told(story, desk(story, 1), "failed", code="not_reported", via="recovery")


@lie("V11.outcome", bundle=callers_bundle())
def silence_of_a_caller_claimed_before_its_time(story: Story) -> int:
    return told(story, desk(story, 1), "unknown", code="not_reported", via="recovery")


@lie("V11.outcome", bundle=callers_bundle())
def report_of_a_caller_under_an_ordinary_code(story: Story) -> int:
    return told(story, pay(story, 1), code="ok", via="report", attempts=1, http_status=200)


@lie("V12.request", bundle=callers_bundle())
def object_with_other_members(story: Story) -> int:
    # The record says what was wired; the request had another sum in it.
    def alter(body: dict[str, Any]) -> None:
        other = payment(400_000, "borealis", "INV-1")
        body["request"] = request_digest(story.tool(WIRE), other, body["key"], body["salt"])

    return story.decide(run_of(story), "wire-1", WIRE, payment(4_000, "borealis", "INV-1"), ALLOWED, alter=alter).seq


@lie("V09.bundle", bundle=callers_bundle(endpoint="POST https://bank.example/v1/refunds"))
def caller_tool_that_says_where_it_is_sent(story: Story) -> Any:
    pay(story, 1)
    return UNSET


@lie("V09.bundle", bundle=callers_bundle(wire={"answers": ANSWERS | {"confirmed": [99]}}))
def answers_with_a_status_that_is_none(story: Story) -> Any:
    story.decide(run_of(story), "call-1", TRANSFER, payment(10_000, "aurora", "INV-1"), ALLOWED)
    return UNSET
