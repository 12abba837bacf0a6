"""Extracts in which runs of workflows stand whole, in part, or with a lie (docs/spec/verify.md, Extracts)."""

from __future__ import annotations

from build import head_of
from bundle import asking_bundle, plain_bundle
from cases import Case, case, trust
from extracts import DAY_US, MONDAY, TUESDAY, WEDNESDAY, agent_day, case_of, close, cut, week
from insider_extracts import PAYER_MONDAY, forged, honest, whole_trust
from insider_workflows import arrived, delegated, followed, noted, paid, planned, started
from lies import put
from scribe import Story
from story import ask, opened

NOON = MONDAY + DAY_US // 4


def run_of(story: Story) -> str:
    """The first run of a workflow."""
    return next(str(r["body"]["run"]) for r in story.log.records if "workflow" in r["body"])


@case
def extract_case_of_a_workflow() -> Case:
    return honest(case_of(run_of(followed()), NOON, WEDNESDAY), followed)


@case
def extract_day_of_an_agent_in_a_boundary() -> Case:
    """The run that gave it the boundary is another agent's, and not here."""
    return honest(agent_day("clerk", "2026-11-02", MONDAY), delegated)


@case
def extract_day_of_an_agent_that_gave_one() -> Case:
    """How the run in the boundary ended is not here: what its step took from it is believed."""
    return honest(agent_day("payer", "2026-11-02", MONDAY), delegated)


def overnight() -> Story:
    """A run that begins on Monday and ends on Tuesday."""
    story = opened("overnight", bundle=plain_bundle())
    flow = started(story)
    _, ref = paid(flow)
    story.now = TUESDAY - 20_000_000
    arrived(flow, ref)
    story.now = TUESDAY + DAY_US // 2
    flow.end("success", outputs={"note": noted(flow, ref)})
    story.now = WEDNESDAY + DAY_US // 3
    close(story, TUESDAY)
    close(story, WEDNESDAY)
    return story


@case
def extract_second_half_of_a_workflow() -> Case:
    """The first half is not here, so that the rest cannot be followed."""
    story = overnight()
    data = cut(story, agent_day("payer", "2026-11-03", TUESDAY)).pack().write()
    return Case(data, "incomplete", ["V21.extract"], trust=trust([head_of(story.log.leaves)]))


@case
def extract_second_half_of_a_verified_workflow() -> Case:
    story = overnight()
    data = cut(story, agent_day("payer", "2026-11-03", TUESDAY)).pack().write()
    return Case(data, "verified", [], trust=whole_trust(story))


def altered() -> Story:
    story = opened("altered", bundle=plain_bundle())
    planned(started(story), alter=put("output", "amount", value=8_002))
    return story


@case
def extract_case_of_a_workflow_altered() -> Case:
    story = week(altered)
    made = cut(story, case_of(run_of(story), NOON, WEDNESDAY))
    return forged(made, made.pack(), "V21.result")


def dropped() -> Story:
    story = opened("dropped", bundle=asking_bundle())
    story.expire(ask(story, 1, 60_000), because="cancelled")
    return story


@case
def extract_question_of_no_workflow_withdrawn() -> Case:
    """That an agent drives the run itself is said where it begins, which is here."""
    made = cut(week(dropped), PAYER_MONDAY)
    return forged(made, made.pack(), "V21.step")
