"""Reading the steps of a canonical document, each kind with its own members."""

from __future__ import annotations

import re
from typing import Any, Final

from countermark.model.errors import ArgumentError
from countermark.model.values import NAME as AGENT
from countermark.model.values import TOOL
from countermark.workflow import definition_read as read
from countermark.workflow.definition_parts import AgentStep, CallStep, EffectStep, PureStep, Retry, Step, Undo, WaitStep
from countermark.workflow.definition_read import ID, Pairs, fail
from countermark.workflow.definition_triggers import SOURCE
from countermark.workflow.errors import DefinitionError, Path, nearest

STEP_NAME_CHARS_MAX = 100
TOOLS_MAX = 64
CODE_CHARS_MAX = 32_000

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
CURRENCY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_PLACE: Final = re.compile(r"line ([0-9]+), column ([0-9]+)")
_WISHES: Final = re.compile(r", expected one of .*(?= \(line)")  # of a parser: everything that could have come
ALIAS: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")

_STEP = ("id", "kind", "name", "if", "continue_on_error", "timeout_s", "retry")
_KINDS: Final = {
    "effect": ("tool", "with", "undo"),
    "pure": ("code", "with", "outputs"),
    "wait": ("for",),
    "call": ("workflow", "with"),
    "agent": ("agent", "goal", "tools", "calls", "budget", "sees", "where", "outputs"),
}
_FOR: Final = {"time": ("kind", "seconds"), "until": ("kind", "at"), "event": ("kind", "source", "key")}


def read_step(value: Any, above: Path, number: int) -> Step:
    """One step of a job; ``above`` leads to the job's steps. Raises ``DefinitionError``."""
    where = (*above, number)
    if type(value) is not dict or "kind" not in value:
        fail(where, "a step is an object with a `kind`")
    kind = read.choice(value["kind"], (*where, "kind"), _KINDS)
    item = read.members(value, where, (*_STEP, *_KINDS[kind]))
    id_ = read.named(item["id"], (*where, "id"), ID)
    path = (*above, id_)
    timeout_s = read.optional(item["timeout_s"], (*path, "timeout_s"), read.timeout)
    retry = read.optional(item["retry"], (*path, "retry"), _retry)
    if timeout_s is not None and kind in ("effect", "pure"):
        fail((*path, "timeout_s"), f"a step of the kind {kind} has no timeout of its own", "Give one to its job.")
    if timeout_s is None and kind == "agent":
        fail((*path, "timeout_s"), "an agent's step must have a timeout")
    if retry is not None and kind not in ("effect", "pure"):
        fail((*path, "retry"), f"a step of the kind {kind} is not tried again")
    common: dict[str, Any] = {
        "id": id_, "kind": kind, "name": read.text(item["name"], (*path, "name"), most=STEP_NAME_CHARS_MAX),
        "if_": read.condition(item["if"], (*path, "if")),
        "continue_on_error": read.flag(item["continue_on_error"], (*path, "continue_on_error")),
        "timeout_s": timeout_s, "retry": retry,
    }  # fmt: skip
    return _READERS[kind](item, path, common)


def _retry(value: Any, path: Path) -> Retry:
    item = read.members(value, path, ("attempts", "delay_s", "factor"))
    return Retry(
        read.integer(item["attempts"], (*path, "attempts"), 2, 10),
        read.integer(item["delay_s"], (*path, "delay_s"), 1, 86_400),
        read.integer(item["factor"], (*path, "factor"), 1, 10),
    )


def _tool(value: Any, path: Path) -> str:
    return read.named(value, path, TOOL, "1 to 96 of A-Z a-z 0-9 _ . -, as tools have")


def _undo(value: Any, path: Path) -> Undo:
    item = read.members(value, path, ("tool", "with"))
    return Undo(_tool(item["tool"], (*path, "tool")), read.pairs(item["with"], (*path, "with"), read.ARGUMENT))


def _effect(item: dict[str, Any], path: Path, common: dict[str, Any]) -> Step:
    return EffectStep(
        **common,
        tool=_tool(item["tool"], (*path, "tool")),
        with_=read.pairs(item["with"], (*path, "with"), read.ARGUMENT),
        undo=read.optional(item["undo"], (*path, "undo"), _undo),
    )


def _pure(item: dict[str, Any], path: Path, common: dict[str, Any]) -> Step:
    code = read.text(item["code"], (*path, "code"), most=CODE_CHARS_MAX)
    with_ = read.pairs(item["with"], (*path, "with"))
    _check_code(code, with_, path)
    outputs = read.typed_names(item["outputs"], (*path, "outputs"))
    return PureStep(**common, code=code, with_=with_, outputs=outputs)


