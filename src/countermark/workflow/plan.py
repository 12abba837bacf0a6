"""What is the same for every run of a definition: places, conditions, what each step reads. Made once, then shared.

A plan is read from the canonical document (``docs/spec/workflow.md``), which ``read_definition`` has checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, Protocol

import orjson

from countermark.model.clock import US
from countermark.workflow.errors import ExpressionError
from countermark.workflow.expressions import Status, evaluate, fill, has_status, names_of, truth

EVALUATED_BYTES_MAX = 16_000
PLANS_KEPT_MAX = 512
UNDO = ".undo"
UNDO_ATTEMPTS, UNDO_DELAY_S, UNDO_FACTOR = 5, 10, 2
# Codes after which asking again would only be asked again, or would go around somebody's no; the last five are those
# of what is no action.
NOT_RETRIED = frozenset(
    (
        "denied_by_policy", "not_permitted", "killed", "refused_by_person", "duplicate_obligation", "expression_failed",
        "unknown_tool", "caller_runs_it", "unknown_argument", "missing_argument", "bad_argument",
    )
)  # fmt: skip
NOT_RETRIED_BEGIN = ("mandate_", "boundary_")

_TYPES: Mapping[str, type] = {"string": str, "int": int, "bool": bool, "list": list, "object": dict}
_CONSTANT, _EXPRESSION, _TEMPLATE = 0, 1, 2


class DefinitionLike(Protocol):
    """What the interpreter needs of a ``Definition``: the canonical document, checked, and its digest."""

    @property
    def document(self) -> Mapping[str, Any]: ...

    @property
    def digest(self) -> str: ...


def typed(values: object, types: Mapping[str, str]) -> bool:
    """Whether ``values`` is an object with exactly the declared members, each of its type; JSON knows no true == 1."""
    return (
        type(values) is dict
        and values.keys() == types.keys()
        and all(type(values[name]) is _TYPES[kind] for name, kind in types.items())
    )


def misfit(values: Mapping[str, object], types: Mapping[str, str]) -> str:
    """Why ``values`` are not ``typed``, by the names that are declared: no value, and no name that code chose."""
    missing = [f"`{name}` ({kind}) is missing" for name, kind in sorted(types.items()) if name not in values]
    wrong = [f"`{name}` is no {kind}" for name, kind in sorted(types.items())
             if name in values and not is_of_type(values[name], kind)]  # fmt: skip
    more = len(values.keys() - types.keys())
    return "; ".join(missing + wrong + ([f"{more} more that are not declared"] if more else []))


def is_of_type(value: object, kind: str) -> bool:
    """Whether a JSON value is of a declared type."""
    return type(value) is _TYPES[kind]


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, and of equal types all the way down."""
    if type(one) is not type(other):
        return False
    if type(one) is dict:
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if type(one) is list:
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def measured(value: dict[str, Any]) -> dict[str, Any]:
    """The value, if it is short enough. Raises ``ExpressionError``."""
    try:
        size = len(orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER))
    except TypeError:
        raise ExpressionError("a value cannot be written as JSON") from None
    if size > EVALUATED_BYTES_MAX:
        raise ExpressionError(f"a value is longer than {EVALUATED_BYTES_MAX:,} bytes")
    return value


class Condition:
    """An ``if``. Without a status function it means ``success() && (if)``; none at all means ``success()``."""

    __slots__ = ("_guarded", "_text", "is_default")

    def __init__(self, text: str | None) -> None:
        self._text = text
        self.is_default = text is None  # no more than success()
        self._guarded = text is not None and not has_status(text)

    def holds(self, scope: dict[str, Any], status: Status) -> bool:
        """Evaluate it. Raises ``ExpressionError``."""
        if self._text is None:
            return status.success
        if self._guarded:
            return status.success and truth(evaluate(self._text, scope))
        scope["$status"] = status
        try:
            return truth(evaluate(self._text, scope))
        finally:
            del scope["$status"]


