"""Rule 8: after a run that did not succeed, what can be undone is undone, the newest first, one after the other."""

from __future__ import annotations

from countermark.workflow.asking import evaluate_step
from countermark.workflow.errors import ExpressionError
from countermark.workflow.jobs import EXPRESSION_FAILED, Jobs, again, retry_due
from countermark.workflow.plan import UNDO
from countermark.workflow.state import DONE, Step


class Undoing:
    """The undoing of one run. ``undone`` and ``left`` are the places of the steps, in the order of their undoing."""

    __slots__ = ("_jobs", "_rest", "left", "over", "steps", "undone")

    def __init__(self, jobs: Jobs, at: int) -> None:
        self._jobs = jobs
        self._rest = list(jobs.undoable)
        self.steps: list[tuple[Step, Step]] = []  # each undo with the step that it undoes
        self.undone: list[str] = []
        self.left: list[str] = []
        self.over = False
        self._next(at)

    def _next(self, at: int) -> None:
        while self._rest:
            of = self._rest.pop()
            if of.plan.undo is None:
                continue
            step = Step(of.place + UNDO, of.plan.undo, of.instance, at)
            self.steps.append((step, of))
            try:
                evaluate_step(step, self._jobs.jobs)
            except ExpressionError:
                step.began = at
                self._conclude(step, "failure", EXPRESSION_FAILED, at)
                continue
            self._jobs.active[step.place] = step
            return
        self.over = True

    def succeed(self, step: Step, code: str, at: int) -> None:
        """The effect is undone."""
        self._conclude(step, "success", code, at)
        self._next(at)

    def fail(self, step: Step, code: str, at: int) -> None:
        """An attempt failed: another one later, or the effect is left."""
        due = retry_due(step, code, at)
        if due is not None:
            again(step, code, due)
            return
        self._conclude(step, "failure", code, at)
        self._next(at)

    def _conclude(self, step: Step, outcome: str, code: str, at: int) -> None:
        self._jobs.active.pop(step.place, None)
        step.phase = DONE
        step.ended = at
        step.outcome = step.conclusion = outcome
        step.code = code
        of = self.steps[-1][1]
        (self.undone if outcome == "success" else self.left).append(of.place)
