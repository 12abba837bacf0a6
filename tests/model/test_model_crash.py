"""Crash points: silent unless the environment arms one, deadly when it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
from countermark.model.crash import crash_point
for number in range(4):
    crash_point("a")
    crash_point("b")
    print(number, flush=True)
"""


@pytest.mark.parametrize(
    ("armed", "printed", "status"),
    [
        ("", 4, 0),
        ("other:1", 4, 0),
        ("a", 0, -signal.SIGKILL),
        ("b:3", 2, -signal.SIGKILL),
        ("b:9", 4, 0),
    ],
)
def test_a_process_dies_at_the_armed_pass_of_the_named_point(armed: str, printed: int, status: int) -> None:
    """SIGKILL comes the N-th time the named point is passed, and never at another point."""
    environment = {**os.environ, "COUNTERMARK_CRASH": armed}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=False)
    assert done.returncode == status
    assert len(done.stdout.split()) == printed
