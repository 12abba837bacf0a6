"""Definitions of workflows, read strictly (docs/spec/workflow.md, Definition)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from countermark_verify import canon
from countermark_verify.bodies_workflow import TITLE, TYPES
from countermark_verify.errors import Malformed
from countermark_verify.evaluate import alike
from countermark_verify.expression import CONTEXTS, STATUS, Tree, parse, reads, templates, walk
from countermark_verify.fields import ALIAS, DIGEST, NAME
from countermark_verify.schedule import read_cron
from countermark_verify.sealed import ID, SUBJECT, VALUE
from countermark_verify.shape import (
    Check,
    boolean,
    const,
    either,
    fixed,
    integer,
    listing,
    mapping,
    maybe,
    record,
    text,
)
from countermark_verify.starlark_text import refused

DOCUMENT_BYTES_MAX = 48_000
JOBS_MAX = 32
STEPS_MAX = 100
COMBINATIONS_MAX = 64
TRIGGERS_MAX = 16
TIMEOUT_S_MAX = 366 * 86_400
EFFECT, PURE, WAIT, CALL, AGENT = "effect", "pure", "wait", "call", "agent"

_SOURCE = text(r"[a-z][a-z0-9-]{0,39}")
_ID = text(ID)
_TYPE = const("string", "int", "bool", "list", "object")
_PAIRS = listing(fixed(_ID, VALUE))
_ARGUMENTS = listing(fixed(NAME, VALUE))
_CONDITION = maybe(text())
_TIMEOUT = maybe(integer(60, TIMEOUT_S_MAX))
_STEP: dict[str, Check] = {
    "id": _ID,
    "name": text(chars_max=100),
    "if": _CONDITION,
    "continue_on_error": boolean,
    "timeout_s": _TIMEOUT,
    "retry": maybe(record({"attempts": integer(2, 10), "delay_s": integer(1, 86_400), "factor": integer(1, 10)})),
}
_TIMELESS = _STEP | {"timeout_s": const(None)}
_ONCE = {"retry": const(None)}
_FOR = either(
    record({"kind": const("time"), "seconds": VALUE}),
    record({"kind": const("until"), "at": VALUE}),
    record({"kind": const("event"), "source": _SOURCE, "key": VALUE}),
)
_STEPS: Mapping[str, Check] = {
    EFFECT: record(
        _TIMELESS
        | {
            "kind": const(EFFECT),
            "tool": NAME,
            "with": _ARGUMENTS,
            "undo": maybe(record({"tool": NAME, "with": _ARGUMENTS})),
        }
    ),
    PURE: record(_TIMELESS | {"kind": const(PURE), "code": text(), "with": _PAIRS, "outputs": TYPES}),
    WAIT: record(_STEP | _ONCE | {"kind": const(WAIT), "for": _FOR}),
    CALL: record(_STEP | _ONCE | {"kind": const(CALL), "workflow": DIGEST, "with": _PAIRS}),
    AGENT: record(
        _STEP
        | _ONCE
        | {
            "kind": const(AGENT),
            "agent": NAME,
            "goal": VALUE,
            "tools": listing(NAME),
            "calls": integer(1, 1_000),
            "budget": listing(fixed(NAME, integer(1))),
            "sees": _PAIRS,
            "where": listing(fixed(NAME, text(ALIAS), listing(VALUE))),
            "outputs": TYPES,
        }
    ),
}
_TRIGGERS: Mapping[str, Check] = {
    "manual": record({"kind": const("manual")}),
    "schedule": record(
        {
            "kind": const("schedule"),
            "cron": text(chars_max=100),
            "zone": NAME,
            "missed": const("skip", "latest", "all"),
            "with": _PAIRS,
        }
    ),
}
_ON_EVENT = record({"kind": const("webhook", "chain"), "source": _SOURCE, "if": _CONDITION, "with": _PAIRS})


def _step(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else None
    return _STEPS[kind](value) if type(kind) is str and kind in _STEPS else ": no kind of step"


def _trigger(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else None
    return _TRIGGERS.get(str(kind), _ON_EVENT)(value)


_JOB = record(
    {
        "id": _ID,
        "needs": listing(_ID),
        "if": _CONDITION,
        "matrix": maybe(listing(fixed(_ID, listing(VALUE)))),
        "fail_fast": boolean,
        "parallel": integer(1, 16),
        "continue_on_error": boolean,
        "timeout_s": _TIMEOUT,
        "outputs": _PAIRS,
        "steps": listing(_step, STEPS_MAX),
    }
)
_INPUT = record({"type": _TYPE, "required": boolean, "default": VALUE, "choices": listing(VALUE)})
_DEFINITION = record(
    {
        "v": const(1),
        "name": text(TITLE),
        "triggers": listing(_trigger, TRIGGERS_MAX),
        "inputs": mapping(_INPUT, key=ID),
        "outputs": _PAIRS,
        "concurrency": maybe(record({"group": VALUE, "cancel": boolean})),
        "timeout_s": _TIMEOUT,
        "jobs": listing(_JOB, JOBS_MAX),
        "sensitive": VALUE,
    },
    optional=("sensitive",),
)
_WAITS = {"seconds": (int,), "at": (str, int), "key": (str,)}
_KINDS = {"string": str, "int": int, "bool": bool, "list": list, "object": dict}


@dataclass(frozen=True)
class Job:
    """A job, and the combinations of its matrix; one, and empty, without."""

    document: Mapping[str, Any]
    combinations: tuple[Mapping[str, Any], ...]

    @property
    def id(self) -> str:
        return str(self.document["id"])

    def place(self, number: int, step: str) -> str:
        """A step's place, in the combination of this number."""
        return f"{self.id}.{step}" if self.document["matrix"] is None else f"{self.id}.{number}.{step}"


