"""Ladders as people write them: rungs, business hours, and warnings about what nobody could answer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from policy_support import LIMITS, compiled

from countermark.authority import RUNG_MAX, generate, public_of
from countermark.model.clock import US
from countermark.model.errors import PolicyError
from countermark.policy import Bundle, BusinessHours, Ladder, Rung
from countermark.policy.ladders import first_dues

ONE = '[ladder.finance]\nroles = ["approver"]\ndeadline = "4h"\n'
RUNGS = """
[[ladder.finance.rung]]
roles = ["approver"]
deadline = "4h"
[[ladder.finance.rung]]
roles = ["approver", "board"]
quorum = 2
deadline = "8h"
hours = "business"
"""


def person(name: str, *roles: str, key: bool = True) -> str:
    line = f'key = "{public_of(generate())}"\n' if key else ""
    return f"\n[people.{name}]\nroles = {list(roles)!r}\n{line}".replace("'", '"')


def limits(rungs: str = RUNGS, *people: str) -> str:
    assert ONE in LIMITS
    return LIMITS.replace(ONE, rungs + "".join(people or (person("clara", "board"), person("dora", "board"))))


def warned(text: str, **files: str) -> list[tuple[str, str]]:
    return [(found.code, found.message) for found in compiled(limits=text, **files).warnings]


def test_rungs_are_read_in_their_order() -> None:
    """A ladder without rungs of its own is one rung; business time is office hours where there is no [hours]."""
    assert compiled().compiled.ladders["finance"] == Ladder("finance", (Rung(("approver",), 1, 14_400),))
    office = BusinessHours(540, 1_020, (1, 2, 3, 4, 5))
    found = compiled(limits=limits()).compiled.ladders["finance"]
    assert found.rungs == (Rung(("approver",), 1, 14_400), Rung(("approver", "board"), 2, 28_800, office))
    assert found.roles == ("approver", "board")
    assert warned(limits()) == []


def test_business_time_is_that_of_the_payments() -> None:
    """Where payments are made at certain hours, the same hours count for those who answer."""
    text = limits() + '[hours]\nfrom = "08:30"\nto = "12:00"\ndays = [2, 4]\noutside = "ask"\n'
    assert compiled(limits=text).compiled.ladders["finance"].rungs[1].hours == BusinessHours(510, 720, (2, 4))


def test_one_rung_in_business_hours() -> None:
    """The short form takes them too."""
    text = limits(ONE.replace('"4h"\n', '"4h"\nhours = "business"\n'))
    assert compiled(limits=text).compiled.ladders["finance"].rungs[0].hours is not None


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('hours = "business"', 'hours = "busines"', "bad_value"),
        ('hours = "business"', 'houres = "business"', "unknown_key"),
        ("quorum = 2", "quorum = 0", "bad_value"),
        ("quorum = 2", "quorum = 17", "bad_value"),
        ('deadline = "8h"', "", "missing_key"),
        ('deadline = "8h"', 'deadline = "31d"', "bad_value"),
        ('deadline = "8h"', 'deadline = "30d"', "bad_value"),  # of office hours: more than a hundred days
        ('roles = ["approver", "board"]', "roles = []", "bad_value"),
        ("[[ladder.finance.rung]]", 'ladder.finance.quorum = 1\n[[ladder.finance.rung]]', "unknown_key"),
        (RUNGS, '[ladder.finance]\nquorum = 2\n' + RUNGS, "unknown_key"),
        (RUNGS, "[ladder.finance]\nrung = []\n", "bad_value"),
        (RUNGS, RUNGS * RUNG_MAX, "bad_value"),
        ("[[ladder.finance.rung]]", '[[ladder."Bad Name".rung]]', "bad_name"),
    ],
)  # fmt: skip
def test_a_wrong_rung_refuses_the_policy(old: str, new: str, code: str) -> None:
    """Each mistake has its finding."""
    with pytest.raises(PolicyError) as caught:
        compiled(limits=limits().replace(old, new, 1))
    assert code in {finding.code for finding in caught.value.findings}


def test_a_rung_that_nobody_can_answer_is_said() -> None:
    """Too few people for the quorum: for every agent, or only for the one whose owner would be needed."""
    text = limits(RUNGS, person("clara", "board", key=False))
    assert warned(text) == [
        ("nobody_answers", "ladder 'finance', rung 2, needs 2, but 1 can answer, whichever agent asks")
    ]
    owned = limits() + '[agents.board-agent]\nowner = "clara"\n'
    owned = owned.replace('"approver", "board"', '"board"')
    assert warned(owned) == [
        ("nobody_answers", "ladder 'finance', rung 2, needs 2, but 1 can answer for agent 'board-agent'")
    ]
    author = limits().replace('author = "treasurer"', 'author = "controller"')
    assert warned(author) == [("nobody_answers", "ladder 'finance', rung 1, needs 1, but 0 can answer, "
                               "whichever agent asks")]  # fmt: skip


def test_a_rung_that_asks_nobody_new_is_said() -> None:
    """The same people, or fewer, and no fewer of them needed: whoever did not answer is only asked again."""
    again = RUNGS.replace('roles = ["approver", "board"]\nquorum = 2\n', 'roles = ["approver"]\n')
    assert [code for code, _ in warned(limits(again))] == ["rung_asks_nobody_new"]
    fewer = RUNGS.replace('roles = ["approver"]\n', 'roles = ["approver", "board"]\nquorum = 3\n', 1)
    assert warned(limits(fewer)) == []


def test_a_ladder_that_nothing_asks_is_said() -> None:
    """It may have been meant for a rule that names another one."""
    text = LIMITS + '[ladder.risk]\nroles = ["approver"]\ndeadline = "1h"\n'
    assert warned(text) == [("ladder_not_asked", "nothing asks the ladder 'risk'")]


def test_a_schedule_runs_from_end_to_end() -> None:
    """Each rung begins where the one before ends; the whole is over with the longest ladder."""
    long = Ladder("long", (Rung(("a",), 1, 60), Rung(("b",), 1, 3_600)))
    short = Ladder("short", (Rung(("a",), 1, 90),))
    due, not_after = first_dues({"long": long, "short": short}, ("short", "long"), 5, "UTC")
    assert due == {"long": 60 * US + 5, "short": 90 * US + 5}
    assert not_after == 3_660 * US + 5


@pytest.mark.parametrize(
    "change",
    [
        {"rungs": []}, {"quorum": 1}, {"rungs": [{}]}, {"quorum!": 0}, {"deadline_s!": 0}, {"deadline_s!": 2_592_001},
        {"hours!": {"from": 0, "to": 1, "days": [1]}}, {"hours!": {"from": 5, "to": 5, "days": [1]}},
        {"hours!": {"from": 0, "to": 1_440, "days": [1, 1]}}, {"hours!": {}}, {"hours!": "business"},
    ],
    ids=str,
)  # fmt: skip
def test_a_bundle_with_an_impossible_rung_does_not_load(change: dict[str, Any]) -> None:
    """Nobody needed, no time at all, or more than can be walked through: whoever compiled it, it is refused."""
    document = copy.deepcopy(dict(compiled(limits=limits()).document))
    ladder = document["compiled"]["ladders"][0]
    for name, value in change.items():
        (ladder["rungs"][1] if name.endswith("!") else ladder)[name.rstrip("!")] = value
    with pytest.raises(PolicyError):
        Bundle.from_document(document)
