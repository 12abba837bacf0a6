"""Whether a run may go on by another definition: what it did must be what the other would have had it do so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from countermark.workflow.check import refusal
from countermark.workflow.commands import UNFIT, Act, Call, Command, Compute, Delegate, Wait
from countermark.workflow.machine import Machine
from countermark.workflow.plan import DefinitionLike, is_of_type, same

RunRecord = tuple[str, Mapping[str, Any], int, int | None]  # kind, body, at, seq
_ACTIONS = ("action.decided", "action.refused")


def may_migrate(
    records: Sequence[RunRecord], old: DefinitionLike, new: DefinitionLike, *, event: Any = None
) -> str | None:
    """Why a run of ``old`` cannot go on by ``new``, or None: it can.

    Args:
        records: those of the run's stream, ``run.started`` first.
        event: the payload of the event that started it, or None.

    Every effect, computation and wait so far must be, to the last argument, the one that ``new`` asks for at that
    point. What was skipped or failed without a record, and what was not reached, may differ.
    """
    kind, started, at, _ = records[0]
    if kind != "run.started" or "workflow" not in started:
        return "it is no run of a definition"
    if new.document["name"] != old.document["name"]:
        return "the other definition has another name"
    if old.document.get("sensitive") != new.document.get("sensitive"):
        return "the other definition seals the values of another subject, or one of the two seals none"
    why = _inputs(started["workflow"]["inputs"], new.document["inputs"])
    if why is not None:
        return why
    was, will = (
        Machine(definition, started["run"], started["agent"], started, at, event=event) for definition in (old, new)
    )
    for kind, body, at, seq in records[1:]:
        why = _step(was, will, kind, body, at)
        if why is not None:
            return f"{kind}{'' if seq is None else f' (record {seq})'}: {why}"
        was.apply(kind, body, at, seq)
        will.apply(kind, body, at, seq)
        if len(will.strays) > len(was.strays):
            return f"{kind}: the other definition does not wait for it here"
    return "it has ended" if was.ended else None


def _inputs(given: Mapping[str, Any], declared: Mapping[str, Any]) -> str | None:
    for name in sorted(given.keys() | declared.keys()):
        if name not in declared or name not in given:
            return f"the input {name} is not in both"
        value, spec = given[name], declared[name]
        if value is None and not spec["required"] and spec["default"] is None:
            continue
        if not is_of_type(value, spec["type"]):
            return f"the input {name} has another type"
        if spec["choices"] and not any(same(value, choice) for choice in spec["choices"]):
            return f"the input {name} is none of the choices"
    return None


def _step(was: Machine, will: Machine, kind: str, body: Mapping[str, Any], at: int) -> str | None:
    was.time(at)
    will.time(at)
    asked, would = (_asked(machine, kind, body) for machine in (was, will))
    if asked is not None and would is None:
        return "the other definition does not ask for it here"
    if asked is not None and would is not None and not same(asdict(asked), asdict(would)):
        return "the other definition asks for something else here"
    if kind in _ACTIONS:
        return None  # compared as asked for: a record calls arguments otherwise, and seals some
    return None if refusal(was, kind, body, at) is not None else refusal(will, kind, body, at)


def _asked(machine: Machine, kind: str, body: Mapping[str, Any]) -> Command | None:
    """The command that a record answers."""
    if kind in _ACTIONS:
        call_id = body["call_id"]
        return next((one for one in machine.commands() if isinstance(one, Act) and one.call_id == call_id), None)
    if kind in ("compute.executed", "step.waiting") or (kind == "step.resumed" and body["code"] == UNFIT):
        kinds = (Compute, Wait, Call, Delegate)
        place = body["place"]
        return next((one for one in machine.commands() if isinstance(one, kinds) and one.place == place), None)
    return None