@dataclass(frozen=True)
class Definition:
    """A definition that was read; its document has every member of its kind."""

    digest: str
    document: Mapping[str, Any]
    jobs: tuple[Job, ...]
    code: tuple[str, ...]  # sorted digests

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def subject(self) -> Any:
        """The template of whose the values of its runs are; None when they stand in clear."""
        return self.document.get("sensitive")

    @cached_property
    def steps(self) -> int:
        """How many there are, in every combination."""
        return sum(len(job.document["steps"]) * len(job.combinations) for job in self.jobs)

    @cached_property
    def width(self) -> int:
        """How many combinations of its jobs there are."""
        return sum(len(job.combinations) for job in self.jobs)


def read_definition(document: Mapping[str, Any]) -> Definition:
    """Raises `Malformed` for a document that is no definition."""
    if reason := _DEFINITION(document):
        raise Malformed(f"does not have the shape of a definition{reason}")
    raw = canon.render(document)
    if len(raw) > DOCUMENT_BYTES_MAX:
        raise Malformed(f"is longer than {DOCUMENT_BYTES_MAX} bytes")
    jobs = tuple(Job(job, _combinations(job["matrix"])) for job in document["jobs"])
    _sorted(document, jobs)
    _needs(jobs)
    _inputs(document["inputs"])
    _triggers(document["triggers"], document["inputs"])
    _constants(document, jobs)
    _expressions(document, jobs)
    pure = [step for job in jobs for step in job.document["steps"] if step["kind"] == PURE]
    for step in pure:
        if reason := refused(step["code"], tuple(name for name, _ in step["with"])):
            raise Malformed(f"has code that {reason}, of {step['id']}")
    code = sorted({code_digest(step) for step in pure})
    return Definition(canon.digest("workflow", raw), document, jobs, tuple(code))


def code_digest(step: Mapping[str, Any]) -> str:
    """Of the code of a pure step."""
    try:
        return canon.digest("code", step["code"].encode())
    except UnicodeEncodeError as error:
        raise Malformed("has code that is no text") from error


