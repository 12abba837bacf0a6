"""The Python front end: a workflow is built step by step and compiles to the same document as its YAML twin.

flow = Workflow("pay-invoice")
invoice = flow.input("invoice", dict, required=True)
job = flow.job("pay")
match = job.pure("match", CODE, with_={"invoice": invoice}, outputs={"ok": bool, "amount": int})
job.effect("send", "stripe.transfers.create", with_={"amount": match.outputs["amount"]}, if_=match.outputs["ok"])
definition = flow.define()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from countermark.workflow import definition_build as build
from countermark.workflow.definition import APPROVE, Definition, read_definition
from countermark.workflow.definition_check import ANYTHING, Known
from countermark.workflow.errors import DefinitionError
from countermark.workflow.flow_expressions import Expr, Template, context, template_of

T = TypeVar("T")
Missed = Literal["skip", "latest", "all"]
Condition = Expr[Any] | bool | None
Values = Mapping[str, Template]
Types = Mapping[str, type]

TYPES: Final[Mapping[type, str]] = {
    str: "string", int: "int", bool: "bool", list: "list", dict: "object", object: "object",
}  # fmt: skip
MINUTE_S = 60
event: Final[Expr[Any]] = context("event")
matrix: Final[Expr[Any]] = context("matrix")
run_id: Final[Expr[str]] = context("run", "id")
run_name: Final[Expr[str]] = context("run", "name")


@dataclass(frozen=True, slots=True)
class Retry:
    """Tried again after ``delay_s``, then ``factor`` times as long, until there were ``attempts``."""

    attempts: int
    delay_s: int = build.RETRY_DELAY_S
    factor: int = build.RETRY_FACTOR


@dataclass(frozen=True, slots=True)
class Step:
    """A step that was added to a job. ``outputs[NAME]`` is what it will have given."""

    id: str
    _document: dict[str, Any]

    @property
    def outputs(self) -> Expr[Any]:
        """All outputs; name one: ``step.outputs["ref"]``."""
        return context("steps", self.id, "outputs")

    @property
    def outcome(self) -> Expr[str]:
        """What became of it, before ``continue_on_error``."""
        return context("steps", self.id, "outcome")

    @property
    def conclusion(self) -> Expr[str]:
        """What became of it."""
        return context("steps", self.id, "conclusion")


@dataclass(frozen=True, slots=True)
class Effect(Step):
    """An effect; ``undo`` says what makes up for it."""

    def undo(self, tool: str, with_: Values | None = None) -> Effect:
        """Add the effect that undoes this one when the run does not succeed; its values may be this step's outputs."""
        self._document["undo"] = {"tool": tool, "with": _pairs(with_)}
        return self


def _pairs(values: Values | None) -> list[list[Any]]:
    return build.pairs({name: template_of(value) for name, value in (values or {}).items()})


def _type(type_: type) -> str:
    if type_ not in TYPES:
        known = ", ".join(sorted({one.__name__ for one in TYPES}))
        raise DefinitionError(f"{type_!r} is no type of a value", hint=f"These are: {known}.")
    return TYPES[type_]


def _types(types: Types | None) -> dict[str, str]:
    if not isinstance(types, Mapping | None):
        raise DefinitionError(f"{types!r} are no outputs", hint='Give each a type: outputs={"paid": bool}.')
    return {name: _type(type_) for name, type_ in (types or {}).items()}


def _condition(value: Condition) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.spelling


def _seconds(minutes: int | None) -> int | None:
    if not isinstance(minutes, int | None):
        raise DefinitionError(f"{minutes!r} minutes: a whole number was expected")
    return None if minutes is None else minutes * MINUTE_S


