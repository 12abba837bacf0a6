"""Steps of a YAML definition: one key says the kind, the others are what every step has."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from typing import Any, Final

from countermark.workflow import definition_build as build
from countermark.workflow import yaml_read as read
from countermark.workflow.definition import APPROVE
from countermark.workflow.errors import Path, nearest
from countermark.workflow.yaml_nodes import Mapping as MappingNode
from countermark.workflow.yaml_nodes import Node, Scalar, Sequence
from countermark.workflow.yaml_read import Reading

FILE_BYTES_MAX = 32_000
ID_CHARS_MAX = 40
QUESTION = "question"  # the argument of `workflow.approve` that people read

_COMMON: Final = ("id", "name", "if", "continue-on-error", "timeout-minutes", "env")
KINDS: Final = {  # the key that says the kind -> what else may stand beside it
    "uses": ("with", "retry", "undo"), "run": ("with", "outputs", "retry"), "approve": (), "wait": (),
    "call": ("with",), "agent": (),
}  # fmt: skip
ALL: Final = (*_COMMON, *KINDS, "with", "outputs", "retry", "undo")
_FILE = re.compile(r"\./[A-Za-z0-9_./-]+\.star")
AGENT: Final = ("name", "goal", "tools", "calls", "minutes", "budget", "sees", "where", "outputs")
UNITS: Final = {"seconds": 1, "minutes": 60, "hours": 3_600}


def step_of(node: Node, number: int, above: Path, taken: set[str], reading: Reading) -> dict[str, Any]:
    """One step's part of the document; ``number`` counts from 0, ``taken`` are ids of earlier steps."""
    reading.place((*above, number), node)
    keys = reading.keys(node, "a step", ALL)
    reading = reading.within(keys.get("env"))
    kinds = [key for key in KINDS if key in keys]
    if len(kinds) != 1:
        said = f"both `{kinds[0]}` and `{kinds[1]}`" if kinds else "none of them"
        node.fail(f"a step has exactly one of {', '.join(KINDS)}: {said}")
    kind = kinds[0]
    for key in keys:
        if key not in (*_COMMON, kind, *KINDS[kind]):
            keys[key].fail(f"`{key}` does not belong to a step with `{kind}`", _beside(kind, key))
    name = read.optional(keys.get("name"), read.text, "a step's `name`", "")
    id_ = read.text(keys["id"], "`id`") if "id" in keys else _id_for(name, number, taken)
    taken.add(id_)
    path = (*above, id_)
    reading.place(path, node)
    for key, value in keys.items():
        reading.place((*path, {"timeout-minutes": "timeout_s", "run": "code", "uses": "tool"}.get(key, key)), value)
    found, members = _KIND[kind](keys, path, reading)
    timeout_s = read.optional(keys.get("timeout-minutes"), read.minutes, "`timeout-minutes`")
    if kind == "agent":
        if timeout_s is not None:
            keys["timeout-minutes"].fail("an agent's time is `agent.minutes`")
        timeout_s = members.pop("timeout_s")
    return build.step(
        id_, found, members, name=name,
        if_=reading.texts.condition(keys["if"]) if "if" in keys else None,
        continue_on_error=read.optional(keys.get("continue-on-error"), read.flag, "`continue-on-error`", False),
        timeout_s=timeout_s, retry=_retry(keys.get("retry"), path, reading),
    )  # fmt: skip


def _beside(kind: str, key: str) -> str:
    if key == "outputs" and kind == "uses":
        return "The tool declares its outputs."
    if key == "retry":
        return "Steps with `uses` or `run` are tried again."
    if key == "with":
        return f"What it takes stands under `{kind}`."
    return ""


def _id_for(name: str, number: int, taken: set[str]) -> str:
    """The id of a step that has none: made of its name, as W3 does, or counted."""
    made = build.slug(name, ID_CHARS_MAX)
    if made and made[0].isdigit():
        made = f"step-{made}"[:ID_CHARS_MAX].strip("-")
    return made if made and made not in taken else f"step-{number + 1}"


