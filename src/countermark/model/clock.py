"""The only module that reads a clock. Times are integer microseconds since 1970-01-01T00:00:00Z."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

US = 1_000_000
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # counts suspended time too


class SystemClock:
    """Wall clock and a clock that never steps, both in microseconds."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def steady_us(self) -> int:
        return time.clock_gettime_ns(_BOOT) // 1000


@dataclass
class FakeClock:
    """A clock that stands still until told otherwise. ``step`` moves only the wall clock, as a bad NTP server would."""

    wall_us: int = 1_790_000_000 * US
    steady: int = 0

    def now_us(self) -> int:
        return self.wall_us

    def steady_us(self) -> int:
        return self.steady

    def advance(self, seconds: float) -> None:
        moved = round(seconds * US)
        self.wall_us += moved
        self.steady += moved

    def step(self, seconds: float) -> None:
        self.wall_us += round(seconds * US)


def iso(at_us: int) -> str:
    """RFC 3339 in UTC with milliseconds, for people."""
    return datetime.fromtimestamp(at_us / US, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