@dataclass(slots=True)
class Job:
    """Steps one after the other; made by ``Workflow.job``. A step without a name of its own has the name ``""``."""

    id: str
    _options: dict[str, Any]
    _steps: list[dict[str, Any]] = field(default_factory=list)
    _outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> Expr[str]:
        """What became of it, for jobs that need it."""
        return context("needs", self.id, "result")

    def output(self, name: str, value: Template) -> Expr[Any]:
        """Give a value to other jobs and to the workflow; the answer is what they read."""
        self._outputs[name] = template_of(value)
        return context("needs", self.id, "outputs", name)

    def _add(
        self, id_: str, kind: str, members: dict[str, Any], name: str, if_: Condition, *,
        continue_on_error: bool = False, timeout_minutes: int | None = None, retry: Retry | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        again = None if retry is None else build.retry(retry.attempts, retry.delay_s, retry.factor)
        document = build.step(
            id_, kind, members, name=name, if_=_condition(if_), continue_on_error=continue_on_error,
            timeout_s=_seconds(timeout_minutes), retry=again,
        )  # fmt: skip
        self._steps.append(document)
        return document

    def effect(
        self, id_: str, tool: str, *, with_: Values | None = None, name: str = "", if_: Condition = None,
        retry: Retry | None = None, continue_on_error: bool = False,
    ) -> Effect:  # fmt: skip
        """An action of a governed tool."""
        members = {"tool": tool, "with": _pairs(with_), "undo": None}
        return Effect(
            id_, self._add(id_, "effect", members, name, if_, continue_on_error=continue_on_error, retry=retry)
        )

    def approve(
        self, id_: str, question: Template, *, with_: Values | None = None, name: str = "", if_: Condition = None,
        continue_on_error: bool = False,
    ) -> Effect:  # fmt: skip
        """Ask people; the run goes on when they say yes."""
        values = {"question": question, **(with_ or {})}
        return self.effect(id_, APPROVE, with_=values, name=name, if_=if_, continue_on_error=continue_on_error)

    def pure(
        self, id_: str, code: str, *, with_: Values | None = None, outputs: Types | None = None, name: str = "",
        if_: Condition = None, retry: Retry | None = None, continue_on_error: bool = False,
    ) -> Step:  # fmt: skip
        """Starlark code: ``def main(...)`` takes what ``with_`` names and returns what ``outputs`` names."""
        members = {"code": code, "with": _pairs(with_), "outputs": _types(outputs)}
        return Step(id_, self._add(id_, "pure", members, name, if_, continue_on_error=continue_on_error, retry=retry))

    def wait(
        self, id_: str, *, seconds: Template = None, until: Template = None, event: str = "", key: Template = None,
        name: str = "", if_: Condition = None, timeout_minutes: int | None = None, continue_on_error: bool = False,
    ) -> Step:  # fmt: skip
        """Wait some seconds, until a time, or for the event of a source with a key: one of the three."""
        said = [seconds is not None, until is not None, event != "" or key is not None]
        if sum(said) != 1:
            raise DefinitionError("a wait has one of `seconds`, `until`, or `event` and `key`", path=("steps", id_))
        for_: dict[str, Any] = {"kind": "event", "source": event, "key": template_of(key)}
        if seconds is not None:
            for_ = {"kind": "time", "seconds": template_of(seconds)}
        elif until is not None:
            for_ = {"kind": "until", "at": template_of(until)}
        document = self._add(
            id_, "wait", {"for": for_}, name, if_, continue_on_error=continue_on_error, timeout_minutes=timeout_minutes
        )
        return Step(id_, document)

    def call(
        self, id_: str, workflow: Definition | str, *, with_: Values | None = None, name: str = "",
        if_: Condition = None, timeout_minutes: int | None = None, continue_on_error: bool = False,
    ) -> Step:  # fmt: skip
        """A run of another definition, or of the one with this digest."""
        digest = workflow.digest if isinstance(workflow, Definition) else workflow
        members = {"workflow": digest, "with": _pairs(with_)}
        document = self._add(
            id_, "call", members, name, if_, continue_on_error=continue_on_error, timeout_minutes=timeout_minutes
        )
        return Step(id_, document)

    def agent(
        self, id_: str, agent: str, goal: Template, *, tools: Iterable[str], calls: int, minutes: int,
        budget: Mapping[str, int] | None = None, sees: Values | None = None,
        where: Mapping[str, Mapping[str, Sequence[Template]]] | None = None, outputs: Types | None = None,
        name: str = "", if_: Condition = None, continue_on_error: bool = False,
    ) -> Step:  # fmt: skip
        """A run of an agent that can do nothing but what stands here. ``where``: tool, argument's alias, its values."""
        rows = [
            [tool, alias, [template_of(value) for value in values]]
            for tool, aliases in (where or {}).items()
            for alias, values in aliases.items()
        ]
        members = {
            "agent": agent, "goal": template_of(goal), "tools": sorted(tools), "calls": calls,
            "budget": build.pairs(budget or {}), "sees": _pairs(sees), "where": sorted(rows, key=lambda row: row[:2]),
            "outputs": _types(outputs),
        }  # fmt: skip
        document = self._add(
            id_, "agent", members, name, if_, continue_on_error=continue_on_error, timeout_minutes=minutes
        )
        return Step(id_, document)

    def document(self) -> dict[str, Any]:
        """Its part of the canonical document."""
        return build.job(self.id, self._steps, outputs=self._outputs, **self._options)


class Workflow:
    """A definition in the making. Without a trigger it is started by hand."""

    def __init__(self, name: str, *, timeout_minutes: int | None = None) -> None:
        self.name = name
        self._timeout_s = _seconds(timeout_minutes)
        self._concurrency: dict[str, Any] | None = None
        self._sensitive: Any = None
        self._triggers: list[dict[str, Any]] = []
        self._called_only = False
        self._inputs: dict[str, dict[str, Any]] = {}
        self._outputs: dict[str, Any] = {}
        self._jobs: list[Job] = []

    def input(
        self, name: str, type_: type[T], *, required: bool = False, default: T | None = None, choices: Sequence[T] = ()
    ) -> Expr[T]:
        """Declare an input; without a default and not required it may be null."""
        self._inputs[name] = {
            "type": _type(type_), "required": required, "default": default, "choices": list(choices),
        }  # fmt: skip
        return Expr(context("inputs", name).node)

    def concurrency(self, group: Template, *, cancel_in_progress: bool = False) -> None:
        """Of the runs with the same group one goes on at a time; or the newest ends the one before it."""
        self._concurrency = {"group": template_of(group), "cancel": cancel_in_progress}

    def sensitive(self, subject: Template) -> None:
        """Seal the values of its runs under the key of this subject, which stands in clear; it may read inputs."""
        self._sensitive = template_of(subject)

    def output(self, name: str, value: Template) -> None:
        """What a successful run ends with."""
        self._outputs[name] = template_of(value)

    def on_manual(self) -> None:
        """People may start it."""
        self._triggers.append(dict(build.MANUAL))

    def on_schedule(
        self, cron: str, *, zone: str = build.ZONE_DEFAULT, missed: Missed = "skip", with_: Values | None = None
    ) -> None:
        """Time starts it: five fields of cron in a zone."""
        fields = " ".join(cron.upper().split())
        trigger = {"kind": "schedule", "cron": fields, "zone": zone, "missed": missed, "with": _pairs(with_)}
        self._triggers.append(trigger)

    def on_webhook(self, source: str, *, if_: Condition = None, with_: Values | None = None) -> None:
        """A delivery of a source starts it."""
        self._on("webhook", source, if_, with_)

    def on_chain(self, source: str, *, if_: Condition = None, with_: Values | None = None) -> None:
        """An event on a chain starts it."""
        self._on("chain", source, if_, with_)

    def _on(self, kind: str, source: str, if_: Condition, with_: Values | None) -> None:
        self._triggers.append({"kind": kind, "source": source, "if": _condition(if_), "with": _pairs(with_)})

    def on_call(self) -> None:
        """Nothing but a step of another workflow starts it."""
        self._called_only = True

    def job(
        self, id_: str, *, needs: Iterable[Job] = (), if_: Condition = None,
        matrix: Mapping[str, Sequence[Any]] | None = None, fail_fast: bool = True, max_parallel: int | None = None,
        continue_on_error: bool = False, timeout_minutes: int | None = None,
    ) -> Job:  # fmt: skip
        """Add a job; it runs after those it needs."""
        before = list(needs)
        if wrong := [one for one in before if not isinstance(one, Job)]:
            raise DefinitionError(f"{wrong[0]!r} is no job", hint="Give what `job` answered: needs=[first].")
        options = {
            "needs": [job.id for job in before], "if_": _condition(if_), "fail_fast": fail_fast,
            "matrix": None if matrix is None else {axis: list(values) for axis, values in matrix.items()},
            "parallel": max_parallel, "continue_on_error": continue_on_error, "timeout_s": _seconds(timeout_minutes),
        }  # fmt: skip
        job = Job(id_, options)
        self._jobs.append(job)
        return job

    def document(self) -> dict[str, Any]:
        """The canonical document, not checked."""
        triggers = self._triggers if self._triggers or self._called_only else [dict(build.MANUAL)]
        return build.definition(
            self.name, [job.document() for job in self._jobs], triggers=triggers, inputs=self._inputs,
            outputs=self._outputs, concurrency=self._concurrency, timeout_s=self._timeout_s,
            sensitive=self._sensitive,
        )  # fmt: skip

    def define(self, *, known: Known = ANYTHING) -> Definition:
        """The checked definition; ``known`` as for ``read_definition``. Raises ``DefinitionError``."""
        return read_definition(self.document(), known=known)
