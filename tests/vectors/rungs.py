"""Ladders with rungs, from docs/spec alone: when a rung ends is counted here minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

MINUTE_US = 60_000_000
OFFICE = {"from": 540, "to": 1020, "days": [1, 2, 3, 4, 5]}


def rung(roles: list[str], quorum: int, deadline_s: int, hours: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"roles": roles, "quorum": quorum, "deadline_s": deadline_s, "hours": hours}


def ladder(name: str, *rungs: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "rungs": list(rungs)}


# The treasury, then the board in its office hours, then anybody.
LADDERS = [
    ladder("board", rung(["board"], 2, 7_200), rung(["board", "treasury"], 1, 86_400)),
    ladder(
        "treasury", rung(["treasury"], 2, 3_600), rung(["board"], 1, 4 * 3_600, OFFICE),
        rung(["board", "treasury"], 2, 1_800),
    ),
]  # fmt: skip


def laddered(bundle: dict[str, Any]) -> dict[str, Any]:
    """The bundle with ladders of several rungs."""
    bundle["compiled"]["ladders"] = LADDERS
    return bundle


def end_of(step: dict[str, Any], start: int, zone: str) -> int:
    """When a rung that begins at `start` ends."""
    left, at, hours = step["deadline_s"] * 1_000_000, start, step["hours"]
    if hours is None:
        return int(start + left)
    while True:
        local = datetime.fromtimestamp(at // 1_000_000, UTC).astimezone(ZoneInfo(zone))
        later = (at // MINUTE_US + 1) * MINUTE_US
        if local.isoweekday() in hours["days"] and hours["from"] <= local.hour * 60 + local.minute < hours["to"]:
            if later - at >= left:
                return int(at + left)
            left -= later - at
        at = later


def ends_of(compiled: dict[str, Any], name: str, start: int) -> list[int]:
    """When each rung of a ladder that is asked at `start` ends, if nobody answers."""
    found: list[int] = []
    for step in next(row for row in compiled["ladders"] if row["id"] == name)["rungs"]:
        start = end_of(step, start, compiled["zone"])
        found.append(start)
    return found
