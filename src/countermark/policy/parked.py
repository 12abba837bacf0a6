"""What waits for people: small rows in memory, found by name, by age and by what falls due next.

A row does not hold the question itself. ``body`` reads the raising record again where the gate has its journal, so
that a million questions that wait are a million rows, not a million documents.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from heapq import heapify, heappop, heappush, merge
from itertools import islice
from sys import intern
from types import MappingProxyType
from typing import Any, NamedTuple

from countermark.authority import Asked
from countermark.policy.bundle import Bundle, Compiled
from countermark.policy.ladders import Ladder

BodyOf = Callable[[int], Mapping[str, Any]]
Answers = Mapping[str, Mapping[str, str]]

SPARE = 1_024  # rows that are gone and may stay in the lists before those are made anew
SPARE_OF_AGENT = 64  # the same, in the list of one agent

_NOBODY: Answers = MappingProxyType({})


class Plan(NamedTuple):
    """What escalations of the same bundle and ladders share: the ladders by name, sorted, and the bundle's zone."""

    bundle: str
    ladders: tuple[Ladder, ...]
    zone: str


class Step(NamedTuple):
    """What happens to an escalation at ``at`` unless somebody answers: ``ladder`` climbs, or with "" it expires."""

    at: int
    ladder: str


class Escalation:
    """A parked action.

    ``answers`` maps a ladder to the people who approved on its present rung, each with whose place that takes: their
    own, or that of somebody for whom they stand in. ``body`` is the raising record's, of which ``seq`` is the place.
    """

    __slots__ = ("_body_of", "_kept", "agent", "answers", "due", "name", "not_after", "obligation", "plan", "rungs",
                 "seq", "state")  # fmt: skip

    def __init__(self, name: str, seq: int, agent: str, obligation: str | None, plan: Plan, not_after: int) -> None:
        self.name = name
        self.seq = seq
        self.agent = agent
        self.obligation = obligation
        self.plan = plan
        self.not_after = not_after
        self.rungs: tuple[int, ...] = (1,) * len(plan.ladders)
        self.due: tuple[int, ...] = ()
        self.answers: Answers = _NOBODY
        self.state = "pending"
        self._kept: Mapping[str, Any] | None = None
        self._body_of: BodyOf | None = None

    def __lt__(self, other: Escalation) -> bool:
        return self.seq < other.seq

    @property
    def body(self) -> Mapping[str, Any]:
        """The body of the record that raised it."""
        if self._kept is not None:
            return self._kept
        if self._body_of is None:
            raise KeyError(self.seq)
        return self._body_of(self.seq)

    def keep(self) -> None:
        """Keep the body, for whoever looks at it when the journal is closed."""
        self._kept = self.body

    def _place(self, ladder: str) -> int:
        for place, known in enumerate(self.plan.ladders):
            if known.id == ladder:
                return place
        raise KeyError(ladder)

    def rung(self, ladder: str) -> int:
        """The number of the rung that is asked now. Raises ``KeyError`` for a ladder that it does not ask."""
        return self.rungs[self._place(ladder)]

    def until(self, ladder: str) -> int:
        """When the present rung ends. A ladder whose people have answered stays where it is until all is over."""
        return self.not_after if self.satisfied(ladder) else self.due[self._place(ladder)]

    def last(self, ladder: str) -> bool:
        """Whether no rung comes after the present one."""
        place = self._place(ladder)
        return self.rungs[place] >= len(self.plan.ladders[place].rungs)

    def satisfied(self, ladder: str) -> bool:
        """Whether as many people as the present rung needs have approved, by the policy that asked."""
        given = self.answers.get(ladder)
        if not given:
            return False
        place = self._place(ladder)
        rung = self.plan.ladders[place].rung(self.rungs[place])
        return rung is not None and len(given) >= rung.quorum

    @property
    def next(self) -> Step:
        """What falls due next."""
        open_ = [
            (due, ladder.id)
            for ladder, due in zip(self.plan.ladders, self.due, strict=True)
            if not self.satisfied(ladder.id)
        ]
        at, name = min(open_, default=(self.not_after, ""))
        return Step(at, "" if not name or self.last(name) else name)

    @property
    def ends(self) -> int:
        """When it is over, as things stand: with the first ladder whose last rung ends without its people."""
        over = [
            due
            for ladder, due in zip(self.plan.ladders, self.due, strict=True)
            if self.last(ladder.id) and not self.satisfied(ladder.id)
        ]
        return min(over, default=self.not_after)

    @property
    def answered(self) -> dict[str, str]:
        """Everybody whose approval counts now, on any ladder, each with whose place it takes."""
        return {person: place for people in self.answers.values() for person, place in people.items()}

    def answer(self, ladder: str, person: str, place: str) -> None:
        """Take an approval."""
        people = {**self.answers.get(ladder, {}), person: place}
        self.answers = {**self.answers, ladder: people}

    def climb(self, ladder: str, rung: int, due: int) -> None:
        """Ask the next rung, which begins without answers."""
        place = self._place(ladder)
        self.rungs = (*self.rungs[:place], rung, *self.rungs[place + 1 :])
        self.due = (*self.due[:place], due, *self.due[place + 1 :])
        self.answers = {name: people for name, people in self.answers.items() if name != ladder} or _NOBODY

    def row(self) -> list[Any]:
        """For a snapshot: everything but the plan, which is shared, and the body, which stands in its record."""
        answers = {ladder: dict(people) for ladder, people in self.answers.items()}
        return [self.name, self.seq, self.obligation, self.not_after, list(self.rungs), list(self.due), answers,
                self.state]  # fmt: skip


