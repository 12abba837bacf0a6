"""V04: the envelope of a record and the exact body of every kind (docs/spec/record.md)."""

from typing import Any

from countermark_verify import canon
from countermark_verify.errors import Malformed
from countermark_verify.shape import (
    Check,
    anything,
    boolean,
    const,
    either,
    fixed,
    integer,
    listing,
    mapping,
    maybe,
    null,
    record,
    text,
)

STREAM_NAME = r"[arp]\.[0-9a-f]{32}"
DIGEST = text(r"sha256:[0-9a-f]{64}")
KEY = text(r"ed25519:[A-Za-z0-9+/]{43}=")
SIGNATURE = text(r"[A-Za-z0-9+/]{86}==")
HEX32 = text(r"[0-9a-f]{32}")
ACTION_ID = text(r"act_[0-9a-f]{32}")
ESCALATION_ID = text(r"esc_[0-9a-f]{32}")
KILL_ID = text(r"kill_[0-9a-f]{16}")
NATURAL = integer(0)
NAME = text(r"[^\x00-\x1f]+", chars_max=1_000)
TEXT = text()
SEALED = record({"$sd": DIGEST})
ALIAS = r"[A-Za-z0-9_.$-]{1,64}"

TERMS = record({"amount": maybe(NATURAL), "currency": maybe(NAME), "payee": maybe(NAME)})
TIER = const("enforcing", "embedded", "observing")
_CALL = {"agent": NAME, "run": NAME}

MANDATE = record(
    {
        "v": const(1),
        "deployment": NAME,
        "parent": maybe(DIGEST),
        "principal": NAME,
        "agent": NAME,
        "agent_key": maybe(KEY),
        "tools": listing(NAME),
        "payees": listing(NAME),
        "limits": listing(record({"currency": NAME, "amount": NATURAL, "over_us": maybe(NATURAL)})),
        "named": listing(HEX32),
        "purpose": TEXT,
        "not_before": integer(),
        "not_after": integer(),
        "nonce": TEXT,
    }
)

APPROVAL = record(
    {
        "v": const(1),
        "deployment": NAME,
        "escalation": ESCALATION_ID,
        "ladder": NAME,
        "ids": listing(NAME),
        "rung": integer(),
        "verdict": const("approve", "refuse"),
        "person": NAME,
        "action": DIGEST,
        "request": DIGEST,
        "bundle": DIGEST,
        "mandate": DIGEST,
        "terms": TERMS,
        "not_after": integer(),
    }
)

FACT = either(
    integer(),
    boolean,
    listing(text(ALIAS)),
    record({"known": boolean}),
    record({"known": boolean, "age_s": integer()}),
    record({"known": boolean, "equal": boolean}),
)

DECIDED = record(
    {
        "id": ACTION_ID,
        **_CALL,
        "call_id": NAME,
        "tool": NAME,
        "args": mapping(either(TEXT, integer(), boolean, SEALED), key=ALIAS),
        "action": DIGEST,
        "request": DIGEST,
        "salt": maybe(HEX32),
        "key": text(r"cm_[0-9a-f]{48}"),
        "claimed": record(
            {
                "because": listing(ACTION_ID),
                "reason": maybe(SEALED),
                "model": TEXT,
                "trace": TEXT,
            }
        ),
        "terms": TERMS,
        "obligation": maybe(DIGEST),
        "named": mapping(HEX32, key=ALIAS),
        "mandates": listing(DIGEST),
        "budgets": listing(fixed(DIGEST, NATURAL, NATURAL)),
        "bundle": DIGEST,
        "facts": mapping(FACT),
        "disposition": const("allow", "flag", "escalate", "deny"),
        "stage": const("kill", "mandate", "obligation", "facts", "policy", "approval"),
        "code": NAME,
        "reasons": listing(TEXT),
        "escalation": maybe(ESCALATION_ID),
        "lifted": listing(NAME),
        "not_after": integer(),
        "tier": TIER,
    }
)

SETTLED = record(
    {
        "id": ACTION_ID,
        **_CALL,
        "tool": NAME,
        "intent": NATURAL,
        "intent_digest": DIGEST,
        "terms": TERMS,
        "outcome": const("confirmed", "failed", "unknown"),
        "code": TEXT,
        "ref": TEXT,
        "settled": maybe(record({"amount": NATURAL, "currency": maybe(NAME)})),
        "http_status": NATURAL,
        "request_id": TEXT,
        "response": either(const(""), DIGEST),
        "attempts": NATURAL,
        "output": mapping(anything),
        "via": const("execute", "recovery", "lookup"),
        "tier": TIER,
    }
)

