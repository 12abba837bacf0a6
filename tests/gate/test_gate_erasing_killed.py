"""Killed in the middle of an erasure: either nothing was erased, or nothing can be read, and the next start ends it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from erasing import DAY_S, deploy, document, order, pay
from forks import Forks
from rig import BOREALIS, Provider, bodies, hold, rebuilt_equally, unsound
from test_gate_erasing import files, keys_of, readable

from countermark.model.clock import FakeClock

HERE = Path(__file__).resolve().parent
AT = [
    ("lane.in_transaction", 2, False), ("erasure.recorded", 1, True), ("vault.destroyed", 1, True),
    ("erasure.destroyed", 1, True),
]  # fmt: skip


@pytest.fixture(scope="module")
def lives() -> Iterator[Forks]:
    with Forks(HERE / "erasing_child.py") as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize(("point", "count", "durable"), AT)
def test_killed_there_the_erasure_is_whole_or_never_was(
    lives: Forks, tmp_path: Path, point: str, count: int, durable: bool
) -> None:
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
    done = lives.run(root, tmp_path / "order.json", clock.now_us(), crash=f"{point}:{count}")
    assert done.status == -signal.SIGKILL, done.said
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