def _check_code(code: str, with_: Pairs, path: Path) -> None:
    """Code that may be run, and whose ``main`` takes what it is given."""
    from countermark.compute import check_code  # late: a worker's needs are no definition's

    try:
        taken = check_code(code)
    except ArgumentError as error:
        raise in_code(error, code, path) from None
    for name, _ in with_:
        if name not in taken:
            fail((*path, "with", name), f"`main` of the code takes no `{name}`", nearest(name, taken))


def in_code(error: ArgumentError, code: str, path: Path) -> DefinitionError:
    """What is wrong with the code of the step at ``path``, where it stands."""
    where = _PLACE.search(error.message)
    offset = _offset(code, int(where[1]), int(where[2])) if where else 0
    what = f"in the code, {_WISHES.sub('', error.message)}"
    return DefinitionError(what, hint=error.hint, path=(*path, "code"), offset=offset)


def _offset(text: str, line: int, column: int) -> int:
    """The number of characters before a line and column, both from 1."""
    lines = text.split("\n")
    return sum(len(one) + 1 for one in lines[: line - 1]) + column - 1


def _wait(item: dict[str, Any], path: Path, common: dict[str, Any]) -> Step:
    where = (*path, "for")
    if type(item["for"]) is not dict or "kind" not in item["for"]:
        fail(where, "what a wait is for is an object with a `kind`")
    kind = read.choice(item["for"]["kind"], (*where, "kind"), _FOR)
    for_ = read.members(item["for"], where, _FOR[kind])
    for name in _FOR[kind][1:]:
        if name == "source":
            read.named(for_["source"], (*where, "source"), SOURCE, "1 to 40 of a-z 0-9 -, as sources have")
        else:
            read.template(for_[name], (*where, name))
    return WaitStep(**common, for_=for_)


def _call(item: dict[str, Any], path: Path, common: dict[str, Any]) -> Step:
    workflow = read.named(item["workflow"], (*path, "workflow"), DIGEST, "sha256: and 64 hex digits")
    return CallStep(**common, workflow=workflow, with_=read.pairs(item["with"], (*path, "with")))


def _agent(item: dict[str, Any], path: Path, common: dict[str, Any]) -> Step:
    tools = [_tool(tool, (*path, "tools")) for tool in read.items(item["tools"], (*path, "tools"), TOOLS_MAX)]
    read.in_order(tools, (*path, "tools"))
    budget: list[tuple[str, int]] = []
    for number, row in enumerate(read.items(item["budget"], (*path, "budget"), 16)):
        pair = read.items(row, (*path, "budget", number), 2, least=2)
        currency = read.named(pair[0], (*path, "budget", number), CURRENCY, "1 to 64 of A-Z a-z 0-9 _ . : -")
        budget.append((currency, read.integer(pair[1], (*path, "budget", currency), 1, 2**53 - 1)))
    read.in_order([currency for currency, _ in budget], (*path, "budget"))
    return AgentStep(
        **common,
        agent=read.named(item["agent"], (*path, "agent"), AGENT, "1 to 64 of a-z 0-9 _ . -"),
        goal=read.template(item["goal"], (*path, "goal")),
        tools=tuple(tools),
        calls=read.integer(item["calls"], (*path, "calls"), 1, 1_000),
        budget=tuple(budget),
        sees=read.pairs(item["sees"], (*path, "sees")),
        where=_where(item["where"], (*path, "where"), tools),
        outputs=read.typed_names(item["outputs"], (*path, "outputs")),
    )


def _where(value: Any, path: Path, tools: list[str]) -> tuple[tuple[str, str, tuple[Any, ...]], ...]:
    rows: list[tuple[str, str, tuple[Any, ...]]] = []
    for number, row in enumerate(read.items(value, path, 64)):
        tool, alias, allowed = read.items(row, (*path, number), 3, least=3)
        if _tool(tool, (*path, number)) not in tools:
            fail((*path, number), f"`{tool}` is none of the agent's tools")
        read.named(alias, (*path, number), ALIAS, "1 to 40 of a-z 0-9 _, as aliases of arguments have")
        for place, one in enumerate(read.items(allowed, (*path, tool, alias), 64, least=1)):
            read.template(one, (*path, tool, alias, place))
        rows.append((tool, alias, tuple(allowed)))
    read.in_order([(tool, alias) for tool, alias, _ in rows], path)
    return tuple(rows)


_READERS: Final = {"effect": _effect, "pure": _pure, "wait": _wait, "call": _call, "agent": _agent}
