"""docs/mandates.md, command by command, as somebody new types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from walking import script, walk


@pytest.mark.slow
def test_the_page_on_mandates_works_as_typed(tmp_path: Path) -> None:
    """A child, the tree, an AP2 mandate that is accepted once; what the page shows is what comes."""
    told = walk(script("mandates.md", []), tmp_path, 120)
    for part in (
        "office supplies: paper",
        "3 payments over its life",
        "└─ ",
        "AP2 payment mandate",
        "already_redeemed",
    ):
        assert part in told, f"{part} in {told}"
