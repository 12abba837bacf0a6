"""What waits for people: found by age and by what is due next, without looking at the rest."""

from __future__ import annotations

import json
from itertools import islice
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from countermark.model.clock import US
from countermark.policy import Escalation, Ladder, Rung
from countermark.policy.ladders import first_dues
from countermark.policy.parked import Parked

TICK_US = US // 2
LADDERS = {
    "finance": Ladder("finance", (Rung(("a",), 2, 3_600), Rung(("b",), 1, 7_200), Rung(("c",), 1, 60))),
    "risk": Ladder("risk", (Rung(("d",), 1, 5_400),)),
}


def bundle_of(_: str) -> Any:
    return SimpleNamespace(compiled=SimpleNamespace(ladders=LADDERS, zone="UTC"))


def body_of(number: int, at: int, names: tuple[str, ...] = ("finance",)) -> dict[str, Any]:
    due, not_after = first_dues(LADDERS, names, at, "UTC")
    return {"escalation": f"esc_{number:032x}", "agent": f"agent-{number % 100}", "bundle": "b", "due": due,
            "ladders": {name: [name] for name in names}, "not_after": not_after}  # fmt: skip


class Naive:
    """Looks at everything each time, and counts what a step does from the ladders alone."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def raised(self, body: dict[str, Any], seq: int) -> None:
        rungs = dict.fromkeys(body["ladders"], 1)
        self.rows[body["escalation"]] = {"seq": seq, "rung": rungs, "due": dict(body["due"]), "people": {}}

    def step(self, name: str) -> tuple[int, str]:
        row = self.rows[name]
        left = [
            (due, ladder)
            for ladder, due in row["due"].items()
            if len(row["people"].get(ladder, ())) < LADDERS[ladder].rungs[row["rung"][ladder] - 1].quorum
        ]
        at, ladder = min(left)
        return at, "" if row["rung"][ladder] == len(LADDERS[ladder].rungs) else ladder

    def due(self, now: int) -> str | None:
        late = [(self.step(name)[0], row["seq"], name) for name, row in self.rows.items()]
        late = [entry for entry in late if entry[0] <= now]
        return min(late)[2] if late else None


@pytest.mark.parametrize("seed", range(8))
def test_the_next_step_is_the_one_that_a_look_at_everything_finds(seed: int) -> None:
    """Over random questions, answers, climbs and ends; also after a snapshot in between."""
    chance, now = Random(seed), 0
    bodies: dict[int, dict[str, Any]] = {}
    parked, naive = Parked(bundle_of, bodies.__getitem__), Naive()
    for number in range(1_500):
        now += chance.randrange(60 * US)
        what = chance.random()
        if what < 0.4:
            bodies[number] = body_of(number, now, chance.choice((("finance",), ("risk",), ("finance", "risk"))))
            parked.raised(bodies[number], number, None)
            naive.raised(bodies[number], number)
        elif what < 0.7 and naive.rows:
            name = chance.choice(list(naive.rows))
            ladder, person = chance.choice(list(naive.rows[name]["rung"])), f"p{chance.randrange(3)}"
            people = naive.rows[name]["people"].setdefault(ladder, set())
            people.add(person)
            others = [one for one in naive.rows[name]["rung"] if one != ladder]
            if _approved(naive, name, ladder) and all(_approved(naive, name, one) for one in others):
                del naive.rows[name]
                parked.gone(name)
            else:
                parked[name].answer(ladder, person, person)
                parked.moved(parked[name])
        elif what < 0.72:
            other = Parked(bundle_of, bodies.__getitem__)
            other.load(json.loads(json.dumps(parked.dump())))
            assert other.dump() == parked.dump()
            parked = other
        while (found := naive.due(now)) is not None:
            soonest = parked.due(now)
            assert soonest is not None
            assert (soonest.name, tuple(soonest.next)) == (found, naive.step(found))
            _take(parked, naive, found)
        assert parked.due(now) is None
        assert [one.name for one in parked.newest()] == list(naive.rows)[::-1]
        middle = chance.randrange(number + 1)
        older = [name for name, row in naive.rows.items() if row["seq"] < middle]
        assert [one.name for one in parked.newest(middle)] == older[::-1]
        assert sum(parked.of_agent(f"agent-{n}") for n in range(100)) == len(parked) == len(naive.rows)


def _approved(naive: Naive, name: str, ladder: str) -> bool:
    row = naive.rows[name]
    return len(row["people"].get(ladder, ())) >= LADDERS[ladder].rungs[row["rung"][ladder] - 1].quorum


def _take(parked: Parked, naive: Naive, name: str) -> None:
    at, ladder = naive.step(name)
    row = naive.rows[name]
    if not ladder:
        del naive.rows[name]
        parked.gone(name)
        return
    row["rung"][ladder] += 1
    row["due"][ladder] = at + LADDERS[ladder].rungs[row["rung"][ladder] - 1].deadline_s * US
    row["people"].pop(ladder, None)
    parked[name].climb(ladder, row["rung"][ladder], row["due"][ladder])
    parked.moved(parked[name])


@pytest.mark.slow
def test_the_clock_is_right_to_the_second_with_100_000_parked() -> None:
    """Every step is taken by the first look after its time, half a second later at the most, through all rungs."""
    count, seed = 100_000, 4
    chance, parked = Random(seed), Parked(bundle_of, lambda seq: {})
    for number in range(count):
        parked.raised(body_of(number, chance.randrange(3_600 * US)), number, None)
    now, steps, worst = 0, 0, 0
    while len(parked):
        now += TICK_US
        while (found := parked.due(now)) is not None:
            at, ladder = found.next
            worst, steps = max(worst, now - at), steps + 1
            if ladder:
                rung = found.rung(ladder) + 1
                found.climb(ladder, rung, at + LADDERS[ladder].rungs[rung - 1].deadline_s * US)
                parked.moved(found)
            else:
                parked.gone(found.name)
    assert steps == 3 * count
    assert worst < TICK_US
    assert now <= (3_600 + 3_600 + 7_200 + 60) * US + TICK_US


def test_a_look_does_not_look_at_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing due a tick asks no row; a page asks those that it shows; no body is kept."""
    count, read, asked = 20_000, [], []
    parked = Parked(bundle_of, lambda seq: read.append(seq) or {})  # type: ignore[func-returns-value]
    for number in range(count):
        parked.raised(body_of(number, number), number, None)
    known = Escalation.next
    monkeypatch.setattr(Escalation, "next", property(lambda one: asked.append(one) or known.fget(one)))  # type: ignore[attr-defined]
    assert parked.due(3_600 * US - 1) is None
    assert asked == []
    assert parked.due(3_600 * US) is parked[f"esc_{0:032x}"]
    assert len(asked) == 1
    page = parked.newest(10_000)
    assert [next(page).seq for _ in range(3)] == [9_999, 9_998, 9_997]
    assert read == []
    assert parked[f"esc_{7:032x}"].body == {}
    assert read == [7]


