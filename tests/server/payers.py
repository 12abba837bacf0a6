"""Callers of a served gate that never give up: what the storm and the kill switch are tried under."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bypass"))

from siege import ACME, TOOL, args_for

import countermark
from countermark.model.errors import CountermarkError
from countermark.model.values import Result

CALLERS = 8
WAIT_S = 60
NOT_NOW = ("gate_halted", "gate_busy")
FINAL = ("confirmed", "failed", "denied")


class Payers:
    """Callers that pay invoice after invoice, each until its answer is final, under one run and one call_id."""

    def __init__(self, url: str, token: str, run: str, tag: str = "S", payees: Sequence[str] = (ACME,)) -> None:
        self._client = countermark.Client(url, token, timeout_ms=WAIT_S * 1000, tries=2)
        self._run, self._tag, self._payees = run, tag, payees
        self._numbers = count()
        self.heard = threading.Condition()
        self._over = threading.Event()
        self.acknowledged: dict[int, Result] = {}
        self.started: set[int] = set()
        self.changed: list[tuple[Result, Result]] = []
        self._threads = [threading.Thread(target=self._pay) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _pay(self) -> None:
        while not self._over.is_set():
            with self.heard:
                number = next(self._numbers)
                self.started.add(number)
            while not self._over.is_set() and self.ask(number).status not in FINAL:
                self._over.wait(0.01)

    def ask(self, number: int) -> Result:
        """One try. What was final once must be the same ever after."""
        try:
            found = self._client.act(TOOL, self._args(number), run=self._run, call_id=f"{self._tag}{number}")
        except CountermarkError as error:
            if error.code not in NOT_NOW:
                raise
            return Result("", self._run, "deny", "error", error.code, True, "")
        with self.heard:
            before = self.acknowledged.get(number)
            if before is not None and before[:-2] != found[:-2]:
                self.changed.append((before, found))
            if found.status in FINAL:
                self.acknowledged[number] = found
                self.heard.notify_all()
        return found

    def _args(self, number: int) -> dict[str, Any]:
        return args_for(f"{self._tag}-{number}", 100, self._payees[number % len(self._payees)])

    def hear(self, more: int, timeout_s: float) -> None:
        """Wait until so many more were answered finally, or for so long."""
        with self.heard:
            wanted = len(self.acknowledged) + more
            self.heard.wait_for(lambda: len(self.acknowledged) >= wanted, timeout_s)

    def stop(self) -> None:
        """Begin nothing more; afterwards only ``ask`` asks."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Stop, and end the connections."""
        self.stop()
        self._client.close()
