"""Insiders with a policy bundle that reads well and never bites, or with authority that is not theirs (V09 to V14)."""

from __future__ import annotations

import json
from typing import Any

from build import pseudonym
from bundle import CEDAR, DAY_US, FACT_TYPES, PERMIT, asking_bundle, bundle_with, plain_bundle, schema_of
from cases import UNSET
from lies import lie
from scribe import START_US, Story
from story import TRANSFER, ask, pay, root_of_story, run_of

GUARDED = CEDAR.replace(
    "when { context.facts.spent_day >", "when { context.facts has spent_day && context.facts.spent_day >"
)


def _blind(compiled: dict[str, Any]) -> None:
    for tool in compiled["tools"]:
        tool["reads"] = [name for name in tool["reads"] if name != "facts.spent_day"]
    compiled["schema"] = schema_of(compiled["tools"], FACT_TYPES, compiled["limits"])


def _unknown_read(compiled: dict[str, Any]) -> None:
    compiled["tools"][0]["reads"].append("facts.weather")


def _unsorted_reads(compiled: dict[str, Any]) -> None:
    compiled["tools"][0]["reads"].reverse()


def _extra_fact(compiled: dict[str, Any]) -> None:
    compiled["tools"][0]["facts"] = ["spent_day"]


def _fewer_facts(compiled: dict[str, Any]) -> None:
    # Whatever the tool reads follows, so that only the policies' texts tell.
    compiled["tools"][0]["facts"].remove("spent_day")
    _blind(compiled)


def _generous_entity(compiled: dict[str, Any]) -> None:
    compiled["entities"] = compiled["entities"].replace('"day":15000', '"day":99000000')


def _other_owner(compiled: dict[str, Any]) -> None:
    compiled["entities"] = compiled["entities"].replace('"owner":"bookkeeper"', '"owner":"director"')


def _written_by_nobody(compiled: dict[str, Any]) -> None:
    compiled["author"] = "nobody"


def _owned_by_nobody(compiled: dict[str, Any]) -> None:
    compiled["agents"] = [agent | {"owner": "nobody"} for agent in compiled["agents"]]
    compiled["entities"] = compiled["entities"].replace('"owner":"bookkeeper"', '"owner":"nobody"')


def _two_payments(story: Story) -> int:
    story.settle(pay(story, 1))
    story.settle(pay(story, 2))
    return 1


@lie("V09.bundle", "V14.decision", bundle=bundle_with(_blind, day=15_000))
def reads_leave_out_a_fact(story: Story) -> Any:
    # The forbid of the day's limit meets no fact and is an error, which plain Cedar skips over.
    _two_payments(story)
    return UNSET


@lie("V09.bundle", bundle=bundle_with(_blind, GUARDED, day=15_000))
def reads_hide_a_fact_from_its_policy(story: Story) -> int:
    # The forbid asks first whether the fact is there; so it is no error, and never applies.
    return _two_payments(story)


@lie("V09.bundle", bundle=bundle_with(_generous_entity, day=15_000))
def limits_entity_differs_from_limits(story: Story) -> int:
    # The limits that a person reads say 15,000 a day; the entity that the policies read says more.
    return _two_payments(story)


@lie("V09.bundle", bundle=bundle_with(_other_owner))
def owner_entity_differs_from_agents(story: Story) -> int:
    # Approvals look at one owner of the agent, policies at another.
    story.settle(pay(story, 1))
    return 1


@lie("V09.bundle", bundle=bundle_with(_written_by_nobody))
def policy_written_by_nobody(story: Story) -> int:
    # Its true author may approve what it asks people about.
    story.settle(pay(story, 1))
    return 1


@lie("V09.bundle", bundle=bundle_with(_owned_by_nobody))
def agent_owned_by_nobody(story: Story) -> int:
    # Its true owner may approve what it asks for.
    story.settle(pay(story, 1))
    return 1


@lie("V10.mandate")
def mandate_for_an_agent_that_the_policy_does_not_know(story: Story) -> int:
    story.grant("stranger", [[1_000_000, None]])
    return len(story.log.leaves) - 1


