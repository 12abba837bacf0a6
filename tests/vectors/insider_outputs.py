"""Facts that look at outputs, and the day of a decision (docs/spec/facts.md): an honest history, and lies."""

from __future__ import annotations

from typing import Any

from acts import Action
from bundle import AGE, CHECKED, PERMIT, READ_POLICY, bundle_doc, fact_of, rules
from cases import UNSET
from lies import lie, put
from scribe import READ, Answer, Story
from story import CHECK, TRANSFER, opened, pay, run_of

HOUR_US = 3_600_000_000
CHECKING: list[Any] = [["tool", [CHECK]]]
CEDAR = f"""\
{PERMIT}{READ_POLICY}@id("found-open")
forbid (principal, action in Action::"money", resource) when {{ !context.facts.open_seen.known }};
@id("twice-found-empty")
forbid (principal, action in Action::"money", resource) when {{ context.facts.empty_seen > 1 }};
@id("closed-for-the-year")
forbid (principal, action in Action::"money", resource) when {{ context.facts.local_day > 20261103 }};
"""
NOT_OPEN: Answer = ("deny", "policy", "denied_by_policy", ["found-open"])
EMPTY: Answer = ("deny", "policy", "denied_by_policy", ["twice-found-empty"])
CLOSED: Answer = ("deny", "policy", "denied_by_policy", ["closed-for-the-year", "found-open"])


def outputs_bundle(where: list[Any] | None = None, use: str = "floor", **more: Any) -> dict[str, Any]:
    """Payments need an account that was found open within the hour; `where`, `use` and `more` bend that fact."""
    facts = [
        fact_of("empty_seen", "window", "floor", "count", ["agent"], over_us=HOUR_US,
                where=[["output.balance", [0]], ["output.open", [True]], *CHECKING]),
        fact_of("open_seen", "slot", use, "", ["agent"], over_us=HOUR_US,
                where=where or [["output.open", [True]], *CHECKING]) | more,
    ]  # fmt: skip
    bundle = bundle_doc("outputs", CHECKED)
    compiled = bundle["compiled"]
    tools = [tool for tool in compiled["tools"] if tool["name"] in (CHECK, TRANSFER)]
    compiled |= rules(tools, CEDAR, facts, {"empty_seen": "Long", "open_seen": AGE}, {})
    return bundle


OPENED: dict[str, Any] = {"bundle": outputs_bundle()}


def look(story: Story, number: int, outcome: str = "confirmed", **output: Any) -> Action:
    """An account is looked at; `output` is what the bank says."""
    action = story.decide(run_of(story), f"look-{number}", CHECK, {"account": "acct-aurora"}, READ)
    story.settle(action, outcome, output=output)
    return action


def screened() -> Story:
    """Nothing seen, a closed account, no answer, an open one; then the hour is over, empty accounts, the next day."""
    story = opened("outputs", **OPENED)
    pay(story, 1, answer=NOT_OPEN)
    look(story, 1, open=False, balance=0)
    look(story, 2, balance=5)
    look(story, 3, "failed")
    pay(story, 2, answer=NOT_OPEN)
    look(story, 4, open=True, balance=7)
    story.settle(pay(story, 3))
    look(story, 5, open=True, balance=0)
    story.settle(pay(story, 4))
    look(story, 6, open=True, balance=0)
    pay(story, 5, answer=EMPTY)
    story.wait(3_700)
    pay(story, 6, answer=NOT_OPEN)
    story.wait(16 * 3_600)  # past midnight in the bundle's zone: still a day on which payments are made
    look(story, 7, open=True, balance=1)
    story.settle(pay(story, 7))
    story.wait(24 * 3_600)
    pay(story, 8, answer=CLOSED)
    return story


@lie("V13.fact", **OPENED)
def confirmation_with_another_output_counts(story: Story) -> int:
    look(story, 1, open=False, balance=1)
    return pay(story, 1, alter=put("facts", "open_seen", value={"known": True, "age_s": 1})).seq


@lie("V13.fact", **OPENED)
def confirmation_without_the_output_counts(story: Story) -> int:
    look(story, 1, balance=1)
    return pay(story, 1, alter=put("facts", "open_seen", value={"known": True, "age_s": 1})).seq


@lie("V13.fact", **OPENED)
def day_of_a_decision_altered(story: Story) -> int:
    story.wait(48 * 3_600)
    look(story, 1, open=True, balance=1)
    return pay(story, 1, alter=put("facts", "local_day", value=20261103)).seq


@lie("V13.fact", **OPENED)
def day_of_a_decision_left_out(story: Story) -> int:
    look(story, 1, open=True, balance=1)
    return pay(story, 1, alter=lambda body: body["facts"].pop("local_day")).seq


def _paid(story: Story) -> Any:
    look(story, 1, open=True, balance=1)
    pay(story, 1)
    return UNSET


@lie("V09.bundle", bundle=outputs_bundle(use="cap"))
def output_of_what_is_not_yet_done(story: Story) -> Any:
    return _paid(story)


@lie("V09.bundle", bundle=outputs_bundle(group=["agent", "output.open"]))
def facts_grouped_by_an_output(story: Story) -> Any:
    return _paid(story)