class Filling:
    """A list of pairs of name and template, ready to be evaluated: most templates are a constant or one expression."""

    __slots__ = ("_pairs", "reads")

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        self._pairs: list[tuple[str, int, Any]] = []
        self.reads: dict[str, set[tuple[str, ...]]] = {}
        for name, template in pairs:
            self.reads[name] = names_of([template])
            if type(template) is dict and template.keys() == {"$"}:
                self._pairs.append((name, _EXPRESSION, template["$"]))
            else:
                self._pairs.append((name, _TEMPLATE if _computed(template) else _CONSTANT, template))

    @property
    def names(self) -> set[tuple[str, ...]]:
        """Everything that it reads."""
        return {name for names in self.reads.values() for name in names}

    def values(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """The evaluated object. Raises ``ExpressionError``, also when it is too long."""
        found = self.unmeasured(scope)
        return measured(found) if found else found

    def unmeasured(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """The evaluated object, each member of it not too long. Raises ``ExpressionError``."""
        return {name: _value(how, what, scope) for name, how, what in self._pairs}

    def present(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """What can be evaluated, the rest left out: outputs of a job that did not come to its end."""
        found: dict[str, Any] = {}
        for name, how, what in self._pairs:
            try:
                found[name] = _value(how, what, scope)
                measured(found)
            except ExpressionError:
                found.pop(name, None)
        return found


def _value(how: int, what: Any, scope: Mapping[str, Any]) -> Any:
    return what if how == _CONSTANT else evaluate(what, scope) if how == _EXPRESSION else fill(what, scope)


def _computed(template: Any) -> bool:
    if type(template) is dict:
        return "$" in template or any(_computed(value) for value in template.values())
    return type(template) is list and any(_computed(value) for value in template)


class Retry(NamedTuple):
    """How often at the most, and how long after a failed attempt the next may be made."""

    attempts: int
    delay_us: int
    factor: int

    def wait_us(self, failed: int) -> int:
        """After how many microseconds to try again when ``failed`` attempts were made."""
        return self.delay_us * int(self.factor ** (failed - 1))


class StepPlan:
    """One step, whatever the run. ``reads``: the effects, by job's number and step's id, whose outputs it is given."""

    __slots__ = (
        "condition", "continues", "filling", "id", "index", "kind", "name", "outputs", "reads", "retry", "spec",
        "timeout_s", "undo",
    )  # fmt: skip

    def __init__(self, index: int, spec: Mapping[str, Any]) -> None:
        retry = spec["retry"]
        self.index = index
        self.spec = spec
        self.id: str = spec["id"]
        self.kind: str = spec["kind"]
        self.name: str = spec["name"]
        self.condition = Condition(spec["if"])
        self.continues: bool = spec["continue_on_error"]
        self.timeout_s: int | None = spec["timeout_s"]
        self.retry = None if retry is None else Retry(retry["attempts"], retry["delay_s"] * US, retry["factor"])
        self.filling = Filling(_templates(spec))
        self.outputs: Mapping[str, str] = spec.get("outputs", {})
        self.reads: tuple[tuple[int, str], ...] = ()
        undo = spec.get("undo")
        self.undo: StepPlan | None = None if undo is None else StepPlan(index, {**spec, **undo, **_UNDOING})


_UNDOING = {
    "undo": None, "if": None, "continue_on_error": False, "timeout_s": None,
    "retry": {"attempts": UNDO_ATTEMPTS, "delay_s": UNDO_DELAY_S, "factor": UNDO_FACTOR},
}  # fmt: skip


def _templates(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Everything of a step that is evaluated when its turn comes, by a name of its own."""
    if spec["kind"] == "wait":
        yield from ((name, spec["for"][name]) for name in ("seconds", "at", "key") if name in spec["for"])
    elif spec["kind"] == "agent":
        yield "goal", spec["goal"]
        yield from ((f"sees.{name}", template) for name, template in spec["sees"])
        for row, (_, _, allowed) in enumerate(spec["where"]):
            yield from ((f"where.{row}.{number}", template) for number, template in enumerate(allowed))
    else:
        yield from ((name, template) for name, template in spec["with"])


class JobPlan:
    """One job, whatever the run. ``places`` are those of its steps, by combination."""

    __slots__ = (
        "combos", "condition", "continues", "dependents", "fail_fast", "id", "index", "is_matrix", "needs", "outputs",
        "parallel", "places", "steps", "timeout_us",
    )  # fmt: skip

    def __init__(self, index: int, spec: Mapping[str, Any], numbers: Mapping[str, int]) -> None:
        self.index = index
        self.id: str = spec["id"]
        self.needs = tuple(numbers[name] for name in spec["needs"])
        self.dependents: tuple[int, ...] = ()
        self.condition = Condition(spec["if"])
        self.is_matrix = spec["matrix"] is not None
        self.combos = combinations(spec["matrix"])
        self.fail_fast: bool = spec["fail_fast"]
        self.parallel: int = spec["parallel"]
        self.continues: bool = spec["continue_on_error"]
        self.timeout_us = None if spec["timeout_s"] is None else spec["timeout_s"] * US
        self.outputs = Filling(spec["outputs"])
        self.steps = tuple(StepPlan(number, step) for number, step in enumerate(spec["steps"]))
        self.places = tuple(
            tuple(f"{self.id}.{number}.{step.id}" if self.is_matrix else f"{self.id}.{step.id}" for step in self.steps)
            for number in range(len(self.combos))
        )


def combinations(matrix: Iterable[tuple[str, list[Any]]] | None) -> tuple[dict[str, Any], ...]:
    """A matrix's combinations in order: axes sorted, the last one fastest. Without a matrix there is one, empty."""
    if matrix is None:
        return ({},)
    axes = sorted((name, values) for name, values in matrix)
    return tuple(
        dict(zip((name for name, _ in axes), row, strict=True)) for row in product(*(values for _, values in axes))
    )


class Plan:
    """A definition, prepared."""

    def __init__(self, definition: DefinitionLike) -> None:
        document = definition.document
        numbers = {job["id"]: index for index, job in enumerate(document["jobs"])}
        self.digest = definition.digest
        self.name: str = document["name"]
        self.timeout_us = None if document["timeout_s"] is None else document["timeout_s"] * US
        self.outputs = Filling(document["outputs"])
        self.jobs = tuple(JobPlan(index, job, numbers) for index, job in enumerate(document["jobs"]))
        self.timed = any(job.timeout_us is not None for job in self.jobs)
        for job in self.jobs:
            job.dependents = tuple(other.index for other in self.jobs if job.index in other.needs)
        self._reads = _Reads(self.jobs)
        for job in self.jobs:
            for step in job.steps:
                step.reads = self._reads.of(job, step.filling.names)
                if step.undo is not None:
                    step.undo.reads = self._reads.of(job, step.undo.filling.names)

    @cached_property
    def where(self) -> Mapping[str, tuple[int, int, int]]:
        """Place -> numbers of its job, combination and step."""
        return {
            place: (job.index, number, step)
            for job in self.jobs
            for number, places in enumerate(job.places)
            for step, place in enumerate(places)
        }

    def step(self, place: str) -> StepPlan:
        """The step at a place. Raises ``KeyError``."""
        job, _, step = self.where[place]
        return self.jobs[job].steps[step]


@dataclass(slots=True)
class _Reads:
    """Which effects stand behind what a template names: a step's outputs, or those of a job that came before."""

    jobs: tuple[JobPlan, ...]

    def of(self, job: JobPlan, names: Iterable[tuple[str, ...]]) -> tuple[tuple[int, str], ...]:
        """The effects behind ``names``, sorted. What a whole context is asked for, all of it is read."""
        found: set[tuple[int, str]] = set()
        seen: set[tuple[int, str | None]] = set()
        rest = [(job, name) for name in names]
        while rest:
            at, name = rest.pop()
            if name[0] == "steps" and (len(name) < 3 or name[2] == "outputs"):
                asked = None if len(name) < 2 else name[1]
                found |= {
                    (at.index, step.id) for step in at.steps if step.kind == "effect" and asked in (None, step.id)
                }
            elif name[0] == "needs" and (len(name) < 3 or name[2] == "outputs"):
                for number in at.needs:
                    other = self.jobs[number]
                    output = None if len(name) < 4 else name[3]
                    if (len(name) < 2 or name[1] == other.id) and (number, output) not in seen:
                        seen.add((number, output))
                        rest.extend((other, inner) for inner in _read_by(other, output))
        return tuple(sorted(found))


def _read_by(job: JobPlan, output: str | None) -> Iterator[tuple[str, ...]]:
    for name, names in job.outputs.reads.items():
        if output in (None, name):
            yield from names


_PLANS: dict[str, Plan] = {}


def plan_of(definition: DefinitionLike) -> Plan:
    """The plan of a definition, made once for each digest."""
    found = _PLANS.get(definition.digest)
    if found is None:
        if len(_PLANS) >= PLANS_KEPT_MAX:
            _PLANS.clear()
        found = _PLANS[definition.digest] = Plan(definition)
    return found
