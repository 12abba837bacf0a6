"""Two hundred sudden deaths at random moments, with a provider that misbehaves; then the books judge."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rig import Stand, rebuilt_equally, transfers, unsound
from support import judge_books
from worker import FINAL

from countermark.audit import newest
from countermark.journal import SqliteStore

KILLS = int(os.environ.get("COUNTERMARK_KILLS", "40"))
CALLERS = 8
PER_ROUND = 20
EARLY_MS_MAX = 150
LIFE_MS_MAX = 3_000
RATES = {
    "timeout_after_commit": 10_000, "reset_before": 20_000, "reset_after": 20_000, "http_409": 20_000,
    "http_429": 30_000, "http_500_before": 1_000, "http_500_after": 10_000,
}  # fmt: skip


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def _lost(root: Path, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Final answers that the journal on disk does not hold."""
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        wrong = []
        for line in lines:
            seq = newest(store, "id:" + line["action"]) if line["status"] in FINAL else -1
            if seq is None or (seq >= 0 and store.record(seq).body.get("outcome", "denied") != line["status"]):
                wrong.append(line)
        return wrong
    finally:
        store.close()


class Nursery:
    """Workers that are forked from a process with everything imported."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery.py"))], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, *args: object) -> int:
        self._say(json.dumps(args))
        return int(self._told())

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _told(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def status(self) -> int:
        self._say("")
        return int(self._told())

    def close(self) -> None:
        self._process.communicate()


def _live(acks: Path, seen: int, chance: random.Random) -> None:
    """Let a worker live for a random while: a third dies while opening, the others after some answers."""
    if chance.random() < 1 / 3:
        time.sleep(chance.randrange(1, EARLY_MS_MAX) / 1000)
        return
    wanted, end = seen + chance.randrange(0, PER_ROUND - CALLERS), time.monotonic() + LIFE_MS_MAX / 1000
    while len(_lines(acks)) < wanted and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(chance.randrange(0, 20) / 1000)


@pytest.mark.slow
def test_many_kills(tmp_path: Path) -> None:
    """No effect without intent, none twice, none acknowledged and lost: SIGKILLs and provider faults, all seeded."""
    seed = int(os.environ.get("COUNTERMARK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
    print(f"COUNTERMARK_SEED={seed}")
    sys.stdout.flush()
    chance = random.Random(seed)
    with Stand(tmp_path, tools=transfers(timeout_ms=300)) as stand:
        stand.twin.faults({"rates": RATES})
        nursery, acks, seen, killed = Nursery(), tmp_path / "acks", 0, 0
        for turn in range(KILLS):
            first = max(0, turn * PER_ROUND - PER_ROUND // 2)  # half of them were asked for in the round before
            child = nursery.start(str(stand.root), str(acks), first, PER_ROUND, CALLERS, 100, False)
            _live(acks, seen, chance)
            os.kill(child, signal.SIGKILL)
            killed += nursery.status() == -signal.SIGKILL
            lines = _lines(acks)
            assert _lost(stand.root, lines[seen:]) == [], f"seed {seed}, round {turn}"
            seen = len(lines)
        told = {line["number"]: line for line in _lines(acks) if line["status"] in FINAL}
        stand.twin.faults({"script": {}})
        again = tmp_path / "again"
        nursery.start(str(stand.root), str(again), 0, KILLS * PER_ROUND, CALLERS, 100, True)
        assert nursery.status() == 0, f"seed {seed}"
        nursery.close()
        after = {line["number"]: line for line in _lines(again)}
        assert {n: after[n] for n in told} == told, f"seed {seed}: an acknowledged answer was lost or changed"
        assert judge_books(stand.root, stand.twin) == [], f"seed {seed}"
        assert stand.twin.books().check() == []
        assert unsound(stand.root) == [], f"seed {seed}"
        assert rebuilt_equally(stand.root), f"seed {seed}"
        print(f"{killed} killed alive, {len(told)} answers before the last run, {len(after)} payments asked for")
    assert killed > KILLS // 2
    assert len(told) > KILLS
