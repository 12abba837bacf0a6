"""Runs for requests that name none: SDKs know nothing of runs, and their agents come back after a restart."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from countermark.gate import Caller, Gate
from countermark.model.values import RUN

RUNS_MAX = 1_024
FILE_BYTES_MAX = 1 << 20


class Runs:
    """One run for each agent, kept in a small file.

    The file is a convenience: without it an agent gets a new run, and a key used before is a new call. Its business key
    then says that the payment was made.
    """

    def __init__(self, gate: Gate, file: Path, purpose: str) -> None:
        self._gate = gate
        self._file = file
        self._purpose = purpose
        self._runs = _read(file)

    async def of(self, caller: Caller) -> str:
        """The run of this caller's actions; minted when there is none. Raises ``CountermarkError``."""
        if caller.scope is not None and caller.scope.run:
            return caller.scope.run
        found = self._runs.get(name_of(caller))
        return found if found is not None else await self._mint(caller)

    async def _mint(self, caller: Caller) -> str:
        made: Any = await self._gate.call("run.start", {"purpose": self._purpose}, caller)
        name = name_of(caller)
        if name in self._runs:  # another request was faster
            return self._runs[name]
        if len(self._runs) >= RUNS_MAX:
            self._runs.pop(next(iter(self._runs)))
        self._runs[name] = str(made)
        self._write()
        return self._runs[name]

    def forget(self, caller: Caller, run: str) -> bool:
        """The run does not serve any more: it ended, or its mandate did. False when it is not the one kept here."""
        if self._runs.get(name_of(caller)) != run:
            return False
        del self._runs[name_of(caller)]
        self._write()
        return True

    def _write(self) -> None:
        fresh = self._file.with_suffix(".new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(self._runs, out)
        fresh.replace(self._file)


def name_of(caller: Caller) -> str:
    """Who shares a run: one agent, acting for the same people."""
    behalf = caller.behalf
    return caller.agent if behalf is None else "|".join((caller.agent, behalf.principal, *behalf.actors))


def _read(file: Path) -> dict[str, str]:
    try:
        raw = file.read_bytes()
        doc = json.loads(raw) if len(raw) <= FILE_BYTES_MAX else None
    except (OSError, ValueError):
        return {}
    if type(doc) is not dict:
        return {}
    return {name: run for name, run in doc.items() if type(run) is str and RUN.fullmatch(run) is not None}
