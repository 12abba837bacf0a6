"""A gate that knows runs of definitions only: each needs some drives, may wait, and is started once for each event."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from countermark.model.errors import CountermarkError, GateHaltedError


class FakeGate:
    """``plan``: what each drive of a run answers, in order; the last one for ever."""

    def __init__(self, *plan: tuple[str, int | None]) -> None:
        self.plan = plan or (("success", None),)
        self.lock = threading.Lock()
        self.runs: dict[str, dict[str, Any]] = {}  # by event
        self.drives: dict[str, int] = {}
        self.asked: list[str] = []
        self.away = 0  # so many answers are lost
        self.driving = self.most = 0
        self.held: threading.Event | None = None

    def call(self, op: str, body: Mapping[str, Any], agent: str | None = None) -> Any:
        with self.lock:
            self.asked.append(op)
            if self.away:
                self.away -= 1
                raise GateHaltedError("the gate keeps going away")
            if op == "workflow.start":
                return self._start(body)
            self.driving += 1
            self.most = max(self.most, self.driving)
        try:
            if self.held is not None:
                self.held.wait(10)
            with self.lock:
                return self._drive(body["run"])
        finally:
            with self.lock:
                self.driving -= 1

    def _start(self, body: Mapping[str, Any]) -> Any:
        if body["definition"] == "bad":
            raise CountermarkError("no such definition", code="unknown_definition")
        event, fresh = body["trigger"]["event"], body["trigger"]["event"] not in self.runs
        run = self.runs.setdefault(event, {"run": f"run_{len(self.runs):032x}", **body})["run"]
        return {"run": run, "fresh": fresh}

    def _drive(self, run: str) -> Any:
        count = self.drives[run] = self.drives.get(run, 0) + 1
        status, until = self.plan[min(count, len(self.plan)) - 1]
        return {"run": run, "status": status, "until": until}
