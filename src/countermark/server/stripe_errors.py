"""Stripe's own error shape, so that an unmodified SDK raises its own exceptions.

``{"error": {"type", "code", "message", "param", "countermark": {...}}}``; the last member is ours, and SDKs hand it
through. Source: Stripe's API reference, "Errors"; ``Stripe-Should-Retry`` as its SDKs read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson

from countermark.model.errors import ArgumentError, CountermarkError
from countermark.server.problems import headers_of, status_of

INVALID, API, IDEMPOTENCY, AUTH = "invalid_request_error", "api_error", "idempotency_error", "authentication_error"
MESSAGE_CHARS_MAX = 500

_PARAMETER = {
    "missing_argument": "parameter_missing",
    "unknown_argument": "parameter_unknown",
    "bad_argument": "parameter_invalid",
}


@dataclass(frozen=True, slots=True)
class Said:
    """An answer to an SDK: status, body and headers."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(CountermarkError):
    """A request that this face does not pass on. ``kind`` is Stripe's ``type``, ``param`` the field it is about."""

    def __init__(
        self, status: int, message: str, *, code: str, kind: str = INVALID, param: str = "", hint: str = "",
        retryable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(message, code=code, hint=hint, retryable=retryable)
        self.status = status
        self.kind = kind
        self.param = param


def refusal(error: RefusedError, **more: Any) -> Said:
    """An error as Stripe would say it. ``more`` goes into the member ``countermark``."""
    message = f"{error.message} {error.hint}".strip()[:MESSAGE_CHARS_MAX]
    said: dict[str, Any] = {"type": error.kind, "code": error.code, "message": message}
    if error.param:
        said["param"] = error.param
    said["countermark"] = {"retryable": error.retryable, "next_step": error.hint, **more}
    # An SDK repeats 409 and 5xx by itself unless it is told not to; it does so under the same Idempotency-Key.
    headers = {"stripe-should-retry": "true" if error.retryable else "false"}
    return Said(error.status, orjson.dumps({"error": said}), headers)


def of_error(error: CountermarkError) -> Said:
    """Any error of the gate in Stripe's shape."""
    if isinstance(error, RefusedError):
        return refusal(error)
    status, kind, code, param = status_of(error), INVALID, f"countermark_{error.code}", ""
    if isinstance(error, ArgumentError):
        param = error.field
        code = _PARAMETER.get(error.code, code)
    if error.code == "identity_conflict":
        status, kind = 400, IDEMPOTENCY
    elif status == HTTPStatus.UNAUTHORIZED:
        kind = AUTH
    elif status >= 500 or status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = API
    refused = RefusedError(
        status, error.message, code=code, kind=kind, param=param, hint=error.hint, retryable=error.retryable
    )
    said = refusal(refused, code=error.code)
    return Said(said.status, said.body, {**headers_of(error), **said.headers})


def raw_refusal(error: CountermarkError) -> bytes:
    """A whole answer as bytes that end a connection, for what is refused before there is a request."""
    said = of_error(error)
    lines = [f"HTTP/1.1 {said.status} {HTTPStatus(said.status).phrase}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in said.headers.items()]
    lines += [f"content-length: {len(said.body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode("ascii") + said.body
