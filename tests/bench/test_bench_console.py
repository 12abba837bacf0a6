"""The long journal is one that a gate opens and an auditor follows, so what is measured behind it means something."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_pages_are_measured_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate folds all of it, agrees with its signed head, and serves every page that is measured."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])
    import console

    with console.journal(tmp_path / "deployment", 2_000) as made:
        found = console.measure(tmp_path / "deployment", made, 1)
    assert found["records"] >= 2_000
    assert {"payments, newest", "one payment", "limits", "agents", "policy", "evidence", "health"} <= set(
        found["pages"]
    )
