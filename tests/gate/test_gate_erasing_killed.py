"""Killed in the middle of an erasure: either nothing was erased, or nothing can be read, and the next start ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from erasing import DAY_S, deploy, document, order, pay
from rig import BOREALIS, Provider, bodies, hold, rebuilt_equally, unsound
from test_gate_erasing import files, keys_of, readable

from countermark.model.clock import FakeClock

HERE = Path(__file__).resolve().parent
CHILD_S_MAX = 60
AT = [
    ("lane.in_transaction", 2, False), ("erasure.recorded", 1, True), ("vault.destroyed", 1, True),
    ("erasure.destroyed", 1, True),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("point", "count", "durable"), AT)
def test_killed_there_the_erasure_is_whole_or_never_was(tmp_path: Path, point: str, count: int, durable: bool) -> None:
    """The record decides: with it no value is readable even before the next start; after that no key is left."""
    root, clock = tmp_path / "d", FakeClock()
    made = deploy(root, Provider(), clock)
    with hold(root, Provider(), clock) as handle:
        pay(handle, 1)
        pay(handle, 2, destination=BOREALIS)
    clock.advance(31 * DAY_S)
    wrapped, key = keys_of(root)["acme-paper"]
    signed: dict[str, Any] = order(made, document(root))
    (tmp_path / "order.json").write_text(json.dumps(signed), "utf-8")
    done = subprocess.run(
        [sys.executable, str(HERE / "erasing_child.py"), str(root), str(tmp_path / "order.json"), str(clock.now_us())],
        capture_output=True, env={**os.environ, "COUNTERMARK_CRASH": f"{point}:{count}"}, timeout=CHILD_S_MAX,
        check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2_000:]
    assert bool(bodies(root, "data.erased")) == durable
    assert len(readable(root)) == (1 if durable else 2)
    with hold(root, Provider(), clock) as handle:
        if not durable:
            handle.call("erase", signed)
        running = files(root)
        assert set(keys_of(root)) == {"borealis-hosting"}
    for found in (running, files(root)):
        assert wrapped not in found
        assert key not in found
    assert len(bodies(root, "data.erased")) == 1
    assert rebuilt_equally(root)
    assert unsound(root) == []
