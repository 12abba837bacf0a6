"""The kill switch under load, by the provider's books: each scope, its answer, the gate's sudden death, a restart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import ACME, AGENT, TOOL, Stand, clear_kill, pay, unsound
from support import intents, judge_books, records

import countermark

HERE = Path(__file__).resolve().parent
CALLERS = 8
BEFORE, AFTER, COUNT = 30, 30, 100_000
WAIT_S_MAX = 30
SCOPES = ("deployment", "agent", "tool", "mandate", "payee")


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with Stand(tmp_path_factory.mktemp("kill")) as made:
        yield made


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def _until(acks: Path, count: int) -> None:
    end = time.monotonic() + WAIT_S_MAX
    while len(_lines(acks)) < count:
        assert time.monotonic() < end, "the payers stand still"
        time.sleep(0.005)


class Books:
    """The simulator's books of one of the deployments that share it, told by the keys of its intents."""

    def __init__(self, stand: Stand, root: Path) -> None:
        self._stand, self._root = stand, root

    def books(self) -> Books:
        return self

    def movements(self) -> list[Any]:
        known = intents(records(self._root))
        return [m for m in self._stand.twin.books().movements() if m.metadata.get("countermark_key") in known]


def _moved_after(root: Path, books: Books, kill: str, payee: str | None) -> set[str]:
    """IDs of the actions in scope that moved money and were not settled before the kill was recorded."""
    found = records(root)
    at = next(r.seq for r in found if r.kind == "kill.set" and r.body["kill"] == kill)
    settled = {r.body["intent"] for r in found if r.kind == "action.settled" and r.seq < at}
    moved = {m.metadata["countermark_key"] for m in books.movements()}
    return {
        r.body["id"]
        for key, r in intents(found).items()
        if key in moved and r.seq not in settled and payee in (None, r.body["terms"]["payee"])
    }


@pytest.mark.parametrize("scope", SCOPES)
def test_after_the_answer_the_books_show_nothing_new(stand: Stand, tmp_path: Path, scope: str) -> None:
    """What moves after the answer was listed in it as under way; kill -9 and a restart change nothing about a stop."""
    root, acks = tmp_path / "d", tmp_path / "acks"
    shutil.copytree(stand.root, root, ignore=shutil.ignore_patterns("gate.sock", "lane.lock"))
    first = (SCOPES.index(scope) + 1) * COUNT
    value = {"deployment": "", "agent": AGENT, "tool": TOOL, "mandate": stand.made.mandates[AGENT],
             "payee": "acme-paper"}[scope]  # fmt: skip
    payee = value if scope == "payee" else None
    words = [sys.executable, str(HERE / "worker.py"), str(root), str(acks), str(first), str(COUNT), str(CALLERS)]
    worker = subprocess.Popen(words, env={**os.environ, "WORKER_AMOUNT": "100"}, stdin=subprocess.DEVNULL)
    books = Books(stand, root)
    try:
        _until(acks, BEFORE)
        with countermark.open(root, agent=AGENT) as client:
            assert not client.owner
            reply = client.call("kill.set", {"kind": scope, "value": value, "reason": "drill"})
            _until(acks, len(_lines(acks)) + AFTER)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    listed = {entry["id"] for entry in reply["in_flight"]}
    assert _moved_after(root, books, reply["kill"], payee) <= listed
    last = {line["code"] for line in _lines(acks)[-AFTER // 2 :]}
    assert last == ({"killed"} if payee is None else {"killed", "ok"})  # whom the stop does not cover goes on
    moved = len(books.movements())
    with countermark.open(root, agent=AGENT) as handle:
        assert [kill["kill"] for kill in handle.call("status", {})["kills"]] == [reply["kill"]]
        run = (tmp_path / "run").read_text()
        assert pay(handle, first - 1, run=run, destination=ACME).code == "killed"
        handle.call("recover", {})
        assert len(books.movements()) == moved or payee is not None  # a stop forbids to send again what was unsettled
        clear_kill(handle, stand.made, reply["kill"])
        assert pay(handle, first - 2, run=run, destination=ACME).status == "confirmed"
    assert judge_books(root, books) == []  # type: ignore[arg-type]
    assert _moved_after(root, books, reply["kill"], payee) - listed == _later(root, reply["kill"], payee)
    assert unsound(root) == []


def _later(root: Path, kill: str, payee: str | None) -> set[str]:
    """Actions in scope that were decided after the kill was cleared."""
    found = records(root)
    cleared = next(r.seq for r in found if r.kind == "kill.cleared" and r.body["clearance"]["kill"] == kill)
    return {
        r.body["id"] for r in intents(found).values() if r.seq > cleared and payee in (None, r.body["terms"]["payee"])
    }
