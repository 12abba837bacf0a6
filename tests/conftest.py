"""What holds for every test, whatever the modules that were collected with it import."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIMIT = sys.getrecursionlimit()
IN_MEMORY, BYTES_FREE_MIN = Path("/dev/shm"), 4 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Tests write in memory where there is room: what they wait for most on a disk is that it has written.

    A process that is killed loses nothing either way, and no test cuts the power. Where the machine forbids Python to
    keep what it compiles, the hundreds of processes that tests start would compile it all again: 0.5 s each.
    """
    FOUND.update(path.name for path in ROOT.iterdir())
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    chosen = config.getoption("basetemp") or os.environ.get("PYTEST_DEBUG_TEMPROOT") or hasattr(config, "workerinput")
    if not chosen and os.access(IN_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(IN_MEMORY).free > BYTES_FREE_MIN:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(IN_MEMORY)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected stays until the end: the collector of garbage need not look through it in every test."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


FOUND: set[str] = set()  # at the top of the checkout, before the tests


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Tests write in folders of their own: a run that leaves anything new at the top of the checkout has failed."""
    yield
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text("utf-8").split()]
    new = {path.name for path in ROOT.iterdir()} - FOUND
    left = sorted(name for name in new if not any(fnmatch(name, pattern) for pattern in ignored))
    if left and not hasattr(session.config, "workerinput"):
        pytest.exit(f"the tests left in {ROOT}: {', '.join(left)}", pytest.ExitCode.TESTS_FAILED)


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
