"""JSON Schemas of what goes in and comes out over HTTP: the same bounds as the rooms that judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from countermark.model.canon import INTEGER_ABS_MAX
from countermark.model.values import BECAUSE_MAX, REASON_CHARS_MAX

Schema = dict[str, Any]

_KEY = "^[A-Za-z0-9_.$-]{1,64}$"
_DIGEST = "^sha256:[0-9a-f]{64}$"
_ACTION = "^act_[0-9a-f]{32}$"
_RUN = "^run_[0-9a-f]{32}$"
_ESCALATION = "^esc_[0-9a-f]{32}$"
_KILL = "^kill_[0-9a-f]{16}$"
_LINE = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"
_KEY = r"^[A-Za-z0-9_.$-]{1,64}$"
_PLAIN = r"^[^\u0000-\u001f\u007f-\u009f]*$"
_WORDS = r"^[^\u0000-\u0008\u000b-\u001f\u007f-\u009f]*$"


def _text(pattern: str = "", low: int = 0, high: int = 0) -> Schema:
    found: Schema = {"type": "string"}
    if pattern:
        found["pattern"] = pattern
    if low:
        found["minLength"] = low
    if high:
        found["maxLength"] = high
    return found


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _whole(low: int = 0, high: int = INTEGER_ABS_MAX) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _object(members: Mapping[str, Any], required: Sequence[str] | None = None, *, more: Any = False) -> Schema:
    return {
        "type": "object",
        "properties": dict(members),
        "required": list(members if required is None else required),
        "additionalProperties": more,
    }


def _list(items: Schema, high: int = 0) -> Schema:
    return {"type": "array", "items": items} | ({"maxItems": high} if high else {})


def _signed(name: str) -> Schema:
    return _object(
        {name: _object({}, more=True), "key": _text(), "sig": {"type": ["string", "object"]}}, (name, "key", "sig")
    )


_VALUE: Schema = {"anyOf": [_text(), _whole(-INTEGER_ABS_MAX), {"type": "boolean"}]}
_ANY_OBJECT = _object({}, more=True)
_OUTPUTS = {**_object({}, more={"$ref": "#/components/schemas/Value"}), "propertyNames": _text(_KEY)}
_ASKED = {
    "run": _or_null(_text(_RUN)), "call_id": _text("^[A-Za-z0-9_.:-]{1,128}$"),
    "tool": _text("^[a-z0-9][A-Za-z0-9_.-]{0,95}$"), "args": _object({}, more=_VALUE),
    "reason": _or_null(_text(_WORDS, high=REASON_CHARS_MAX)),
    "model": _or_null(_text(_PLAIN, high=200)), "trace": _or_null(_text(_PLAIN, high=200)),
    "because": {"type": ["array", "null"], "items": _text(_ACTION), "maxItems": BECAUSE_MAX},
}  # fmt: skip
_RECEIPT = _object(
    {
        "decided_seq": _whole(), "decided": _text(_DIGEST), "settled_seq": _or_null(_whole()),
        "settled": _or_null(_text(_DIGEST)), "log_size": _whole(),
        "tier": {"enum": ["enforcing", "embedded", "observing"]},
    }
)  # fmt: skip
_STATUS: Schema = {"enum": ["confirmed", "failed", "unknown", "denied", "escalated", "pending"]}
_RESULT = _object(
    {
        "action": _text(_ACTION), "run": _text(_RUN),
        "disposition": {"enum": ["allow", "flag", "escalate", "deny"]}, "status": _STATUS, "code": _text(),
        "retryable": {"type": "boolean"}, "next_step": _text(), "escalation": _or_null(_text(_ESCALATION)),
        "ref": _text(), "output": _object({}, more=_VALUE), "receipt": _RECEIPT,
    }
)  # fmt: skip
_PROBLEM = {
    "type": _text("^urn:countermark:problem:[a-z_.0-9]+$"), "title": _text(), "status": _whole(400, 599),
    "detail": _text(), "code": _text(), "retryable": {"type": "boolean"}, "hint": _text(),
}  # fmt: skip

SCHEMAS: Mapping[str, Schema] = {
    # docs/spec/record.md: whatever a record may hold, at most 16 deep.
    "Value": {
        "anyOf": [
            {"type": ["string", "boolean", "null"]}, _whole(-INTEGER_ABS_MAX),
            {"type": "array", "items": {"$ref": "#/components/schemas/Value"}},
            {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Value"},
             "propertyNames": _text(_KEY)},
        ]
    },
    "Problem": _object({**_PROBLEM, "result": {"$ref": "#/components/schemas/Result"}}, tuple(_PROBLEM)),
    "Result": _RESULT,
    "AskedAction": _object(_ASKED, ("call_id", "tool", "args")),
    "AskedAdmission": _object({**_ASKED, "once": {"type": "boolean"}}, ("call_id", "tool", "args")),
    "AskedRun": _object({"mandate": _or_null(_text(_LINE, high=500)), "purpose": _text(_LINE, high=500)}, ()),
    "EndedRun": _object({"reason": _text(_LINE, high=500), "outputs": _OUTPUTS}, ()),
    "StartedRun": _object({"run": _text(_RUN), "agent": _text()}),
    "ClosedRun": _object({"run": _text(_RUN), "agent": _text(), "open": {"const": False}}),
    "Run": _object(
        {
            "run": _text(_RUN), "agent": _text(), "mandate": _text(_DIGEST), "open": {"type": "boolean"},
            "records": _whole(1), "boundary": _ANY_OBJECT,
        },
        ("run", "agent", "mandate", "open", "records"),
    ),
    "Outcome": _object(
        {
            "outcome": {"enum": ["confirmed", "failed", "unknown"]}, "ref": _text(_LINE, high=500),
            "output": {
                "type": ["object", "null"], "additionalProperties": _VALUE, "propertyNames": {"pattern": _KEY},
            },
        },
        ("outcome",),
    ),
    "Receipt": _object(
        {
            "action": _text(_ACTION), "status": _STATUS, "receipt": _RECEIPT, "checkpoint": _text(),
            "proofs": _list(_object({"seq": _whole(), "path": _list(_text("^[0-9a-f]{64}$"))})),
        }
    ),
    "Explanation": _object(
        {
            "kind": {"const": "action"}, "id": _text(_ACTION), "status": _text(), "agent": _text(), "run": _text(_RUN),
            "call_id": _text(), "tool": _text(), "terms": _ANY_OBJECT, "args": _ANY_OBJECT, "withheld": _list(_text()),
            "disposition": _text(), "stage": _text(), "code": _text(), "outcome": {"type": ["object", "null"]},
            "records": _list(_ANY_OBJECT), "next_step": _text(),
        }
    ),
    "Escalations": _object({"escalations": _list(_ANY_OBJECT)}),
    "SignedApproval": _signed("approval"),
    "Answered": _object(
        {"state": _text(), "result": {"anyOf": [{"$ref": "#/components/schemas/Result"}, {"type": "null"}]}}
    ),
    "Kill": _object(
        {
            "kind": {"enum": ["deployment", "agent", "tool", "mandate", "payee"]}, "value": _text(_LINE, high=500),
            "reason": _text(_LINE, high=500),
        },
        ("kind",),
    ),
    "Killed": _object({"kill": _text(_KILL), "in_flight": _list(_ANY_OBJECT)}),
    "SignedClearance": _signed("clearance"),
    "Cleared": _object({"cleared": _text(_KILL)}),
    "SignedMandate": {
        **_object({"mandate": _ANY_OBJECT, "digest": _text(), "key": _text(), "sig": _text()}),
    },
    "Granted": _object({"mandate": _text(_DIGEST)}),
    "SignedRevocation": _signed("revocation"),
    "Revoked": _object({"revoked": _text(_DIGEST), "in_flight": _list(_ANY_OBJECT)}),
    "People": _object({"people": _list(_ANY_OBJECT)}),
    "Offer": _object(
        {
            "code": _text(), "enrolment": _ANY_OBJECT, "proof": _ANY_OBJECT, "fingerprint": _text(),
            "until": _whole(),
        }
    ),
    "AskedDraft": _object({"person": _text(), "key": _text(), "label": _text()}),
    "Drafted": _object({"enrolment": _ANY_OBJECT, "challenge": _text("^[A-Za-z0-9_-]{43}$")}),
    "Offered": _object({"enrolment": _ANY_OBJECT, "proof": _ANY_OBJECT}),
    "SignedEnrolment": _object(
        {"enrolment": _ANY_OBJECT, "signed": _list(_ANY_OBJECT, 2), "proof": {"type": ["object", "null"]}}
    ),
    "KeyChanged": _object({"person": _text(), "key": _text(), "seq": _whole()}),
    "SignedRemoval": _signed("removal"),
    "SignedAbsence": _object({"absence": _ANY_OBJECT, "signed": _list(_ANY_OBJECT, 2)}),
    "AwaySet": _object({"person": _text(), "stands_in": _text(), "seq": _whole()}),
    "Health": _object({"ready": {"type": "boolean"}, "reasons": _object({}, more=_text()), "trigger_faults": _whole()}),
    "OpenAPI": _ANY_OBJECT,
    "Delivery": _ANY_OBJECT,
    "Delivered": _object({"event": _text(high=200), "record": _whole()}),
}  # fmt: skip

PATHS: Mapping[str, Schema] = {
    "id": _text(_ACTION), "run": _text(_RUN), "escalation": _text(_ESCALATION), "kill": _text(_KILL),
    "offer": _text("^[0-9A-Za-z -]{8,16}$"), "source": _text("^[a-z][a-z0-9-]{0,39}$"),
    "mandate": _text(_DIGEST), "path": _text(r"^[0-7]/(x[0-9]{3}/){0,4}[0-9]{3}(\.p/[1-9][0-9]{0,2})?$"),
}  # fmt: skip
