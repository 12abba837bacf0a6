"""The interpreter of workflows: what follows from the records of a run, and what may come next.

Rules have the numbers of docs/spec/workflow.md, The interpreter. Nothing here judges a record: `workflows` does, and
then says what happened.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from countermark_verify.definition import AGENT, EFFECT, WAIT, Definition, typed
from countermark_verify.evaluate import Failed, fill, short, truth, value_of
from countermark_verify.expression import has_status
from countermark_verify.flow import (
    CANCELLED,
    FAILURE,
    FLIGHT,
    OVER,
    PENDING,
    RANKING,
    READY,
    RUNNING,
    SECOND,
    SKIPPED,
    SUCCESS,
    WAITING,
    Combo,
    Stage,
    Step,
    retried,
    stages_of,
)
from countermark_verify.reading import effects_read
from countermark_verify.waits import target_of


@dataclass(frozen=True, slots=True)
class End:
    """What the run ends with: the member `workflow` of its `run.ended`, but the name."""

    status: str
    outputs: dict[str, Any]
    undone: list[str]
    left: list[str]


class Machine:
    """One run. `at` is always the time of the record that is folded, `seq` its place."""

    def __init__(self, definition: Definition, run: str, inputs: Mapping[str, Any], event: Any, at: int) -> None:
        self.definition = definition
        self.run = run
        self.started = at
        self.stages = stages_of(definition.jobs)
        self.cancelled: int | None = None  # seq of run.cancelled
        self.end: End | None = None
        self._status = ""
        self._outputs: dict[str, Any] = {}
        self._undos: list[Step] = []
        self._common = {"inputs": inputs, "event": event, "run": {"id": run, "name": definition.name}}
        self._advance(at)

    # What may come next.

    def running(self) -> Iterator[Step]:
        """The steps that wait for a record: several of several combinations, or one undo."""
        for stage in self.stages.values():
            for combo in stage.combos:
                if combo.present is not None:
                    yield combo.present
        if self._status and (undo := self._undoing()) is not None:
            yield undo

    def at_place(self, place: str) -> Step | None:
        """The running step of this place."""
        return next((step for step in self.running() if step.place == place), None)

    @property
    def due(self) -> int | None:
        """When the whole run is to be cancelled."""
        seconds = self.definition.document["timeout_s"]
        return None if seconds is None else self.started + seconds * SECOND

    @property
    def settled(self) -> bool:
        """Whether every job is over: a cancellation changes nothing any more."""
        return bool(self._status)

    # What happened.

    def begun(self, step: Step, seq: int) -> None:
        """The step's first record, or that of another attempt."""
        step.began = True
        step.phase = FLIGHT
        combo = step.combo
        if step.undo_of is None and step is combo.steps[-1] and combo.began_last < 0:
            combo.began_last = seq

    def waiting(self, step: Step, seq: int, body: Mapping[str, Any]) -> None:
        self.begun(step, seq)
        step.phase, step.waits = WAITING, body

    def succeeded(self, step: Step, seq: int, at: int, outputs: dict[str, Any]) -> None:
        step.outputs, step.done = outputs, seq
        step.status = step.outcome = SUCCESS
        self._advance(at)

    def failed(self, step: Step, at: int, code: str, *, again: bool = True) -> None:
        """An attempt failed (6); `again`: another may follow."""
        retry, number = step.retry, step.attempt
        if again and number < retry["attempts"] and retried(code):
            due = at + retry["delay_s"] * retry["factor"] ** (number - 1) * SECOND
            ends = step.combo.ends if step.undo_of is None else None
            if (ends is None or due < ends) and not (self.cancelled is not None and not self._still(step)):
                step.attempt, step.phase, step.due = number + 1, READY, due
                return
        self._fail(step)
        self._advance(at)

    def cancel(self, seq: int, at: int) -> None:
        """From here on (9)."""
        if self._status:
            return
        self.cancelled = seq
        for stage in self.stages.values():
            for combo in stage.combos:
                if (step := combo.present) is not None:
                    self._cut(step)
                elif stage.ready and combo.state == PENDING and not self._admitted(combo, stage):
                    self._skip(combo, CANCELLED)
        self._advance(at)

    def _cut(self, step: Step) -> None:
        if self._still(step):
            return
        if step.phase in (WAITING, FLIGHT):  # in flight at the gate: only a question to people can be withdrawn
            step.cut = True
        elif step.began:
            self._fail(step)
        else:
            step.status = step.outcome = SKIPPED

    def _still(self, step: Step) -> bool:
        """Whether a step's condition still holds; one that fails does not."""
        if step.undo_of is not None:
            return True
        try:
            return self._condition(step.spec["if"], self._scope(step), self._of_step(step))
        except Failed:
            return False

    def _fail(self, step: Step) -> None:
        step.outcome = FAILURE
        step.status = SUCCESS if step.undo_of is None and step.spec["continue_on_error"] else FAILURE

    # What follows from it.

    def _advance(self, at: int) -> None:
        """Every step as far as it can, then the jobs, until nothing follows."""
        while not self._status:
            for stage in self.stages.values():
                for combo in stage.combos:
                    self._walk(combo, at)
            if not self._jobs(at):
                break
        if self._status:
            self._undo(at)

    def _walk(self, combo: Combo, at: int) -> None:
        while (step := combo.present) is not None:
            if step.status == PENDING:
                self._turn(step, at)
            if not step.over:
                return
            combo.cursor += 1

    def _turn(self, step: Step, at: int) -> None:
        """A step's turn comes (2): it is skipped, it fails, or it waits for its first record."""
        step.turn = at
        combo = step.combo
        combo.timed_out = combo.timed_out or (combo.ends is not None and at >= combo.ends)
        try:
            if step.undo_of is None and not self._condition(step.spec["if"], self._scope(step), self._of_step(step)):
                step.status = step.outcome = SKIPPED
                return
            self._prepare(step)
        except Failed:
            self._fail(step)
            return
        step.status, step.phase = RUNNING, READY

    def _prepare(self, step: Step) -> None:
        """What a step is given (3 to 5): evaluated once."""
        scope, spec = self._scope(step), step.spec
        if step.undo_of is not None:
            spec = step.undo_of.spec["undo"]
        if spec.get("kind", EFFECT) == WAIT:
            step.given = target_of(spec["for"], scope, step.turn)
            return
        if spec.get("kind") == AGENT:
            step.given = {
                "goal": fill(spec["goal"], scope),
                "sees": {name: fill(template, scope) for name, template in spec["sees"]},
                "where": [[tool, alias, fill(values, scope)] for tool, alias, values in spec["where"]],
            }
            if type(step.given["goal"]) is not str or len(step.given["goal"]) > 4_000:
                raise Failed("is no goal")
        else:
            step.given = {name: fill(template, scope) for name, template in spec["with"]}
        if not short(step.given):
            raise Failed("is too long")
        if spec.get("kind", EFFECT) == EFFECT:
            step.given = {name: value for name, value in step.given.items() if value is not None}
            step.because = effects_read(self.stages, step, [template for _, template in spec["with"]])

    def _scope(self, step: Step) -> dict[str, Any]:
        scope = self._scope_of(step.combo, step.combo.job.document["needs"])
        until = step if step.undo_of is None else step.undo_of
        shown = {}
        for one in step.combo.steps:
            if one is until and step.undo_of is None:
                break
            shown[one.spec["id"]] = one.shown()
            if one is until:
                break
        return scope | {"steps": shown}

    def _scope_of(self, combo: Combo, needs: list[str]) -> dict[str, Any]:
        return self._common | {"matrix": combo.matrix, "needs": self._needs(needs)}

    def _needs(self, names: list[str]) -> dict[str, Any]:
        return {name: self.stages[name].seen() for name in names}

    def _condition(self, text: str | None, scope: Mapping[str, Any], status: Mapping[str, bool]) -> bool:
        if text is None:
            return status["success"]
        if not has_status(text) and not status["success"]:
            return False
        return truth(value_of(text, {**scope, "$status": status}))

    def _standing(self, success: bool, failure: bool) -> dict[str, bool]:
        """The functions of conditions; a cancelled run neither succeeds nor fails."""
        live = self.cancelled is None
        return {"success": live and success, "failure": live and failure, "cancelled": not live}

    def _of_step(self, step: Step) -> dict[str, bool]:
        combo = step.combo
        failed = any(one.status == FAILURE for one in combo.steps[: combo.steps.index(step)])
        return self._standing(not failed and not combo.timed_out, failed or combo.timed_out)

    # Jobs (1, 7).

    def _jobs(self, at: int) -> bool:
        """Jobs in their order end, skip combinations and begin others; whether anything did."""
        moved = False
        for stage in self.stages.values():
            if stage.over:
                continue
            if not stage.ready and all(self.stages[name].over for name in stage.job.document["needs"]):
                stage.ready = moved = True
                for combo in stage.combos:
                    self._admit(combo, stage)
            for combo in stage.combos:
                if combo.state == RUNNING and combo.cursor == len(combo.steps):
                    self._finish(combo)
                    moved = True
            moved = (stage.ready and self._begin(stage, at)) or moved
            if stage.ready and all(combo.state == OVER for combo in stage.combos):
                results = {combo.result for combo in stage.combos}
                stage.result = next(result for result in RANKING if result in results)
                stage.outputs = stage.combos[-1].outputs
                moved = True
        if all(stage.over for stage in self.stages.values()):
            self._conclude(at)
            return False
        return moved

    def _admit(self, combo: Combo, stage: Stage) -> None:
        try:
            combo.admitted = self._condition_of(combo, stage)
        except Failed:
            self._skip(combo, SUCCESS if stage.job.document["continue_on_error"] else FAILURE)
            return
        if not combo.admitted:
            self._skip(combo, SKIPPED)

    def _admitted(self, combo: Combo, stage: Stage) -> bool:
        try:
            return self._condition_of(combo, stage)
        except Failed:
            return False

    def _condition_of(self, combo: Combo, stage: Stage) -> bool:
        needs = stage.job.document["needs"]
        results = [self.stages[name].result for name in needs]
        status = self._standing(all(result == SUCCESS for result in results), FAILURE in results)
        return self._condition(stage.job.document["if"], self._scope_of(combo, needs), status)

    def _skip(self, combo: Combo, result: str) -> None:
        combo.state, combo.result = OVER, result
        for step in combo.steps:
            step.status = step.outcome = SKIPPED

    def _begin(self, stage: Stage, at: int) -> bool:
        job, moved = stage.job.document, False
        failed = any(combo.state == OVER and combo.result == FAILURE for combo in stage.combos)
        for combo in stage.combos:
            if combo.state != PENDING:
                continue
            if failed and job["fail_fast"]:
                self._skip(combo, SKIPPED)
                moved = True
            elif sum(one.state == RUNNING for one in stage.combos) < job["parallel"]:
                combo.state, moved = RUNNING, True
                combo.ends = None if job["timeout_s"] is None else at + job["timeout_s"] * SECOND
        return moved

    def _finish(self, combo: Combo) -> None:
        """A combination is over (7)."""
        job = combo.job.document
        late = self.cancelled is not None and (combo.began_last < 0 or combo.began_last > self.cancelled)
        failed = combo.timed_out or any(step.status == FAILURE for step in combo.steps)
        result = FAILURE if failed else CANCELLED if late else SUCCESS
        scope = self._scope_of(combo, job["needs"])
        scope["steps"] = {step.spec["id"]: step.shown() for step in combo.steps}
        outputs, whole = _outputs(job["outputs"], scope)
        if result == SUCCESS and not whole:
            result = FAILURE
        if result == FAILURE and job["continue_on_error"]:
            result = SUCCESS
        combo.state, combo.result, combo.outputs = OVER, result, outputs

    # The end (8).

    def _conclude(self, at: int) -> None:
        scope = self._common | {"needs": self._needs(list(self.stages))}
        outputs, whole = _outputs(self.definition.document["outputs"], scope)
        if self.cancelled is not None:
            self._status = CANCELLED
        elif not whole or any(stage.result == FAILURE for stage in self.stages.values()):
            self._status = FAILURE
        else:
            self._status = SUCCESS
            self._outputs = outputs
        if self._status != SUCCESS:
            effects = [
                step
                for stage in self.stages.values()
                for combo in stage.combos
                for step in combo.steps
                if step.spec["kind"] == EFFECT and step.outcome == SUCCESS and step.spec["undo"] is not None
            ]
            for step in sorted(effects, key=lambda one: -one.done):
                self._undos.append(Step(step.spec, f"{step.place}.undo", step.combo, undo_of=step))

    def _undoing(self) -> Step | None:
        return next((undo for undo in self._undos if not undo.over), None)

    def _undo(self, at: int) -> None:
        while (undo := self._undoing()) is not None:
            if undo.status == PENDING:
                self._turn(undo, at)
            if not undo.over:
                return
        if self.end is None:
            undone, left = (
                [undo.undo_of.place for undo in self._undos if undo.status == status and undo.undo_of is not None]
                for status in (SUCCESS, FAILURE)
            )
            self.end = End(self._status, self._outputs, undone, left)


def _outputs(pairs: list[Any], scope: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Those that can be evaluated, each while all of them together fit; and whether that is every one."""
    found: dict[str, Any] = {}
    for name, template in pairs:
        try:
            value = fill(template, scope)
        except Failed:
            continue
        if short({**found, name: value}):
            found[name] = value
    return found, len(found) == len(pairs)


def computed(step: Step, body: Mapping[str, Any]) -> str:
    """The code by which a pure step's attempt failed, or "" (4)."""
    if body["status"] == "limit":
        return "compute_limit"
    ok = body["status"] == "ok" and typed(step.spec["outputs"], body["output"])
    return "" if ok else "compute_error"
