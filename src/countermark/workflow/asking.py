"""What a step asks for when its turn has come: evaluated once, then the same at every attempt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from countermark.model.clock import US
from countermark.workflow.commands import Act, Call, Command, Compute, Delegate, Wait
from countermark.workflow.errors import ExpressionError
from countermark.workflow.plan import StepPlan, measured
from countermark.workflow.state import Job, Step

WAIT_S_MAX = 366 * 86_400
EVENT_KEY_CHARS_MAX = 500
GOAL_CHARS_MAX = 4_000
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def evaluate_step(step: Step, jobs: Iterable[Job]) -> None:
    """Fill in what the step asks for. Raises ``ExpressionError``."""
    plan = step.plan
    if plan.kind == "agent":
        step.asked = measured(_delegated(plan.spec, plan.filling.unmeasured(step.instance.scope)))
        return
    values = plan.filling.values(step.instance.scope)
    if plan.kind == "effect":
        step.asked = {name: value for name, value in values.items() if value is not None}
        step.because = because(step, jobs) if plan.reads else ()
    elif plan.kind == "wait":
        step.asked = _waited(plan.spec["for"], values, step.turn)
    else:
        step.asked = values


def because(step: Step, jobs: Iterable[Job]) -> tuple[str, ...]:
    """The IDs of the confirmed effects whose outputs the arguments read, directly or through jobs' outputs."""
    own, known = step.instance, list(jobs)
    found: set[str] = set()
    for number, name in step.plan.reads:
        instances = known[number].instances
        instance = own if number == own.job.plan.index else instances[-1] if instances else None
        done = None if instance is None else instance.done.get(name)
        if done is not None and done.outcome == "success":
            found.add(done.ids[-1])
    return tuple(sorted(found))


def _delegated(spec: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What of a boundary is evaluated."""
    if type(values["goal"]) is not str or len(values["goal"]) > GOAL_CHARS_MAX:
        raise ExpressionError(f"an agent's goal is a string of at most {GOAL_CHARS_MAX:,} characters")
    where = [
        [tool, alias, [values[f"where.{row}.{number}"] for number in range(len(allowed))]]
        for row, (tool, alias, allowed) in enumerate(spec["where"])
    ]
    return {"goal": values["goal"], "sees": {name: values[f"sees.{name}"] for name, _ in spec["sees"]}, "where": where}


def _waited(for_: Mapping[str, Any], values: Mapping[str, Any], turn: int) -> dict[str, Any]:
    """``for`` of ``step.waiting``."""
    if for_["kind"] == "event":
        key = values["key"]
        if type(key) is not str or not 1 <= len(key) <= EVENT_KEY_CHARS_MAX:
            raise ExpressionError(f"an event's key is a string of 1 to {EVENT_KEY_CHARS_MAX} characters")
        return {"kind": "event", "source": for_["source"], "key": key}
    if for_["kind"] == "until":
        return {"kind": "time", "at": moment(values["at"])}
    seconds = values["seconds"]
    if type(seconds) is not int or not 0 <= seconds <= WAIT_S_MAX:
        raise ExpressionError(f"a wait takes 0 to {WAIT_S_MAX:,} whole seconds")
    return {"kind": "time", "at": turn + seconds * US}


def moment(value: Any) -> int:
    """A time in microseconds, from one or from ``YYYY-MM-DDTHH:MM:SSZ``. Raises ``ExpressionError``."""
    if type(value) is int and value >= 0:
        return value
    if type(value) is str and _MOMENT.fullmatch(value):
        try:
            return (datetime.fromisoformat(value) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        except ValueError:
            pass
    raise ExpressionError("a time is an integer of microseconds since 1970, or YYYY-MM-DDTHH:MM:SSZ")


def command_of(step: Step, run: str) -> Command:
    """The command that asks for the step's present attempt; made once for each."""
    if step.command is None:
        step.command = _command(step, step.plan, run)
    return step.command


def _command(step: Step, plan: StepPlan, run: str) -> Command:
    if plan.kind == "effect":
        return Act(step.place, step.attempt, plan.spec["tool"], step.asked, step.because)
    if plan.kind == "pure":
        return Compute(step.place, step.attempt, plan.spec["code"], step.asked, plan.outputs)
    if plan.kind == "wait":
        return Wait(step.place, step.asked, plan.timeout_s)
    if plan.kind == "call":
        return Call(step.place, plan.spec["workflow"], step.asked, plan.timeout_s)
    spec = plan.spec
    boundary = {
        "parent": run, "place": step.place, "tools": list(spec["tools"]), "calls": spec["calls"],
        "budget": [list(row) for row in spec["budget"]], "outputs": dict(spec["outputs"]), **step.asked,
    }  # fmt: skip
    return Delegate(step.place, spec["agent"], boundary, spec["timeout_s"])
