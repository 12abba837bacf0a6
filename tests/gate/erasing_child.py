"""A process that hands in a signed erasure and is killed where ``COUNTERMARK_CRASH`` says: ``ROOT ORDER AT_US``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rig import Provider, hold

from countermark.model.clock import FakeClock

if __name__ == "__main__":
    root, order, at_us = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text("utf-8")), int(sys.argv[3])
    clock = FakeClock()
    clock.advance((at_us - clock.now_us()) // 1_000_000)
    with hold(root, Provider(), clock) as handle:
        handle.call("erase", order)
