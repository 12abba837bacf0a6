"""What holds for every test, whatever the modules that were collected with it import."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LIMIT = sys.getrecursionlimit()
IN_MEMORY, BYTES_FREE_MIN = Path("/dev/shm"), 4 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Tests write in memory where there is room: what they wait for most on a disk is that it has written.

    A process that is killed loses nothing either way, and no test cuts the power.
    """
    chosen = config.getoption("basetemp") or os.environ.get("PYTEST_DEBUG_TEMPROOT") or hasattr(config, "workerinput")
    if not chosen and os.access(IN_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(IN_MEMORY).free > BYTES_FREE_MIN:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(IN_MEMORY)


KNOWN: dict[str, dict[str, Any]] = {}  # of each module of the package, its constants as they were first seen


def pytest_runtest_setup() -> None:
    """A chain's libraries raise the limit of recursion for the whole process; no other test must run under theirs."""
    sys.setrecursionlimit(LIMIT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """A test that changes a constant of the package puts it back: else another one, on another day, fails for it."""
    yield
    left = []
    for name in [one for one in sys.modules if one.startswith("countermark")]:
        known, here = KNOWN.get(name), vars(sys.modules[name])
        if known is None:
            KNOWN[name] = {key: value for key, value in here.items() if key.isupper()}
        else:
            left += [f"{name}.{key}" for key, value in known.items() if here[key] is not value]
            known.update({key: here[key] for key in known})
    assert not left, f"this test leaves changed: {', '.join(left)}"
