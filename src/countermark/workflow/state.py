"""What is remembered of one run: its jobs' combinations and the steps whose turn has come."""

from __future__ import annotations

from typing import Any

from countermark.workflow.commands import Command
from countermark.workflow.plan import JobPlan, StepPlan

# Where a step is. ASK: the next attempt is to be asked for (from ``due`` on). INTENT: the gate let the effect through.
# PEOPLE: the gate asks people. WAITING: ``step.waiting`` is recorded. DONE: it has a conclusion.
ASK, INTENT, PEOPLE, WAITING, DONE = range(5)
# Where a combination of a job is. READY: it waits for one of the job's places. LIVE: its steps take their turns.
READY, LIVE, OVER = range(3)


class Step:
    """One step whose turn has come, or an undo. Times are microseconds; ``turn`` is when its turn came."""

    __slots__ = (
        "asked", "attempt", "because", "began", "cancel", "code", "command", "conclusion", "due", "ended", "for_",
        "ids", "instance", "outcome", "outputs", "phase", "place", "plan", "seqs", "turn", "until",
    )  # fmt: skip

    def __init__(self, place: str, plan: StepPlan, instance: Instance, turn: int) -> None:
        self.place = place
        self.plan = plan
        self.instance = instance
        self.turn = turn
        self.phase = ASK
        self.attempt = 1  # the one that is asked for or in flight; when it is over, the last one made
        self.due = turn
        self.asked: Any = None  # the evaluated arguments, inputs or what is waited for: evaluated once
        self.because: tuple[str, ...] = ()
        self.command: Command | None = None
        self.ids: list[str] = []
        self.seqs: list[int] = []
        self.began: int | None = None
        self.ended: int | None = None
        self.outcome = self.conclusion = self.code = ""
        self.outputs: dict[str, Any] = {}
        self.for_: dict[str, Any] | None = None
        self.until: int | None = None
        self.cancel = False

    @property
    def flying(self) -> bool:
        """Whether the present attempt is out: the next record is about it."""
        return self.phase in (INTENT, PEOPLE, WAITING)


class Instance:
    """One combination of a job. ``due`` is when its time is over, or None."""

    __slots__ = (
        "began", "current", "cut", "done", "due", "ended", "failed", "job", "late", "next", "number", "outputs",
        "result", "scope", "state",
    )  # fmt: skip

    def __init__(self, job: Job, number: int, scope: dict[str, Any]) -> None:
        self.job = job
        self.number = number
        self.scope = scope
        self.state = READY
        self.next = 0
        self.current: Step | None = None
        self.done: dict[str, Step] = {}  # by the step's id; of those that were skipped there is nothing
        self.failed = self.late = False
        self.cut = False  # the run was cancelled before the last step began
        self.began: int | None = None
        self.ended: int | None = None
        self.due: int | None = None
        self.result = ""
        self.outputs: dict[str, Any] = {}


class Job:
    """One job. ``unmet`` is how many of its needs are not over; ``live`` how many combinations run."""

    __slots__ = ("begun", "instances", "live", "open", "outputs", "plan", "result", "unmet")

    def __init__(self, plan: JobPlan) -> None:
        self.plan = plan
        self.unmet = len(plan.needs)
        self.instances: list[Instance] = []
        self.begun = 0  # combinations before this one have begun, or never will
        self.live = 0
        self.open = 0
        self.result = ""
        self.outputs: dict[str, Any] = {}

    @property
    def seen(self) -> dict[str, Any]:
        """What those who need it read, once it is over."""
        each = [
            {"matrix": combo, "outputs": one.outputs, "result": one.result}
            for combo, one in zip(self.plan.combos, self.instances, strict=True)
        ]
        return {"outputs": self.outputs, "result": self.result, "each": each}
