"""YAML with the grammar that users of GitHub Actions know, compiled to the canonical document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as Folder
from typing import Any, Final

from countermark.workflow import definition_build as build
from countermark.workflow import yaml_read as read
from countermark.workflow.definition import DEFINITION_NAME, Definition, read_definition
from countermark.workflow.definition_check import ANYTHING, Known
from countermark.workflow.errors import DefinitionError, Mistakes, Path, joined
from countermark.workflow.yaml_nodes import Node, Scalar, parse_yaml
from countermark.workflow.yaml_read import Reading
from countermark.workflow.yaml_steps import step_of
from countermark.workflow.yaml_templates import Texts
from countermark.workflow.yaml_triggers import inputs_of, triggers_of

NAME_CHARS_MAX = 64
ONE_JOB = "main"  # the job of a definition that has `steps` and no `jobs`

TOP: Final = (
    "name", "on", "inputs", "outputs", "concurrency", "sensitive", "env", "timeout-minutes", "jobs", "steps",
)  # fmt: skip
JOB: Final = (
    "name", "needs", "if", "strategy", "continue-on-error", "timeout-minutes", "outputs", "env", "steps", "concurrency",
    "uses", "with",
)  # fmt: skip
NOT_OF_A_JOB: Final = {
    "uses": "A step calls another workflow: `call: NAME`.",
    "with": "A step takes values, a job takes none.",
    "concurrency": "A whole definition has a concurrency group.",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A compiled text. ``notes`` are lines about keys that say nothing here."""

    definition: Definition
    notes: tuple[str, ...]

    @property
    def document(self) -> Mapping[str, Any]:
        """The canonical document."""
        return self.definition.document


def compile_yaml(
    text: str, *, folder: Folder | None = None, workflows: Mapping[str, str] | None = None, known: Known = ANYTHING
) -> dict[str, Any]:
    """The canonical document of a YAML text. Arguments and errors as for ``read_yaml``."""
    return dict(read_yaml(text, folder=folder, workflows=workflows, known=known).document)


def read_yaml(
    text: str, *, folder: Folder | None = None, workflows: Mapping[str, str] | None = None, known: Known = ANYTHING
) -> Source:
    """Compile and check a YAML text.

    ``folder`` is where ``./FILE.star`` is read, ``workflows`` are the digests of those that may be called by name,
    ``known`` the tools, agents and sources that it may name.

    Raises:
        DefinitionError: with line, column and, in the hint, what would be right; ``file`` when that is not this text.
        ConfigError: the extra ``workflow`` is not installed.
    """
    reading = Reading(folder=folder, workflows=workflows or {})
    try:
        document = _document(parse_yaml(text), reading)
    except DefinitionError as error:
        raise joined(sorted(error.each, key=_order)) from None
    try:
        found = read_definition(document, known=known)
    except DefinitionError as error:
        raise joined(sorted((_placed(one, reading) for one in error.each), key=_order)) from None
    return Source(found, tuple(reading.notes))


def _placed(error: DefinitionError, reading: Reading) -> DefinitionError:
    line, column, file = _place_of(error, reading)
    return DefinitionError(error.what, hint=error.hint, path=error.path, line=line, column=column, file=file)


def _order(error: DefinitionError) -> tuple[str, int, int]:
    return error.file, error.line, error.column


def _place_of(error: DefinitionError, reading: Reading) -> tuple[int, int, str]:
    """Where the nearest part of the document that has a place stands; in code, the character itself, and its file."""
    path = error.path
    if path in reading.codes:
        return *reading.codes[path].place(error.offset), ""
    if path in reading.files:
        name, text = reading.files[path]
        before = text[: error.offset].split("\n")
        return len(before), len(before[-1]) + 1, name
    for length in range(len(path), -1, -1):
        if path[:length] in reading.places:
            return *reading.places[path[:length]], ""
    return 1, 1, ""


def _document(node: Node, reading: Reading) -> dict[str, Any]:
    reading.place((), node)
    mistakes = Mistakes()
    with mistakes:
        reading.keys(node, "a definition", TOP)
    keys = read.among(node, TOP)
    for key, value in keys.items():
        reading.place(({"timeout-minutes": "timeout_s", "on": "triggers"}.get(key, key),), value)
    if ("jobs" in keys) == ("steps" in keys):
        mistakes.tell()  # one of them may have been meant
        node.fail("a definition has `jobs`, or `steps` for one job")
    reading = reading.within(keys.get("env"))
    triggers: list[tuple[dict[str, Any], Node]] = []
    with_them: Node | None = None
    with mistakes:
        triggers, with_them = triggers_of(keys.get("on"), reading)
        if with_them is not None and "inputs" in keys:
            keys["inputs"].fail("inputs are declared twice", "Declare them once.")
    order = build.in_order(trigger for trigger, _ in triggers)
    for trigger, where in triggers:
        reading.place(("triggers", order.index(trigger)), where)
    parts: dict[str, Any] = {"triggers": order}
    for name, part in _PARTS.items():
        with mistakes:
            parts[name] = part(keys.get(name), reading)
    with mistakes:
        parts["inputs"] = inputs_of(with_them or keys.get("inputs"), reading)
    with mistakes:
        parts["timeout_s"] = read.optional(keys.get("timeout-minutes"), read.minutes, "`timeout-minutes`")
    with mistakes:
        parts["name"] = _name(keys.get("name"), node, reading)
    with mistakes:
        parts["jobs"] = _jobs(keys, reading)
    mistakes.tell()
    return build.definition(**parts)


def _outputs(node: Node | None, reading: Reading) -> dict[str, Any]:
    outputs = Reading(Texts(reading.texts.env, jobs=True), reading.places, reading.notes)
    return dict(outputs.templates(node, "`outputs`", ("outputs",)))


