"""V21: pure steps executed again, where the engine that ran them is installed (docs/spec/workflow.md, Running code)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from countermark_verify import canon
from countermark_verify.recompute import ENGINES, Call, NotRecomputed, Outcome, Recomputer
from countermark_verify.report import Ledger

AT_ONCE = 4_000
PROCESSES_MAX = 4
LIMITS = {"ticks": 10_000_000, "memory_mb": 256, "seconds": 5}
BUDGET_TICKS = 10_000_000_000  # of all executions together, unless the auditor grants more
TICKS_A_CALL = 1_000  # what any execution costs
TICKS_A_US = 2  # what a microsecond costs, so that the limits of ticks and of seconds cost the same
_EVERYWHERE = ("ticks", "size")  # limits that are the same on every machine
_HERE = ("memory", "time", "died")  # what became of such a step hung on its machine
_PARSED = "parsed"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A step as it is recorded, and the call that it was. `status` of a limit is its name."""

    seq: int
    name: str
    status: str
    result: str | None
    ticks: int
    call: Call

    @property
    def cost(self) -> int:
        return max(TICKS_A_CALL, min(self.ticks, LIMITS["ticks"]))


@dataclass
class Recomputed:
    """Collects pure steps and executes them again, many at once, as long as the budget lasts."""

    ledger: Ledger
    budget: int = BUDGET_TICKS
    required: bool = False  # whether a step that was not executed again leaves the pack incomplete
    total: int = 0
    executed: int = 0
    ended: int = 0  # recorded as ended by memory, time or death
    ended_otherwise: int = 0  # of those, they came to an end here
    unparsed: int = 0  # pieces of code that no parser has seen
    missing: str = ""  # why nothing can be executed here
    _left_out: int = 0
    _asked: list[_Asked] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)
    _again: Recomputer | None = None

    def defined(self, seq: int, name: str, code: str) -> None:
        """Code that a definition has, and that its tokens allow."""
        if (digest := canon.digest("code", code.encode())) not in self._known:
            self._known.add(digest)
            self._ask(_Asked(seq, name, _PARSED, None, 0, Call(code, "")))

    def add(self, seq: int, name: str, code: str, inputs: str, body: dict[str, Any]) -> None:
        """`body` is a `compute.executed`; `inputs` are those that the definition and earlier records give, as JSON."""
        self.total += 1
        refute = self.ledger.refute
        if body["engine"] not in ENGINES:
            refute("V21.input", f"another engine than {name} runs on", seq, list(ENGINES), body["engine"])
        if body["limits"] != LIMITS:
            refute("V21.input", f"other limits than {name} has", seq, LIMITS, body["limits"])
        status, ticks = body["status"], body["ticks"]
        if status == "limit":
            status = body["message"].partition(":")[0]
            if status not in _EVERYWHERE and status not in _HERE:
                refute("V21.result", f"no limit that {name} may have met", seq, None, body["message"])
                return
        elif status == "ok" and body["message"]:
            refute("V21.result", f"{name} has a message though it is ok", seq, "", body["message"])
        self.ended += status in _HERE
        # What takes more than it says need not be executed to its end.
        most = min(ticks, LIMITS["ticks"]) if status in ("ok", "error", "size") else LIMITS["ticks"]
        call = Call(code, inputs, most, LIMITS["memory_mb"], LIMITS["seconds"])
        self._ask(_Asked(seq, name, status, body["result"], ticks, call))

    def finish(self) -> None:
        self.flush()
        if self._again is not None:
            self._again.__exit__(None, None, None)
            self._again = None
        if self._left_out:
            message = f"{self._left_out} pure steps were not executed again: they take more ticks than are granted"
            self.ledger.lack("V21.budget", message)
        if self.required and self.executed < self.total:
            why = f" ({self.missing})" if self.missing else ""
            message = f"{self.total - self.executed} pure steps were not executed again, as is required{why}"
            self.ledger.lack("V21.unexecuted", message)

    @property
    def unexecuted(self) -> int:
        """Steps that came to an end where they ran, and were not executed again here."""
        return self.total - self.executed - self.ended

    def flush(self) -> None:
        """Execute what was collected."""
        asked, self._asked = self._asked, []
        done = 0
        try:
            if asked and not self.missing and self._again is None:
                self._again = Recomputer(next(iter(ENGINES)), min(PROCESSES_MAX, os.cpu_count() or 1))
            if self._again is not None:
                for outcome in self._again.run(self._granted(asked)):
                    self._compare(asked[done], outcome)
                    done += 1
        except NotRecomputed as error:
            self.missing = str(error)
        for one in asked[done:]:
            self.unparsed += one.status == _PARSED
            self._left_out += one.status != _PARSED and not self.missing

    def _ask(self, one: _Asked) -> None:
        self._asked.append(one)
        if len(self._asked) >= AT_ONCE:
            self.flush()

    def _granted(self, asked: list[_Asked]) -> Iterator[Call]:
        """Calls as long as something is left: each costs what it says that it took, and later what it took more."""
        for one in asked:
            if self.budget <= 0:
                return
            self.budget -= one.cost
            yield one.call

    def _compare(self, one: _Asked, outcome: Outcome) -> None:
        self.budget -= max(outcome.ticks - one.cost, TICKS_A_US * outcome.spent_us - one.cost, 0)
        status = outcome.which or outcome.status
        if one.status == _PARSED:
            self.unparsed += status in _HERE
            if status == "syntax":
                message = f"the code of {one.name} is not Starlark: {outcome.message}"
                self.ledger.refute("V21.definition", message, one.seq)
            return
        if one.status in _HERE:
            self.ended_otherwise += status not in _HERE
            return
        if status in _HERE:
            return  # it says something about this machine
        self.executed += 1
        result = None if outcome.output is None else canon.digest("value", outcome.output)
        if (status, result) != (one.status, one.result):
            message = f"the output of {one.name} is not what its code computes"
            self.ledger.refute("V21.compute", message, one.seq, result or status, one.result or one.status)
        elif outcome.ticks != one.ticks:
            message = f"{one.name} took another number of ticks"
            self.ledger.refute("V21.compute", message, one.seq, outcome.ticks, one.ticks)
