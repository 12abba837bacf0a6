"""Countermark: one governed action of the vendor-payments template, no-op provider. Arguments: folder, mode."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import loop

from countermark.wiring import own_the_process
from countermark.wiring.bench import rig


def main(folder: Path, mode: str) -> None:
    own_the_process()
    with rig(folder / "deployment") as made:

        def measure(ask: dict[str, Any]) -> dict[str, Any]:
            if ask.get("units") == 0:
                return loop.summary([], 0.0)
            level = made.level(ask["in_flight"], ask["seconds"], ask.get("units"))
            return {"units": level.actions, "seconds": level.seconds, "p50_ms": level.p50_ms, "p99_ms": level.p99_ms}

        loop.serve({mode: measure}, {"countermark": version("countermark")})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