def _retry(node: Node | None, path: Path, reading: Reading) -> dict[str, int] | None:
    if node is None:
        return None
    if isinstance(node, Scalar):
        return build.retry(read.integer(node, "`retry`, unless it is a mapping,"))
    keys = reading.keys(node, "`retry`", ("attempts", "delay-seconds", "factor"))
    if "attempts" not in keys:
        node.fail("`retry` needs `attempts`", "Such as: retry: { attempts: 3, delay-seconds: 10 }.")
    for key, value in keys.items():
        reading.place((*path, "retry", {"delay-seconds": "delay_s"}.get(key, key)), value)
    return build.retry(
        read.integer(keys["attempts"], "`attempts`"),
        read.optional(keys.get("delay-seconds"), read.integer, "`delay-seconds`", build.RETRY_DELAY_S),
        read.optional(keys.get("factor"), read.integer, "`factor`", build.RETRY_FACTOR),
    )


def tool_of(node: Node) -> str:
    """A tool's name, without the version that may stand after it."""
    name, at, version = read.text(node, "`uses`").partition("@")
    if "/" in name:
        node.fail(f"`{name[:60]}` is no governed tool", "Name one: stripe.transfers.create@v1.")
    if at and version != "v1":
        node.fail(f"there is no version `{version[:20]}` of a tool", f"Write `{name}@v1`, or leave the version out.")
    return name


def _effect(keys: dict[str, Node], path: Path, reading: Reading) -> tuple[str, dict[str, Any]]:
    undo = None
    if "undo" in keys:
        inner = reading.keys(keys["undo"], "`undo`", ("uses", "with"))
        if "uses" not in inner:
            keys["undo"].fail("`undo` needs `uses`", "It is the effect that makes up for this one.")
        reading.place((*path, "undo", "tool"), inner["uses"])
        undo = {
            "tool": tool_of(inner["uses"]),
            "with": reading.templates(inner.get("with"), "`undo.with`", (*path, "undo", "with")),
        }
    with_ = reading.templates(keys.get("with"), "`with`", (*path, "with"))
    return "effect", {"tool": tool_of(keys["uses"]), "with": with_, "undo": undo}


def _approve(keys: dict[str, Node], path: Path, reading: Reading) -> tuple[str, dict[str, Any]]:
    node = keys["approve"]
    if isinstance(node, MappingNode):
        with_ = reading.templates(node, "`approve`", (*path, "with"))
    else:
        with_ = [[QUESTION, reading.texts.template(node)]]
        reading.place((*path, "with"), node)
    return "effect", {"tool": APPROVE, "with": with_, "undo": None}


def _pure(keys: dict[str, Node], path: Path, reading: Reading) -> tuple[str, dict[str, Any]]:
    node = keys["run"]
    if not isinstance(node, Scalar) or type(node.value()) is not str:
        node.fail("`run` is Starlark code, or ./FILE.star")
    code = node.text
    if _FILE.fullmatch(code.strip()):
        name = code.strip()
        code = _file(node, name, reading)
        reading.files[(*path, "code")] = (name.removeprefix("./"), code)
    elif "${{" in code:
        hint = "Data is never part of code: give it under `with`, and take it as an argument of main."
        node.fail("an expression in code", hint, offset=code.index("${{"))
    else:
        reading.codes[(*path, "code")] = node
    outputs = read.types(keys.get("outputs"), "`outputs`")
    with_ = reading.templates(keys.get("with"), "`with`", (*path, "with"))
    return "pure", {"code": code, "with": with_, "outputs": outputs}


