"""A deployment whose folder of definitions is given, held by this process, with a clock that the test moves."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from flow_rig import AGENT, an_input, document, job, pay, ref
from rig import Provider, bodies, clear_kill, hold, make, unsound

import countermark
from countermark.journal import SqliteStore
from countermark.model.canon import canon
from countermark.model.clock import US, FakeClock
from countermark.model.errors import CountermarkError
from countermark.wiring.triggering import STANDING, moment_of
from countermark.workflow.definition import read_definition
from countermark.workflow.scheduler import Moment, Runs, Scheduler
from countermark.workflow.standing import Standing

HOUR_S, DAY_S = 3_600, 86_400
WAIT_S, WAITS_MAX, PAUSE = 0.01, 1_000, threading.Event()
MONDAY = 1_790_553_600 * US  # 2026-09-28T00:00Z


def schedule(cron: str = "0 9 * * *", missed: str = "skip", zone: str = "UTC", **more: Any) -> dict[str, Any]:
    with_ = [["invoice", {"$": "event.day"}]]
    return {"kind": "schedule", "cron": cron, "zone": zone, "missed": missed, "with": with_, **more}


def hook(source: str = "bank", condition: str | None = None, kind: str = "webhook") -> dict[str, Any]:
    with_ = [["invoice", {"$": "event.invoice"}]]
    return {"kind": kind, "source": source, "if": condition, "with": with_}


def flow(*triggers: dict[str, Any], name: str = "sweep", choices: tuple[str, ...] = ()) -> dict[str, Any]:
    """A definition that pays one invoice, which its trigger names."""
    return document(
        job("main", pay(invoice=ref("inputs.invoice"))), name=name, triggers=sorted(triggers, key=canon),
        inputs={"invoice": an_input("string", choices=list(choices))},
    )  # fmt: skip


def event(number: object, **more: Any) -> dict[str, Any]:
    """A body for ``event.received``."""
    return {
        "source": "bank", "event": f"e-{number}", "key": "", "payload": {"invoice": f"I-{number}"},
        "digest": "sha256:" + "0" * 64, "scheme": "hmac", "evidence": {"at": None}, **more,
    }  # fmt: skip


def scheduler_over(
    handle: countermark.Deployment, root: Path, clock: FakeClock, flows: Sequence[Mapping[str, Any]], agent: str,
    count: Callable[[str], None] = lambda what: None,
) -> tuple[Scheduler, SqliteStore]:  # fmt: skip
    """What an owner with triggers has, but that looks only when it is told to; and the journal it reads."""
    gate = handle.gate
    store = SqliteStore(root / "data" / "journal.db", readonly=True)

    async def moment() -> Moment:
        found: Moment = await gate.lane.ask(moment_of)
        return found

    async def begin() -> Scheduler:
        engine = await handle._end._workflows.engine()  # type: ignore[union-attr]
        scheduler = Scheduler(engine, store, Standing(root / "data" / STANDING, "l0"), clock, gate.loop, moment, count)
        gate.desk.follow(scheduler.heard)
        scheduler.load([Runs(read_definition(one), agent) for one in flows])
        return scheduler

    try:
        return gate.wait(begin()), store
    except CountermarkError:
        store.close()
        raise


def advance(handle: countermark.Deployment, clock: FakeClock, seconds: int) -> None:
    """Move the clock while the lane reads neither half of it: else it would see one that jumps."""

    async def moved() -> None:
        await handle.gate.lane.ask(lambda writer: clock.advance(seconds))

    handle.gate.wait(moved())


class TriggerStage:
    """``open`` begins as an owner does, but looks at time and events only when told: ``settle``."""

    def __init__(self, root: Path, *flows: Mapping[str, Any]) -> None:
        self.root, self.clock, self.provider = root, FakeClock(wall_us=MONDAY), Provider()
        self.made = make(root, self.provider, clock=self.clock)
        self.flows, self.agent = list(flows), AGENT
        self.counts: dict[str, int] = {}
        self.open()

    def open(self) -> None:
        self.handle = hold(self.root, self.provider, self.clock)
        self.scheduler, self.store = scheduler_over(
            self.handle, self.root, self.clock, self.flows, self.agent, self._count
        )

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def settle(self) -> None:
        self.handle.gate.wait(self.scheduler.settle())
        roster = self.handle._end._workflows._engine.roster  # type: ignore[union-attr]
        for _ in range(WAITS_MAX):  # an effect is not sent any more a minute after its decision
            if not roster.live:
                return
            PAUSE.wait(WAIT_S)

    def close(self) -> None:
        self.handle.close()
        self.scheduler.close()
        self.store.close()

    def again(self, *flows: Mapping[str, Any]) -> None:
        """Close and open, perhaps with another folder."""
        self.close()
        self.flows = list(flows) or self.flows
        self.open()

    def tick(self, seconds: int) -> None:
        advance(self.handle, self.clock, seconds)
        self.settle()

    def receive(self, number: object, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.handle.call("event.received", event(number, **more))
        return found

    def started(self) -> list[tuple[str, str]]:
        """Name of the definition and event of each run, in the order of the records."""
        begun = (body["workflow"] for body in bodies(self.root, "run.started") if "workflow" in body)
        return [(one["name"], one["trigger"]["event"]) for one in begun]

    def inputs(self) -> list[str]:
        begun = (body["workflow"] for body in bodies(self.root, "run.started") if "workflow" in body)
        return [one["inputs"]["invoice"] for one in begun]

    def forget(self) -> None:
        """As if the file that remembers how far it is was an old one, and is now lost."""
        (self.root / "data" / STANDING).unlink(missing_ok=True)


def write_folder(root: Path, *flows: Mapping[str, Any]) -> None:
    """A deployment's folder of definitions, as canonical documents."""
    (root / "workflows").mkdir(exist_ok=True)
    for one in flows:
        (root / "workflows" / f"{one['name']}.json").write_text(json.dumps(one))


__all__ = [
    "AGENT",
    "DAY_S",
    "HOUR_S",
    "MONDAY",
    "US",
    "TriggerStage",
    "advance",
    "bodies",
    "clear_kill",
    "countermark",
    "event",
    "flow",
    "hook",
    "schedule",
    "scheduler_over",
    "unsound",
    "write_folder",
]
