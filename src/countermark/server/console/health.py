"""Whether the gate does its work: the lane, the clock, room, what is open or unknown, and doctor's checks."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from countermark.audit import span
from countermark.journal import SqliteStore, read_high_water
from countermark.model.clock import US
from countermark.model.errors import CountermarkError
from countermark.server.console.jobs import CLI, Bounds
from countermark.server.console.roles import OPERATE
from countermark.server.console.visit import Page, Reply, Visit
from countermark.wiring import disciplined, growth, newest_backup

POLL_S = 5
LANE_WAIT_S = 1.0
OPEN_MAX = 50
DAYS_LEFT_MIN = 30
FREE_BYTES_MIN = 1 << 30
BACKUP_AGE_US_MAX = 26 * 3_600 * US
DOCTOR = "doctor"
BOUNDS = Bounds(time_s=600, cpu_s=600)


async def health(visit: Visit) -> Reply:
    """``GET /health``."""
    return visit.html("health.html", **await _shown(visit), poll_s=POLL_S)


async def part(visit: Visit) -> Reply:
    """``GET /health/now``: the same again."""
    return visit.html("health_part.html", **await _shown(visit), poll_s=POLL_S)


async def _shown(visit: Visit) -> dict[str, Any]:
    console = visit.console
    lane = await _lane(visit)
    status = None if lane else await console.call("status")
    found = await console.read(lambda store, unseal: _journal(visit, store))
    intents = [] if status is None else status["open"]
    return {
        "lane": lane, "state": status, "numbers": console.gate.numbers(), **found,
        "unknown": [one for one in intents if one["status"] == "unknown"][:OPEN_MAX],
        "unknown_count": sum(one["status"] == "unknown" for one in intents),
        "open_count": sum(one["status"] == "open" for one in intents),
        "further": {name: why for name, check in console.all.checks.items() if (why := check())},
        "starts_nothing": console.all.trigger_faults(),
        "troubles": console.troubles.listed(), "channels": _channels(visit),
        "may_operate": OPERATE in visit.may, "job": console.jobs.get(DOCTOR),
    }  # fmt: skip


def _channels(visit: Visit) -> dict[str, dict[str, int]]:
    """What became of messages since the start, by channel; channels of the configuration that sent none, too."""
    found: dict[str, dict[str, int]] = {one.name: {} for one in getattr(visit.console.config, "notify", ())}
    for (name, *labels), count in visit.console.all.counters.values.items():
        if name == "notices" and len(labels) == 2:
            found.setdefault(labels[1], {})[labels[0]] = count
    return found


async def _lane(visit: Visit) -> str:
    """Why the lane does not answer; empty when it does."""
    try:
        await asyncio.wait_for(visit.console.call("ping"), LANE_WAIT_S)
    except TimeoutError:
        return f"it did not answer within {LANE_WAIT_S:.0f} second"
    except CountermarkError as error:
        return error.message
    return ""


def _journal(visit: Visit, store: SqliteStore) -> dict[str, Any]:
    """What the files say: the newest record against the clock, room, publishing, the backup."""
    config, size = visit.console.config, store.size()
    last = store.record(size - 1).at if size else 0
    mark = read_high_water(config.high_water)
    found = growth(config, store)
    days = found.days_left
    return {
        "size": size, "last": last, "behind": visit.now < last, "disciplined": disciplined(),
        "unpublished": size - (0 if mark is None else mark.size),
        "disk": {
            "free_mib": found.bytes_free >> 20, "taken_mib": found.bytes_now >> 20,
            "per_day_mib": found.bytes_per_day >> 20, "days_left": days,
            "short": found.bytes_free < FREE_BYTES_MIN or (days is not None and days < DAYS_LEFT_MIN),
        },
        "backup": _backup(visit, size),
    }  # fmt: skip


def _backup(visit: Visit, size: int) -> dict[str, Any]:
    try:
        found = newest_backup(visit.console.config)
    except CountermarkError as error:
        return {"why": error.message, "old": True}
    if found is None:
        return {"why": "none was made here", "old": True}
    age = max(0, visit.now - found["made_at"])
    return {"why": "", "at": found["made_at"], "old": age > BACKUP_AGE_US_MAX, "missing": size - found["size"],
            "age": span(age // (60 * US) * 60 * US)}  # fmt: skip


async def begin(visit: Visit) -> Reply:
    """``POST /health/doctor``: all of doctor's checks, in a process of their own."""
    root = str(visit.console.config.root)
    everything = dict(os.environ)  # whether the secrets are where the configuration says is one of its checks
    visit.console.jobs.start(
        DOCTOR, visit.who.id, CLI, ["-C", root, "doctor", "--json"], BOUNDS, environment=everything
    )
    return visit.go("/health")


PAGES = (
    Page("/health", health, nav="Health"),
    Page("/health/now", part, poll=True),
    Page("/health/doctor", begin, "POST", OPERATE),
)
