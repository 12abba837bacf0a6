"""The interpreter: what a run may do next is a pure function of its definition and of the records in its stream.

The rules are those of ``docs/spec/workflow.md``, *The interpreter*: 1, 2, 6, 7 and 9 in ``jobs.py``, 8 in ``undo.py``,
what records mean to a step (3, 4, 5) here. There is no clock: time is the ``at`` of records and what ``time`` is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from countermark.workflow.asking import command_of
from countermark.workflow.commands import CANCELLED, UNFIT, Cancel, Command, End, Resume, Sleep, Withdraw, may_be_unfit
from countermark.workflow.errors import ExpressionError
from countermark.workflow.jobs import Jobs
from countermark.workflow.plan import UNDO, DefinitionLike, plan_of, same, typed
from countermark.workflow.progress import PENDING, SKIPPED, JobRow, Row, job_rows, rows
from countermark.workflow.state import ASK, INTENT, PEOPLE, WAITING, Step
from countermark.workflow.undo import Undoing

RUNNING = "running"
TIMEOUT = "timeout"


class Machine:
    """One run of a definition.

    Args:
        definition: the one that the run goes by now: after a ``run.migrated``, the new one, for all its records.
        run, agent: as in ``run.started``.
        started: the body of ``run.started``, with its member ``workflow``.
        at: that record's time, microseconds since 1970.
        event: the payload of the event that started the run (``trigger.record``), or None.

    Attributes:
        status: ``running``, or how the run ends: ``success``, ``failure``, ``cancelled``.
        ended: whether ``run.ended`` was applied.
        not_given: names of the run's inputs that are null.
        strays: ``(seq, kind)`` of records that answer nothing that was asked for; they change nothing.
    """

    __slots__ = (
        "_actions", "_deadline", "_end", "_jobs", "_now", "_plan", "_undoing", "agent", "ended", "not_given", "run",
        "status", "strays",
    )  # fmt: skip

    def __init__(
        self, definition: DefinitionLike, run: str, agent: str, started: Mapping[str, Any], at: int, *,
        event: Any = None,
    ) -> None:  # fmt: skip
        self._plan = plan_of(definition)
        self.run = run
        self.agent = agent
        self.status = RUNNING
        self.ended = False
        self.strays: list[tuple[int | None, str]] = []
        self._now = at
        self._deadline = None if self._plan.timeout_us is None else at + self._plan.timeout_us
        self._actions: dict[str, Step] = {}  # by the action's ID, of what is in flight
        self._end: End | None = None
        self._undoing: Undoing | None = None
        base = {
            "inputs": started["workflow"]["inputs"], "run": {"id": run, "name": self._plan.name}, "event": event
        }  # fmt: skip
        self.not_given = tuple(sorted(name for name, value in base["inputs"].items() if value is None))
        self._jobs = Jobs(self._plan, base, at)
        self._conclude(at)

    def forget(self) -> None:
        """The run is over and nobody looks at it again: spare the collector of garbage the search for its parts."""
        self._jobs.forget()
        self._actions.clear()

    # --- what happened

    def apply(self, kind: str, body: Mapping[str, Any], at: int, seq: int | None) -> None:
        """A record of the run after ``run.started``: one that is committed, or that is about to be (``seq`` None).

        A kind that says nothing about the run's steps is passed over.
        """
        if at > self._now:
            self._now = at
        handler = _HANDLERS.get(kind)
        if handler is None:
            return
        if handler(self, body, at, seq):
            self._jobs.settle(at)
            self._conclude(at)
        else:
            self.strays.append((seq, kind))

    def time(self, now_us: int) -> None:
        """It is ``now_us`` at least. Nothing happens by itself: ``commands`` then has what is due by now."""
        if now_us > self._now:
            self._now = now_us

    @property
    def edge(self) -> int | None:
        """What was applied since ``plan_anew`` leads to the same only before this time; None: it does at any time."""
        return self._jobs.edge

    def only_before(self, end: int) -> None:
        """What is planned now may be recorded before this time."""
        self._jobs.edge = end if self._jobs.edge is None else min(self._jobs.edge, end)

    def plan_anew(self) -> None:
        """What was applied so far stands in the records."""
        self._jobs.edge = None

    def _conclude(self, at: int) -> None:
        """Rule 8: every job is over."""
        if self._jobs.open or self._end is not None:
            return
        if self._undoing is None:
            outputs = self._verdict()
            if self.status == "success":
                self._end = End(self.status, outputs, (), ())
                return
            self._undoing = Undoing(self._jobs, at)
        if self._undoing.over:
            self._end = End(self.status, {}, tuple(self._undoing.undone), tuple(self._undoing.left))

    def _verdict(self) -> dict[str, Any]:
        jobs = self._jobs.jobs
        if self._jobs.cancelled:
            self.status = "cancelled"
        elif any(job.result == "failure" for job in jobs):
            self.status = "failure"
        else:
            try:
                outputs = self._plan.outputs.values(self._jobs.scope())
            except ExpressionError:
                self.status = "failure"
            else:
                self.status = "success"
                return outputs
        return {}

    # --- what may come next

    def commands(self) -> list[Command]:
        """What the outside has to do now. Nothing that is in flight is asked for again."""
        if self.ended:
            return []
        found: list[Command] = []
        now, nearest = self._now, None
        deadline = self._deadline if self._jobs.open and not self._jobs.cancelled else None
        late = deadline is not None and deadline <= now
        for step in self._jobs.active.values():
            if step.phase == ASK:
                due = step.due
                if late:  # nothing begins any more: that it is cancelled is said first
                    continue
                if due <= now:
                    found.append(command_of(step, self.run))
                    continue
            elif step.phase == WAITING:
                due_at, resume = _resume(step)
                if resume is None or due_at is None:
                    continue
                due = due_at
                if due <= now:
                    found.append(resume)
                    continue
            else:
                if step.phase == PEOPLE and step.cancel:
                    found.append(Withdraw(step.place, step.ids[-1]))
                continue
            if nearest is None or due < nearest:
                nearest = due
        if self._end is not None:
            found.append(self._end)
        elif late:
            found.append(Cancel(TIMEOUT))
        elif deadline is not None and (nearest is None or deadline < nearest):
            nearest = deadline
        if nearest is not None:
            found.append(Sleep(nearest))
        return found

    def declared(self, call_id: str, tool: str, args: Mapping[str, Any] | None = None) -> str | None:
        """Why this action is not one that the run may ask for now, or None: it is.

        Args:
            args: as the definition names them; None when only the path is asked about. An argument that is sealed in
                a record, ``{"$sd": DIGEST}``, may be any value, but must be there.
        """
        place, _, number = call_id.rpartition(":")
        step = self._jobs.active.get(place)
        if step is None or step.plan.kind != "effect":
            return self._undeclared(place)
        if step.phase != ASK:
            return f"{call_id} is already in flight" if number == str(step.attempt) else f"{place} is in flight"
        if number != str(step.attempt):
            return f"the next attempt of {place} is {step.attempt}"
        if step.due > self._now:
            return f"{place} is not to be tried again before {step.due}"
        if tool != step.plan.spec["tool"]:
            return f"{place} is a call of {step.plan.spec['tool']}"
        if args is not None and (wrong := _differing(step.asked, args)) is not None:
            return f"the definition gives {place} another {wrong}"
        return None

    def _undeclared(self, place: str) -> str:
        known = place.removesuffix(UNDO) if place not in self._plan.where else place
        if known not in self._plan.where:
            return "the definition has no such step"
        return f"it is not the turn of {place}"

    # --- for readers

    @property
    def over(self) -> bool:
        """Whether every job is over: what may come now is the undoing and the end."""
        return not self._jobs.open

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled before every job was over."""
        return self._jobs.cancelled

    def progress(self) -> tuple[Row, ...]:
        """A row for each step of the definition, in its order, then those of the undos."""
        return tuple(rows(self._plan, self._jobs.jobs, self._undoing))

    def jobs(self) -> tuple[JobRow, ...]:
        """A row for each job, or each combination of it, in the definition's order."""
        return tuple(job_rows(self._jobs.jobs))

    def not_run(self) -> tuple[str, ...]:
        """The places of the steps that were not run, or not yet."""
        steps = rows(self._plan, self._jobs.jobs, None)
        return tuple(row.place for row in steps if row.conclusion in (PENDING, SKIPPED))

    def step_at(self, place: str) -> Step | None:
        """The step that is asked for, in flight or waits at a place."""
        return self._jobs.active.get(place)

    def until(self, place: str) -> int | None:
        """When what waits at a place has waited too long, by its own timeout or its job's."""
        step = self.step_at(place)
        return None if step is None else _until(step)

    def active(self) -> tuple[Step, ...]:
        """The steps that are asked for, in flight or wait."""
        return tuple(self._jobs.active.values())

    def in_flight(self, action: str) -> bool:
        """Whether the action with this ID is decided, and neither refused, expired, denied nor settled."""
        return action in self._actions

    # --- what records mean; each says whether it answered something

    def _note(self, step: Step, at: int, seq: int | None) -> None:
        if step.began is None:
            step.began = at
        if seq is not None:
            step.seqs.append(seq)

    def _succeed(self, step: Step, outputs: dict[str, Any], code: str, at: int) -> None:
        if self._undoing is not None:
            self._undoing.succeed(step, code, at)
        else:
            self._jobs.succeed(step, outputs, code, at)

    def _fail(self, step: Step, code: str, at: int) -> None:
        if self._undoing is not None:
            self._undoing.fail(step, code, at)
        else:
            self._jobs.fail(step, code, at)

    def _computed(self, body: Mapping[str, Any], at: int, seq: int | None) -> bool:
        step = self._jobs.active.get(body["place"])
        if step is None or step.plan.kind != "pure" or body["attempt"] != step.attempt:
            return False
        self._note(step, at, seq)
        if body["status"] == "ok" and typed(body["output"], step.plan.outputs):
            self._succeed(step, body["output"], "", at)
        else:
            self._fail(step, "compute_limit" if body["status"] == "limit" else "compute_error", at)
        return True

    def _called(self, call_id: str) -> Step | None:
        place, _, number = call_id.rpartition(":")
        step = self._jobs.active.get(place)
        if step is None or step.plan.kind != "effect" or number != str(step.attempt):
            return None
        return step

    def _refused(self, body: Mapping[str, Any], at: int, seq: int | None) -> bool:
        step = self._called(body["call_id"])
        if step is None or step.phase != ASK:
            return False
        self._note(step, at, seq)
        self._fail(step, body["code"], at)
        return True

    def _decided(self, body: Mapping[str, Any], at: int, seq: int | None) -> bool:
        step, action = self._called(body["call_id"]), body["id"]
        if step is None or step.phase not in (ASK, PEOPLE):
            return False
        self._note(step, at, seq)
        if step.phase == ASK:
            step.ids.append(action)
            self._actions[action] = step
        disposition = body["disposition"]
        if disposition == "deny":
            del self._actions[action]
            self._fail(step, body["code"], at)
        else:
            step.phase = PEOPLE if disposition == "escalate" else INTENT
        return True

    def _settled(self, body: Mapping[str, Any], at: int, seq: int | None) -> bool:
        step = self._actions.get(body["id"])
        if step is None or step.phase != INTENT:
            return False
        self._note(step, at, seq)
        if body["outcome"] == "unknown":
            return True
        del self._actions[body["id"]]
        if body["outcome"] == "confirmed":
            self._succeed(step, {"ref": body["ref"], **body["output"], "id": body["id"]}, "", at)
        else:
            self._fail(step, body["code"], at)
        return True

    def _asked(self, body: Mapping[str, Any], at: int, seq: int | None) -> bool:
        step = self._actions.get(body["id"])
        if step is None or step.phase != PEOPLE:
            return False
        self._note(step, at, seq)
        return True

    def _answered(self, body: Mapping[str, Any], at: int, seq: int | None) -> bool:
        if body["state"] == "refused":
            return self._unanswered(body, at, seq, "refused_by_person")
        return self._asked(body, at, seq)

    def _expired(self, body: Mapping[str, Any], at: int, seq: int | None) -> bool:
        return self._unanswered(body, at, seq, CANCELLED if body.get("because") == CANCELLED else "expired")

    def _unanswered(self, body: Mapping[str, Any], at: int, seq: int | None, code: str) -> bool:
        if not self._asked(body, at, seq):
            return False
        self._fail(self._actions.pop(body["id"]), code, at)
        return True

    def _waiting(self, body: Mapping[str, Any], at: int, seq: int | None) -> bool:
        step = self._jobs.active.get(body["place"])
        if step is None or step.plan.kind in ("effect", "pure") or step.phase != ASK:
            return False
        self._note(step, at, seq)
        step.phase = WAITING
        step.for_ = body["for"]
        step.until = body["until"]
        return True

    def _resumed(self, body: Mapping[str, Any], at: int, seq: int | None) -> bool:
        step = self._jobs.active.get(body["place"])
        if step is None or step.phase != (ASK if body["code"] == UNFIT else WAITING):
            return False
        if body["code"] == UNFIT and not may_be_unfit(step.plan.spec):
            return False
        self._note(step, at, seq)
        if body["status"] == "success":
            self._succeed(step, body["outputs"], body["code"], at)
        else:
            self._fail(step, body["code"], at)
        return True

    def _cancelled(self, body: Mapping[str, Any], at: int, seq: int | None) -> bool:
        if self._jobs.cancelled or not self._jobs.open:
            return False
        self._jobs.cancel(at)
        return True

    def _run_ended(self, body: Mapping[str, Any], at: int, seq: int | None) -> bool:
        if self._end is None or self.ended:
            return False
        self.ended = True
        return True


