"""Runs in a process that dies at the worst moments: by the provider's books nothing twice, nothing lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_rig import Stand, bodies, rebuilt_equally, transfers, unsound
from forks import Forks
from support import judge_books

HERE = Path(__file__).resolve().parent
RUNS = 3
FAULTS = ["ok", "ok", "http_500_after", "timeout_after_commit"]
ALL = os.environ.get("COUNTERMARK_CRASHES") == "all"
KILLS = int(os.environ.get("COUNTERMARK_KILLS", "2"))
POINTS = (
    "workflow.planned", "workflow.following", "lane.planned", "lane.in_transaction", "lane.committed", "lane.answered",
    "dispatch.passed", "effect.done", "recovery.looked_up",
)  # fmt: skip


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with Stand(tmp_path_factory.mktemp("flows"), tools=transfers(timeout_ms=250)) as stand:
        yield stand


@pytest.fixture(scope="module")
def lives() -> Iterator[Forks]:
    with Forks(HERE / "flow_child.py") as found:
        yield found


def _finish(lives: Forks, root: Path, tag: str, runs: int) -> None:
    done = lives.run(root, tag, runs, 7)
    assert done.status == 0, done.said


def _judge(stand: Stand, root: Path, tag: str, runs: int) -> None:
    """Every run ended as declared; each payment that was declared was made once, each undo where it had to be."""
    books = stand.only(tag)
    assert judge_books(root, books) == []  # type: ignore[arg-type]
    assert unsound(root) == []
    assert rebuilt_equally(root)
    ended = [body["workflow"] for body in bodies(root, "run.ended")]
    assert sorted(one["status"] for one in ended) == sorted(
        "failure" if number % 3 == 2 else "success" for number in range(runs)
    )
    moved = sorted(movement.metadata["invoice"] for movement in books.movements())
    parts = [f"{tag}-{number}-{part}" for number in range(runs) for part in "abcd"]
    assert moved == sorted([*parts, *(f"{tag}-{number}-back" for number in range(runs) if number % 3 == 2)])
    for body in bodies(root, "compute.executed"):
        assert body["status"] == "ok"


def _crash(stand: Stand, lives: Forks, root: Path, point: str, count: int) -> bool:
    tag = f"{point}-{count}"
    shutil.copytree(stand.root, root, ignore=shutil.ignore_patterns("gate.sock"))
    stand.twin.faults({"script": {"transfers.create": list(FAULTS)}})
    done = lives.run(root, tag, RUNS, 5, crash=f"{point}:{count}")
    stand.twin.faults({"script": {}})
    if done.status == 0:
        return False
    assert done.status == -signal.SIGKILL, done.said
    _finish(lives, root, tag, RUNS)
    _judge(stand, root, tag, RUNS)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, 9] if ALL else [1])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at(stand: Stand, lives: Forks, tmp_path: Path, point: str, count: int) -> None:
    """Killed there and opened again, every run goes on from its records, and ends as its definition says."""
    if not _crash(stand, lives, tmp_path / "d", point, count):
        assert count > 1 or point == "recovery.looked_up"


def test_killed_when_what_follows_an_outcome_is_planned(stand: Stand, lives: Forks, tmp_path: Path) -> None:
    """The outcome is not recorded yet: the provider is asked, and the run goes on."""
    assert _crash(stand, lives, tmp_path / "d", "workflow.following", 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_any_moment(stand: Stand, lives: Forks, tmp_path: Path, seed: int) -> None:
    """SIGKILL after a random time, three times over in one day; COUNTERMARK_KILLS says how many such days."""
    rng, root, tag = random.Random(seed), tmp_path / "d", f"any-{seed}"
    shutil.copytree(stand.root, root, ignore=shutil.ignore_patterns("gate.sock"))
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, str(HERE / "flow_child.py"), str(root), tag, str(RUNS), "5"], stderr=subprocess.PIPE
        )
        try:
            _, errors = child.communicate(timeout=rng.uniform(0.4, 2.5))
            assert child.returncode == 0, errors.decode()[-2_000:]
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
    _finish(lives, root, tag, RUNS)
    _judge(stand, root, tag, RUNS)
