"""A witness as a process of its own, as its operator starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAIT_S = 60


def command(*words: str, **more: Any) -> str:
    """Run the command line in a process of its own; what it printed."""
    done = subprocess.run([sys.executable, "-m", "countermark.cli", *words], capture_output=True, text=True,
                          timeout=WAIT_S, check=False, **more)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(folder: Path, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """Serve a witness's directory on a free port; the child and its URL."""
    child = subprocess.Popen(
        [sys.executable, "-m", "countermark.cli", "witness", "serve", str(folder), "--port", "0", "--json"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, "the witness did not start"
    return child, json.loads(line)["url"]


def stop(child: subprocess.Popen[str]) -> int:
    """Ask it to end, and wait; its exit code."""
    child.send_signal(signal.SIGTERM)
    code = child.wait(WAIT_S)
    if child.stdout is not None:
        child.stdout.close()
    return code


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A served witness; it ends well."""
    child, url = start(folder)
    try:
        yield url
    finally:
        code = stop(child)
    assert code == 0
