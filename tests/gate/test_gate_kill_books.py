"""The kill switch under load, by the provider's books: each scope, its answer, the gate's sudden death, a restart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import ACME, AGENT, TOOL, Stand, clear_kill, pay, unsound
from support import intents, judge_books, records
from worker import ACCOUNTS

import countermark
from countermark.connectors.stripe import StripeConnector
from countermark.model.tool import ToolSpec
from countermark.model.values import Outcome, Request

HERE = Path(__file__).resolve().parent
CALLERS = 8
BEFORE, AFTER, COUNT = 30, 30, 100_000
WAIT_S_MAX = 120  # for a machine that does ten other things
SCOPES = ("deployment", "agent", "tool", "mandate", "payee")


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with Stand(tmp_path_factory.mktemp("kill")) as made:
        yield made


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def _until(acks: Path, fulfilled: Callable[[list[dict[str, Any]]], bool]) -> None:
    end = time.monotonic() + WAIT_S_MAX
    while not fulfilled(_lines(acks)):
        assert time.monotonic() < end, "the payers stand still"
        time.sleep(0.005)


def _covered(line: dict[str, Any], payee: str | None) -> bool:
    """Whether the stop is about this payment; ``payee`` is the first of the worker's two."""
    return payee is None or ACCOUNTS[line["number"] % 2] == ACME


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


@pytest.mark.parametrize(
    "scope", [one if one == "payee" else pytest.param(one, marks=pytest.mark.slow) for one in SCOPES]
)
def test_after_the_answer_the_books_show_nothing_new(
    stand: Stand, tmp_path: Path, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        _until(acks, lambda lines: len(lines) >= BEFORE)
        with countermark.open(root, agent=AGENT) as client:
            assert not client.owner
            reply = client.call("kill.set", {"kind": scope, "value": value, "reason": "drill"})
            told = len(_lines(acks))

            def went_on(lines: list[dict[str, Any]]) -> bool:
                """Enough was stopped; and of what is not covered more was paid than was under way at the answer."""
                paid = sum(line["code"] == "ok" and not _covered(line, payee) for line in lines[told:])
                return sum(line["code"] == "killed" for line in lines[told:]) >= AFTER and (
                    payee is None or paid > CALLERS
                )

            _until(acks, went_on)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    listed = {entry["id"] for entry in reply["in_flight"]}
    assert _moved_after(root, books, reply["kill"], payee) <= listed
    excused = listed | _settled_before(root, reply["kill"])
    for line in _lines(acks)[told:]:  # an answer after the stop: stopped, stopped before it was sent, or from before
        stopped = line["code"] in ("killed", "not_sent")
        assert not _covered(line, payee) or stopped or line["action"] in excused, line
    sent: list[str] = []
    execute = StripeConnector.execute

    def seen(connector: StripeConnector, tool: ToolSpec, request: Request) -> Outcome:
        sent.append(dict(request.headers)["Idempotency-Key"])
        return execute(connector, tool, request)

    monkeypatch.setattr(StripeConnector, "execute", seen)
    with countermark.open(root, agent=AGENT) as handle:
        assert [kill["kill"] for kill in handle.call("status", {})["kills"]] == [reply["kill"]]
        run = (tmp_path / "run").read_text()
        assert pay(handle, first - 1, run=run, destination=ACME).code == "killed"
        handle.call("recover", {})
        again = {r.body["terms"]["payee"] for key, r in intents(records(root)).items() if key in sent}
        assert again <= (set() if payee is None else {"borealis-hosting"})  # nothing covered is sent, not even again
        clear_kill(handle, stand.made, reply["kill"])
        assert pay(handle, first - 2, run=run, destination=ACME).status == "confirmed"
    assert judge_books(root, books) == []  # type: ignore[arg-type]
    assert _moved_after(root, books, reply["kill"], payee) - listed == _later(root, reply["kill"], payee)
    assert unsound(root) == []


def _settled_before(root: Path, kill: str) -> set[str]:
    """IDs of the actions that had an outcome when the kill was recorded."""
    found = records(root)
    at = next(r.seq for r in found if r.kind == "kill.set" and r.body["kill"] == kill)
    return {r.body["id"] for r in found if r.kind == "action.settled" and r.seq < at}


def _later(root: Path, kill: str, payee: str | None) -> set[str]:
    """Actions in scope that were decided after the kill was cleared."""
    found = records(root)
    cleared = next(r.seq for r in found if r.kind == "kill.cleared" and r.body["clearance"]["kill"] == kill)
    return {
        r.body["id"] for r in intents(found).values() if r.seq > cleared and payee in (None, r.body["terms"]["payee"])
    }
