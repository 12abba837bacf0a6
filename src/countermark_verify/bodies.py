"""The exact body of every kind of record (docs/spec/record.md)."""

from typing import Any

from countermark_verify.crypto import PASSKEY, PASSKEY_CHARS_MAX
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

DIGEST = text(r"sha256:[0-9a-f]{64}")
AGENT_KEY = text(r"ed25519:[A-Za-z0-9+/]{43}=")
KEY = either(text(PASSKEY.pattern, PASSKEY_CHARS_MAX), AGENT_KEY)
_URL64 = r"[A-Za-z0-9_-]+"
SIGNATURE = either(
    record(
        {
            "authenticator_data": text(_URL64, 1_366),
            "client_data": text(_URL64, 5_462),
            "signature": text(_URL64, 171),
        }
    ),
    text(r"[A-Za-z0-9+/]{86}=="),
)
HEX32 = text(r"[0-9a-f]{32}")
ACTION_ID = text(r"act_[0-9a-f]{32}")
ESCALATION_ID = text(r"esc_[0-9a-f]{32}")
KILL_ID = text(r"kill_[0-9a-f]{16}")
NATURAL = integer(0)
NAME = text(r"[^\x00-\x1f]+", chars_max=1_000)
TEXT = text()
_WORDS = text(r"[^\x00-\x08\x0b-\x1f\x7f]*", chars_max=500)
LABEL = text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", chars_max=64)
REF = text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", chars_max=256)
SEALED = record({"$sd": DIGEST})
ALIAS = r"[A-Za-z0-9_.$-]{1,64}"


def words(value: Any) -> str:
    """Words that a person signed: not only white space."""
    return _WORDS(value) or ("" if value.strip() else ": no words")


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
        **_CALL,
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
        "via": const("execute", "recovery", "lookup", "report", "people"),
        "tier": TIER,
        "reference": REFERENCE,
        "evidence": EVIDENCE,
    },
    optional=("reference", "evidence"),
)

_SIGNATURE_OF = record({"person": NAME, "key": KEY, "sig": SIGNATURE})
FOUR_EYES = fixed(_SIGNATURE_OF, _SIGNATURE_OF)
PAIRS_MAX = 64
SIGNERS_MAX = 2
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
            "second": _SIGNATURE_OF,
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
            **_CALL,
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
            "signed": listing(_SIGNATURE_OF, SIGNERS_MAX),
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
            "signed": listing(_SIGNATURE_OF, SIGNERS_MAX),
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
            "signed": listing(_SIGNATURE_OF, SIGNERS_MAX),
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
    "action.resolved": record(
        {
            "id": ACTION_ID,
            **_CALL,
            "terms": TERMS,
            "intent": NATURAL,
            "resolution": record(
                {
                    "v": const(1),
                    "deployment": NAME,
                    "action": ACTION_ID,
                    "intent_digest": DIGEST,
                    "outcome": const("confirmed", "failed"),
                    "ref": REF,
                    "amount": maybe(NATURAL),
                    "reason": words,
                }
            ),
            "signed": FOUR_EYES,
        }
    ),
    "review.cleared": record(
        {
            "id": ACTION_ID,
            "decided": NATURAL,
            "review": record(
                {"deployment": NAME, "action": ACTION_ID, "decided_digest": DIGEST, "person": NAME, "note": words}
            ),
            "key": KEY,
            "sig": SIGNATURE,
        }
    ),
    "obligation.imported": record(
        {
            "obligation": DIGEST,
            "import": record(
                {
                    "v": const(1),
                    "deployment": NAME,
                    "tool": NAME,
                    "pairs": listing(fixed(text(ALIAS), TEXT), PAIRS_MAX),
                    "ref": REF,
                    "date": text(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
                    "source": words,
                }
            ),
            "signed": FOUR_EYES,
        }
    ),
    "log.read": record({"reader": NAME, "what": const("export", "explain", "audit"), "from": NATURAL, "to": NATURAL}),
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

_LANE = text(r"l(?:0|[1-9][0-9]{0,3})")
BODIES |= {
    "lane.succeeded": record(
        {
            "lane": _LANE,
            "log_key": NAME,
            "predecessor": record({"lane": _LANE, "size": NATURAL, "root": text(r"[0-9a-f]{64}"), "log_key": NAME}),
            "known": maybe(record({"size": NATURAL, "root": text(r"[0-9a-f]{64}")})),
            "activity": record(
                {
                    "since": integer(),
                    "until": integer(),
                    "asked": listing(NAME),
                    "unasked": listing(NAME),
                    "found": NATURAL,
                    "digest": DIGEST,
                }
            ),
        }
    ),
    "lane.imported": record(
        {
            "ref": TEXT,
            "key": TEXT,
            "tool": TEXT,
            "terms": TERMS,
            "pairs": maybe(listing(fixed(text(ALIAS), TEXT), PAIRS_MAX)),
            "obligation": maybe(DIGEST),
            "moved_at": integer(),
        }
    ),
    "lane.accepted": record(
        {
            "acceptance": record(
                {
                    "deployment": NAME,
                    "lane": _LANE,
                    "succession": DIGEST,
                    "imported": NATURAL,
                    "bundle": DIGEST,
                    "person": NAME,
                }
            ),
            "key": KEY,
            "sig": SIGNATURE,
        }
    ),
}
