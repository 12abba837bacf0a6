"""Whether a record is one that its run may have: what the gate asks before it, and an auditor after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from countermark.model.canon import canon
from countermark.model.clock import US
from countermark.model.digest import CODE, VALUE, digest, digest_of
from countermark.workflow.commands import (
    CANCELLED,
    UNFIT,
    Call,
    Cancel,
    Command,
    Compute,
    Delegate,
    End,
    Resume,
    Wait,
    Withdraw,
    may_be_unfit,
)
from countermark.workflow.machine import TIMEOUT, Machine
from countermark.workflow.plan import same
from countermark.workflow.state import ASK, PEOPLE, WAITING

_OUTSIDE = {"event": ("event",), "ended": ("call", "agent")}  # codes of step.resumed -> what was waited for
_C = TypeVar("_C", bound=Command)


def refusal(machine: Machine, kind: str, body: Mapping[str, Any], at: int) -> str | None:
    """Why this record of the run cannot come next, or None: it may.

    It tells the machine the time, and nothing else. What only other streams know (the event that woke a run, how
    another run ended, who may cancel) is not judged here. ``args`` of an action are compared as ``declared`` does it:
    they have the definition's names, and sealed ones may be anything.
    """
    machine.time(at)
    found = _CHECKS.get(kind)
    return None if found is None else found(machine, body, at)


def _asked(commands: Iterable[Command], kind: type[_C], place: str) -> _C | None:
    for command in commands:
        if isinstance(command, kind) and getattr(command, "place", "") == place:
            return command
    return None


def _compute(machine: Machine, body: Mapping[str, Any], at: int) -> str | None:
    command = _asked(machine.commands(), Compute, body["place"])
    if command is None:
        return f"it is not the turn of {body['place']}"
    wanted: dict[str, Any] = {"attempt": command.attempt, "code": digest(CODE, command.code.encode("utf-8"))}
    wanted["input"] = None if body["input"] is None else digest_of(VALUE, command.inputs)  # null in a sealed run
    ok = body["status"] == "ok"
    wanted["result"] = digest_of(VALUE, body["output"]) if ok else None
    wanted["output"] = body["output"] if ok else None
    return next((f"{name} is not that of {body['place']}" for name in wanted if wanted[name] != body[name]), None)


def _decided(machine: Machine, body: Mapping[str, Any], at: int) -> str | None:
    place = body["call_id"].rpartition(":")[0]
    step = machine.step_at(place)
    if step is not None and step.phase == PEOPLE and body["id"] == step.ids[-1]:
        return None  # what people answered stands directly before it
    why = machine.declared(body["call_id"], body["tool"], body["args"])
    if why is None and step is not None and tuple(body["claimed"]["because"]) != step.because:
        return f"{place} rests on other actions"
    return why


def _refused(machine: Machine, body: Mapping[str, Any], at: int) -> str | None:
    return machine.declared(body["call_id"], body["tool"] or _tool_of(machine, body["call_id"]))


def _tool_of(machine: Machine, call_id: str) -> str:
    """A tool that the gate did not know is recorded as ``""``: then the definition's."""
    step = machine.step_at(call_id.rpartition(":")[0])
    return str(step.plan.spec["tool"]) if step is not None and step.plan.kind == "effect" else ""


def _in_flight(machine: Machine, body: Mapping[str, Any], at: int) -> str | None:
    return None if machine.in_flight(body["id"]) else "it is about no action in flight"


def _expired(machine: Machine, body: Mapping[str, Any], at: int) -> str | None:
    if body.get("because") == CANCELLED and all(
        not isinstance(one, Withdraw) or one.action != body["id"] for one in machine.commands()
    ):  # fmt: skip
        return "people may still answer"
    return _in_flight(machine, body, at)


def _waiting(machine: Machine, body: Mapping[str, Any], at: int) -> str | None:
    place, for_ = body["place"], body["for"]
    step = machine.step_at(place)
    if step is None or step.phase != ASK:
        return f"it is not the turn of {place}"
    command = next(
        (one for one in machine.commands() if isinstance(one, Wait | Call | Delegate) and one.place == place), None
    )
    if command is None:
        return f"{place} does not wait"
    until = None if command.timeout_s is None else at + command.timeout_s * US
    if body["until"] != until:
        return f"{place} waits until {until}"
    if isinstance(command, Wait):
        return None if same(dict(command.for_), for_) else f"{place} waits for something else"
    wanted = {"kind": "call" if isinstance(command, Call) else "agent", "run": for_.get("run")}
    return None if for_ == wanted and type(for_["run"]) is str else f"{place} waits for another run"


def _resumed(machine: Machine, body: Mapping[str, Any], at: int) -> str | None:
    place, code = body["place"], body["code"]
    step = machine.step_at(place)
    if code == UNFIT:
        nothing = body["status"] == "failure" and body["event"] is None and not body["outputs"]
        begins = any(isinstance(one, Wait | Call | Delegate) and one.place == place for one in machine.commands())
        may = begins and step is not None and may_be_unfit(step.plan.spec)
        return None if nothing and may else f"{place} begins nothing that might not fit"
    if step is None or step.phase != WAITING or step.for_ is None:
        return f"{place} does not wait"
    if code in _OUTSIDE:
        return None if step.for_["kind"] in _OUTSIDE[code] else f"{place} waits for something else"
    due = _asked(machine.commands(), Resume, place)
    if due is None:
        return f"{place} waits still"
    found = Resume(place, body["status"], code, body["event"], body["outputs"])
    return None if found == due else f"{place} ends by {due.code}"


def _cancelled(machine: Machine, body: Mapping[str, Any], at: int) -> str | None:
    if machine.over or machine.cancelled:
        return "there is nothing to cancel"
    if body["reason"] == TIMEOUT and not body["person"] and Cancel(TIMEOUT) not in machine.commands():
        return "its time is not over"
    return None


def _ended(machine: Machine, body: Mapping[str, Any], at: int) -> str | None:
    end = next((command for command in machine.commands() if isinstance(command, End)), None)
    if end is None:
        return "it is not over"
    wanted = {
        "status": end.status, "outputs": dict(end.outputs), "undone": list(end.undone), "left": list(end.left)
    }  # fmt: skip
    if body["reason"] or canon(wanted) != canon(body["workflow"]):
        return "it ends otherwise"
    return None


_CHECKS: Mapping[str, Callable[[Machine, Mapping[str, Any], int], str | None]] = {
    "compute.executed": _compute,
    "action.decided": _decided,
    "action.refused": _refused,
    "action.settled": _in_flight,
    "escalation.raised": _in_flight,
    "escalation.climbed": _in_flight,
    "escalation.answered": _in_flight,
    "escalation.expired": _expired,
    "step.waiting": _waiting,
    "step.resumed": _resumed,
    "run.cancelled": _cancelled,
    "run.ended": _ended,
}
