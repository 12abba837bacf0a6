"""Domain-separated SHA-256 digests: ``sha256:`` + hex of SHA-256(domain || 0x00 || bytes).

One domain string per kind of thing; ``docs/spec/digests.md`` lists them all, and a test compares.
"""

from __future__ import annotations

import hashlib
import hmac

from countermark.model.canon import DOCUMENT_BYTES_MAX, canon, render

RECORD = "countermark/v1/record"
ACTION = "countermark/v1/action"
ACTION_ID = "countermark/v1/action-id"
FIELD = "countermark/v1/field"
BODY = "countermark/v1/body"
REQUEST = "countermark/v1/request"
PROVIDER_KEY = "countermark/v1/provider-key"
OBLIGATION = "countermark/v1/obligation"
BUNDLE = "countermark/v1/bundle"
MANDATE = "countermark/v1/mandate"
REVOCATION = "countermark/v1/revocation"
APPROVAL = "countermark/v1/approval"
ACTIVATION = "countermark/v1/activation"
CLEARANCE = "countermark/v1/clearance"
ACCEPTANCE = "countermark/v1/acceptance"
ENROLMENT = "countermark/v1/enrolment"
ENROLMENT_PROOF = "countermark/v1/enrolment-proof"
REMOVAL = "countermark/v1/removal"
ABSENCE = "countermark/v1/absence"
ACTIVITY = "countermark/v1/activity"
RESOLUTION = "countermark/v1/resolution"
REVIEW = "countermark/v1/review"
REOPENING = "countermark/v1/reopening"
IMPORT = "countermark/v1/import"
HOLD = "countermark/v1/hold"
RELEASE = "countermark/v1/release"
ERASURE = "countermark/v1/erasure"
SUBJECT = "countermark/v1/subject"
MCP_TOOL = "countermark/v1/mcp-tool"
RESPONSE = "countermark/v1/response"
PAYEE = "countermark/v1/payee"
REFERENCE = "countermark/v1/reference"
REDEMPTION = "countermark/v1/redemption"
PASS = "countermark/v1/pass"  # noqa: S105 (a domain, no password)
SESSION = "countermark/v1/session"
ROTATION = "countermark/v1/rotation"
PSEUDONYM = "countermark/v1/pseudonym"
STREAM = "countermark/v1/stream"
WORKFLOW = "countermark/v1/workflow"
CODE = "countermark/v1/code"
VALUE = "countermark/v1/value"
EVENT = "countermark/v1/event"
MIGRATION = "countermark/v1/migration"

DOMAINS = (
    RECORD, ACTION, ACTION_ID, FIELD, BODY, REQUEST, PROVIDER_KEY, OBLIGATION, BUNDLE, MANDATE, REVOCATION, APPROVAL,
    ACTIVATION, CLEARANCE, ACCEPTANCE, ACTIVITY, RESOLUTION, REVIEW, REOPENING, IMPORT,
    MCP_TOOL, RESPONSE, PAYEE, REFERENCE, REDEMPTION, PASS, SESSION, PSEUDONYM, ENROLMENT, ENROLMENT_PROOF, REMOVAL,
    ABSENCE, STREAM, ROTATION, HOLD, RELEASE, ERASURE, SUBJECT, WORKFLOW, CODE, VALUE, EVENT, MIGRATION,
)  # fmt: skip

_PREFIX = {domain: domain.encode("ascii") + b"\0" for domain in DOMAINS}
_BEGUN = {domain: hashlib.sha256(prefix) for domain, prefix in _PREFIX.items()}  # copied for each digest


def digest(domain: str, raw: bytes) -> str:
    """Digest of ``raw`` under ``domain``, as ``sha256:`` + 64 hex digits."""
    state = _BEGUN[domain].copy()
    state.update(raw)
    return "sha256:" + state.hexdigest()


def digest_of(domain: str, value: object) -> str:
    """Digest of the canonical bytes of ``value`` under ``domain``."""
    return digest(domain, canon(value))


def digest_of_fitting(domain: str, value: object) -> str:
    """``digest_of`` for a value whose types, keys and depth are known to fit the profile, so that nobody looks again.

    Raises:
        EncodingError: an integer or a string in it that canonical bytes cannot carry.
    """
    return digest(domain, render(value, DOCUMENT_BYTES_MAX))


def signing_bytes(domain: str, value: object) -> bytes:
    """The bytes a person or a key signs: domain || 0x00 || canonical bytes."""
    return _PREFIX[domain] + canon(value)


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """Keyed pseudonym of a value: 32 hex digits of HMAC-SHA256(key, domain || 0x00 || kind || 0x00 || value)."""
    message = _PREFIX[PSEUDONYM] + kind.encode("ascii") + b"\0" + value.encode("utf-8")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]
