"""Killed while people order and answer: an approval that completes a quorum, a climb, keys, payees, a refusal."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Forks
from rig import Stand, bodies, rebuilt_equally, transfers, unsound
from scenario_people import LADDERED, PAID, REFUSED, day
from support import judge_books, records

HERE = Path(__file__).resolve().parent
DAYS = itertools.count()  # several tests may kill at one passage, and they share the simulator's books
# One of each kind; the others wait for the slow tests.
AT = [
    ("lane.in_transaction", 11, "both"), ("lane.committed", 6, "nothing"), ("dispatch.passed", 3, "both"),
    ("effect.done", 2, "snapshots"),
]  # fmt: skip
AND_AT = [
    *(("lane.planned", count, "snapshots") for count in (8, 15, 21)),
    *(("lane.in_transaction", count, "both") for count in (3, 4, 9, 13, 17)),
    *(("lane.committed", count, "nothing") for count in (12, 18)),
    ("lane.answered", 14, "snapshots"),
    ("dispatch.passed", 2, "snapshots"), ("effect.done", 3, "keys"),
    ("lane.in_snapshot", 3, "snapshots"), ("lane.cached", 4, "both"),
]  # fmt: skip

HABITS = ("snapshots", "both", "nothing")
ALL = os.environ.get("COUNTERMARK_CRASHES") == "all"
# Every fourth passage, each with one habit, so that the habits take turns; all of them by hand.
EVERYWHERE = [
    (point, count, habit)
    for turn, point in enumerate(("lane.planned", "lane.in_transaction", "lane.committed", "lane.answered"))
    for count in range(1, 26)
    for habit in HABITS
    if ALL or (count % 4 == turn and habit == HABITS[count // 4 % 3])
]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with Stand(tmp_path_factory.mktemp("people"), tools=transfers(timeout_ms=2_000), after=LADDERED) as stand:
        yield stand


def _judged(stand: Stand, root: Path, acks: Path, tag: str) -> None:
    books = stand.only(tag)
    assert judge_books(root, books) == []  # type: ignore[arg-type]
    assert unsound(root) == []
    assert rebuilt_equally(root)
    lines = [json.loads(line) for line in acks.read_text().splitlines()]
    last = {line["number"]: line["status"] for line in lines}
    assert last == {**dict.fromkeys(PAID, "confirmed"), REFUSED: "denied"}
    assert sorted(move.metadata["invoice"] for move in books.books().movements()) == [f"{tag}-{n}" for n in PAID]
    climbed = [(body["ladder"], body["rung"], body["because"]) for body in bodies(root, "escalation.climbed")]
    assert climbed == [("finance", 2, "unreachable")]
    answered = [(body["approval"]["person"], body["state"]) for body in bodies(root, "escalation.answered")]
    assert answered == [
        ("anna", "pending"), ("controller", "approved"), ("anna", "pending"), ("clara", "approved"),
        ("anna", "refused"),
    ]  # fmt: skip
    assert [len(bodies(root, kind)) for kind in ("key.enrolled", "payee.changed", "key.removed")] == [1, 1, 1]
    found = records(root)  # the answer that completes and what it led to: never one without the other
    for record in found:
        if record.kind == "escalation.answered" and record.body["state"] == "approved":
            following = found[record.seq + 1]
            assert following.kind == "action.decided"
            assert following.body["escalation"] == record.body["escalation"]


def test_a_day_of_people_is_whole(stand: Stand, tmp_path: Path) -> None:
    """The scenario itself: three paid, one refused, one climb, two people of a quorum."""
    root, acks = tmp_path / "d", tmp_path / "acks"
    shutil.copytree(stand.root, root, ignore=shutil.ignore_patterns("gate.sock"))
    day(root, acks, "whole")
    _judged(stand, root, acks, "whole")


@pytest.fixture(scope="module")
def lives() -> Iterator[Forks]:
    with Forks(HERE / "scenario_people.py") as found:
        yield found


def _killed(stand: Stand, lives: Forks, tmp_path: Path, point: str, count: int, habit: str) -> bool:
    """Run the day until it dies there, then again; then judge. False when the point was not passed that often."""
    root, acks, tag = tmp_path / "d", tmp_path / "acks", f"{point}-{count}-{next(DAYS)}"
    shutil.copytree(stand.root, root, ignore=shutil.ignore_patterns("gate.sock"))
    done = lives.run(root, acks, tag, habit, crash=f"{point}:{count}")
    if done.status == 0:
        return False
    assert done.status == -signal.SIGKILL, done.said
    assert rebuilt_equally(root)
    day(root, acks, tag, "both")
    _judged(stand, root, acks, tag)
    return True


@pytest.mark.parametrize(
    ("point", "count", "habit"), [*AT, *(pytest.param(*at, marks=pytest.mark.slow) for at in AND_AT)]
)
def test_killed_among_people(stand: Stand, lives: Forks, tmp_path: Path, point: str, count: int, habit: str) -> None:
    """Killed there, the same day again: each order and answer stands once, what was refused stays refused."""
    assert _killed(stand, lives, tmp_path, point, count, habit), f"the day never passes {point} {count} times"


@pytest.mark.slow
@pytest.mark.parametrize(("point", "count", "habit"), EVERYWHERE)
def test_killed_anywhere_among_people(
    stand: Stand, lives: Forks, tmp_path: Path, point: str, count: int, habit: str
) -> None:
    """The same at commits of the whole day, the habits of the cache in turns; COUNTERMARK_CRASHES=all: at every one."""
    if not _killed(stand, lives, tmp_path, point, count, habit):
        assert count > 16
