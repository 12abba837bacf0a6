"""A process whose disk is full exactly when keys are saved: ``python full_child.py ROOT BALLAST HOW``.

Pays invoices; at its second save it fills the file system, and the save fails. ``die``: SIGKILL right then, with the
disk full. ``on``: there is room again, it goes on, and dies after some more payments.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from rig import Provider, hold, pay

from countermark.gate import caches
from countermark.journal import SqliteStore
from countermark.model.errors import StoreError
from countermark.model.ports import Cache

INVOICES = 12


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    with path.open("wb", buffering=0) as file:
        for size in (4_096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def main() -> None:
    root, ballast, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    caches.DIRTY_MAX = 5
    original, saves = SqliteStore.save, []

    def save(store: SqliteStore, cache: Cache) -> None:
        saves.append(len(cache.keys))
        if len(saves) != 2:
            original(store, cache)
            return
        fill(ballast)
        try:
            original(store, cache)
        except StoreError:
            if how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            ballast.unlink()
            raise

    SqliteStore.save = save  # type: ignore[method-assign]
    handle = hold(root, Provider(["refused"] * 2))
    run = handle.start_run()
    for number in range(INVOICES):
        print(pay(handle, number, run=run).status, flush=True)
    print(len(saves), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
