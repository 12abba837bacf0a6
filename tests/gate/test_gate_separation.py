"""Segregation of duties speaks of persons: nobody answers for an action behind which an agent of theirs stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rig import AGENT, Provider, grant_to, hold, make, pay, signed_answer, unsound, waiting

import countermark
from countermark.authority import load_private, public_of, sign_enrolment
from countermark.model.clock import US, FakeClock
from countermark.model.errors import AuthorityError

NOW = 1_800_000_000 * US
TWO_AGENTS = {
    "[agents.treasury]": """[people.deputy]
name = "Deputy"
roles = ["approver"]
key = "{{KEY:deputy}}"

[agents.desk]
owner = "deputy"

[agents.treasury]""",
}


class Desk:
    """Two agents: ``treasury`` of the treasurer, ``desk`` of the deputy, who may also answer."""

    def __init__(self, root: Path) -> None:
        self.clock, self.provider, self.root = FakeClock(NOW), Provider(), root
        self.made = make(root, self.provider, clock=self.clock, changes=TWO_AGENTS)

    def open(self, agent: str = AGENT) -> countermark.Deployment:
        return countermark.open(self.root, agent=agent, connectors={"stripe": self.provider}, clock=self.clock)

    def code(self, handle: countermark.Deployment, parked: dict[str, Any], person: str) -> str:
        with pytest.raises(AuthorityError) as caught:
            handle.call("answer", signed_answer(self.made, parked, person=person))
        return caught.value.code


@pytest.fixture
def desk(tmp_path: Path) -> Any:
    found = Desk(tmp_path / "d")
    yield found
    assert unsound(found.root) == []


def test_the_owner_of_an_agent_that_asked_the_same_before_does_not_answer(desk: Desk) -> None:
    """Nobody answered the desk's payment; when the other agent asks for it again, the desk's owner is not asked."""
    with desk.open("desk") as handle:
        pay(handle, 1, 600_000)
        (first,) = waiting(handle)
    desk.clock.advance((first["not_after"] - NOW) // US + 1)
    with desk.open() as handle:
        handle.gate.wait(handle.gate._expire())
        again = pay(handle, 1, 600_000, call_id="again")
        assert again.status == "escalated"
        (parked,) = [one for one in waiting(handle) if one["escalation"] != first["escalation"]]
        assert desk.code(handle, parked, "deputy") == "approval_same_person"
        assert handle.call("answer", signed_answer(desk.made, parked, person="controller"))["state"] == "approved"


def test_an_unrelated_agents_owner_answers(desk: Desk) -> None:
    """The deputy's own agent asked about something else: the deputy answers for the treasury."""
    with desk.open("desk") as handle:
        pay(handle, 1, 600_000)
    with desk.open() as handle:
        pay(handle, 2, 600_000)
        parked = next(one for one in waiting(handle) if one["agent"] == AGENT)
        assert handle.call("answer", signed_answer(desk.made, parked, person="deputy"))["state"] == "approved"
        own = next(one for one in waiting(handle) if one["agent"] == "desk")
        assert desk.code(handle, own, "deputy") == "approval_same_person"


def test_the_owner_of_an_agent_that_delegated_does_not_answer(desk: Desk) -> None:
    """The desk's mandate stands above the treasury's: what the treasury asks under it, the desk's owner has asked."""
    parent = desk.made.mandates["desk"]
    with desk.open() as handle:
        now = desk.clock.now_us()
        child = grant_to(
            handle,
            desk.made,
            now,
            parent=parent,
            purpose="first mandate: desk",
            not_before=now,
            not_after=now + 60 * US,
        )
        run = handle.start_run(mandate=child)
        pay(handle, 1, 600_000, run=run)
        (parked,) = waiting(handle)
        assert desk.code(handle, parked, "deputy") == "approval_same_person"
        assert handle.call("answer", signed_answer(desk.made, parked, person="controller"))["state"] == "approved"


def test_another_key_makes_nobody_another_person(desk: Desk) -> None:
    """The owner with a second key is the owner; and a person who answered once does not answer twice."""
    private = load_private(desk.made.people["deputy"])
    with desk.open("desk") as handle:
        pay(handle, 1, 600_000)
        (parked,) = waiting(handle)
        order = {"v": 1, "deployment": desk.made.deployment, "person": "deputy", "label": "",
                 "key": str(public_of(private)), "nonce": "ab" * 16, "not_after": NOW + 60 * US}  # fmt: skip
        body = {"enrolment": {**order, "person": "controller"}, "proof": None,
                "signed": [sign_enrolment({**order, "person": "controller"}, "controller",
                                          load_private(desk.made.people["controller"]))]}  # fmt: skip
        with pytest.raises(AuthorityError) as caught:
            handle.call("key.enrol", body)
        assert caught.value.code == "key_taken"
        assert desk.code(handle, parked, "deputy") == "approval_same_person"
    with hold(desk.root, desk.provider, desk.clock) as handle:
        assert len(waiting(handle)) == 1
