"""A workflow's definition: the canonical document of ``docs/spec/workflow.md``, read strictly and checked completely.

Whatever front end made it, a document that passes here names only what exists, and nothing in it can fail on every run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from countermark.model.canon import DEPTH_MAX, canon, parse, render, structure
from countermark.model.digest import CODE, WORKFLOW, digest
from countermark.model.errors import EncodingError
from countermark.model.sealing import SUBJECT
from countermark.workflow import definition_read as read
from countermark.workflow.definition_check import ANYTHING, APPROVE, Known, check_names
from countermark.workflow.definition_parts import Concurrency, Definition, Input, Job, PureStep, Step, matrix_of
from countermark.workflow.definition_read import ID, fail
from countermark.workflow.definition_steps import read_step
from countermark.workflow.definition_triggers import read_triggers
from countermark.workflow.errors import DefinitionError, Mistakes, Path
from countermark.workflow.expression_types import TYPES

__all__ = ["APPROVE", "Concurrency", "Definition", "Input", "Job", "Step", "matrix_of", "read_definition"]

DOCUMENT_BYTES_MAX = 48_000
RECORD_LEVELS = 2  # a document stands in a record's body
JOBS_MAX, STEPS_MAX, COMBINATIONS_MAX, PARALLEL_MAX = 32, 100, 64, 16
CHOICES_MAX = 64

DEFINITION_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PYTHON: Final[Mapping[str, type]] = {"string": str, "int": int, "bool": bool, "list": list, "object": dict}

_NARROWER: Final = "Split it into two jobs, or `call` a workflow for each part."
_TOP = ("v", "name", "triggers", "inputs", "outputs", "concurrency", "timeout_s", "jobs")
_JOB = (
    "id", "needs", "if", "matrix", "fail_fast", "parallel", "continue_on_error", "timeout_s", "outputs", "steps",
)  # fmt: skip


def read_definition(document: Any, *, known: Known = ANYTHING) -> Definition:
    """Check a canonical document completely; with ``known`` also that tools, agents and sources are there, and that
    what a tool is given fits.

    Raises:
        DefinitionError: anything is wrong; ``path`` says where.
        ConfigError: the extra ``workflow`` is not installed.
    """
    try:
        structure(document, RECORD_LEVELS)
        raw = render(document, DOCUMENT_BYTES_MAX)
    except EncodingError as error:
        what = error.message.replace(f"deeper than {DEPTH_MAX}", f"deeper than {DEPTH_MAX - RECORD_LEVELS}")
        raise DefinitionError(what, hint=error.hint, path=read.misfit(document)) from None
    sealed = "sensitive" in document if type(document) is dict else False
    top = read.members(document, (), (*_TOP, "sensitive") if sealed else _TOP)
    if type(top["v"]) is not int or top["v"] != 1:
        fail(("v",), "this version reads definitions of `v` 1 only")
    parts: dict[str, Any] = {}
    mistakes = Mistakes()
    for name, part in _PARTS.items():
        with mistakes:
            parts[name] = part(top[name], (name,))
    with mistakes:
        parts["sensitive"] = _sensitive(top["sensitive"], ("sensitive",)) if sealed else None
    mistakes.tell()
    texts = {step.code for job in parts["jobs"] for step in job.steps if isinstance(step, PureStep)}
    found = Definition(
        document=parse(raw),  # a copy: nobody else holds it
        digest=digest(WORKFLOW, raw),
        code=tuple(sorted(digest(CODE, text.encode("utf-8")) for text in texts)),
        **parts,
    )
    check_names(found, known)
    return found


def _name(value: Any, path: Path) -> str:
    return read.named(value, path, DEFINITION_NAME, "1 to 64 of a-z 0-9 . _ -")


def _sensitive(value: Any, path: Path) -> Any:
    if type(value) is str and SUBJECT.fullmatch(value) is None:
        fail(path, f"`{value[:60]}` is no subject", "It has 1 to 64 of A-Z a-z 0-9 _ . - and begins with none of _ . -")
    if value is None:
        fail(path, "a subject is a text, or an expression that gives one")
    return read.template(value, path)


def _inputs(value: Any, path: Path) -> dict[str, Input]:
    if type(value) is not dict or len(value) > 64:
        fail(path, "an object of at most 64 inputs was expected")
    found: dict[str, Input] = {}
    mistakes = Mistakes()
    for name, item in value.items():
        with mistakes:
            id_ = read.named(name, path, ID)
            found[id_] = _input(item, (*path, id_))
    mistakes.tell()
    return found


def _input(value: Any, path: Path) -> Input:
    item = read.members(value, path, ("type", "required", "default", "choices"))
    type_ = read.choice(item["type"], (*path, "type"), TYPES)
    required = read.flag(item["required"], (*path, "required"))
    choices = read.items(item["choices"], (*path, "choices"), CHOICES_MAX)
    for number, one in enumerate(choices):
        _of_type(one, type_, (*path, "choices", number))
    if len({canon(one) for one in choices}) != len(choices):
        fail((*path, "choices"), "a choice stands twice")
    default = item["default"]
    if default is not None:
        _of_type(default, type_, (*path, "default"))
        if choices and canon(default) not in {canon(one) for one in choices}:
            fail((*path, "default"), "the default is none of the choices")
    return Input(type_, required, default, tuple(choices))


def _of_type(value: Any, type_: str, path: Path) -> None:
    if type(read.plain(value, path)) is not _PYTHON[type_]:
        fail(path, f"this is no {type_}, as the input is declared")


def _concurrency(value: Any, path: Path) -> Concurrency:
    item = read.members(value, path, ("group", "cancel"))
    return Concurrency(read.template(item["group"], (*path, "group")), read.flag(item["cancel"], (*path, "cancel")))


def _jobs(value: Any, path: Path) -> tuple[Job, ...]:
    jobs: list[Job] = []
    mistakes = Mistakes()
    for number, item in enumerate(read.items(value, path, JOBS_MAX, least=1)):
        with mistakes:
            job = _job(item, path, number)
            if any(other.id == job.id for other in jobs):
                fail((*path, number), f"there are two jobs `{job.id}`")
            jobs.append(job)
    mistakes.tell()
    steps = sum(len(job.steps) for job in jobs)
    if steps > STEPS_MAX:
        fail(path, f"{steps} steps, but at most {STEPS_MAX} are allowed", "Split it with `call` steps.")
    return tuple(jobs)


def _job(value: Any, above: Path, number: int) -> Job:
    item = read.members(value, (*above, number), _JOB)
    id_ = read.named(item["id"], (*above, number, "id"), ID)
    path = (*above, id_)
    needs = [read.named(need, (*path, "needs"), ID) for need in read.items(item["needs"], (*path, "needs"), JOBS_MAX)]
    read.in_order(needs, (*path, "needs"))
    steps: list[Step] = []
    mistakes = Mistakes()
    for place, each in enumerate(read.items(item["steps"], (*path, "steps"), STEPS_MAX, least=1)):
        with mistakes:
            step = read_step(each, (*path, "steps"), place)
            if any(other.id == step.id for other in steps):
                fail((*path, "steps", place), f"there are two steps `{step.id}` in this job")
            steps.append(step)
    mistakes.tell()
    return Job(
        id=id_,
        needs=tuple(needs),
        if_=read.condition(item["if"], (*path, "if")),
        matrix=read.optional(item["matrix"], (*path, "matrix"), _matrix),
        fail_fast=read.flag(item["fail_fast"], (*path, "fail_fast")),
        parallel=read.integer(item["parallel"], (*path, "parallel"), 1, PARALLEL_MAX),
        continue_on_error=read.flag(item["continue_on_error"], (*path, "continue_on_error")),
        timeout_s=read.optional(item["timeout_s"], (*path, "timeout_s"), read.timeout),
        outputs=read.pairs(item["outputs"], (*path, "outputs")),
        steps=tuple(steps),
    )


def _matrix(value: Any, path: Path) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    axes: list[tuple[str, tuple[Any, ...]]] = []
    combinations = 1
    for number, item in enumerate(read.items(value, path, 8, least=1)):
        pair = read.items(item, (*path, number), 2, least=2)
        name = read.named(pair[0], (*path, number), ID)
        values = read.items(pair[1], (*path, name), COMBINATIONS_MAX, least=1, hint=_NARROWER)
        axes.append((name, tuple(read.plain(one, (*path, name, place)) for place, one in enumerate(values))))
        combinations *= len(values)
    read.in_order([name for name, _ in axes], path)
    if combinations > COMBINATIONS_MAX:
        fail(path, f"{combinations} combinations, but at most {COMBINATIONS_MAX} are allowed", _NARROWER)
    return tuple(axes)


_PARTS: Final[Mapping[str, Callable[[Any, Path], Any]]] = {
    "name": _name,
    "triggers": read_triggers,
    "inputs": _inputs,
    "outputs": read.pairs,
    "concurrency": lambda value, path: read.optional(value, path, _concurrency),
    "timeout_s": lambda value, path: read.optional(value, path, read.timeout),
    "jobs": _jobs,
}
