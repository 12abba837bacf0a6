"""The timeline: every action with what decided it, who answered, what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from countermark.audit import sentences
from countermark.audit.page.gather import Action, Gathered
from countermark.audit.page.markup import Child, Html, inside, tag
from countermark.audit.page.times import both, utc
from countermark.audit.rules import fact
from countermark.audit.words import unanswered
from countermark.model.records import Record
from countermark.model.values import EXECUTING
from countermark.model.words import money

TIMELINE_BYTES_MAX = 240_000
ARGUMENTS_MAX = 40
TEXT_MAX = 300
STATES = {
    "confirmed": "good", "failed": "bad", "unknown": "odd", "open": "odd", "denied": "bad", "refused": "bad",
    "expired": "bad", "waiting": "odd", "pending": "odd", "approved": "odd",
}  # fmt: skip
# Three things that must never be taken for each other: they have words, and frames, of their own.
WITHHELD = tag("span", "withheld", cls="withheld")
ERASED = tag("span", "erased", cls="erased")
ABSENT = tag("span", "not recorded", cls="absent")

Opened = Mapping[tuple[int, str], Any]


def short(value: object) -> str:
    """A value that may be long: the records have the whole."""
    said = str(value)
    return said if len(said) <= TEXT_MAX else said[:TEXT_MAX] + " ... (cut here)"


def state(name: str) -> Html:
    """What became of an action, as a word in a frame."""
    return tag("b", name, cls=f"state {STATES.get(name, 'odd')}")


class Timeline:
    """Writes actions until the page is full; ``left`` counts those that found no room."""

    def __init__(self, found: Gathered, opened: Opened, erased: frozenset[tuple[int, str]]) -> None:
        self._found = found
        self._opened = opened
        self._erased = erased
        self.shown: set[str] = set()

    @property
    def left(self) -> int:
        return len(self._found.population.lines) - len(self.shown)

    def articles(self) -> Iterator[Html]:
        """One article per action, in the order of the first decisions."""
        size = 0
        for name, action in self._found.actions.items():
            article = self._article(action)
            size += len(article.encode("utf-8"))
            if size > TIMELINE_BYTES_MAX:
                return
            self.shown.add(name)
            yield article

    def _article(self, action: Action) -> Html:
        first, terms = action.first, action.first["terms"]
        amount = ABSENT if terms["amount"] is None else money(terms["amount"], terms["currency"])
        payee = ABSENT if terms["payee"] is None else short(terms["payee"])
        rows: list[tuple[str, Child | list[Child]]] = [
            ("who", [short(first["agent"]), " in the run ", short(first["run"]), ", call ", short(first["call_id"])]),
            ("asked for", "nothing with an amount or a payee: no payment")
            if terms["amount"] is None is terms["payee"]
            else ("asked for", [amount, " to ", payee]),
            ("with", self._arguments(action)),
        ]
        rows += [row for record in action.records for row in self._row(action, record)]
        return tag(
            "article",
            tag("h3", f"#{action.seq} ", short(first["tool"]), " ", state(action.state)),
            tag("p", both(action.at, self._found.zone), f" {first['id']}", cls="when"),
            tag("dl", [inside(tag("dt", name), tag("dd", cell if isinstance(cell, list) else [cell]))
                       for name, cell in rows]),
            id=f"seq-{action.seq}",
        )  # fmt: skip

    def _arguments(self, action: Action) -> list[Child]:
        said: list[Child] = []
        values = [*action.first["args"].items()]
        for alias, value in values[:ARGUMENTS_MAX]:
            said += [", " if said else None, tag("span", alias, cls="soft"), " ", self._value(action.seq, alias, value)]
        reason = action.first["claimed"]["reason"]
        if len(values) > ARGUMENTS_MAX:
            said.append(f", and {len(values) - ARGUMENTS_MAX} more")
        said += ["; " if said else None, tag("span", "reason given", cls="soft"), " "]
        said.append(ABSENT if reason is None else self._value(action.seq, "$reason", reason))
        return said

    def _value(self, seq: int, alias: str, value: object) -> Child:
        if not isinstance(value, Mapping):
            return short(value)
        if (seq, alias) in self._opened:
            return inside(short(self._opened[seq, alias]), tag("span", " (disclosed)", cls="soft"))
        return ERASED if (seq, alias) in self._erased else WITHHELD

    def _fact(self, name: str, body: Mapping[str, Any]) -> str:
        """As ``explain`` says it; as it is recorded, where the policy cannot say what it is."""
        bundle = self._found.bundles.get(body["bundle"])
        try:
            return _plain(body["facts"][name]) if bundle is None else fact(name, body, bundle["compiled"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return _plain(body["facts"][name])

    def _row(self, action: Action, record: Record) -> Iterator[tuple[str, Child | list[Child]]]:
        body, zone = record.body, self._found.zone
        when = both(record.at, zone) if utc(record.at) != utc(action.at) else None
        at = tag("i", f" #{record.seq}", ", " if when else None, when) if record.seq != action.seq else None
        if record.kind == "action.decided":
            yield "decided", [*_decision(body), at]
            if body["facts"]:
                yield "facts", short("; ".join(f"{name} {self._fact(name, body)}" for name in sorted(body["facts"])))
        elif record.kind == "escalation.raised":
            yield "asked", ["the ladders ", short(", ".join(sorted(body["ladders"]))), at]
        elif record.kind == "escalation.climbed":
            yield "asked", [short(body["ladder"]), f", rung {body['rung']}, because of {body['because']}", at]
        elif record.kind == "escalation.answered":
            approval = body["approval"]
            said = {"approve": "approved", "refuse": "refused"}[approval["verdict"]]
            yield "answered", [short(approval["person"]), f" {said}, for ", short(approval["ladder"]), at]
        elif record.kind == "escalation.expired":
            yield "answered", [unanswered(body), at]
        elif record.kind == "action.resolved":
            people = " and ".join(row["person"] for row in body["signed"])
            yield "resolved", [short(people), f" signed that it {body['resolution']['outcome']}", at]
        elif record.kind == "obligation.reopened":
            people = " and ".join(row["person"] for row in body["signed"])
            yield "reopened", [short(people), " signed that people may be asked again", at]
        elif record.kind == "review.cleared":
            yield "reviewed", ["by ", short(body["review"]["person"]), at]
        elif record.kind == "action.settled":
            yield "outcome", [*_outcome(body), at]


def _decision(body: Mapping[str, Any]) -> list[Child]:
    word = sentences.DISPOSITIONS.get(body["disposition"], body["disposition"])
    why = sentences.CODES.get(body["code"], "")
    reasons = short(", ".join(body["reasons"]))
    return [
        tag("b", word), " ", sentences.STAGES.get(body["stage"], ""), ": ", tag("span", body["code"], cls="code"),
        f" ({why})" if why else None, f"; {reasons}" if reasons else None,
        f"; lifted: {short(', '.join(body['lifted']))}" if body["lifted"] else None,
        "" if body["disposition"] in EXECUTING else None,
    ]  # fmt: skip


def _outcome(body: Mapping[str, Any]) -> list[Child]:
    why = sentences.OUTCOMES.get(body["code"], "")
    settled = body["settled"]
    booked: Child = None
    if settled is not None and settled["amount"] is not None:
        booked = f"; booked {money(settled['amount'], settled['currency'])}"
    return [
        tag("b", body["outcome"]), ": ", tag("span", short(body["code"]), cls="code"), f" ({why})" if why else None,
        booked, "; provider's reference ", short(body["ref"]) if body["ref"] else ABSENT,
    ]  # fmt: skip


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "/".join(f"{name} {_plain(one)}" for name, one in sorted(value.items()))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)
