"""DBOS: one workflow of three no-op steps. Arguments: working directory, mode, database URL or an empty string."""

from __future__ import annotations

import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path

import loop
from dbos import DBOS

POOL = 64


def main(folder: Path, mode: str, url: str) -> None:
    if mode != "postgres":
        path = folder / f"dbos-{mode}.sqlite"
        if mode == "sqlite-wal":  # a property of the file, which DBOS then finds and keeps
            with sqlite3.connect(path) as db:
                db.execute("pragma journal_mode=wal")
            db.close()
        url = f"sqlite:///{path}"
    config = {"name": "bench", "system_database_url": url, "log_level": "ERROR", "sys_db_pool_size": POOL}
    DBOS(config=config)

    @DBOS.step()
    def decide(number: int) -> int:
        return number

    @DBOS.step()
    def effect(number: int) -> int:
        return number

    @DBOS.step()
    def settle(number: int) -> int:
        return number

    @DBOS.workflow()
    def pay(number: int) -> int:
        return settle(effect(decide(number)))

    DBOS.launch()
    pay(0)
    loop.serve({mode: loop.rounds(lambda number: pay(number) and None)}, {"dbos": version("dbos")})
    DBOS.destroy()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
