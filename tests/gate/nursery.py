"""A process that has everything imported and forks workers on demand, so that a storm spends its time on dying.

Reads a JSON list (arguments of ``worker.work``), answers with the child's process id; reads an empty line, waits for
the child's end and answers with its status (negative: the signal).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from scenario import HABITS
from worker import work

import countermark
from countermark.gate import caches

if __name__ == "__main__":
    assert countermark.Deployment is not None  # loads the heavy rooms before the first fork
    while line := sys.stdin.readline():
        root, acks, first, count, callers, amount, settle = json.loads(line)
        # Each worker has another habit of writing keys and snapshots than the one before it.
        caches.SNAPSHOT_RECORDS, caches.DIRTY_MAX = list(HABITS.values())[first // count % len(HABITS)]
        caches.SNAPSHOT_PART = 0
        child = os.fork()
        if child == 0:
            try:
                work(Path(root), Path(acks), first, count, callers, amount, settle=settle)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(child, flush=True)
        sys.stdin.readline()  # until somebody asks for its end it is not reaped, so that its number stays its own
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
