"""Which jobs and steps take their turn, and what becomes of them: rules 1, 2, 6 and 7 of ``docs/spec/workflow.md``.

Nothing here knows what a step does outside. A step begins, is concluded, and whatever follows from that alone follows
at once, until every job waits for something outside or is over.
"""

from __future__ import annotations

from typing import Any

from countermark.workflow.asking import evaluate_step
from countermark.workflow.errors import ExpressionError
from countermark.workflow.expressions import Status
from countermark.workflow.plan import NOT_RETRIED, NOT_RETRIED_BEGIN, Condition, Plan
from countermark.workflow.state import ASK, DONE, LIVE, OVER, PEOPLE, READY, WAITING, Instance, Job, Step

EXPRESSION_FAILED = "expression_failed"
_SKIPPED: dict[str, Any] = {"outputs": {}, "outcome": "skipped", "conclusion": "skipped"}


class Jobs:
    """The jobs of one run.

    Attributes:
        active: place -> the step that is asked for, in flight or waits there.
        undoable: effect steps with an undo that succeeded, the oldest first.
        open: how many jobs are not over.
        edge: from this time on something that was decided since this was None would be decided otherwise.
    """

    __slots__ = ("_base", "_touched", "_turns", "active", "cancelled", "edge", "jobs", "open", "plan", "undoable")

    def __init__(self, plan: Plan, base: dict[str, Any], at: int) -> None:
        self.plan = plan
        self.jobs = [Job(job) for job in plan.jobs]
        self.active: dict[str, Step] = {}
        self.undoable: list[Step] = []
        self.open = len(self.jobs)
        self.cancelled = False
        self.edge: int | None = None
        self._base = base
        self._turns: list[Instance] = []  # whose present step was concluded, or that began
        self._touched: set[int] = set()  # jobs of which a combination begins or ended
        for job in self.jobs:
            if not job.unmet:
                self._ready(job, at)
        self.settle(at)

    def settle(self, at: int) -> None:
        """Whatever follows without the outside: steps as far as they go, then jobs in their order, again and again."""
        while True:
            for instance in self._turns:
                self._advance(instance, at)
            self._turns.clear()
            if not self._touched:
                return
            number = min(self._touched)
            self._touched.discard(number)
            self._fill(self.jobs[number], at)

    def scope(self) -> dict[str, Any]:
        """What the run's outputs may read: every job is one of their needs."""
        needs = {job.plan.id: job.seen for job in self.jobs}
        return {**self._base, "steps": {}, "needs": needs, "matrix": {}}

    def forget(self) -> None:
        """Part what refers to each other, so that it is gone as soon as nobody holds it."""
        for job in self.jobs:
            for instance in job.instances:
                instance.done, instance.current = {}, None
            job.instances = []
        self.active.clear()
        self.undoable.clear()

    # --- jobs

    def _ready(self, job: Job, at: int) -> None:
        """Rule 1: the needs of a job are over, so each of its combinations begins, waits for a place or is skipped."""
        plan = job.plan
        needed = [self.jobs[number] for number in plan.needs]
        needs = {other.plan.id: other.seen for other in needed}
        status = self._job_status(job)
        for number, combo in enumerate(plan.combos):
            instance = Instance(job, number, {**self._base, "steps": {}, "needs": needs, "matrix": combo})
            instance.cut = self.cancelled
            job.instances.append(instance)
            job.open += 1
            try:
                if not plan.condition.holds(instance.scope, status):
                    self._drop(instance, "skipped", at)
            except ExpressionError:
                self._drop(instance, "success" if plan.continues else "failure", at)
        self._touched.add(plan.index)

    def _job_status(self, job: Job) -> Status:
        results = [self.jobs[number].result for number in job.plan.needs]
        alive = not self.cancelled
        return Status(
            alive and all(result == "success" for result in results), alive and "failure" in results, self.cancelled
        )

    def _drop(self, instance: Instance, result: str, at: int) -> None:
        """A combination that never begins: all its steps are skipped."""
        instance.state = OVER
        instance.result = result
        instance.ended = at
        instance.job.open -= 1

    def _fill(self, job: Job, at: int) -> None:
        """Combinations begin in their order, as many at once as there may be; then the job may be over."""
        if (
            job.plan.fail_fast
            and job.plan.is_matrix
            and any(instance.result == "failure" for instance in job.instances)
        ):
            for instance in job.instances[job.begun :]:
                if instance.state == READY:
                    self._drop(instance, "skipped", at)
        while job.begun < len(job.instances) and job.live < job.plan.parallel:
            instance = job.instances[job.begun]
            job.begun += 1
            if instance.state == READY:
                job.live += 1
                instance.state = LIVE
                instance.began = at
                instance.due = None if job.plan.timeout_us is None else at + job.plan.timeout_us
                self._turns.append(instance)
        if not job.open and not job.result:
            self._job_over(job, at)

    def _job_over(self, job: Job, at: int) -> None:
        results = {instance.result for instance in job.instances}
        job.result = next((result for result in ("failure", "cancelled", "success") if result in results), "skipped")
        job.outputs = job.instances[-1].outputs if job.instances else {}
        self.open -= 1
        for number in job.plan.dependents:
            other = self.jobs[number]
            other.unmet -= 1
            if not other.unmet:
                self._ready(other, at)

    # --- the steps of a combination

    def _advance(self, instance: Instance, at: int) -> None:
        """Rule 2: the next step whose condition holds takes its turn; after the last one the combination is over."""
        job = instance.job.plan
        steps = instance.scope["steps"]
        while instance.next < len(job.steps):
            plan = job.steps[instance.next]
            place = job.places[instance.number][instance.next]
            instance.next += 1
            instance.late = instance.late or not self._before(at, instance.due)
            step = Step(place, plan, instance, at)
            try:
                if not self._holds(plan.condition, instance):
                    steps[plan.id] = _SKIPPED
                    continue
                evaluate_step(step, self.jobs)
            except ExpressionError:
                step.began = at
                self._over(step, "failure", EXPRESSION_FAILED, at)
                continue
            instance.current = self.active[place] = step
            return
        self._instance_over(instance, at)

    def _holds(self, condition: Condition, instance: Instance) -> bool:
        failed, cancelled = instance.failed or instance.late, self.cancelled
        if condition.is_default:
            return not failed and not cancelled
        status = Status(not failed and not cancelled, failed and not cancelled, cancelled)
        return condition.holds(instance.scope, status)

    def _over(self, step: Step, outcome: str, code: str, at: int) -> None:
        """A step has its conclusion; what comes later in the job may read it."""
        instance, plan = step.instance, step.plan
        step.phase = DONE
        step.ended = at
        step.outcome = outcome
        step.conclusion = "success" if plan.continues else outcome
        step.code = code
        instance.done[plan.id] = step
        instance.scope["steps"][plan.id] = {
            "outputs": step.outputs, "outcome": step.outcome, "conclusion": step.conclusion
        }  # fmt: skip
        if step.conclusion == "failure":
            instance.failed = True
        elif outcome == "success" and plan.undo is not None:
            self.undoable.append(step)

    def _instance_over(self, instance: Instance, at: int) -> None:
        """Rule 7. The outputs of a combination that did not succeed are those that can be evaluated."""
        job, plan = instance.job, instance.job.plan
        result = "failure" if instance.failed or instance.late else "cancelled" if instance.cut else "success"
        if result == "success":
            try:
                instance.outputs = plan.outputs.values(instance.scope)
            except ExpressionError:
                result = "failure"
        if result != "success":
            instance.outputs = plan.outputs.present(instance.scope)
        instance.result = "success" if result == "failure" and plan.continues else result
        instance.state = OVER
        instance.current = None
        instance.ended = at
        job.live -= 1
        job.open -= 1
        self._touched.add(plan.index)

    # --- what happens to a step

    def succeed(self, step: Step, outputs: dict[str, Any], code: str, at: int) -> None:
        """The step's attempt or wait came to a good end."""
        step.outputs = outputs
        self._leave(step, "success", code, at)

    def fail(self, step: Step, code: str, at: int) -> None:
        """Rule 6: an attempt failed; it is made again from ``due`` on, or the step failed."""
        due = retry_due(step, code, at)
        instance = step.instance
        ends = instance.due
        last = None if due is None or ends is None else at + ends - due
        if due is None or not self._before(at, last) or not self._goes_on(step):
            self._leave(step, "failure", code, at)
            return
        again(step, code, due)

    def _before(self, at: int, end: int | None) -> bool:
        """Whether a time is before one that counts, which is remembered as an edge."""
        if end is None:
            return True
        if at < end:
            self.edge = end if self.edge is None else min(self.edge, end)
        return at < end

    def _leave(self, step: Step, outcome: str, code: str, at: int) -> None:
        del self.active[step.place]
        self._over(step, outcome, code, at)
        self._turns.append(step.instance)

    def _goes_on(self, step: Step) -> bool:
        """Whether a cancelled run leaves the step alone: its condition, evaluated again, holds."""
        if not self.cancelled:
            return True
        try:
            return self._holds(step.plan.condition, step.instance)
        except ExpressionError:
            return False

    def cancel(self, at: int) -> None:
        """The run is cancelled: what has not begun, waits, or would be tried again is asked whether it goes on."""
        self.cancelled = True
        for job in self.jobs:
            for instance in job.instances:
                if instance.state == READY:
                    instance.cut = True
                    if not self._begins(job, instance):
                        self._drop(instance, "cancelled", at)
                elif instance.state == LIVE:
                    self._cut(instance, at)
            if job.instances:
                self._touched.add(job.plan.index)
        self.settle(at)

    def _begins(self, job: Job, instance: Instance) -> bool:
        try:
            return job.plan.condition.holds(instance.scope, self._job_status(job))
        except ExpressionError:
            return False

    def _cut(self, instance: Instance, at: int) -> None:
        step = instance.current
        if step is None:
            return
        instance.cut = step.began is None or step.plan.index + 1 < len(instance.job.plan.steps)
        if step.phase not in (ASK, WAITING, PEOPLE) or self._goes_on(step):
            return
        if step.phase in (WAITING, PEOPLE):
            step.cancel = True
        elif step.began is not None:
            self._leave(step, "failure", step.code, at)
        else:
            del self.active[step.place]
            instance.scope["steps"][step.plan.id] = _SKIPPED
            self._turns.append(instance)


def retry_due(step: Step, code: str, at: int) -> int | None:
    """When the next attempt may be made after one that failed at ``at``, or None: there is none."""
    retry = step.plan.retry
    if retry is None or step.attempt >= retry.attempts or code in NOT_RETRIED or code.startswith(NOT_RETRIED_BEGIN):
        return None
    return at + retry.wait_us(step.attempt)


def again(step: Step, code: str, due: int) -> None:
    """The next attempt is to be asked for, from ``due`` on."""
    step.attempt += 1
    step.phase = ASK
    step.due = due
    step.code = code
    step.command = None
