"""Two hundred sudden deaths at random moments, with a provider that misbehaves; then the books judge."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from rig import Stand, rebuilt_equally, transfers, unsound
from support import judge_books
from worker import FINAL, work

from countermark.journal import SqliteStore

KILLS = int(os.environ.get("COUNTERMARK_KILLS", "200"))
CALLERS = 8
PER_ROUND = 20
LIFE_MS_MAX = 400
RATES = {
    "timeout_after_commit": 15_000, "reset_before": 30_000, "reset_after": 30_000, "http_409": 30_000,
    "http_429": 40_000, "http_500_before": 20_000, "http_500_after": 20_000,
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
            seq = store.key("id:" + line["action"]) if line["status"] in FINAL else -1
            if seq is None or (seq >= 0 and store.record(seq).body.get("outcome", "denied") != line["status"]):
                wrong.append(line)
        return wrong
    finally:
        store.close()


@pytest.mark.slow
def test_two_hundred_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No effect without intent, none twice, none acknowledged and lost, over 200 SIGKILLs and seeded provider faults."""
    seed = int(os.environ.get("COUNTERMARK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
    print(f"COUNTERMARK_SEED={seed}")
    sys.stdout.flush()
    chance = random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parent))
    context.set_forkserver_preload(["worker", "countermark.wiring.deployment"])
    with Stand(tmp_path, tools=transfers(timeout_ms=300)) as stand:
        stand.twin.faults({"rates": RATES})
        acks, seen, killed = tmp_path / "acks", 0, 0
        for turn in range(KILLS):
            first = max(0, turn * PER_ROUND - PER_ROUND // 2)  # half of them were asked for in the round before
            child = context.Process(target=work, args=(stand.root, acks, first, PER_ROUND, CALLERS, 100))
            child.start()
            child.join(chance.randrange(1, LIFE_MS_MAX) / 1000)
            killed += child.is_alive()
            child.kill()
            child.join()
            lines = _lines(acks)
            assert _lost(stand.root, lines[seen:]) == [], f"seed {seed}, round {turn}"
            seen = len(lines)
        told = {line["number"]: line for line in _lines(acks) if line["status"] in FINAL}
        stand.twin.faults({"script": {}})
        again = tmp_path / "again"
        last = context.Process(
            target=work, args=(stand.root, again, 0, KILLS * PER_ROUND, CALLERS, 100), kwargs={"settle": True}
        )
        last.start()
        last.join(400)
        assert last.exitcode == 0, f"seed {seed}"
        after = {line["number"]: line for line in _lines(again)}
        assert {n: after[n] for n in told} == told, f"seed {seed}: an acknowledged answer was lost or changed"
        assert judge_books(stand.root, stand.twin) == [], f"seed {seed}"
        assert stand.twin.books().check() == []
        assert unsound(stand.root) == [], f"seed {seed}"
        assert rebuilt_equally(stand.root), f"seed {seed}"
        print(f"{killed} killed alive, {len(told)} answers before the last run, {len(after)} payments asked for")
    assert killed > KILLS // 2
    assert len(told) > KILLS