def patience(step: Mapping[str, Any]) -> int | None:
    """After how many seconds a step that waits is over; None: never."""
    seconds: int | None = step["timeout_s"]
    return seconds


def fits(kind: str, value: Any) -> bool:
    """Whether a value is of a TYPE."""
    return type(value) is _KINDS[kind]


def typed(declared: Mapping[str, str], values: Any) -> bool:
    """Exactly the declared names, each with a value of its type."""
    return (
        isinstance(values, dict)
        and values.keys() == declared.keys()
        and all(fits(kind, values[name]) for name, kind in declared.items())
    )


def admits(declared: Mapping[str, Any], value: Any) -> bool:
    """Whether an input may have this value: null where it is not required and has no default."""
    if value is None:
        return not declared["required"] and declared["default"] is None
    chosen = not declared["choices"] or any(alike(one, value) for one in declared["choices"])
    return fits(declared["type"], value) and chosen


def _combinations(matrix: list[Any] | None) -> tuple[Mapping[str, Any], ...]:
    count = 1
    for _, values in matrix or ():
        count *= len(values)
        if not 0 < count <= COMBINATIONS_MAX:
            raise Malformed("has a matrix of no combination, or of too many")
    names = [axis for axis, _ in matrix or ()]
    return tuple(dict(zip(names, values, strict=True)) for values in product(*(values for _, values in matrix or ())))


def _ascends(keys: list[Any]) -> bool:
    return keys == sorted(keys) and all(keys[at] != keys[at + 1] for at in range(len(keys) - 1))


def _sorted(document: Mapping[str, Any], jobs: tuple[Job, ...]) -> None:
    """Pairs by their first members, each once; IDs of jobs and steps once."""
    lists = [document["outputs"], *(trigger["with"] for trigger in document["triggers"] if "with" in trigger)]
    steps = [step for job in jobs for step in job.document["steps"]]
    for job in jobs:
        lists += [job.document["outputs"], job.document["matrix"] or [], [[name] for name in job.document["needs"]]]
        if len({step["id"] for step in job.document["steps"]}) < len(job.document["steps"]):
            raise Malformed(f"has a step of {job.id} twice")
        if not job.document["steps"]:
            raise Malformed(f"has no step in {job.id}")
    for step in steps:
        lists += [step.get("with", []), step.get("budget", []), step.get("sees", [])]
        lists += [(step.get("undo") or {}).get("with", []), [[name] for name in step.get("tools", [])]]
        if not _ascends([row[:2] for row in step.get("where", [])]):
            raise Malformed("has rows of a boundary that are not sorted")
    if not all(_ascends([row[0] for row in rows]) for rows in lists):
        raise Malformed("has pairs that are not sorted, or one twice")
    if not _ascends([canon.render(trigger) for trigger in document["triggers"]]):
        raise Malformed("has triggers that are not sorted, or one twice")
    if not jobs or len({job.id for job in jobs}) < len(jobs) or len(steps) > STEPS_MAX:
        raise Malformed("has no job, a job twice, or too many steps")
    timeouts = [document["timeout_s"], *(part["timeout_s"] for part in (*document["jobs"], *steps))]
    if any(seconds is not None and seconds % 60 for seconds in timeouts):
        raise Malformed("has a timeout that is not of whole minutes")


def _needs(jobs: tuple[Job, ...]) -> None:
    """Every needed job exists, and none needs itself, however far around."""
    left = {job.id: set(job.document["needs"]) for job in jobs}
    if any(not needs <= left.keys() for needs in left.values()):
        raise Malformed("has a job that needs one that is not there")
    while left:
        free = {name for name, needs in left.items() if not needs & left.keys()}
        if not free:
            raise Malformed("has jobs that need each other")
        left = {name: needs for name, needs in left.items() if name not in free}


