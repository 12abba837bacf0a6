"""Random days of people, deadlines and restarts against a model of a few lines: who counts, who is refused and why."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from laddered import LARGE, OLD, only, tick
from rig import Provider, bodies, edited, hold, make, pay, rebuilt_equally, signed_answer, unsound, waiting

from countermark import Deployment
from countermark.model.clock import US, FakeClock
from countermark.model.errors import CountermarkError
from countermark.wiring.init import Made

HOUR_US = 3_600 * US
ROLES = {
    "controller": {"approver"}, "anna": {"approver"}, "clara": {"board"}, "dora": {"board", "approver"},
    "emil": {"clerk", "board"}, "fritz": {"clerk"},
}  # fmt: skip
LADDERS = {
    "finance": [({"approver"}, 2, 4 * HOUR_US), ({"approver", "board"}, 2, 2 * HOUR_US), ({"board"}, 1, HOUR_US)],
    "risk": [({"clerk"}, 1, 3 * HOUR_US), ({"clerk", "board"}, 1, 6 * HOUR_US)],
}
STEPS = 60


def policy() -> dict[str, str]:
    text = ""
    for name, rungs in LADDERS.items():
        for roles, quorum, length in rungs:
            text += f"[[ladder.{name}.rung]]\nroles = {sorted(roles)}\nquorum = {quorum}\n"
            text += f'deadline = "{length // HOUR_US}h"\n'
    for name, roles in ROLES.items():
        if name != "controller":
            text += f'[people.{name}]\nroles = {sorted(roles)}\nkey = "{{{{KEY:{name}}}}}"\n'
    files = edited({OLD: text.replace("'", '"')})
    files["policies/risk.cedar"] = (
        '@id("own.risk") @escalate("risk")\nforbid (principal, action in Action::"money", resource)\n'
        "when { context.amount > 500000 };\n"
    )
    return files


class Model:
    """One question: its rungs, their ends, and who approved on them."""

    def __init__(self, at: int) -> None:
        self.rung = dict.fromkeys(LADDERS, 0)
        self.due = {name: at + rungs[0][2] for name, rungs in LADDERS.items()}
        self.yes: dict[str, set[str]] = {name: set() for name in LADDERS}

    def open(self) -> list[str]:
        return [name for name in LADDERS if len(self.yes[name]) < LADDERS[name][self.rung[name]][1]]

    def last(self, name: str) -> bool:
        return self.rung[name] == len(LADDERS[name]) - 1

    def climb(self, name: str, since: int) -> None:
        self.rung[name] += 1
        self.due[name] = since + LADDERS[name][self.rung[name]][2]
        self.yes[name] = set()

    def tick(self, now: int) -> bool:
        """Take what is due; whether it is over."""
        while True:
            late = sorted((self.due[name], name) for name in self.open() if self.due[name] <= now)
            if not late:
                return False
            if self.last(late[0][1]):
                return True
            self.climb(late[0][1], late[0][0])

    def answer(self, person: str, name: str, rung: int, verdict: str, now: int) -> str:
        """The code of the refusal, or the state after the answer."""
        if any(self.last(one) and now >= self.due[one] for one in self.open()):
            return "approval_expired"
        if rung != self.rung[name] + 1 or (name in self.open() and now >= self.due[name]):
            return "approval_rung"
        if not ROLES[person] & LADDERS[name][self.rung[name]][0]:
            return "approval_not_eligible"
        if any(person in people for people in self.yes.values()):
            return "approval_same_person"
        if verdict == "refuse":
            return "refused"
        self.yes[name].add(person)
        return "pending" if self.open() else "approved"


class Day:
    def __init__(self, root: Path, seed: int) -> None:
        self.chance, self.root = Random(seed), root
        self.provider, self.clock = Provider(), FakeClock()
        self.made: Made = make(root, self.provider, clock=self.clock, edit=policy())
        self.number = 0
        self.ends = {"approved": 0, "refused": 0, "expired": 0}

    def ask(self, handle: Deployment) -> Model:
        self.number += 1
        assert pay(handle, self.number, LARGE).status == "escalated"
        return Model(self.clock.now_us())

    def look(self, handle: Deployment, model: Model) -> None:
        """Rung, end, answers and the people who may answer are those of the model."""
        asked = only(handle)
        for name in LADDERS:
            row = asked["rungs"][name]
            assert row["rung"] == model.rung[name] + 1
            assert set(asked["answers"].get(name, ())) == model.yes[name]
            assert row["due"] == (model.due[name] if name in model.open() else asked["not_after"])
            able = {p for p in ROLES if ROLES[p] & LADDERS[name][model.rung[name]][0]}
            assert set(row["people"]) == able - {p for people in model.yes.values() for p in people}

    def say(self, handle: Deployment, model: Model) -> str:
        chance, name, person = self.chance, self.chance.choice(list(LADDERS)), self.chance.choice(list(ROLES))
        rung = model.rung[name] + 1 if chance.random() < 0.85 else chance.randrange(1, 4)
        verdict = "refuse" if chance.random() < 0.06 else "approve"
        signed = signed_answer(self.made, only(handle), verdict, person, name, rung=rung)
        expected = model.answer(person, name, rung, verdict, self.clock.now_us())
        try:
            said = handle.call("answer", signed)["state"]
        except CountermarkError as error:
            said = error.code
        assert said == expected, (person, name, rung, verdict)
        return str(said)

    def step(self, handle: Deployment, model: Model) -> Model:
        what = self.chance.random()
        if what < 0.5:
            said = self.say(handle, model)
            if said in self.ends:
                self.ends[said] += 1
                return self.ask(handle)
        elif what < 0.75:
            self.clock.advance(self.chance.choice((60, 1_800, 3_600, 7_200)))
            if self.chance.random() < 0.7:
                tick(handle)
                if model.tick(self.clock.now_us()):
                    assert waiting(handle) == []
                    self.ends["expired"] += 1
                    return self.ask(handle)
        elif what < 0.9:
            name, number = self.chance.choice(list(LADDERS)), self.chance.randrange(1, 4)
            word: dict[str, Any] = {"escalation": only(handle)["escalation"], "ladder": name, "rung": number}
            now = self.clock.now_us()
            climbs = (
                number == model.rung[name] + 1 and name in model.open() and not model.last(name)
                and all(now < model.due[one] for one in model.open())
            )  # fmt: skip
            if climbs:
                model.climb(name, now)
            assert handle.call("escalation.unreachable", word) == {"rung": model.rung[name] + 1, "climbed": climbs}
        self.look(handle, model)
        return model


@pytest.mark.parametrize("seed", range(4))
def test_random_days_end_as_the_model_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Answers, refusals, words of the notifier, hours that pass and restarts; what was approved was paid once."""
    monkeypatch.setattr("countermark.gate.gate.LADDERS_S", 3_600.0)
    day = Day(tmp_path / "d", seed)
    with hold(day.root, day.provider, day.clock) as handle:
        model = day.ask(handle)
        for _ in range(STEPS):
            model = day.step(handle, model)
    for _ in range(2):
        with hold(day.root, day.provider, day.clock) as handle:
            if model.tick(day.clock.now_us()):
                day.ends["expired"] += 1
                model = day.ask(handle)
            for _ in range(STEPS // 3):
                model = day.step(handle, model)
    assert len(day.provider.effects) == day.ends["approved"] == len(set(day.provider.effects))
    assert len(bodies(day.root, "escalation.expired")) == day.ends["expired"]
    assert sum(day.ends.values()) == day.number - 1
    assert unsound(day.root) == []
    assert rebuilt_equally(day.root)
