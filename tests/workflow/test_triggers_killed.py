"""Triggers in a process that dies at the worst moments: each nominal time and each event is one run and one payment."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_rig import Stand, bodies, rebuilt_equally, unsound
from forks import Forks
from support import judge_books
from trigger_stage import MONDAY

from countermark.model.clock import FakeClock

HERE = Path(__file__).resolve().parent
STEPS = 6
POINTS = (
    "trigger.starting:1", "trigger.starting:4", "trigger.started:1", "trigger.started:5", "workflow.planned:3",
    "lane.in_transaction:9", "lane.committed:9", "dispatch.passed:2", "effect.done:3",
)  # fmt: skip
if os.environ.get("COUNTERMARK_CRASHES") != "all":
    POINTS = POINTS[::2]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with Stand(tmp_path_factory.mktemp("triggers"), clock=FakeClock(wall_us=MONDAY)) as stand:
        stand.twin.advance(86_400)  # else what it did would lie before the time from which it is asked about
        yield stand


@pytest.fixture(scope="module")
def lives() -> Iterator[Forks]:
    with Forks(HERE / "trigger_child.py") as found:
        yield found


def _day(lives: Forks, root: Path, tag: str, crash: str = "") -> int:
    done = lives.run(root, tag, STEPS, crash=crash)
    assert done.status in (0, -signal.SIGKILL), done.said
    return done.status


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_each_time_and_each_event_is_one_run(
    stand: Stand, lives: Forks, tmp_path: Path, point: str
) -> None:
    """The day is lived twice, the second time as if nothing had been: what was started is found, the rest begins."""
    root, tag = tmp_path / "d", point.replace(":", "-").replace(".", "-")
    shutil.copytree(stand.root, root, ignore=shutil.ignore_patterns("gate.sock"))
    assert _day(lives, root, tag, point) == -signal.SIGKILL
    assert _day(lives, root, tag) == 0
    begun = [body["workflow"]["trigger"] for body in bodies(root, "run.started")]
    timed = [f"{MONDAY // 10**6 + 1_200 * (step + 1)} UTC */20 * * * *" for step in range(STEPS)]
    called = [f"bank e-{step}" for step in range(STEPS)]
    assert sorted(one["event"] for one in begun) == sorted(timed + called)
    assert [body["workflow"]["status"] for body in bodies(root, "run.ended")] == ["success"] * 2 * STEPS
    invoices = [one.metadata["invoice"] for one in stand.only(tag).movements()]
    assert len(invoices) == len(set(invoices)) == 2 * STEPS
    assert judge_books(root, stand.only(tag)) == []  # type: ignore[arg-type]
    assert unsound(root) == []
    assert rebuilt_equally(root)
