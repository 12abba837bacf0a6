"""What a type checker knows of the Python front end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_the_front_end_is_typed() -> None:
    """mypy, strictly, agrees with each type that the file states, and finds each mistake that it marks, no other."""
    command = [sys.executable, "-m", "mypy", "--strict", str(HERE / "typing" / "flow_types.py")]
    done = subprocess.run(command, cwd=HERE.parent.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
