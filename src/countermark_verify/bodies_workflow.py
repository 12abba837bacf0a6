"""The exact bodies of records about runs and workflows (docs/spec/workflow.md).

A definition is read where it is judged.
"""

from countermark_verify.fields import DIGEST, KEY, LABEL, NAME, NATURAL, SEALED, SIGNATURE, TEXT, words
from countermark_verify.sealed import ID, MESSAGE, SUBJECT, VALUE, VALUES
from countermark_verify.shape import (
    Check,
    anything,
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

FLAT = mapping(anything, key=ID)  # values of which none is nested, as most are
TITLE = r"[a-z0-9][a-z0-9._-]{0,63}"
# JOB.STEP, or JOB.N.STEP of the N-th combination; that of an undo ends in .undo.
STEP_PLACE = rf"{ID}\.(?:(?:0|[1-9][0-9]?)\.)?{ID}"

TYPES = mapping(const("string", "int", "bool", "list", "object"), key=ID)
PLACE = text(rf"{STEP_PLACE}(?:\.undo)?")
_STEP = {"run": NAME, "agent": NAME, "place": text(STEP_PLACE)}
_RUN = {"run": NAME, "agent": NAME}
_WORKFLOW: dict[str, Check] = {
    "definition": DIGEST,
    "name": text(TITLE),
    "bundle": DIGEST,
    "code": listing(DIGEST),
    "trigger": record(
        {
            "kind": const("manual", "schedule", "webhook", "chain", "call"),
            "event": text(chars_max=1_000),
            "record": maybe(NATURAL),
        }
    ),
    "parent": maybe(record({"run": NAME, "place": text(STEP_PLACE)})),
}
BOUNDARY = record(
    {
        "parent": NAME,
        "place": text(STEP_PLACE),
        "goal": TEXT,
        "tools": listing(NAME),
        "calls": integer(1),
        "until": NATURAL,
        "budget": listing(fixed(NAME, NATURAL)),
        "where": listing(fixed(NAME, NAME, listing(VALUE))),
        "sees": VALUES,
        "outputs": TYPES,
    }
)
_FOR = either(
    record({"kind": const("time"), "at": NATURAL}),
    record({"kind": const("event"), "source": NAME, "key": TEXT}),
    record({"kind": const("call", "agent"), "run": NAME}),
)

_STARTED = {**_RUN, "mandate": DIGEST, "purpose": TEXT}
_ENDED = {"name": text(TITLE), "status": const("success", "failure", "cancelled")}
_ENDED |= {"undone": listing(text(STEP_PLACE)), "left": listing(text(STEP_PLACE))}
_COMPUTED: dict[str, Check] = {
    **_STEP,
    "attempt": integer(1),
    "engine": LABEL,
    "code": DIGEST,
    "ticks": NATURAL,
    "limits": record({"ticks": integer(1), "memory_mb": integer(1), "seconds": integer(1)}),
}
_CODES = const("time", "event", "ended", "timeout", "cancelled", "unfit")
_RESUMED = {**_STEP, "status": const("success", "failure"), "code": _CODES, "event": maybe(NATURAL)}
# Records of sealed runs: whose the value is, a salted digest in its place, and no digest of it without a salt.
_OF = {"subject": text(SUBJECT)}
_UNSAID = {"input": const(None), "result": const(None)}

# The bodies of kinds that sealed runs have otherwise, when they are not of one.
CLEAR: dict[str, Check] = {
    "run.started": record(
        _STARTED | {"workflow": record(_WORKFLOW | {"inputs": VALUES}), "boundary": BOUNDARY},
        optional=("workflow", "boundary"),
    ),
    "run.ended": record(
        {**_RUN, "reason": TEXT, "outputs": VALUES, "workflow": record(_ENDED | {"outputs": VALUES})},
        optional=("outputs", "workflow"),
    ),
    "compute.executed": record(
        _COMPUTED
        | {"input": DIGEST, "status": const("ok", "error", "limit"), "output": maybe(VALUES)}
        | {"result": maybe(DIGEST), "message": MESSAGE}
    ),
}
FLOWS: dict[str, Check] = {
    "run.started": either(
        record(_STARTED | {"workflow": record(_WORKFLOW | {"inputs": SEALED})} | _OF), CLEAR["run.started"]
    ),
    "run.ended": either(
        record({**_RUN, "reason": TEXT, "workflow": record(_ENDED | {"outputs": SEALED})} | _OF), CLEAR["run.ended"]
    ),
    "run.cancelled": record({**_RUN, "reason": TEXT, "person": either(const(""), NAME)}),
    "run.migrated": record(
        {**_RUN, "from": DIGEST, "to": DIGEST, "reason": words, "person": NAME, "key": KEY, "sig": SIGNATURE}
    ),
    "workflow.defined": record({"digest": DIGEST, "document": mapping(anything)}),
    "compute.executed": either(
        record(_COMPUTED | _UNSAID | {"status": const("ok"), "output": SEALED, "message": const("")} | _OF),
        record(
            _COMPUTED | _UNSAID | {"status": const("error", "limit"), "output": const(None), "message": SEALED} | _OF
        ),
        CLEAR["compute.executed"],
    ),
    "step.waiting": record({**_STEP, "for": _FOR, "until": maybe(NATURAL)}),
    "step.resumed": either(record(_RESUMED | {"outputs": SEALED} | _OF), record(_RESUMED | {"outputs": VALUES})),
    "event.received": record(
        {
            "source": NAME,
            "event": text(chars_max=1_000),
            "key": TEXT,
            "payload": VALUE,
            "digest": DIGEST,
            "scheme": LABEL,
            "evidence": VALUE,
        }
    ),
}
