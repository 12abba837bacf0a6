"""The exact body of every kind of record (docs/spec/record.md)."""

from typing import Any

from countermark_verify.fields import (
    ACTION_ID,
    AGENT_KEY,
    ALIAS,
    DIGEST,
    ESCALATION_ID,
    HEX32,
    KEY,
    KILL_ID,
    LABEL,
    NAME,
    NATURAL,
    READER,
    SEALED,
    SIGNATURE,
    SIGNATURE_OF,
    TERMS,
    TEXT,
    TIER,
    words,
)
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

CALL = {"agent": NAME, "run": NAME}

MANDATE = record(
    {
        "v": const(1),
        "deployment": NAME,
        "parent": maybe(DIGEST),
        "principal": NAME,
        "agent": NAME,
        "agent_key": maybe(AGENT_KEY),
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

REFERENCE = record({"digest": DIGEST, "last4": text(r"[A-Za-z0-9]{0,4}")})

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
        "reference": DIGEST,
    },
    optional=("reference",),
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
        **CALL,
        "call_id": NAME,
        "tool": NAME,
        "args": mapping(either(TEXT, integer(), boolean, SEALED), key=ALIAS),
        "action": DIGEST,
        "request": DIGEST,
        "salt": maybe(HEX32),
        "key": text(r"cm_[0-9a-f]{48}"),
        "claimed": record({"because": listing(ACTION_ID), "reason": maybe(SEALED), "model": TEXT, "trace": TEXT}),
        "terms": TERMS,
        "obligation": maybe(DIGEST),
        "named": mapping(HEX32, key=ALIAS),
        "mandates": listing(DIGEST),
        "budgets": listing(fixed(DIGEST, NATURAL, NATURAL)),
        "bundle": DIGEST,
        "facts": mapping(FACT),
        "disposition": const("allow", "flag", "escalate", "deny"),
        "stage": const(
            "kill", "boundary", "witness", "mandate", "payee", "obligation", "facts", "policy", "approval", "monitor"
        ),
        "code": NAME,
        "reasons": listing(TEXT),
        "escalation": maybe(ESCALATION_ID),
        "lifted": listing(NAME),
        "not_after": integer(),
        "tier": TIER,
        "reference": maybe(REFERENCE),
    },
    optional=("reference",),
)

_PROOF = listing(text(r"[A-Za-z0-9+/]+={0,2}", 21_848), 16)  # nodes of a trie, from the root
EVIDENCE = record(
    {
        "chain_id": integer(1),
        "block": record({"number": NATURAL, "hash": text(r"[0-9a-f]{64}")}),
        "header": text(r"[A-Za-z0-9+/]+={0,2}", 2_732),
        "index": integer(0, 9_999),
        "transaction": _PROOF,
        "receipt": _PROOF,
    }
)

SETTLED = record(
    {
        "id": ACTION_ID,
        **CALL,
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
        "via": const("execute", "recovery", "lookup", "report", "people"),
        "tier": TIER,
        "reference": REFERENCE,
        "evidence": EVIDENCE,
    },
    optional=("reference", "evidence"),
)

