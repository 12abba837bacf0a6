"""What an approval page says about a question: rules as lines with numbers, who answers until when, who comes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.audit import Question
from countermark.server.console.visit import Visit

_LIMITS: Mapping[str, str] = {
    "payment_ask_above": "above which people are asked",
    "payment_max": "the most for one payment",
    "payment_flag_above": "above which it is reviewed afterwards",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison of a rule: a sentence, and what a bar needs (used before, this payment, the limit)."""

    rule: str
    said: str
    bar: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Who answers now. ``ladder`` is the one on which the person who looks may answer, empty when they may not."""

    ladder: str
    why_not: str
    rungs: tuple[Rung, ...]


@dataclass(frozen=True, slots=True)
class Rung:
    """What a ladder asks now. ``then`` says whom it asks next; empty on the last rung."""

    ladder: str
    number: int
    of: int
    quorum: int
    due: int
    people: tuple[str, ...]
    so_far: tuple[str, ...]
    then: str


def lines_of(
    question: Question, facts: Mapping[str, Any] | None, names: Sequence[str] | None = None
) -> list[Line]:  # fmt: skip
    """The rules that people are asked to lift, or those of ``names``, with their numbers: those of now where known."""
    found = []
    amount = question.body["terms"]["amount"] or 0
    about = {one.name: one.about for one in question.checks(facts)}
    for rule in question.rules(facts, names):
        for pair in rule.compared:
            value, most = question.number(pair.value, pair.unit), question.number(pair.limit, pair.unit)
            if pair.facts and pair.limit > 0:
                this = amount if pair.unit == "money" else 1
                said = f"{value} of {most}, including this: {about.get(pair.facts[0], pair.name)}"
                found.append(Line(rule.id, said, (max(0, pair.value - this), this, pair.limit)))
            else:
                why = _LIMITS.get(pair.against, pair.against.replace("_", " "))
                found.append(Line(rule.id, f"{value} {pair.relation} {most}" + (f", {why}" if why else "")))
        found += [Line(rule.id, said.replace("_", " ")) for said in rule.said[len(rule.compared) :]]
        if not rule.said:
            found.append(Line(rule.id, "this rule stands against it"))
    return found


def limits_of(question: Question, facts: Mapping[str, Any] | None) -> list[Line]:
    """How full each limit over time would be with this one, those of the rules that ask left out: they say it."""
    amount = question.body["terms"]["amount"] or 0
    said = {name for rule in question.rules(facts) for pair in rule.compared for name in pair.facts}
    found = []
    for one in question.checks(facts):
        if one.value is not None and one.limit and one.name not in said:
            this = min(amount, one.value) if one.unit == "money" else min(1, one.value)
            value, most = question.number(one.value, one.unit), question.number(one.limit, one.unit)
            found.append(Line(one.name, f"{value} of {most}: {one.about}", (one.value - this, this, one.limit)))
    return found


def standing(visit: Visit, entry: Mapping[str, Any], mine: Sequence[str]) -> Standing:
    """Who answers this question now, and whether the person who looks is one of them."""
    rungs = tuple(_rung(visit, entry, name) for name in sorted(entry["ladders"]))
    return Standing(mine[0] if mine else "", "" if mine else _why_not(visit, entry), rungs)


def _why_not(visit: Visit, entry: Mapping[str, Any]) -> str:
    compiled, person = visit.bundle.compiled, visit.who.id
    agent = compiled.agents.get(entry["agent"])
    if any(person in people for people in entry["answers"].values()):
        return "You have answered. Others still have to."
    if agent is None or person == agent.owner:
        return "You own the agent that asks, so somebody else answers."
    if person == compiled.author:
        return "You wrote the policy, so somebody else answers."
    return "You are not one of those who are asked now."


def _rung(visit: Visit, entry: Mapping[str, Any], name: str) -> Rung:
    said = entry["rungs"][name]
    ladder = visit.bundle.compiled.ladders.get(name)
    following = None if ladder is None else ladder.rung(said["rung"] + 1)
    then = ""
    if following is not None:
        then = ", ".join(_names(visit, _with_roles(visit, following.roles))) or ", ".join(following.roles)
    so_far = _names(visit, tuple(entry["answers"].get(name, ())))
    return Rung(
        name, said["rung"], said["of"], said["quorum"], said["due"], _names(visit, said["people"]), so_far, then
    )


def _with_roles(visit: Visit, roles: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(one.id for one in visit.people.values() if one.roles & set(roles)))


def _names(visit: Visit, people: Sequence[str]) -> tuple[str, ...]:
    return tuple((visit.people[one].name or one) if one in visit.people else one for one in people)
