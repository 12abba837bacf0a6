"""Killed around the witnesses; then the simulator's books judge."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Forks
from published import published, wanting
from rig import Stand, rebuilt_equally, transfers, unsound
from support import judge_books, records
from witnessed_child import INVOICES, day

HERE = Path(__file__).resolve().parent
POINTS = ("effect.waiting", "effect.witnessed", "publication.answered")
COUNTS = (1, 2, 3)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    files = wanting("alpha", "beta")
    tools = transfers(timeout_ms=250, witness="before")
    with pytest.MonkeyPatch.context() as patch, published(patch):
        stand = Stand(tmp_path_factory.mktemp("witnessed"), tools=tools, edit=files)
    with stand:
        yield stand


@pytest.fixture(scope="module")
def lives() -> Iterator[Forks]:
    with Forks(HERE / "witnessed_child.py") as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("point", POINTS)
def test_killed_around_the_witnesses_everything_is_paid_once_and_seen_before(
    stand: Stand, lives: Forks, tmp_path: Path, point: str, count: int
) -> None:
    """Killed there, opened again, asked again: each invoice is paid once, and never before its intent was seen."""
    root, tag = tmp_path / "d", f"{point}-{count}"
    shutil.copytree(stand.root, root, ignore=shutil.ignore_patterns("gate.sock"))
    done = lives.run(root, tag, crash=f"{point}:{count}")
    assert done.status == -signal.SIGKILL, done.said
    before = {record.seq for record in records(root)}
    assert rebuilt_equally(root)
    for _ in range(20):  # what waited goes on in the background: asked again, it says so until it has its outcome
        if day(root, tag) == ["confirmed"] * INVOICES:
            break
        threading.Event().wait(0.2)
    books = stand.only(tag)
    assert judge_books(root, books) == []  # type: ignore[arg-type]
    assert unsound(root) == []
    assert rebuilt_equally(root)
    moved = sorted(move.metadata["invoice"] for move in books.books().movements())
    assert moved == sorted(f"{tag}-{number}" for number in range(INVOICES))
    assert before < {record.seq for record in records(root)}
    seen = 0
    for record in records(root):
        if record.kind == "head.witnessed":
            seen = record.body["size"]
        elif record.kind == "action.settled":
            assert record.body["intent"] < seen, "an outcome of what nobody had seen"
