"""A program of the tests in a process of its own, again and again, without the cost of a start.

What dies in a test is a real process: one that has imported everything forks it, and it runs the program as a script.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

LIFE_S_MAX = 120


@dataclass(frozen=True)
class Ended:
    """How a process ended: its status, negative for a signal, and the end of what it said."""

    status: int
    said: str


class Forks:
    """Runs one program; close it as a context."""

    def __init__(self, program: Path) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.communicate(timeout=LIFE_S_MAX)

    def run(self, *words: object, crash: str = "") -> Ended:
        """The program with these words, killed at the crash point ``NAME:N`` if one is given, or after two minutes."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        environment = {**os.environ, "COUNTERMARK_CRASH": crash}
        self._server.stdin.write(json.dumps([[str(word) for word in words], environment]) + "\n")
        self._server.stdin.flush()
        return Ended(*json.loads(self._server.stdout.readline()))


def _live(program: str, words: list[str], environment: dict[str, str], said: int) -> None:
    """In the child: what a start with these words and this environment would have done; never returns."""
    from countermark.model import crash

    status = 1
    try:
        signal.alarm(LIFE_S_MAX)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.environ.clear()
        os.environ.update(environment)
        crash._ARMED.update(crash._armed())
        sys.argv = [program, *words]
        runpy.run_path(program, run_name="__main__")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main(program: str) -> None:
    import countermark

    sys.path.insert(0, str(Path(program).parent))
    runpy.run_path(program, run_name="imported")
    assert countermark.Deployment is not None  # loads the heavy rooms before the first fork
    gc.freeze()
    while line := sys.stdin.readline():
        words, environment = json.loads(line)
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if child == 0:
                _live(program, words, environment, said.fileno())
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(0)
            print(json.dumps([status, said.read().decode("utf-8", "replace")[-2_000:]]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
