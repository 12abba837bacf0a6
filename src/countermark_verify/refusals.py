"""V21: what a definition asked for, and the gate refused as no action at all (docs/spec/workflow.md, rule 3)."""

import re
from collections.abc import Mapping
from typing import Any

from countermark_verify import arguments
from countermark_verify.bundle import CALLER, Bundle

CODES = frozenset(("unknown_tool", "caller_runs_it", "unknown_argument", "missing_argument", "bad_argument"))
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Why it was refused: it follows from the records, it does not, or nobody can say from them.
FOUNDED, UNFOUNDED, UNKNOWN = "founded", "unfounded", "unknown"


def judge(body: Mapping[str, Any], wanted: str, given: Mapping[str, Any], bundle: Bundle | None) -> str:
    """`body` is an `action.refused`; `wanted` and `given` are the tool and the arguments that the step has."""
    tool = None if bundle is None else bundle.tools.get(wanted)
    code, field = body["code"], body["field"]
    if code not in CODES or body["tool"] != ("" if tool is None else wanted):
        return UNFOUNDED
    if tool is None:
        return FOUNDED if code == "unknown_tool" else UNFOUNDED
    if code == "unknown_tool":
        return UNKNOWN  # its connector was not there, which no record says
    if (code == "caller_runs_it") != (tool["connector"] == CALLER):
        return UNFOUNDED
    if code == "caller_runs_it":
        return FOUNDED
    declared = {item["name"]: item for item in tool["args"]}
    if code == "unknown_argument":
        return FOUNDED if given.keys() - declared.keys() else UNFOUNDED
    if code == "missing_argument":
        return FOUNDED if declared.get(field, {}).get("required") and field not in given else UNFOUNDED
    if field in declared and field in given and _crooked(declared[field], given[field]):
        return FOUNDED
    return UNKNOWN  # what its connector makes no request of, and a currency that may not be moved


def _crooked(item: Mapping[str, Any], value: Any) -> bool:
    if arguments.misfit(item, value):
        return arguments.matches(item, value)
    return type(value) is str and _CONTROL.search(value) is not None