def asked_of(parked: Escalation, compiled: Compiled, ladder: str) -> Asked | None:
    """Whom the present rung of a ladder asks, by this policy; None where policy or question has no such rung."""
    known = compiled.ladders.get(ladder)
    if known is None or all(ladder != asked.id for asked in parked.plan.ladders):
        return None
    number = parked.rung(ladder)
    rung = known.rung(number)
    if rung is None:
        return None
    return Asked(ladder, number, frozenset(rung.roles), parked.until(ladder), parked.ends)


def state_after(parked: Escalation, compiled: Compiled, ladder: str, person: str, verdict: str) -> str:
    """State of an escalation after this answer: one refusal refuses; approved when every ladder has its quorum."""
    if verdict == "refuse":
        return "refused"
    for asked in parked.plan.ladders:
        people = {*parked.answers.get(asked.id, ()), *([person] if asked.id == ladder else [])}
        known = compiled.ladders.get(asked.id)
        rung = None if known is None else known.rung(parked.rung(asked.id))
        if rung is None or len(people) < rung.quorum:
            return "pending"
    return "approved"


class Parked(Mapping[str, Escalation]):
    """Every escalation that waits, by its id. ``body_of`` reads a raising record's body; without it they are kept."""

    def __init__(self, bundle_of: Callable[[str], Bundle], body_of: BodyOf | None = None) -> None:
        self._bundle_of = bundle_of
        self._body_of = body_of
        self._rows: dict[str, Escalation] = {}
        self._plans: dict[tuple[str, ...], Plan] = {}
        self._by_age: list[Escalation] = []  # those that are gone stay for a while
        self._soonest: list[tuple[int, int, Escalation]] = []  # so do those whose step is another now
        self._of_agent: dict[str, int] = {}
        self._by_agent: dict[str, list[Escalation]] = {}  # as _by_age

    def __getitem__(self, name: str) -> Escalation:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def of_agent(self, agent: str) -> int:
        """How many of an agent's actions wait."""
        return self._of_agent.get(agent, 0)

    def raised(self, body: Mapping[str, Any], seq: int, obligation: str | None) -> Escalation:
        """Take in what a record raised."""
        plan = self._plan(body["bundle"], tuple(sorted(body["ladders"])))
        found = Escalation(body["escalation"], seq, intern(body["agent"]), obligation, plan, body["not_after"])
        found.due = tuple(body["due"][ladder.id] for ladder in plan.ladders)
        if self._body_of is None:
            found._kept = dict(body)
        self._add(found)
        return found

    def _plan(self, bundle: str, names: tuple[str, ...]) -> Plan:
        found = self._plans.get((bundle, *names))
        if found is None:
            compiled = self._bundle_of(bundle).compiled
            found = Plan(bundle, tuple(compiled.ladders[name] for name in names), compiled.zone)
            self._plans[bundle, *names] = found
        return found

    def _add(self, found: Escalation) -> None:
        found._body_of = self._body_of
        self._rows[found.name] = found
        self._by_age.append(found)
        self._by_agent.setdefault(found.agent, []).append(found)
        self._of_agent[found.agent] = self.of_agent(found.agent) + 1
        self.moved(found)

    def moved(self, found: Escalation) -> None:
        """Note that its next step is another one now."""
        if found.state == "pending":
            heappush(self._soonest, (found.next.at, found.seq, found))
        if len(self._soonest) > 2 * len(self._rows) + SPARE:
            live = [(one.next.at, one.seq, one) for one in self._rows.values() if one.state == "pending"]
            heapify(live)
            self._soonest = live

    def gone(self, name: str) -> Escalation | None:
        """It waits no more."""
        found = self._rows.pop(name, None)
        if found is None:
            return None
        found.state = "gone"
        left = self._of_agent.get(found.agent, 0) - 1
        if left > 0:
            self._of_agent[found.agent] = left
            own = self._by_agent[found.agent]
            if len(own) > 2 * left + SPARE_OF_AGENT:
                self._by_agent[found.agent] = [one for one in own if one.state != "gone"]
        else:
            self._of_agent.pop(found.agent, None)
            self._by_agent.pop(found.agent, None)
        if len(self._by_age) > 2 * len(self._rows) + SPARE:
            self._by_age = list(self._rows.values())
        if not self._rows:
            self._plans.clear()
        return found

    def newest(self, before: int | None = None) -> Iterator[Escalation]:
        """From the newest on; those raised before the seq ``before``."""
        at = len(self._by_age) if before is None else bisect_left(self._by_age, before, key=lambda one: one.seq)
        for place in range(at - 1, -1, -1):
            if self._by_age[place].state != "gone":
                yield self._by_age[place]

    def shared(self, places: int, before: int | None = None) -> Iterator[Escalation]:
        """As ``newest``, but no agent has more than its part of so many places, so that none hides others."""
        each = max(1, places // max(1, len(self._by_agent)))

        def of(rows: list[Escalation]) -> Iterator[Escalation]:
            return islice((one for one in reversed(rows) if one.state != "gone"), each)

        found = merge(*(of(rows) for rows in self._by_agent.values()), key=lambda one: -one.seq)
        return (one for one in found if before is None or one.seq < before)

    def due(self, now: int) -> Escalation | None:
        """The escalation whose next step is longest overdue at ``now``, if any is."""
        while self._soonest and self._soonest[0][0] <= now:
            at, _, found = self._soonest[0]
            if found.state == "pending" and found.next.at == at:
                return found
            heappop(self._soonest)
        return None

    def dump(self) -> list[list[Any]]:
        """Rows by bundle, ladders and agent, each in the order in which they were raised."""
        groups: dict[tuple[str, tuple[str, ...], str], list[list[Any]]] = {}
        for one in self._rows.values():
            names = tuple(ladder.id for ladder in one.plan.ladders)
            groups.setdefault((one.plan.bundle, names, one.agent), []).append(one.row())
        return [[bundle, list(names), agent, rows] for (bundle, names, agent), rows in sorted(groups.items())]

    def load(self, groups: list[list[Any]]) -> None:
        """Restore what ``dump`` wrote into an empty one."""
        found: list[Escalation] = []
        for bundle, names, agent, rows in groups:
            plan = self._plan(bundle, tuple(names))
            for name, seq, obligation, not_after, rungs, due, answers, state in rows:
                one = Escalation(name, seq, intern(agent), obligation, plan, not_after)
                one.rungs, one.due, one.state = tuple(rungs), tuple(due), state
                one.answers = answers or _NOBODY
                found.append(one)
        for one in sorted(found, key=lambda one: one.seq):
            self._add(one)
