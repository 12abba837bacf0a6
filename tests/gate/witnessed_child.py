"""A few payments that wait for witnesses, in a process of its own that dies at a crash point, then once more.

``python witnessed_child.py ROOT TAG``. Every payment may be repeated: call ids are fixed, invoices carry TAG.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from published import Newspaper
from rig import ACME

import countermark
from countermark.gate import publishing
from countermark.wiring import publishing as wired

INVOICES = 3


def day(root: Path, tag: str) -> list[str]:
    """Open, pay, close; the outcomes. What it sets for this is put back: tests call it in their own process too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wired, "MAKERS", (lambda surroundings: Newspaper(clock=surroundings.clock),))
        patch.setattr(publishing, "PUBLISH_S", 0.05)
        return _day(root, tag)


def _day(root: Path, tag: str) -> list[str]:
    with countermark.open(root, agent="treasury") as handle:
        run_file = root / "run"
        if not run_file.exists():
            run_file.write_text(handle.start_run())
        found = []
        for number in range(INVOICES):
            args = {"amount": 1000, "currency": "eur", "destination": ACME, "metadata[invoice]": f"{tag}-{number}"}
            result = handle.act("stripe.transfers.create", args, run=run_file.read_text(), call_id=f"c-{number}")
            found.append(result.status)
    return found


if __name__ == "__main__":
    print(day(Path(sys.argv[1]), sys.argv[2]))
