"""DBOS's hosts and the gate's owner, killed with SIGKILL; then the provider's books and the records judge.

Everybody who is left goes on: a host whose gate died becomes its owner, a host that died is started again.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from rig import Stand, rebuilt_equally, transfers, unsound
from support import judge_books, records

CHILD_S_MAX = 300
RUNS = 4
ALL = os.environ.get("COUNTERMARK_CRASHES") == "all"
KILLS = int(os.environ.get("COUNTERMARK_HOST_KILLS", "10"))  # at random moments, over both databases
LIFE_MS_MAX = 4_000

# On the way of a run: planning, the commit with its transaction and answer, the effect and its outcome.
POINTS = (
    ("workflow.planned", "workflow.following", "lane.planned", "lane.in_transaction", "lane.committed",
     "lane.answered", "dispatch.passed", "effect.done")
    if ALL else ("workflow.following", "lane.committed", "effect.done")
)  # fmt: skip
DBOS_POINTS = ("DEBUG_TRIGGER_INITWF_COMMIT", "DEBUG_TRIGGER_STEP_COMMIT")


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with Stand(tmp_path_factory.mktemp("hosts"), tools=transfers(timeout_ms=2_000)) as stand:
        yield stand


class Child:
    """A process of the scene, and what it says."""

    def __init__(self, nursery: Any, errors: Path, *args: Any) -> None:
        from host_child import run  # which brings DBOS: only what is run needs it

        self.said: Connection
        self.said, end = multiprocessing.Pipe()
        self.process = nursery.Process(target=run, args=(end, str(errors), *args))
        self.process.start()
        end.close()

    def hear(self) -> Any:
        """The next thing that it says; None when it was killed before."""
        try:
            return self.said.recv() if self.said.poll(CHILD_S_MAX) else "silence"
        except (EOFError, ConnectionResetError):
            return None

    def end(self, how: int = 0) -> bool:
        """Wait for its end; whether it ended like this (negative: the signal)."""
        self.said.close()
        self.process.join(CHILD_S_MAX)
        return bool(self.process.exitcode == how)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.said.close()


class Scene:
    """One copy of the deployment, its processes, and what must be true in the end."""

    def __init__(self, stand: Stand, nursery: Any, root: Path, database: str, tag: str) -> None:
        self.stand, self.root, self.database, self.tag = stand, root, database, tag
        self._nursery, self._errors = nursery, root.parent / "errors"
        shutil.copytree(stand.root, root, ignore=shutil.ignore_patterns("gate.sock"))
        self.started: list[Child] = []

    def spawn(self, *args: Any) -> Child:
        child = Child(self._nursery, self._errors, *args)
        self.started.append(child)
        return child

    def owner(self, crash: str = "") -> Child:
        return self.spawn("owner", self.root, crash)

    def host(self, executor: str = "a", crash: str = "") -> Child:
        return self.spawn("host", self.root, self.database, executor, self.tag, RUNS, crash)

    def ends(self, host: Child) -> bool:
        """Wait for a host; whether it saw all runs end, as declared. False when it was killed."""
        found = host.hear()
        if found == "ready":
            found = host.hear()
        if found is None:
            assert host.end(-signal.SIGKILL), self.errors()
            return False
        assert found == ["success", "failure"] * (RUNS // 2), self.errors()
        assert host.end(), self.errors()
        return True

    def errors(self) -> str:
        return self._errors.read_text()[-3_000:] if self._errors.exists() else ""

    def close(self) -> None:
        """Tell owners that it is enough."""
        for child in self.started:
            if child.process.is_alive():
                child.said.send("enough")
                assert child.end(), self.errors()

    def judge(self) -> None:
        """Every run once and over as declared, every payment once, by the books and by the records."""
        self.close()
        found = records(self.root)
        begun = [r.body["workflow"] for r in found if r.kind == "run.started" and "workflow" in r.body]
        assert sorted(body["trigger"]["event"] for body in begun) == sorted(f"dbos:{self.tag}-{n}" for n in range(RUNS))
        ended = [r.body["workflow"] for r in found if r.kind == "run.ended" and "workflow" in r.body]
        assert sorted(body["status"] for body in ended) == ["failure"] * (RUNS // 2) + ["success"] * (RUNS // 2)
        assert all(body["undone"] == (["main.one"] if body["status"] == "failure" else []) for body in ended)
        books = self.stand.only(self.tag)
        assert judge_books(self.root, books) == []  # type: ignore[arg-type]
        backs = [f"{self.tag}-{n}-back" for n in range(1, RUNS, 2)]
        moved = sorted(move.metadata["invoice"] for move in books.movements())
        assert moved == sorted([*(f"{self.tag}-{n}" for n in range(RUNS)), *backs])
        assert unsound(self.root) == []
        assert rebuilt_equally(self.root)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Any]:
    """Forks processes from one that has everything imported."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["host_child"])
    yield context
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def scene(stand: Stand, nursery: Any, tmp_path: Path, database: str) -> Iterator[Scene]:
    found = Scene(stand, nursery, tmp_path / "d", database, "t" + os.urandom(4).hex())
    try:
        yield found
    finally:
        for child in found.started:
            child.kill()


@pytest.mark.slow
def test_an_unarmed_day_is_whole(scene: Scene) -> None:
    """The scene itself: an owner, two hosts that drive the same runs, nobody dies."""
    owner = scene.owner()
    assert owner.hear() == "ready"
    hosts = [scene.host("a"), scene.host("b")]
    assert all(scene.ends(host) for host in hosts)
    assert owner.process.is_alive()
    scene.judge()


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_the_gate_is_killed_at(scene: Scene, point: str) -> None:
    """The owner dies at a crash point of a run; the host takes the gate over, and every run ends as declared."""
    owner = scene.owner(f"{point}:3")
    assert owner.hear() == "ready"
    assert scene.ends(scene.host())
    assert owner.end(-signal.SIGKILL), f"no run passes {point} three times"
    scene.judge()


@pytest.mark.slow
@pytest.mark.parametrize("point", [*POINTS, *DBOS_POINTS])
def test_the_host_is_killed_at(scene: Scene, point: str) -> None:
    """A host that also owns the gate dies with it, at a crash point of a run or of DBOS; the next one goes on."""
    assert not scene.ends(scene.host(crash=f"{point}:2")), f"no run passes {point} twice"
    assert scene.ends(scene.host())
    scene.judge()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(max(1, KILLS // 20)))
def test_killed_at_random_moments(scene: Scene, seed: int) -> None:
    """Hosts and the gate's owner die at any moment, ten times at most: no effect doubled, none lost, every run over."""
    moments = random.Random(seed)
    print(f"seed {seed}")
    scene.stand.twin.faults({"rates": {"reset_after": 20_000, "http_500_after": 10_000, "http_429": 30_000}})
    alive = {"owner": scene.owner(), "a": scene.host("a"), "b": scene.host("b")}
    try:
        for _ in range(min(10, KILLS // 2)):
            time.sleep(moments.randrange(LIFE_MS_MAX) / 1000)
            who = moments.choice(sorted(alive))
            alive[who].kill()
            alive[who] = scene.owner() if who == "owner" else scene.host(who)
        assert all(scene.ends(alive[who]) for who in ("a", "b"))
    finally:
        scene.stand.twin.faults({"rates": {}})
    scene.judge()