def _file(node: Scalar, name: str, reading: Reading) -> str:
    """The text of a file beside the definition: no way up, no link, no device."""
    if reading.folder is None:
        node.fail(f"`{name}` cannot be read: this text comes from no folder", "Write the code here.")
    parts = name.split("/")[1:]
    if any(part in ("", ".", "..") for part in parts):
        node.fail(f"`{name}` leads elsewhere", "Name a file in the definition's folder.")
    at = reading.folder
    for part in parts:
        at = at / part
        if at.is_symlink():
            node.fail(f"`{name}` is a link, or lies behind one", "Put the file itself there.")
    try:
        handle = os.open(at, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        node.fail(f"there is no file `{name}` beside the definition")
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            node.fail(f"`{name}` is no file")
        raw = b""
        while len(raw) <= FILE_BYTES_MAX and (piece := os.read(handle, FILE_BYTES_MAX)):
            raw += piece
    finally:
        os.close(handle)
    if len(raw) > FILE_BYTES_MAX:
        node.fail(f"`{name}` is longer than {FILE_BYTES_MAX:,} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        node.fail(f"`{name}` is not in UTF-8")


def _wait(keys: dict[str, Node], path: Path, reading: Reading) -> tuple[str, dict[str, Any]]:
    node = keys["wait"]
    inner = reading.keys(node, "`wait`", (*UNITS, "until", "event", "key"))
    what = [key for key in inner if key != "key"]
    if len(what) != 1 or ("key" in inner) != (what == ["event"]):
        node.fail("`wait` has one of seconds, minutes, hours, until; or `event` and `key`")
    for key, value in inner.items():
        name = {"until": "at", "event": "source"}.get(key, "seconds" if key in UNITS else key)
        reading.place((*path, "for", name), value)
    unit = what[0]
    value = inner[unit]
    for_: dict[str, Any]
    if unit == "event":
        key = reading.texts.template(inner["key"])
        for_ = {"kind": "event", "source": read.text(value, "`event`, the source,"), "key": key}
    elif unit == "until":
        for_ = {"kind": "until", "at": reading.texts.template(value)}
    elif unit == "seconds":
        for_ = {"kind": "time", "seconds": reading.texts.template(value)}
    else:
        for_ = {"kind": "time", "seconds": read.integer(value, f"`{unit}`") * UNITS[unit]}
    return "wait", {"for": for_}


def _call(keys: dict[str, Node], path: Path, reading: Reading) -> tuple[str, dict[str, Any]]:
    name = read.text(keys["call"], "`call`")
    if not name.startswith("sha256:") and name not in reading.workflows:
        keys["call"].fail(f"there is no workflow `{name[:64]}` to call", nearest(name, reading.workflows))
    with_ = reading.templates(keys.get("with"), "`with`", (*path, "with"))
    reading.place((*path, "workflow"), keys["call"])
    return "call", {"workflow": reading.workflows.get(name, name), "with": with_}


def _agent(keys: dict[str, Node], path: Path, reading: Reading) -> tuple[str, dict[str, Any]]:
    node = keys["agent"]
    inner = reading.keys(node, "`agent`", AGENT)
    for key in ("name", "goal", "calls", "minutes"):
        if key not in inner:
            node.fail(f"`agent` needs `{key}`", "What it may do has a bound: calls, minutes, tools.")
    for key, value in inner.items():
        reading.place((*path, {"name": "agent", "minutes": "timeout_s"}.get(key, key)), value)
    tools = [tool_of(item) for item in read.sequence(inner["tools"], "`tools`")] if "tools" in inner else []
    budget = read.mapping(inner["budget"], "`budget`") if "budget" in inner else {}
    return "agent", {
        "agent": read.text(inner["name"], "`agent.name`"),
        "goal": reading.texts.template(inner["goal"]),
        "tools": sorted(tools),
        "calls": read.integer(inner["calls"], "`calls`"),
        "timeout_s": read.minutes(inner["minutes"], "`minutes`"),
        "budget": build.pairs({name: read.integer(value, f"`budget.{name}`") for name, value in budget.items()}),
        "sees": reading.templates(inner.get("sees"), "`sees`", (*path, "sees")),
        "where": _where(inner.get("where"), path, reading),
        "outputs": read.types(inner.get("outputs"), "`outputs`"),
    }


def _where(node: Node | None, path: Path, reading: Reading) -> list[list[Any]]:
    """``{TOOL: {ALIAS: value, or a list of values}}``: what an argument of the agent may be."""
    rows = []
    for tool, aliases in read.mapping(node, "`where`").items() if node is not None else ():
        for alias, allowed in read.mapping(aliases, f"`where.{tool}`").items():
            reading.place((*path, "where", tool.partition("@")[0], alias), allowed)
            values = allowed.items if isinstance(allowed, Sequence) else (allowed,)
            rows.append([tool.partition("@")[0], alias, [reading.texts.template(value) for value in values]])
    return sorted(rows, key=lambda row: row[:2])


_KIND: Final[dict[str, Callable[[dict[str, Node], Path, Reading], tuple[str, dict[str, Any]]]]] = {
    "uses": _effect, "run": _pure, "approve": _approve, "wait": _wait, "call": _call, "agent": _agent,
}  # fmt: skip
