"""A day of triggers in a process of its own that may die at any moment, then run the same day again.

``python trigger_child.py ROOT TAG STEPS``: every step is twenty minutes, a schedule's nominal time and the delivery of
an event. Begun again, the clock goes on where the records end, and all deliveries come a second time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from flow_rig import AGENT, an_input, document, job, pay, ref
from trigger_stage import MONDAY, US, advance, event, hook, schedule, scheduler_over

import countermark
from countermark.journal import SqliteStore
from countermark.model.canon import canon
from countermark.model.clock import FakeClock
from countermark.model.errors import CountermarkError

STEP_S = 1_200
WAIT_S, WAITS_MAX, PATIENCE = 0.02, 4_000, 300


def flow_of(tag: str) -> dict[str, Any]:
    """Pays an invoice that is named after what started it."""
    timed = schedule("*/20 * * * *", "all")
    timed["with"] = [["invoice", {"$": f"format('{tag}-{{0}}', event.at)"}]]
    called = hook()
    called["with"] = [["invoice", {"$": f"format('{tag}-{{0}}', event.invoice)"}]]
    return document(
        job("main", pay(invoice=ref("inputs.invoice"))), name="day", triggers=sorted([timed, called], key=canon),
        inputs={"invoice": an_input("string")},
    )  # fmt: skip


def day(root: Path, tag: str, steps: int) -> None:
    clock = FakeClock(wall_us=_last(root))
    with countermark.open(root, agent=AGENT, clock=clock) as handle:
        scheduler, store = scheduler_over(handle, root, clock, [flow_of(tag)], AGENT)
        for step in range(steps):
            advance(handle, clock, max(0, MONDAY // US + STEP_S * (step + 1) - clock.wall_us // US))
            handle.call("event.received", event(step))
            handle.gate.wait(scheduler.settle())
            _idle(handle, clock)  # an effect is not sent any more a minute after its decision
    scheduler.close()
    store.close()


def _last(root: Path) -> int:
    """The time of the newest record: a gate whose clock is behind that stays closed."""
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        return store.record(store.size() - 1).at
    finally:
        store.close()


def _idle(handle: countermark.Deployment, clock: FakeClock) -> None:
    """Until every run is over; what a dead process left open is asked for until it is known."""
    roster = handle._end._workflows._engine.roster  # type: ignore[union-attr]
    for waited in range(WAITS_MAX):
        if not roster.live and not roster.rows.open_runs():
            return
        time.sleep(WAIT_S)
        if waited % PATIENCE != PATIENCE - 1:
            continue
        advance(handle, clock, 30)
        try:
            handle.call("recover", {})
        except CountermarkError as error:
            print(error, file=sys.stderr)
    raise SystemExit("runs are not over")


if __name__ == "__main__":
    day(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
