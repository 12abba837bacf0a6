"""Tier ``observing``: the gate decides and records, the caller runs the tool itself, then reports what happened.

Only tools whose policy says ``connector = "caller"`` are admitted, so no agent can turn a tool that the gate executes
into one that it runs itself. The gate neither sends nor recovers such an intent: it stays open until its outcome is
reported, and becomes unknown when nobody reported by its ``not_after``. A report releases nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from countermark.gate.actions import Decided, deciding, recorded, settle
from countermark.gate.answers import result_of
from countermark.gate.dispatch import Dispatch, Intent
from countermark.gate.writer import Writer
from countermark.model.clock import US
from countermark.model.errors import ArgumentError
from countermark.model.ports import Clock, Preparer
from countermark.model.request import prepare
from countermark.model.tool import CALLER, ToolSpec, Value
from countermark.model.values import ACT_ID, EXECUTING, Outcome, Request, Result

OUTCOMES = ("confirmed", "failed", "unknown")
LAPSED_PER_TURN_MAX = 256

_TYPES = {"string": str, "integer": int, "boolean": bool}
_OUTPUT_TEXT = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f]{0,1024}")
_RUN_IT = "Run the tool now, with exactly these arguments, then report its outcome."
_BLOCKED = {
    "killed": "Stop. People have stopped this; do not try another way.",
    "too_late": "Do not run it: its time has passed. Ask anew with a new call_id.",
    "payee_changed": "Do not run it: the payee's account was changed since. Ask a person.",
    "policy_changed": "Do not run it: the policy has changed since. Ask anew with a new call_id.",
}


class Described:
    """What stands for a connector where nothing is sent: the request is the call as its caller will make it."""

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        return prepare(tool, args, key)


CALLERS: Mapping[str, Preparer] = {CALLER: Described()}


def once_of(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """What is asked for, and whether only the first who is told to go may be. Raises ``ArgumentError``."""
    once = body.get("once", False)
    if type(once) is not bool:
        raise ArgumentError("once must be true or false", field="once")
    return {name: value for name, value in body.items() if name != "once"}, once


def answer(decided: Decided, dispatch: Dispatch, clock: Clock, *, once: bool = False) -> Result:
    """The answer to ``admit``: the same for the same call, until something stops what it allowed.

    ``pending`` with the disposition ``allow`` or ``flag`` means go; anything else means that the tool is not to be run,
    also ``confirmed`` and ``failed``: it was run before. Whoever was told to go stands in the list of effects under
    way, which a kill answers with, until the report.

    With ``once`` go is said once: whoever asked before may have heard it, and run the tool. What an earlier gate
    answered nobody knows, so what was decided in its time counts as said.

    Raises:
        ArgumentError: ``admitted_before``, with ``once``.
    """
    result = result_of(decided)
    if result.status != "pending":
        return result
    why = dispatch.begin(Intent(decided.record), clock.now_us())
    if why in (None, "already_running"):
        if once and (why is not None or (not decided.fresh and decided.record.seq < dispatch.since)):
            hint = "Ask whoever did it whether it was done, and report that; without `once` the gate says go again."
            raise ArgumentError("somebody may have been told to run this before", code="admitted_before", hint=hint)
        return result._replace(next_step=_RUN_IT, retryable=False)
    step = _BLOCKED.get(why or "", "Do not run it; ask a person.")
    return result._replace(disposition="deny", status="denied", code=why or "", retryable=False, next_step=step)


def report(writer: Writer, agent: str, body: Mapping[str, Any]) -> Decided:
    """Record the outcome that the caller reports. The same report again changes nothing.

    Raises:
        ArgumentError: no such action of the agent's, not one that was admitted, or settled otherwise before.
    """
    outcome = _outcome(body)
    action = body.get("id", "")
    seq = writer.state.newest(action) if ACT_ID.fullmatch(action) is not None else None
    if seq is None or (first := deciding(writer, writer.record(seq))).body["agent"] != agent:
        raise ArgumentError("no such action of this agent", field="id", code="unknown_action")
    tool = writer.bundle(first.body["bundle"]).compiled.tools.get(first.body["tool"])
    if first.body["disposition"] not in EXECUTING or tool is None or tool.connector != CALLER:
        raise ArgumentError("the caller was not told to run this", field="id", code="not_admitted")
    if first.seq not in writer.state.open:
        latest = recorded(writer, writer.record(seq))
        if latest.settled is None or latest.settled.body["outcome"] != outcome.status:
            raise ArgumentError("another outcome was reported before", field="outcome", code="already_settled")
        return latest
    declared = {name: outcome.output[name] for name, kind in tool.outputs if _fits(outcome.output.get(name), kind)}
    return settle(writer, Intent(first), replace(outcome, output=declared), "report")


def _outcome(body: Mapping[str, Any]) -> Outcome:
    status, output = body.get("outcome"), body.get("output")
    if status not in OUTCOMES:
        raise ArgumentError(f"outcome is one of {', '.join(OUTCOMES)}", field="outcome")
    if output is not None and not isinstance(output, Mapping):
        raise ArgumentError("output must be an object", field="output")
    ref = body.get("ref", "") if status == "confirmed" else ""
    return Outcome(status, "reported", ref=ref, attempts=0, output=output if status == "confirmed" and output else {})


def _fits(value: object, kind: str) -> bool:
    if type(value) is not _TYPES.get(kind):
        return False
    return type(value) is not str or _OUTPUT_TEXT.fullmatch(value) is not None


def lapse(writer: Writer) -> list[int]:
    """Intents that nobody reported in time become unknown: what their callers did is not known. Answers their seqs."""
    bundle = writer.state.bundle
    tools = {} if bundle is None else bundle.compiled.tools
    late: list[Intent] = []
    for seq, intent in writer.state.open.items():
        tool = tools.get(intent.tool)
        if intent.status != "open" or writer.at < intent.at + (0 if tool is None else tool.dispatch_within_s * US):
            continue  # spares a look at the record, which alone says when it really is late
        found = Intent(writer.record(seq))
        if writer.at >= found.not_after and _by_caller(writer, found):
            late.append(found)
        if len(late) == LAPSED_PER_TURN_MAX:
            break
    for found in late:
        settle(writer, found, Outcome("unknown", "not_reported", attempts=0), "recovery")
    return [found.seq for found in late]


def _by_caller(writer: Writer, intent: Intent) -> bool:
    tool = writer.bundle(intent.body["bundle"]).compiled.tools.get(intent.body["tool"])
    return tool is not None and tool.connector == CALLER
