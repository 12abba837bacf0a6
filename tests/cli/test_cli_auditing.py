"""docs/auditing.md, block by block, as an auditor types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from walking import script, walk


@pytest.mark.slow
def test_the_auditors_page_works_as_typed(tmp_path: Path) -> None:
    """A witness, a payment, a trust file, a whole pack that is verified, a case out of it, a sample."""
    told = walk(script("auditing.md", ["4242", "8522"]), tmp_path, 300)
    assert "VERIFIED: everything" in told
    assert "witnessed: independent witnesses cosigned exactly this head" in told
    assert told.count("VERIFIED: everything") == 2
    assert "for action act_" in told
    assert "acme-paper 48000 eur confirmed" in told