_ESCALATION = {"escalation": ESCALATION_ID, "id": ACTION_ID, **_CALL}

BODIES: dict[str, Check] = {
    "gate.started": record(
        {
            "deployment": NAME,
            "version": TEXT,
            "schema": either(TEXT, integer()),
            "log_key": TEXT,
            "tier": TIER,
            "uid": either(TEXT, integer(), null),
            "recovered": NATURAL,
        }
    ),
    "gate.stopped": record({"reason": TEXT}),
    "policy.activated": record(
        {
            "activation": record(
                {
                    "deployment": NAME,
                    "bundle": DIGEST,
                    "previous": maybe(DIGEST),
                    "author": NAME,
                    "activator": NAME,
                }
            ),
            "key": KEY,
            "sig": SIGNATURE,
        }
    ),
    "mandate.granted": record({"mandate": MANDATE, "digest": DIGEST, "key": KEY, "sig": SIGNATURE}),
    "mandate.revoked": record(
        {
            "revocation": record({"deployment": NAME, "mandate": DIGEST, "person": NAME, "reason": TEXT}),
            "key": KEY,
            "sig": SIGNATURE,
        }
    ),
    "run.started": record({"run": NAME, "agent": NAME, "mandate": DIGEST, "purpose": TEXT}),
    "run.ended": record({"run": NAME, "agent": NAME, "reason": TEXT}),
    "action.refused": record({"agent": TEXT, "run": TEXT, "call_id": TEXT, "tool": TEXT, "code": TEXT, "field": TEXT}),
    "action.decided": DECIDED,
    "action.settled": SETTLED,
    "escalation.raised": record(
        {
            **_ESCALATION,
            "decided": NATURAL,
            "decided_digest": DIGEST,
            "ladders": mapping(listing(NAME)),
            "action": DIGEST,
            "request": DIGEST,
            "terms": TERMS,
            "bundle": DIGEST,
            "mandate": DIGEST,
            "not_after": integer(),
        }
    ),
    "escalation.answered": record(
        {
            **_ESCALATION,
            "terms": TERMS,
            "approval": APPROVAL,
            "key": KEY,
            "sig": SIGNATURE,
            "state": const("pending", "approved", "refused"),
        }
    ),
    "escalation.expired": record({**_ESCALATION, "terms": TERMS}),
    "kill.set": record(
        {
            "scope": record({"kind": const("deployment", "agent", "tool", "mandate", "payee"), "value": TEXT}),
            "reason": TEXT,
            "kill": KILL_ID,
        }
    ),
    "kill.cleared": record(
        {
            "clearance": record({"deployment": NAME, "kill": KILL_ID, "person": NAME, "reason": TEXT}),
            "key": KEY,
            "sig": SIGNATURE,
        }
    ),
}

_SIGNED_BY = {
    "policy.activated": ("activation", "activator"),
    "mandate.granted": ("mandate", "principal"),
    "mandate.revoked": ("revocation", "person"),
    "kill.cleared": ("clearance", "person"),
    "escalation.answered": ("approval", "person"),
}

_ENVELOPE = record(
    {
        "v": const(1),
        "lane": text(r"[A-Za-z0-9_.-]{1,64}"),
        "seq": NATURAL,
        "prev": DIGEST,
        "kind": const(*BODIES),
        "at": NATURAL,
        "nonce": HEX32,
        "by": text(r"gate|(?:agent|person):[^\x00-\x1f]*", chars_max=1_010),
        "streams": mapping(fixed(NATURAL, DIGEST), key=STREAM_NAME),
        "body": mapping(anything),
    }
)


def parse_record(raw: bytes) -> dict[str, Any]:
    """The record of an entry's bytes; raises `Malformed` with the path of the first misfit.

    Who stands in `by` is not asked here: a record whose writer is wrong can still be read.
    """
    value: Any = canon.parse(raw)
    if reason := _ENVELOPE(value):
        raise Malformed(f"does not have the envelope{reason}")
    if reason := BODIES[value["kind"]](value["body"]):
        raise Malformed(f"does not have the body of {value['kind']}{reason}")
    return value  # type: ignore[no-any-return]


def writer(kind: str, body: dict[str, Any]) -> str:
    """Who stands in `by`: the agent that asked, the person who signed, else the gate."""
    signed = _SIGNED_BY.get(kind)
    if signed is not None:
        document, member = signed
        return f"person:{body[document][member]}"
    if kind.startswith("run.") or kind == "action.refused" or (kind == "action.decided" and body["escalation"] is None):
        return f"agent:{body['agent']}"
    return "gate"