@lie("V11.run")
def run_of_an_agent_that_left_the_policy(story: Story) -> int:
    left = plain_bundle("without a payer")
    compiled = left["compiled"]
    compiled["agents"] = [agent for agent in compiled["agents"] if agent["id"] != "payer"]
    rest = [row for row in json.loads(compiled["entities"]) if row["uid"] != {"type": "Agent", "id": "payer"}]
    compiled["entities"] = json.dumps(rest, separators=(",", ":"))
    story.activate(left)
    story.run("payer", root_of_story(story))
    return len(story.log.leaves) - 1


@lie("V09.bundle", bundle=bundle_with(_unknown_read))
def reads_list_an_unknown_member(story: Story) -> int:
    story.settle(pay(story, 1))
    return 1


@lie("V09.bundle", bundle=bundle_with(_unsorted_reads))
def reads_not_sorted(story: Story) -> int:
    story.settle(pay(story, 1))
    return 1


@lie("V09.bundle", bundle=bundle_with(_extra_fact, PERMIT))
def tool_lists_a_fact_that_no_policy_names(story: Story) -> int:
    story.settle(pay(story, 1))
    return 1


@lie("V09.bundle", bundle=bundle_with(_fewer_facts, GUARDED, day=15_000))
def tool_leaves_out_a_fact_that_a_policy_names(story: Story) -> int:
    # The forbid of the day's limit asks first whether the fact is there, and nobody computes it.
    return _two_payments(story)


# --- mandates (V10, V11) ---


def _child(story: Story, limits: list[list[Any]], **more: Any) -> int:
    story.grant("clerk", limits, root_of_story(story), **more)
    return len(story.log.leaves) - 1


@lie("V10.mandate")
def child_larger_limit(story: Story) -> int:
    return _child(story, [[300_001, 0]])


@lie("V10.mandate")
def child_larger_limit_over_its_life(story: Story) -> int:
    return _child(story, [[1_000_001, None], [1_000, 0]])


@lie("V10.mandate")
def child_other_currency(story: Story) -> int:
    return _child(story, [[1_000, 0], [1_000, 0, "USD"]])


@lie("V10.mandate")
def child_names_more(story: Story) -> int:
    # What stands in `named` counts as instructed by a person.
    names = [pseudonym("named", name) for name in ("inv-1001", "inv-6666")]
    return _child(story, [[1_000, 0]], named=names)


@lie("V10.mandate")
def child_begins_before_its_parent(story: Story) -> int:
    return _child(story, [[1_000, 0]], not_before=START_US - DAY_US)


@lie("V11.run")
def run_under_revoked_mandate(story: Story) -> int:
    story.revoke(root_of_story(story))
    story.run("payer", root_of_story(story))
    return len(story.log.leaves) - 1


@lie("V11.run")
def run_under_child_of_revoked_mandate(story: Story) -> int:
    mandate = story.grant("clerk", [[1_000, 0]], root_of_story(story), tools=[TRANSFER])
    story.revoke(root_of_story(story))
    story.run("clerk", mandate)
    return len(story.log.leaves) - 1


@lie("V11.run")
def run_before_its_mandate_begins(story: Story) -> int:
    story.run("payer", story.grant("payer", [[1_000, 0]], not_before=story.now + DAY_US))
    return len(story.log.leaves) - 1


@lie("V11.run")
def run_started_twice(story: Story) -> int:
    run = run_of(story)
    body = {"run": run, "agent": "payer", "mandate": root_of_story(story), "purpose": "again"}
    return story.add("run.started", "agent:payer", story.streams("payer", run), body)


# --- answers (V10) ---


@lie("V10.approval", bundle=asking_bundle())
def refusal_by_somebody_who_lost_the_role(story: Story) -> int:
    # The policy that asked knew them as an approver; the one in force does not, and the refusal would bind for ever.
    question = ask(story, 1, 60_000)
    later = asking_bundle("later")
    next(row for row in later["compiled"]["people"] if row["id"] == "treasurer")["roles"] = ["activator"]
    story.activate(later)
    return story.answer(question, "treasurer", "refuse")