def _sensitive(node: Node | None, reading: Reading) -> Any:
    if node is None:
        return None
    found = reading.texts.template(node)
    if found is None:
        node.fail("`sensitive` names whose the values are", "Such as: sensitive: ${{ inputs.vendor }}.")
    return found


def _name(node: Node | None, whole: Node, reading: Reading) -> str:
    if node is None:
        whole.fail("a definition needs a `name`", "Such as: name: pay-invoice.")
    text = read.text(node, "`name`")
    if DEFINITION_NAME.fullmatch(text):
        return text
    made = build.slug(text, NAME_CHARS_MAX)
    if not made:
        node.fail(f"no name can be made of `{text[:60]}`", "A name has letters a-z or digits.")
    reading.note(node, f"the name of this workflow is `{made}`")
    return made


def _concurrency(node: Node | None, reading: Reading) -> dict[str, Any] | None:
    if node is None:
        return None
    if isinstance(node, Scalar):
        return {"group": reading.texts.template(node), "cancel": False}
    keys = reading.keys(node, "`concurrency`", ("group", "cancel-in-progress"))
    if "group" not in keys:
        node.fail("`concurrency` needs a `group`")
    reading.place(("concurrency", "group"), keys["group"])
    cancel = read.optional(keys.get("cancel-in-progress"), read.flag, "`cancel-in-progress`", False)
    return {"group": reading.texts.template(keys["group"]), "cancel": cancel}


def _jobs(keys: Mapping[str, Node], reading: Reading) -> list[dict[str, Any]]:
    if "steps" in keys:
        return [build.job(ONE_JOB, _steps(keys["steps"], ("jobs", ONE_JOB), reading))]
    jobs = read.mapping(keys["jobs"], "`jobs`")
    found: list[dict[str, Any]] = []
    mistakes = Mistakes()
    for number, (id_, node) in enumerate(jobs.items()):
        with mistakes:
            found.append(_job(id_, number, node, reading))
    mistakes.tell()
    return found


def _job(id_: str, number: int, node: Node, reading: Reading) -> dict[str, Any]:
    path: Path = ("jobs", id_)
    reading.place(path, node)
    reading.place(("jobs", number), node)
    mistakes = Mistakes()
    with mistakes:
        reading.keys(node, "a job", JOB)
    keys = read.among(node, JOB)
    for key, value in keys.items():
        with mistakes:
            if key in NOT_OF_A_JOB:
                value.fail(f"a job has no `{key}`", NOT_OF_A_JOB[key])
        reading.place((*path, {"timeout-minutes": "timeout_s", "strategy": "matrix"}.get(key, key)), value)
    if "steps" not in keys:
        mistakes.tell()  # it may have been meant
        node.fail("a job needs `steps`")
    reading = reading.within(keys.get("env"))
    steps: list[dict[str, Any]] = []
    with mistakes:
        steps = _steps(keys["steps"], path, reading)
    mistakes.tell()
    needs = read.sequence(keys["needs"], "`needs`") if "needs" in keys else ()
    matrix, fail_fast, parallel = _strategy(keys.get("strategy"), path, reading)
    return build.job(
        id_, steps,
        needs=[read.text(need, "`needs`") for need in needs],
        if_=reading.texts.condition(keys["if"]) if "if" in keys else None,
        matrix=matrix, fail_fast=fail_fast, parallel=parallel,
        continue_on_error=read.optional(keys.get("continue-on-error"), read.flag, "`continue-on-error`", False),
        timeout_s=read.optional(keys.get("timeout-minutes"), read.minutes, "`timeout-minutes`"),
        outputs=dict(reading.templates(keys.get("outputs"), "`outputs`", (*path, "outputs"))),
    )  # fmt: skip


def _steps(node: Node, path: Path, reading: Reading) -> list[dict[str, Any]]:
    taken: set[str] = set()
    reading.place((*path, "steps"), node)
    found: list[dict[str, Any]] = []
    mistakes = Mistakes()
    for number, item in enumerate(read.sequence(node, "`steps`")):
        with mistakes:
            found.append(step_of(item, number, (*path, "steps"), taken, reading))
    mistakes.tell()
    return found


def _strategy(
    node: Node | None, path: Path, reading: Reading
) -> tuple[dict[str, list[Any]] | None, bool, int | None]:  # fmt: skip
    if node is None:
        return None, True, None
    keys = reading.keys(node, "`strategy`", ("matrix", "fail-fast", "max-parallel"))
    if "matrix" not in keys:
        node.fail("`strategy` needs a `matrix`")
    axes: dict[str, list[Any]] = {}
    for name, values in read.mapping(keys["matrix"], "`matrix`").items():
        if name in ("include", "exclude"):
            values.fail(f"a matrix has no `{name}`", read.REFUSED[name])
        reading.place((*path, "matrix", name), values)
        axes[name] = [read.plain(value) for value in read.sequence(values, f"`matrix.{name}`")]
    if "max-parallel" in keys:
        reading.place((*path, "parallel"), keys["max-parallel"])
    fail_fast = read.optional(keys.get("fail-fast"), read.flag, "`fail-fast`", True)
    parallel = read.optional(keys.get("max-parallel"), read.integer, "`max-parallel`")
    if parallel is not None and parallel < 1:
        keys["max-parallel"].fail("`max-parallel` is at least 1")
    return axes, fail_fast, parallel


_PARTS: Final[Mapping[str, Callable[[Node | None, Reading], Any]]] = {
    "outputs": _outputs,
    "concurrency": _concurrency,
    "sensitive": _sensitive,
}
