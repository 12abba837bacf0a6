"""The walk of docs/operating.md, command by command, as somebody new types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from walking import script, walk


@pytest.mark.slow
def test_the_walk_of_the_operating_page_works_as_typed(tmp_path: Path) -> None:
    """Simulator, payment, approval, a program, trust file, pack: each command ends well, and the pack is verified."""
    told = walk(script("operating.md", ["4242"]), tmp_path, 120)
    assert "VERIFIED" in told.upper()
    for part in ("3 tools can be sent", "480.00 EUR", "6,000.00 EUR", "confirmed"):
        assert part in told, f"{part} in {told}"
    trust = json.loads((tmp_path / "trust.json").read_text("utf-8"))
    assert set(trust["people"]) == {"treasurer", "controller"}
