"""RFC 9457: one error shape over all routes, whatever went wrong and wherever."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from countermark.model.errors import (
    ArgumentError,
    AuthorityError,
    ConfigError,
    CountermarkError,
    EncodingError,
    GateBusyError,
    GateHaltedError,
    PolicyError,
    ProofError,
    SignatureError,
    StoreError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = "1"
TYPE = "urn:countermark:problem:"
GUARDS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}

_BY_CODE: Mapping[str, int] = {
    "unknown_action": 404, "unknown_run": 404, "unknown_tool": 404, "not_admitted": 409, "already_settled": 409,
    "admitted_before": 409, "other_delegation": 403, "stale_signature": 403, "identity_conflict": 409,
    "approval_expired": 409, "approval_void": 409, "approval_rung": 409, "approval_closed": 409,
    "approval_ladder": 409, "approval_deployment": 409, "approval_unknown": 404,
    "approval_mismatch": 409, "too_many_runs": 429, "too_many_waiting": 429, "internal_error": 500,
    "bad_activation": 400, "bad_approval": 400, "bad_clearance": 400, "bad_mandate": 400, "bad_revocation": 400,
    "bad_enrolment": 400, "bad_removal": 400, "bad_absence": 400, "key_taken": 409, "too_many_keys": 409,
    "last_key": 409, "enrolment_late": 409,
    "bad_key": 400, "bad_pass": 400, "bad_session": 400, "challenge_changed": 409, "out_of_scope": 403,
}  # fmt: skip
_BY_KIND: tuple[tuple[type[CountermarkError], int], ...] = (
    (GateBusyError, 503), (GateHaltedError, 503), (StoreError, 503), (AuthorityError, 403), (SignatureError, 403),
    (ArgumentError, 400), (EncodingError, 400), (PolicyError, 400), (ProofError, 400), (ConfigError, 400),
)  # fmt: skip
_LATER = (429, 503)


class HttpError(CountermarkError):
    """An error that only HTTP knows. ``status`` is its status code; ``headers`` go with the answer."""

    code = "bad_request"

    def __init__(
        self, status: int, message: str, *, code: str | None = None, hint: str = "", retryable: bool | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message, code=code, hint=hint, retryable=retryable)
        self.status = status
        self.headers = dict(headers or {})


def status_of(error: CountermarkError) -> int:
    """The status code that an error answers with."""
    if isinstance(error, HttpError):
        return error.status
    found = _BY_CODE.get(error.code)
    if found is not None:
        return found
    return next((status for kind, status in _BY_KIND if isinstance(error, kind)), 400)


def headers_of(error: CountermarkError) -> dict[str, str]:
    """What goes with an error: when to come back, how to show who one is, and that it is no page."""
    headers = {**GUARDS, **(error.headers if isinstance(error, HttpError) else {})}
    if status_of(error) in _LATER:
        headers.setdefault("retry-after", RETRY_AFTER_S)
    return headers


def document(error: CountermarkError, **more: Any) -> dict[str, Any]:
    """The problem as JSON: RFC 9457 section 3.1, and our ``code``, ``retryable``, ``hint``. ``more``: extensions."""
    return {
        "type": TYPE + error.code,
        "title": error.code.replace("_", " ").capitalize(),
        "status": status_of(error),
        "detail": error.message,
        "code": error.code,
        "retryable": error.retryable,
        "hint": error.hint,
        **more,
    }


def problem(error: CountermarkError, **more: Any) -> Response:
    """The answer that an error is."""
    return Response(orjson.dumps(document(error, **more)), status_of(error), headers_of(error), MEDIA_TYPE)


def raw_problem(error: CountermarkError) -> bytes:
    """The whole answer as bytes that end a connection, for what is refused before there is a request."""
    status, body = status_of(error), orjson.dumps(document(error))
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"content-type: {MEDIA_TYPE}"]
    lines += [f"{name}: {value}" for name, value in headers_of(error).items()]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode("ascii") + body


def plain(status: int, detail: str = "", headers: Mapping[str, str] | None = None) -> HttpError:
    """The error behind a bare status code, such as a router's 404."""
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "bad_request")
    words = {404: "there is nothing here", 405: "this method is not for this address"}
    return HttpError(status, detail or words.get(status, HTTPStatus(status).phrase), code=code, headers=headers)
