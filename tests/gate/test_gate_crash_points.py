"""Every named crash point of the source, killed at with SIGKILL in a real process; then the provider's books judge."""

from __future__ import annotations

import ast
import itertools
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import Forks
from rig import Stand, rebuilt_equally, transfers, unsound
from scenario import FAULTS, INVOICES, day
from support import judge_books

import countermark as product

HERE = Path(__file__).resolve().parent
DAYS = itertools.count()  # several tests may kill at one passage, and they share the simulator's books


def crash_points() -> list[str]:
    """Every literal name handed to ``crash_point`` anywhere in the source."""
    found = set()
    for path in Path(product.__file__).parent.rglob("*.py"):
        text = path.read_text("utf-8")
        for node in (
            ast.walk(ast.parse(text)) if "crash_point" in text else ()
        ):  # every process that collects reads this
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "crash_point":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path}: a crash point's name is a literal"
                found.add(name.value)
    return sorted(found)


# Not on this day's way: others kill there.
BESIDE = (
    "notify.",
    "daybook.",
    "publication.",
    "witness.",
    "evm.",
    "anchor.",
    "erasure.",
    "vault.destroyed",
    "effect.waiting",
    "effect.witnessed",
    "workflow.",
    "trigger.",
)
POINTS = [point for point in crash_points() if not point.startswith(BESIDE)]
# At each of them money may be half moved; the fast tests kill here, the slow ones everywhere.
FAST = ("lane.in_transaction", "lane.committed", "dispatch.passed", "effect.done", "recovery.looked_up", "lane.cached")
OTHERS = {"snapshots": "snapshots", "keys": "both", "both": "keys", "nothing": "both"}  # how the next start goes on
# Later passages of a point: in the middle of the day, after an approval, after a restart.
ALL = os.environ.get("COUNTERMARK_CRASHES") == "all"
LATER = [(point, count) for point in POINTS for count in ((2, 5, 13) if ALL else (5,))]
# Around the cache: whenever it is written, however often, and what is written next to it. Another habit goes on.
CACHE = ("lane.in_snapshot", "lane.cached", "lane.forgotten")
AROUND = [
    (point, count, habit)
    for point in (*CACHE, "lane.in_transaction", "lane.answered", "effect.done")
    for turn, count in enumerate((1, 2, 4, 7, 11, 16))
    for number, habit in enumerate(("keys", "both", "nothing"))
    if ALL or (turn % 2 == 0 and turn // 2 == number)  # the habits take turns; all of them by hand
]


def test_there_are_crash_points_at_every_boundary() -> None:
    """The design's boundaries are all there: plan, transaction, commit, dispatch, effect, recovery, answer, cache."""
    assert {
        "lane.planned", "lane.in_transaction", "lane.committed", "lane.answered", *CACHE,
        "dispatch.passed", "effect.done", "recovery.looked_up", "vault.flushed", "highwater.written",
    } <= set(POINTS)  # fmt: skip
    elsewhere = ("notify/test_notify_outbox.py", "audit/test_audit_daybook.py", "gate/test_gate_witnessed_killed.py",
                 "publish/test_publish_served.py", "connectors/test_connectors_evm.py",
                 "gate/test_gate_erasing_killed.py", "publish/test_publish_anchor.py",
                 "workflow/test_workflow_killed.py", "workflow/test_triggers_killed.py",
                 "workflow/test_workflow_ended_together.py")  # fmt: skip
    killed = "".join((HERE.parent / name).read_text() for name in elsewhere)
    assert [point for point in set(crash_points()) - set(POINTS) if point not in killed] == []


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with Stand(tmp_path_factory.mktemp("crash"), tools=transfers(timeout_ms=250)) as stand:
        yield stand


@pytest.fixture(scope="module")
def lives() -> Iterator[Forks]:
    with Forks(HERE / "scenario.py") as found:
        yield found


def _acks(path: Path) -> dict[int, dict[str, Any]]:
    """The last final answer that was given for each payment."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["number"]: line for line in lines if line["status"] in ("confirmed", "failed", "denied")}


def _crash(stand: Stand, lives: Forks, tmp_path: Path, point: str, count: int, habit: str = "snapshots") -> bool:
    """Run the day until it dies at ``point``; then judge. False when the point was not passed that often."""
    root, acks, tag = tmp_path / "d", tmp_path / "acks", f"{point}-{count}-{next(DAYS)}"
    shutil.copytree(stand.root, root, ignore=shutil.ignore_patterns("gate.sock"))
    stand.twin.faults({"script": {"transfers.create": list(FAULTS)}})
    done = lives.run(root, acks, tag, habit, crash=f"{point}:{count}")
    stand.twin.faults({"script": {}})
    if done.status == 0:
        return False
    assert done.status == -signal.SIGKILL, done.said
    told = _acks(acks)
    assert rebuilt_equally(root)
    day(root, acks, tag, OTHERS[habit])
    books = stand.only(tag)
    assert judge_books(root, books) == []  # type: ignore[arg-type]
    assert unsound(root) == []
    assert rebuilt_equally(root)
    after = _acks(acks)
    assert {number: after[number] for number in told} == told, "an acknowledged answer was lost or changed"
    moved = books.books().movements()
    assert sorted(move.metadata["invoice"] for move in moved) == sorted(f"{tag}-{n}" for n in range(INVOICES))
    assert {a["ref"] for a in after.values()} == {move.id for move in moved}
    return True


@pytest.mark.parametrize("point", [at if at in FAST else pytest.param(at, marks=pytest.mark.slow) for at in POINTS])
def test_killed_at(stand: Stand, lives: Forks, tmp_path: Path, point: str) -> None:
    """Killed there, opened again, asked again: nothing without intent, nothing twice, nothing acknowledged and lost."""
    assert _crash(stand, lives, tmp_path, point, 1), f"the scenario never passes {point}"


@pytest.mark.slow
@pytest.mark.parametrize(("point", "count"), LATER)
def test_killed_at_a_later_passage(stand: Stand, lives: Forks, tmp_path: Path, point: str, count: int) -> None:
    """The same at later passages of the point; where the day does not pass it that often, there is nothing to kill."""
    if not _crash(stand, lives, tmp_path, point, count):
        assert count > 1


@pytest.mark.slow
@pytest.mark.parametrize("point", CACHE)
def test_killed_around_keys_that_are_written_alone(stand: Stand, lives: Forks, tmp_path: Path, point: str) -> None:
    """Without snapshots, keys written every few actions: the next start folds all, writing again as it goes."""
    assert _crash(stand, lives, tmp_path, point, 1, "keys"), f"the scenario never passes {point}"


@pytest.mark.slow
@pytest.mark.parametrize(("point", "count", "habit"), AROUND)
def test_killed_around_the_cache(
    stand: Stand, lives: Forks, tmp_path: Path, point: str, count: int, habit: str
) -> None:
    """The same with keys and snapshots written often, apart, and never; the next start has another habit."""
    if not _crash(stand, lives, tmp_path, point, count, habit):
        assert count > 1 or habit == "nothing" or point == "lane.forgotten"


def test_an_unarmed_day_is_whole(stand: Stand, tmp_path: Path) -> None:
    """The scenario itself: snapshots are written, an action is approved, faults end well: seven payments."""
    root, acks = tmp_path / "d", tmp_path / "acks"
    shutil.copytree(stand.root, root, ignore=shutil.ignore_patterns("gate.sock"))
    stand.twin.faults({"script": {"transfers.create": list(FAULTS)}})
    day(root, acks, "whole")
    assert [a["status"] for a in _acks(acks).values()] == ["confirmed"] * INVOICES
    assert judge_books(root, stand.only("whole")) == []  # type: ignore[arg-type]
    assert len(stand.only("whole").books().movements()) == INVOICES
    assert unsound(root) == []
    assert rebuilt_equally(root)
