"""A limit raced from many processes and threads, with the owner killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rig import Stand, rebuilt_equally, transfers, unsound
from support import judge_books

HERE = Path(__file__).resolve().parent
AMOUNT = 1_000
SLOTS = 20
CALLERS = 25


def _start(stand: Stand, acks: Path, first: int, count: int, callers: int, **more: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        str(HERE / "worker.py"),
        str(stand.root),
        str(acks),
        str(first),
        str(count),
        str(callers),
    ]
    environment = {**os.environ, "WORKER_AMOUNT": str(AMOUNT), "WORKER_SETTLE": "1", **more}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("point", "faults"),
    [
        ("effect.done:7", []),
        *(
            pytest.param(point, faults, marks=pytest.mark.slow)
            for point, faults in (
                ("lane.committed:13", ["timeout_after_commit", "http_500_after", "reset_before"]),
                ("dispatch.passed:11", ["reset_after", "http_409", "http_429"]),
                ("lane.in_transaction:8", []),
            )
        ),
    ],
)
def test_a_limit_raced_from_three_processes(tmp_path: Path, point: str, faults: list[str]) -> None:
    """Fifty callers in two clients and the owner killed: the books hold exactly the limit, and no slot is lost."""
    changes = {"max = 900000000\n": f"max = {SLOTS * AMOUNT}\n"}  # both windows: a day per agent, a week per payee
    with Stand(tmp_path, tools=transfers(timeout_ms=300), after=changes) as stand:
        stand.twin.faults({"script": {"transfers.create": list(faults)}})
        owner = _start(stand, tmp_path / "owner", 900, 1, 1, WORKER_LINGER="1", COUNTERMARK_CRASH=point)
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"waiting\n"
        clients = [_start(stand, tmp_path / f"acks-{n}", n * CALLERS, CALLERS, CALLERS) for n in range(2)]
        assert owner.wait(60) == -signal.SIGKILL
        assert [client.wait(120) for client in clients] == [0, 0]
        for process in (owner, *clients):
            process.communicate()
        lines = [json.loads(line) for n in range(2) for line in (tmp_path / f"acks-{n}").read_text().splitlines()]
        assert len(lines) == 2 * CALLERS
        moved = stand.twin.books().movements()
        lines += [json.loads(line) for line in (tmp_path / "owner").read_text().splitlines()]
        refused = [line for line in lines if line["status"] == "failed"]  # for certain: nothing moved, its slot is free
        assert judge_books(stand.root, stand.twin) == []
        assert sum(move.amount for move in moved) <= SLOTS * AMOUNT
        confirmed = sum(line["status"] == "confirmed" for line in lines)
        assert len(moved) == confirmed
        assert confirmed + len(refused) >= SLOTS, "a slot of the limit was lost"
        if not refused:
            assert sum(move.amount for move in moved) == SLOTS * AMOUNT
        assert unsound(stand.root) == []
        assert rebuilt_equally(stand.root)
