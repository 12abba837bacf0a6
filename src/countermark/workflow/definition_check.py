"""Names and types of a definition: what its expressions read exists by then, and what they give fits where it goes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from countermark.model.errors import ArgumentError
from countermark.model.tool import CALLER, ArgSpec, ToolSpec
from countermark.workflow import expression_types as types
from countermark.workflow.definition_parts import (
    AgentStep,
    CallStep,
    Definition,
    EffectStep,
    Input,
    Job,
    PureStep,
    Step,
    WaitStep,
)
from countermark.workflow.definition_read import Pairs, fail
from countermark.workflow.definition_steps import in_code
from countermark.workflow.errors import DefinitionError, Mistakes, Path, nearest
from countermark.workflow.expression_types import ANY, STRING, Shape, maybe, record
from countermark.workflow.expressions import kind, names_of

WAIT_S_MAX = 366 * 86_400
APPROVE: Final = "workflow.approve"
NO_APPROVE: Final = "An approve step needs this tool in tools.toml, and a rule that asks people: docs/workflows.md."
MINOR_UNITS: Final = "Whole numbers only: money is counted in minor units, 48000 for 480.00."
_DECIMAL: Final = re.compile(r"-?[0-9]+[.,][0-9]+")
_OF_ARGUMENT: Final = {"string": "string", "integer": "int", "boolean": "bool"}

Scope = dict[str, Shape]
Tools = Mapping[str, ToolSpec]


class Known(NamedTuple):
    """What a definition may name where it is to run: tools, agents, and sources of events; None: anything."""

    tools: Tools | None = None
    agents: Collection[str] | None = None
    sources: Collection[str] | None = None


ANYTHING: Final = Known()


def check_names(definition: Definition, known: Known) -> None:
    """Raise ``DefinitionError`` for names that are not there, a cycle, and types that cannot fit, all at once."""
    mistakes = Mistakes()
    with mistakes:
        _check_needs(definition.jobs)
    base: Scope = {
        "inputs": record("input", {name: _input(item) for name, item in definition.inputs.items()}),
        "run": record("member of `run`", {"id": STRING, "name": STRING}),
        "event": ANY,
    }
    for number, trigger in enumerate(definition.triggers):
        with mistakes:
            _check_trigger(trigger, ("triggers", number), definition.inputs)
    if definition.concurrency is not None:
        # A group is known before the run is: it has no id yet.
        group = base | {"run": record("member of `run` here", {"name": STRING})}
        del group["event"]
        with mistakes:
            _check(definition.concurrency.group, ("concurrency", "group"), group, STRING)
    jobs = {job.id: job for job in definition.jobs}
    results = {id_: _result(job) for id_, job in jobs.items()}
    for job in definition.jobs:
        before = {id_: results[id_] for id_ in job.needs if id_ in results}
        needed = record("job that this one needs", before, named=True, missing="Add `needs: {}` to this job.")
        with mistakes:  # what a job that is not there gives is anything: that it is not there was told
            _check_job(job, base | {"needs": needed if len(before) == len(job.needs) else ANY}, known)
    everything = record("job", results, named=True)
    with mistakes:
        _check_pairs(definition.outputs, ("outputs",), base | {"needs": everything})
    if definition.sensitive is not None:
        with mistakes:
            _check(definition.sensitive, ("sensitive",), {"inputs": base["inputs"]}, STRING)
        for job in definition.jobs:
            with mistakes:
                _check_sealed(job)
    mistakes.tell()


def _check_sealed(job: Job) -> None:
    """In a sealed run nothing may have to stand in clear that could be one of its values."""
    effects = {step.id for step in job.steps if isinstance(step, EffectStep)}
    mistakes = Mistakes()
    for step in job.steps:
        with mistakes:
            _check_sealed_step(step, ("jobs", job.id, "steps", step.id), effects)
    mistakes.tell()


def _check_sealed_step(step: Step, path: Path, effects: Collection[str]) -> None:
    if isinstance(step, AgentStep):
        hint = "What an agent sees and says stands in clear: leave the step, or `sensitive`, out."
        fail(path, "a sealed run has no step of an agent", hint)
    if not isinstance(step, WaitStep) or step.for_["kind"] != "event":
        return
    for name in sorted(names_of([step.for_["key"]])):
        clear = name[0] in ("run", "matrix", "event") or (name[0] == "steps" and name[1] in effects)
        if not clear:
            hint = "It stands in clear: name the run (`run.id`), or what an effect gave."
            fail((*path, "for", "key"), f"the key of an event reads `{'.'.join(name)}` in a sealed run", hint)


def _check_needs(jobs: tuple[Job, ...]) -> None:
    """Every need is a job, and there is an order in which each job comes after those it needs."""
    known = {job.id for job in jobs}
    mistakes = Mistakes()
    for job in jobs:
        for need in sorted(set(job.needs) - known):
            with mistakes:
                fail(("jobs", job.id, "needs"), f"there is no job `{need}`", nearest(need, known - {job.id}))
    mistakes.tell()
    waiting = {job.id: set(job.needs) for job in jobs}
    while waiting:
        ready = [id_ for id_, needs in waiting.items() if not needs & waiting.keys()]
        if not ready:
            circle = _circle(waiting)
            fail(("jobs", circle[0], "needs"), f"jobs need each other in a circle: {' -> '.join(circle)}")
        for id_ in ready:
            del waiting[id_]


def _circle(waiting: Mapping[str, set[str]]) -> list[str]:
    path = [min(waiting)]
    while True:
        following = min(waiting[path[-1]] & waiting.keys())
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


def _input(item: Input) -> Shape:
    shape = types.of(item.type)
    return shape if item.required or item.default is not None else maybe(shape)


def _check_trigger(trigger: Mapping[str, Any], path: Path, inputs: Mapping[str, Input]) -> None:
    scope: Scope = {"event": ANY}
    mistakes = Mistakes()
    if trigger.get("if") is not None:
        with mistakes:
            _check({"$": trigger["if"]}, (*path, "if"), scope)
    for name, template in trigger.get("with", ()):
        where = (*path, "with", name)
        with mistakes:
            if name not in inputs:
                fail(where, f"there is no input `{name}`", nearest(name, inputs))
            _check(template, where, scope, types.of(inputs[name].type))
    mistakes.tell()  # before what is missing, which one of another name may have been meant for
    given = {name for name, _ in trigger.get("with", ())}
    for name, item in inputs.items():
        missing = trigger["kind"] != "manual" and item.required and item.default is None and name not in given
        if missing:
            fail(path, f"the input `{name}` is required, and this trigger does not give it", "Give it under `with`.")


def _result(job: Job) -> Shape:
    outputs = record(f"output of the job `{job.id}`", {name: ANY for name, _ in job.outputs})
    return record("member of a job", {"outputs": outputs, "result": STRING, "each": types.of("list")})


def _check_job(job: Job, scope: Scope, known: Known) -> None:
    path: Path = ("jobs", job.id)
    if job.matrix is not None:
        axes = {name: types.of(*(kind(value) for value in values)) for name, values in job.matrix}
        scope = scope | {"matrix": record("axis of the matrix", axes)}
    mistakes = Mistakes()
    if job.if_ is not None:
        with mistakes:
            _check({"$": job.if_}, (*path, "if"), scope)
    earlier: dict[str, Shape] = {}
    for step in job.steps:
        inside = scope | {"steps": record("earlier step of this job", dict(earlier), named=True)}
        where = (*path, "steps", step.id)
        if step.if_ is not None:
            with mistakes:
                _check({"$": step.if_}, (*where, "if"), inside)
        earlier[step.id] = _step(step, known.tools)
        own = scope | {"steps": record("earlier step of this job", dict(earlier), named=True)}
        with mistakes:
            _check_step(step, where, inside, own, known)
    after = scope | {"steps": record("step of this job", earlier, named=True)}
    with mistakes:
        _check_pairs(job.outputs, (*path, "outputs"), after)
    mistakes.tell()


def _step(step: Step, tools: Tools | None) -> Shape:
    """What later steps see of this one. What it may not have given is null."""
    outputs = ANY
    what = f"output of the step `{step.id}`"
    if isinstance(step, PureStep | AgentStep):
        given = {name: maybe(types.of(type_)) for name, type_ in step.outputs.items()}
        outputs = record(what, given, missing="Declare `{}` with its type under the step's `outputs`.")
    elif isinstance(step, WaitStep):
        event = {"payload": ANY, "event": maybe(STRING)}
        outputs = record(what, event if step.for_["kind"] == "event" else {})
    elif isinstance(step, EffectStep) and tools is not None and step.tool in tools:
        declared = {name: maybe(types.of(_OF_ARGUMENT.get(type_, type_))) for name, type_ in tools[step.tool].outputs}
        outputs = record(what, {"ref": maybe(STRING), "id": maybe(STRING)} | declared)
    return record("member of a step", {"outputs": outputs, "outcome": STRING, "conclusion": STRING})


def _check_step(step: Step, path: Path, scope: Scope, own: Scope, known: Known) -> None:
    mistakes = Mistakes()
    if isinstance(step, PureStep) and known != ANYTHING:
        with mistakes:
            _check_resolved(step.code, path)
    if isinstance(step, EffectStep):
        with mistakes:
            _check_effect(step.tool, step.with_, path, scope, known.tools)
        if step.undo is not None:
            with mistakes:
                _check_effect(step.undo.tool, step.undo.with_, (*path, "undo"), own, known.tools)
    elif isinstance(step, PureStep | CallStep):
        with mistakes:
            _check_pairs(step.with_, (*path, "with"), scope)
    elif isinstance(step, WaitStep):
        with mistakes:
            _check_wait(step, (*path, "for"), scope)
        if step.for_["kind"] == "event":
            with mistakes:
                _check_known("source of events", step.for_["source"], (*path, "for", "source"), known.sources)
    elif isinstance(step, AgentStep):
        with mistakes:
            _check_agent(step, path, scope, known)
    mistakes.tell()


def _check_agent(step: AgentStep, path: Path, scope: Scope, known: Known) -> None:
    mistakes = Mistakes()
    with mistakes:
        _check(step.goal, (*path, "goal"), scope, STRING)
    with mistakes:
        _check_pairs(step.sees, (*path, "sees"), scope)
    for tool, alias, allowed in step.where:
        for number, template in enumerate(allowed):
            with mistakes:
                _check(template, (*path, "where", tool, alias, number), scope)
    with mistakes:
        _check_known("agent", step.agent, (*path, "agent"), known.agents)
    if known.tools is not None:
        with mistakes:
            _check_boundary(step, path, known.tools)
    mistakes.tell()


def _check_resolved(code: str, path: Path) -> None:
    from countermark.compute import check_resolved  # late, as where it is parsed

    try:
        check_resolved(code)
    except ArgumentError as error:
        raise in_code(error, code, path) from None


def _check_known(what: str, name: str, path: Path, known: Collection[str] | None) -> None:
    if known is not None and name not in known:
        fail(path, f"there is no {what} `{name}` here", nearest(name, known))


def _check_wait(step: WaitStep, path: Path, scope: Scope) -> None:
    wanted = {"seconds": types.INT, "at": types.of("string", "int"), "key": STRING}
    for name, shape in wanted.items():  # one of them, as its kind says
        if name in step.for_:
            _check(step.for_[name], (*path, name), scope, shape)
    seconds = step.for_.get("seconds")
    if type(seconds) is int and not 0 <= seconds <= WAIT_S_MAX:
        fail((*path, "seconds"), f"{seconds} is not between 0 and {WAIT_S_MAX:,}")


def _check_effect(tool: str, pairs: Pairs, path: Path, scope: Scope, tools: Tools | None) -> None:
    spec: ToolSpec | None = None
    mistakes = Mistakes()
    if tools is not None:
        with mistakes:
            spec = _of_gate(tool, (*path, "tool"), tools)
    unknown = False
    for name, template in pairs:
        where = (*path, "with", name)
        with mistakes:
            if spec is None:
                _check(template, where, scope)
            elif name in spec.by_name:
                _check_argument(spec.by_name[name], template, where, scope)
            else:
                unknown = True
                fail(where, f"`{tool}` has no argument `{name[:60]}`", nearest(name, spec.by_name))
    given = {name for name, template in pairs if template is not None}
    missing = sorted(() if spec is None or unknown else spec.required_names - given)  # or one was meant for the other
    with mistakes:
        if missing:
            fail((*path, "with"), f"`{tool}` needs the argument{'s' * (len(missing) > 1)} `{'`, `'.join(missing)}`")
    mistakes.tell()


def _of_gate(tool: str, path: Path, tools: Tools) -> ToolSpec:
    spec = _spec(tool, path, tools)
    if spec.connector == CALLER:
        fail(path, f"`{tool}` is run by whoever calls it, and not by the gate")
    return spec


def _spec(tool: str, path: Path, tools: Tools) -> ToolSpec:
    if tool not in tools:
        fail(path, f"there is no tool `{tool}` here", NO_APPROVE if tool == APPROVE else nearest(tool, tools))
    return tools[tool]


def _check_argument(spec: ArgSpec, template: Any, path: Path, scope: Scope) -> None:
    wanted = types.of(_OF_ARGUMENT[spec.type])
    found = _check(template, path, scope, wanted)
    constant = type(template) in (str, int, bool)
    if constant and found.types == wanted.types:
        try:
            spec.check(template)
        except ArgumentError as error:
            raise DefinitionError(error.message, hint=error.hint, path=path) from None


def _check_boundary(step: AgentStep, path: Path, tools: Tools) -> None:
    mistakes = Mistakes()
    for tool in step.tools:
        with mistakes:
            _spec(tool, (*path, "tools"), tools)
    for tool, alias, _ in step.where:
        if tool in tools and alias not in tools[tool].by_alias:
            where = (*path, "where", tool)
            with mistakes:
                fail(where, f"`{tool}` has no argument with the alias `{alias}`", nearest(alias, tools[tool].by_alias))
    mistakes.tell()


def _check_pairs(pairs: Iterable[tuple[str, Any]], path: Path, scope: Scope) -> None:
    mistakes = Mistakes()
    for name, template in pairs:
        with mistakes:
            _check(template, (*path, name), scope)
    mistakes.tell()


def _check(template: Any, path: Path, scope: Scope, wanted: Shape = ANY) -> Shape:
    try:
        found = types.shape_of_template(template, scope)
    except DefinitionError as error:
        raise error.within(path) from None
    if not types.fits(found, wanted):
        hint = ""
        if type(template) is str and template.lstrip("-").isdecimal() and "int" in (wanted.types or ()):
            hint = "Write the number without quotes."
        elif type(template) is str and _DECIMAL.fullmatch(template) and "int" in (wanted.types or ()):
            hint = MINOR_UNITS
        fail(path, f"{wanted.words()} was expected, not {found.words()}", hint)
    return found
