"""``/metrics`` in Prometheus' text format, and ``/healthz``. Numbers and our own words only: no argument values."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from countermark.model.errors import CountermarkError
from countermark.server.surroundings import Surroundings

READY_WAIT_S = 1.0
BUCKETS_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
BOUNDS = (*map(str, BUCKETS_MS), "+Inf")

_FAMILIES = {
    "requests": ("route", "status", "HTTP requests answered."),
    "refused": ("code", "Requests refused before they reached a route."),
    "unauthenticated": ("code", "Requests of nobody we know."),
    "actions": ("status", "disposition", "Actions answered, by what became of them."),
    "hooks": ("outcome", "Deliveries of events: recorded, repeated, refused (not signed), unfit, conflict, failed."),
    "notices": ("outcome", "channel", "Notifications tried: sent, failed (to be tried again, or not), dead."),
    "action_ms_bucket": ("le", "Milliseconds from a whole request for an action to its answer."),
}


class Pulse:
    """Whether the lane answers. Many may ask at once: they share one look."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._all = surroundings
        self._look: asyncio.Task[str] | None = None

    async def reasons(self) -> dict[str, str]:
        """Why the server is not ready, by name of the condition; empty when it is."""
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(self._lane())
        found = {"lane": await asyncio.shield(self._look)}
        found |= {name: check() for name, check in self._all.checks.items()}
        return {name: why for name, why in found.items() if why}

    async def _lane(self) -> str:
        try:
            async with asyncio.timeout(READY_WAIT_S):
                await self._all.gate.lane.ask(lambda writer: None)
        except TimeoutError:
            return "does not answer"
        except CountermarkError as error:
            return error.code
        return ""


class Latency:
    """A histogram of whole milliseconds."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._counters = surroundings.counters

    def add(self, took_us: int) -> None:
        """Count one answer."""
        self._counters.add("action_ms_bucket", BOUNDS[bisect_right(BUCKETS_MS, took_us // 1_000)])
        self._counters.add("action_us", by=took_us)


def render(surroundings: Surroundings, gauges: dict[str, tuple[int, str]]) -> bytes:
    """The whole page. ``gauges``: present values with what they mean."""
    values = surroundings.counters.values
    lines: list[str] = []
    for name, (number, text) in gauges.items():
        lines += [*_head(name, "gauge", text), f"countermark_{name} {number}"]
    for family, (*labels, text) in _FAMILIES.items():
        rows = sorted((key[1:], count) for key, count in values.items() if key[0] == family)
        if family == "action_ms_bucket":
            lines += _histogram({row[0][0]: row[1] for row in rows}, values.get(("action_us",), 0))
            continue
        lines += _head(f"{family}_total", "counter", text)
        lines += [f"countermark_{family}_total{{{_labels(labels, row)}}} {count}" for row, count in rows]
    return "\n".join([*lines, ""]).encode("ascii")


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP countermark_{name} {text}", f"# TYPE countermark_{name} {kind}"]


def _labels(names: Iterable[str], values: Iterable[str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in zip(names, values, strict=True))


def _histogram(rows: dict[str, int], total_us: int) -> list[str]:
    lines = _head("action_ms", "histogram", _FAMILIES["action_ms_bucket"][-1])
    running = 0
    for bound in BOUNDS:
        running += rows.get(bound, 0)
        lines.append(f'countermark_action_ms_bucket{{le="{bound}"}} {running}')
    return [*lines, f"countermark_action_ms_sum {total_us // 1_000}", f"countermark_action_ms_count {running}"]


def gauges_of(numbers: dict[str, Any]) -> dict[str, tuple[int, str]]:
    """Present values and what they mean, from the gate's and the server's numbers."""
    return {name: (int(numbers[name]), text) for name, text in _GAUGES.items() if name in numbers}


_GAUGES = {
    "ready": "1 when the lane answers and every further condition holds.",
    "trigger_faults": "Definitions and sources of events that start nothing.",
    "log_records": "Records in the log.",
    "effects_in_flight": "Effects under way.",
    "requests_in_flight": "HTTP requests under way.",
    "connections": "Open connections.",
}