def _until(step: Step) -> int | None:
    return min((at for at in (step.until, step.instance.due) if at is not None), default=None)


def _resume(step: Step) -> tuple[int | None, Resume | None]:
    """When a wait is over as far as the records say, and how: cancelled, its time came, or it took too long."""
    if step.cancel:
        return step.turn, Resume(step.place, "failure", CANCELLED, None, {})
    for_, late = step.for_ or {}, _until(step)
    if for_["kind"] == "time" and (late is None or for_["at"] <= late):
        return for_["at"], Resume(step.place, "success", "time", None, {})
    return late, Resume(step.place, "failure", TIMEOUT, None, {})


def _differing(expected: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """The first argument that is not as it was evaluated, or None."""
    for name in sorted(expected.keys() | given.keys()):
        if name not in expected or name not in given:
            return name
        value = given[name]
        if not (type(value) is dict and value.keys() == {"$sd"}) and not same(expected[name], value):
            return name
    return None


_Handler = Callable[[Machine, Mapping[str, Any], int, int | None], bool]
_HANDLERS: Mapping[str, _Handler] = {
    "compute.executed": Machine._computed,
    "action.refused": Machine._refused,
    "action.decided": Machine._decided,
    "action.settled": Machine._settled,
    "escalation.raised": Machine._asked,
    "escalation.climbed": Machine._asked,
    "escalation.answered": Machine._answered,
    "escalation.expired": Machine._expired,
    "step.waiting": Machine._waiting,
    "step.resumed": Machine._resumed,
    "run.cancelled": Machine._cancelled,
    "run.ended": Machine._run_ended,
}