def _inputs(inputs: Mapping[str, Any]) -> None:
    for name, declared in inputs.items():
        known = [*declared["choices"], *([] if declared["default"] is None else [declared["default"]])]
        if not all(fits(declared["type"], value) for value in known) or any(map(_computes, known)):
            raise Malformed(f"has an input {name} whose default or choices are of another type")
        if len({canon.render(value) for value in declared["choices"]}) < len(declared["choices"]):
            raise Malformed(f"has an input {name} with a choice twice")
        if declared["default"] is not None and not admits(declared, declared["default"]):
            raise Malformed(f"has an input {name} whose default is not one of its choices")


def _computes(value: Any) -> bool:
    """Whether a value that is no template holds an expression."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (isinstance(value, dict) and "$" in value) or any(map(_computes, inner))


def _triggers(triggers: list[Any], inputs: Mapping[str, Any]) -> None:
    """No two of one source, or of one time; each gives what the definition needs, of its type."""
    same = [(row["cron"], row["zone"]) if row["kind"] == "schedule" else row.get("source", "") for row in triggers]
    if len(set(same)) < len(same):
        raise Malformed("has two triggers of one source, or of one cron and zone")
    for row in triggers:
        if row["kind"] == "schedule":
            read_cron(row["cron"])
        given = dict(row.get("with", ()))
        for name, declared in inputs.items():
            if name not in given and row["kind"] != "manual" and declared["required"] and declared["default"] is None:
                raise Malformed(f"has a trigger that does not give the input {name}")
            if given.get(name) is not None and not _may_be(given[name], _KINDS[declared["type"]]):
                raise Malformed(f"has a trigger that gives an input {name} of another type")


def _may_be(template: Any, *kinds: type) -> bool:
    """Whether a template can have a value of one of these types, as far as it is written out."""
    return (isinstance(template, dict) and "$" in template) or type(template) in kinds


def _constants(document: Mapping[str, Any], jobs: tuple[Job, ...]) -> None:
    """What is no expression is of the type that its place wants."""
    if document["concurrency"] is not None and not _may_be(document["concurrency"]["group"], str):
        raise Malformed("has a group that is no text")
    for job in jobs:
        if any(_computes(value) for _, values in job.document["matrix"] or () for value in values):
            raise Malformed("has an expression in a matrix")
        for step in job.document["steps"]:
            if step["kind"] == AGENT:
                _agent(step)
            elif step["kind"] == WAIT:
                said = step["for"]
                if not all(_may_be(said[name], *kinds) for name, kinds in _WAITS.items() if name in said):
                    raise Malformed(f"has a wait {step['id']} for what can never be")
                if type(said.get("seconds")) is int and not 0 <= said["seconds"] <= TIMEOUT_S_MAX:
                    raise Malformed(f"has a wait {step['id']} that is too long")


def _agent(step: Mapping[str, Any]) -> None:
    if step["timeout_s"] is None or not _may_be(step["goal"], str):
        raise Malformed(f"has an agent's step {step['id']} without a timeout, or a goal that is no text")
    if not {tool for tool, _, _ in step["where"]} <= set(step["tools"]):
        raise Malformed(f"has a boundary of {step['id']} for a tool that is none of its tools")


def _conditions(document: Mapping[str, Any]) -> Iterator[Tree]:
    if document["if"] is not None:
        yield parse(document["if"])


# What an expression may read: the names below a name, or None where they cannot be known before.
Names = Mapping[str, Any]


def _leaves(names: Any) -> Names:
    return dict.fromkeys(names)


def _expressions(document: Mapping[str, Any], jobs: tuple[Job, ...]) -> None:
    """Every expression has its spelling, and names of what there is where it stands."""
    inputs = _leaves(document["inputs"])
    for trigger in document["triggers"]:
        _all_named(trigger.get("with", []), {"event": None})
        if trigger.get("if") is not None:
            _named(parse(trigger["if"]), {"event": None}, conditional=False)
        if not {name for name, _ in trigger.get("with", [])} <= inputs.keys():
            raise Malformed("has a trigger that gives an input that is not declared")
    common: Names = {"inputs": inputs, "run": _leaves(("id", "name")), "event": None}
    results = {job.id: _result(job.document) for job in jobs}
    _all_named(document["outputs"], {**common, "needs": results})
    if document["concurrency"] is not None:
        _all_named(document["concurrency"]["group"], {"inputs": inputs, "run": _leaves(("name",))})
    if "sensitive" in document:
        _sealed(document, inputs)
    for job in jobs:
        axes = _leaves(axis for axis, _ in job.document["matrix"] or ())
        needed = {name: results[name] for name in job.document["needs"]}
        _of_job(job.document, {**common, "needs": needed, "matrix": axes})


def _sealed(document: Mapping[str, Any], inputs: Names) -> None:
    """Whose the values are follows from inputs; and nothing of them has to stand in clear."""
    subject = document["sensitive"]
    literal = type(subject) is str and re.fullmatch(SUBJECT, subject, re.ASCII) is not None
    if not literal and not (type(subject) is dict and subject.keys() == {"$"}):
        raise Malformed("has a subject that can be none")
    for tree in templates(subject):
        _named(tree, {"inputs": inputs}, conditional=False)
    for job in document["jobs"]:
        effects = {step["id"] for step in job["steps"] if step["kind"] == EFFECT}
        for step in job["steps"]:
            if step["kind"] == AGENT:
                raise Malformed("has a step of an agent in a sealed run")
            for tree in templates(step["for"].get("key", [])) if step["kind"] == WAIT else ():
                for path in reads(tree):
                    if not (path[0] in ("run", "matrix", "event") or (path[0] == "steps" and path[1] in effects)):
                        raise Malformed(f"has a sealed run wait for an event whose key reads {'.'.join(path)}")


def _result(job: Mapping[str, Any]) -> Names:
    return {"outputs": _leaves(name for name, _ in job["outputs"]), "result": None, "each": None}


def _shown(step: Mapping[str, Any]) -> Names:
    """A step, as later ones read it."""
    outputs = None
    if step["kind"] in (PURE, AGENT):
        outputs = _leaves(step["outputs"])
    elif step["kind"] == WAIT:
        outputs = _leaves(("payload", "event") if step["for"]["kind"] == "event" else ())
    return {"outputs": outputs, "outcome": None, "conclusion": None}


def _of_job(job: Mapping[str, Any], known: Names) -> None:
    for tree in _conditions(job):
        _named(tree, known, conditional=True)
    before: dict[str, Any] = {}
    for step in job["steps"]:
        here = {**known, "steps": dict(before)}
        for tree in _conditions(step):
            _named(tree, here, conditional=True)
        for member in ("with", "for", "goal", "sees"):
            _all_named(step.get(member, []), here)
        for _, _, values in step.get("where", []):
            _all_named(values, here)
        before[step["id"]] = _shown(step)
        if step.get("undo") is not None:
            _all_named(step["undo"]["with"], {**known, "steps": before})
    _all_named(job["outputs"], {**known, "steps": before})


def _all_named(template: Any, known: Names) -> None:
    for tree in templates(template):
        _named(tree, known, conditional=False)


def _named(tree: Tree, known: Names, *, conditional: bool) -> None:
    for path in reads(tree):
        if path[0] not in CONTEXTS or path[0] not in known:
            raise Malformed(f"reads {path[0]} where there is none")
        if path[0] in ("steps", "needs") and (len(path) == 1 or path[1] == "*"):
            raise Malformed(f"reads {path[0]} without the name of one")
        names: Names | None = known
        for at, name in enumerate(path):
            if names is None or name == "*":
                break
            if name not in names:
                raise Malformed(f"reads {'.'.join(path[: at + 1])}, which there is not")
            names = names[name]
    if not conditional and any(part[0] == "call" and part[1] in STATUS for part in walk(tree)):
        raise Malformed("asks outside a condition how the run stands")
