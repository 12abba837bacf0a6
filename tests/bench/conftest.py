"""Every rule of a replayed policy is needed, and every row refused: a third of them always, all of them by hand."""

from __future__ import annotations

import os

import pytest

SHARED = ("test_every_rule_is_needed", "test_rows_that_no_file_may_hold")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each of these replays all cases; COUNTERMARK_CASES=all takes them all."""
    if os.environ.get("COUNTERMARK_CASES") == "all":
        return
    here = [item for item in items if item.path.parent.name == "bench" and getattr(item, "originalname", "") in SHARED]
    left = {id(item) for number, item in enumerate(here) if number % 3}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left])
    items[:] = [item for item in items if id(item) not in left]