def test_what_is_gone_does_not_stay() -> None:
    """However many come and go, the lists stay as long as what waits."""
    parked = Parked(bundle_of, lambda seq: {})
    for number in range(50_000):
        parked.raised(body_of(number, number), number, None)
        if number >= 10:
            parked.gone(f"esc_{number - 10:032x}")
    assert len(parked) == 10
    assert len(parked._by_age) < 2_000
    assert len(parked._soonest) < 2_000
    assert len(parked._of_agent) <= 10
    assert sum(len(rows) for rows in parked._by_agent.values()) <= 10
    for number in range(50_000, 60_000):
        parked.raised({**body_of(number, number), "agent": "agent-0"}, number, None)
        parked.gone(f"esc_{number - 10:032x}")
    assert len(parked._by_agent["agent-0"]) < 200


def test_without_a_journal_the_questions_are_kept() -> None:
    """Audit folds records that it cannot read again."""
    parked = Parked(bundle_of)
    body = body_of(1, 0)
    assert parked.raised(body, 1, None).body == body
    other = Parked(bundle_of)
    other.load(parked.dump())
    with pytest.raises(KeyError):
        other[body["escalation"]].body  # noqa: B018


def test_an_agent_that_asks_without_end_hides_nobody() -> None:
    """Of so many places each agent has its part, the newest of its own; the pages of a list join without a gap."""
    parked = Parked(bundle_of, lambda seq: {})
    for number in range(2_100):  # agent-1 asks a thousand times after agent-0 asked
        agent = "agent-0" if number % 200 == 0 else "agent-1"
        parked.raised({**body_of(number, number), "agent": agent}, number, None)
    parked.gone(f"esc_{2_000:032x}")
    shared = [one.seq for one in parked.shared(40)]
    assert [seq for seq in shared if seq % 200 == 0] == list(range(1_800, -1, -200))
    assert [seq for seq in shared if seq % 200] == list(range(2_099, 2_079, -1))
    assert shared == sorted(shared, reverse=True)
    pages, after = [], None
    while page := [one.seq for one in islice(parked.shared(40, after), 7)]:
        pages += page
        after = page[-1]
    assert pages == shared
    assert [one.agent for one in parked.shared(1)] == ["agent-1", "agent-0"]
    assert [one.seq for one in Parked(bundle_of).shared(5)] == []
