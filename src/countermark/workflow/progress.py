"""How far a run is, for readers: a row for each step and each job of the definition, in its order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from countermark.workflow.jobs import EXPRESSION_FAILED
from countermark.workflow.plan import UNDO, JobPlan, Plan, StepPlan
from countermark.workflow.state import ASK, DONE, INTENT, LIVE, OVER, PEOPLE, WAITING, Instance, Job, Step
from countermark.workflow.undo import Undoing

_WAITS = {ASK: "retry", INTENT: "provider", PEOPLE: "people"}
PENDING, RUNNING, SKIPPED = "pending", "running", "skipped"


@dataclass(frozen=True, slots=True)
class Row:
    """One step, or one undo. Times are microseconds, None when there is none yet.

    Attributes:
        conclusion: ``pending``, ``running``, ``success``, ``failure`` or ``skipped``; ``outcome`` is what it was
            before ``continue_on_error``.
        code: why the last attempt failed, or how a wait ended; ``""`` when there is nothing to say.
        attempts: how many were begun.
        actions: the IDs of its actions, one for each attempt that the gate decided.
        other: the run that a call or an agent step waits for, or ``""``.
        seqs: of its committed records.
        waits: what one that has begun waits for: ``people``, ``provider``, ``retry``, ``time``, ``event``, ``call``,
            ``agent``, else ``""``; ``due`` is when a retry or a time comes.
    """

    place: str
    job: str
    kind: str
    name: str
    conclusion: str
    outcome: str
    code: str
    attempts: int
    actions: tuple[str, ...]
    other: str
    seqs: tuple[int, ...]
    began: int | None
    ended: int | None
    waits: str = ""
    due: int | None = None


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job, or one combination of its matrix (``number``, else None); ``result`` as a row's conclusion."""

    job: str
    number: int | None
    result: str
    began: int | None
    ended: int | None


def rows(plan: Plan, jobs: list[Job], undoing: Undoing | None) -> Iterator[Row]:
    """Every step of the definition, then the undos in the order in which they are made."""
    for job in jobs:
        for number in range(len(job.plan.combos)):
            instance = job.instances[number] if job.instances else None
            for step in job.plan.steps:
                yield _row(job.plan, number, step, instance)
    for undo, of in undoing.steps if undoing is not None else ():
        yield _taken(undo, of.instance.job.plan, of.place + UNDO)


def _row(job: JobPlan, number: int, plan: StepPlan, instance: Instance | None) -> Row:
    place = job.places[number][plan.index]
    if instance is not None:
        taken = instance.done.get(plan.id)
        if taken is None and instance.current is not None and instance.current.plan is plan:
            taken = instance.current
        if taken is not None:
            return _taken(taken, job, place)
    passed = instance is not None and (instance.state == OVER or plan.index < instance.next)
    state = SKIPPED if passed else PENDING
    return Row(place, job.id, plan.kind, plan.name, state, state, "", 0, (), "", (), None, None)


def _taken(step: Step, job: JobPlan, place: str) -> Row:
    done, other = step.phase == DONE, (step.for_ or {}).get("run", "")
    now = PENDING if step.began is None else RUNNING
    attempts = step.attempt if done or step.flying else step.attempt - 1
    if step.code == EXPRESSION_FAILED:
        attempts = 0  # there was nothing to ask for
    return Row(
        place, job.id, step.plan.kind, step.plan.name, step.conclusion if done else now, step.outcome if done else now,
        step.code, attempts, tuple(step.ids), other, tuple(step.seqs), step.began, step.ended, *_waits(step),
    )  # fmt: skip


def _waits(step: Step) -> tuple[str, int | None]:
    if step.phase == DONE or step.began is None:
        return "", None
    if step.phase == WAITING:
        for_ = step.for_ or {}
        return str(for_.get("kind", "")), for_.get("at")
    return (_WAITS[step.phase], step.due if step.phase == ASK else None)


def job_rows(jobs: list[Job]) -> Iterator[JobRow]:
    """Every job, or every combination of one with a matrix."""
    for job in jobs:
        for number in range(len(job.plan.combos)):
            shown = number if job.plan.is_matrix else None
            if not job.instances:
                yield JobRow(job.plan.id, shown, PENDING, None, None)
                continue
            instance = job.instances[number]
            state = instance.result or (RUNNING if instance.state == LIVE else PENDING)
            yield JobRow(job.plan.id, shown, state, instance.began, instance.ended)
