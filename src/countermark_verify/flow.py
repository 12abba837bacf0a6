"""Where a run of a workflow stands: its steps and the combinations of its jobs (docs/spec/workflow.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from countermark_verify.definition import Job

SUCCESS, FAILURE, SKIPPED, CANCELLED = "success", "failure", "skipped", "cancelled"
PENDING, RUNNING, OVER = "pending", "running", "over"
# What a running step is waiting for: its next attempt or its beginning; the gate; the end of a wait.
READY, FLIGHT, WAITING = "ready", "flight", "waiting"
NOT_RETRIED = frozenset(
    (
        "denied_by_policy", "not_permitted", "killed", "refused_by_person", "duplicate_obligation", "expression_failed",
        "unknown_tool", "caller_runs_it", "unknown_argument", "missing_argument", "bad_argument",
    )
)  # fmt: skip
UNDO_RETRY: Mapping[str, int] = {"attempts": 5, "delay_s": 10, "factor": 2}
SECOND = 1_000_000
# A time is reckoned just before the commit that gives its record the `at` from which it counts.
EARLY_US_MAX = 10 * SECOND
# What is planned before the time of a run is over may be recorded some slow pure steps after it.
LATE_US_MAX = 3_600 * SECOND


def retried(code: str) -> bool:
    """Whether an attempt that failed with this code may be made again."""
    return code not in NOT_RETRIED and not code.startswith(("mandate_", "boundary_"))


@dataclass(slots=True, eq=False)
class Step:
    """A step at its place, or the undo of one."""

    spec: Mapping[str, Any]
    place: str
    combo: "Combo"
    status: str = PENDING  # pending, running, success, failure, skipped: the conclusion
    outcome: str = PENDING
    phase: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)
    attempt: int = 1  # the next one, or the one in flight
    due: int = 0  # before this the next attempt is not made
    turn: int = 0
    began: bool = False
    given: Any = None  # what was evaluated at its turn
    because: list[str] = field(default_factory=list)
    action: str = ""  # ID of the confirmed effect
    done: int = -1  # seq of the record by which it succeeded
    waits: Mapping[str, Any] = field(default_factory=dict)  # the body of its step.waiting
    undo_of: "Step | None" = None
    cut: bool = False  # what waits, also for people, is to end, since the run is cancelled

    @property
    def over(self) -> bool:
        return self.status not in (PENDING, RUNNING)

    @property
    def retry(self) -> Mapping[str, int]:
        return UNDO_RETRY if self.undo_of is not None else self.spec["retry"] or {"attempts": 1}

    def shown(self) -> dict[str, Any]:
        """As `steps.ID` of an expression."""
        return {"outputs": self.outputs, "outcome": self.outcome, "conclusion": self.status}


@dataclass(slots=True, eq=False)
class Combo:
    """One combination of a job's matrix."""

    job: Job
    number: int
    matrix: Mapping[str, Any]
    steps: list[Step] = field(default_factory=list)
    state: str = PENDING  # pending, running, over
    admitted: bool = False  # its `if` was true
    result: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)
    cursor: int = 0
    ends: int | None = None  # its timeout
    timed_out: bool = False
    began_last: int = -1  # seq of the first record of its last step

    @property
    def present(self) -> Step | None:
        """The step whose turn it is."""
        return self.steps[self.cursor] if self.state == RUNNING and self.cursor < len(self.steps) else None


@dataclass(slots=True, eq=False)
class Stage:
    """A job with its combinations."""

    job: Job
    combos: list[Combo]
    ready: bool = False
    result: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return bool(self.result)

    def seen(self) -> dict[str, Any]:
        """As `needs.ID` of an expression."""
        each = [{"matrix": one.matrix, "outputs": one.outputs, "result": one.result} for one in self.combos]
        return {"outputs": self.outputs, "result": self.result, "each": each}


def stages_of(jobs: tuple[Job, ...]) -> dict[str, Stage]:
    stages = {}
    for job in jobs:
        combos = [Combo(job, number, matrix) for number, matrix in enumerate(job.combinations)]
        for combo in combos:
            combo.steps = [Step(step, job.place(combo.number, step["id"]), combo) for step in job.document["steps"]]
        stages[job.id] = Stage(job, combos)
    return stages


# Of several combinations the first of these that one has is the job's result.
RANKING = (FAILURE, CANCELLED, SUCCESS, SKIPPED)