SIGNERS_MAX = 2
_ESCALATION = {"escalation": ESCALATION_ID, "id": ACTION_ID, **CALL}

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
            "second": SIGNATURE_OF,
        },
        optional=("second",),
    ),
    "mandate.granted": record({"mandate": MANDATE, "digest": DIGEST, "key": KEY, "sig": SIGNATURE}),
    "mandate.accepted": record(
        {
            "source": NAME,
            "ap2": text(r"[!-~]+", chars_max=24_000),
            "mandate": MANDATE,
            "digest": DIGEST,
            "redeems": listing(DIGEST, 2),
        }
    ),
    "mandate.revoked": record(
        {
            "revocation": record({"deployment": NAME, "mandate": DIGEST, "person": NAME, "reason": words}),
            "key": KEY,
            "sig": SIGNATURE,
        }
    ),
    "action.refused": record({"agent": TEXT, "run": TEXT, "call_id": TEXT, "tool": TEXT, "code": TEXT, "field": TEXT}),
    "request.signed": record(
        {
            "id": ACTION_ID,
            **CALL,
            "call_id": NAME,
            "key": AGENT_KEY,
            "covered": listing(fixed(text(r"[a-z@-]{1,32}"), TEXT), 16),
            "params": TEXT,
            "sig": SIGNATURE,
            "body": maybe(TEXT),
        }
    ),
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
            "due": mapping(integer()),
            "not_after": integer(),
            "reference": REFERENCE,
        },
        optional=("reference",),
    ),
    "escalation.climbed": record(
        {
            **_ESCALATION,
            "terms": TERMS,
            "ladder": NAME,
            "rung": integer(1),
            "because": const("deadline", "unreachable"),
            "due": integer(),
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
    "escalation.expired": record(
        {**_ESCALATION, "terms": TERMS, "because": const("cancelled", "policy")}, optional=("because",)
    ),
    "key.enrolled": record(
        {
            "enrolment": record(
                {
                    "v": const(1),
                    "deployment": NAME,
                    "person": NAME,
                    "key": KEY,
                    "label": LABEL,
                    "nonce": HEX32,
                    "not_after": NATURAL,
                }
            ),
            "signed": listing(SIGNATURE_OF, SIGNERS_MAX),
            "proof": maybe(SIGNATURE),
        }
    ),
    "key.removed": record(
        {
            "removal": record(
                {"v": const(1), "deployment": NAME, "person": NAME, "key": KEY, "by": NAME, "reason": words}
            ),
            "key": KEY,
            "sig": SIGNATURE,
        }
    ),
    "key.rotated": record(
        {
            "rotation": record(
                {
                    "v": const(1),
                    "deployment": NAME,
                    "lane": NAME,
                    "old": AGENT_KEY,
                    "new": AGENT_KEY,
                    "until": NATURAL,
                    "reason": words,
                }
            ),
            "proofs": record({"old": SIGNATURE, "new": SIGNATURE}),
            "signed": listing(SIGNATURE_OF, SIGNERS_MAX),
        }
    ),
    "absence.set": record(
        {
            "absence": record(
                {
                    "v": const(1),
                    "deployment": NAME,
                    "person": NAME,
                    "stands_in": NAME,
                    "from": NATURAL,
                    "until": NATURAL,
                }
            ),
            "signed": listing(SIGNATURE_OF, SIGNERS_MAX),
        }
    ),
    "kill.set": record(
        {
            "scope": record({"kind": const("deployment", "agent", "tool", "mandate", "payee"), "value": TEXT}),
            "reason": TEXT,
            "kill": KILL_ID,
        }
    ),
    "kill.cleared": record(
        {
            "clearance": record({"deployment": NAME, "kill": KILL_ID, "person": NAME, "reason": words}),
            "key": KEY,
            "sig": SIGNATURE,
        }
    ),
    "log.read": record({"reader": READER, "what": const("export", "explain", "audit"), "from": NATURAL, "to": NATURAL}),
}

_PAYEE = text(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ACCOUNT = text(r"[^\x00-\x20\x7f-\xa0\u2028\u2029]*", chars_max=200)
_TITLE = text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]+", chars_max=200)
_PSEUDONYM = maybe(text(r"p:[0-9a-f]{32}"))


def _title(value: Any) -> str:
    return _TITLE(value) or ("" if value.strip() else ": no name")


BODIES["payee.changed"] = record(
    {
        "details": record(
            {
                "v": const(1),
                "deployment": NAME,
                "payee": _PAYEE,
                "name": _title,
                "account": _ACCOUNT,
                "previous": maybe(record({"account": _ACCOUNT, "record": maybe(DIGEST)})),
                "alike": listing(_PAYEE, 64),
                "reason": words,
                "person": NAME,
                "not_after": NATURAL,
                "nonce": HEX32,
            }
        ),
        "key": KEY,
        "sig": SIGNATURE,
        "was": _PSEUDONYM,
        "now": _PSEUDONYM,
    }
)
