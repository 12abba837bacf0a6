"""``countermark.Client``: a gate over HTTP as its agents hold it, with the same calls as a ``Deployment``.

It goes to one address: no redirect is followed, no proxy used, and the token crosses no network in clear.
"""

from __future__ import annotations

import secrets
import ssl
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import orjson

from countermark.model.errors import ConfigError, CountermarkError, EncodingError, GateHaltedError
from countermark.model.tool import Value
from countermark.model.values import Result
from countermark.wiring.deployment import result_from
from countermark.wiring.settings import is_loopback

POOL_MAX = 64
TIMEOUT_S = 120.0
ANSWER_BYTES_MAX = 4 << 20
TRIES_MAX = 2  # a connection that was kept may have ended meanwhile; a fresh one says what is the case


class Client:
    """Speaks to ``countermark serve`` as the agent that the token names. Thread-safe.

    An action is identified by ``run`` and ``call_id``: asking again with the same two is always safe, also after an
    error that says nothing about what happened. Without a ``run`` the server takes the agent's own.
    """

    def __init__(self, url: str, token: str, *, cafile: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        """``cafile``: PEM certificates to trust besides the system's, for a gate with a certificate of one's own.

        Raises:
            ConfigError: the address is none, or would carry the token in clear to another machine (``needs_tls``).
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.path not in ("", "/"):
            raise ConfigError(f"{url[:100]} is not the address of a gate", hint="Such as http://127.0.0.1:8521.")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ConfigError(
                "the token would cross the network in clear", code="needs_tls", hint="Use the gate's https address."
            )
        if not token.isascii() or not token.isprintable() or " " in token or not token:
            raise ConfigError("the token is none", hint="Make one with `countermark token issue`.")
        self._host, self._port, self._timeout_s = parts.hostname, parts.port, timeout_s
        self._tls = ssl.create_default_context(cafile=cafile) if parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._pool: deque[HTTPConnection] = deque()
        self._lock = threading.Lock()

    def act(
        self, tool: str, args: Mapping[str, Value], *, call_id: str | None = None, run: str | None = None,
        reason: str = "", because: Sequence[str] = (),
    ) -> Result:  # fmt: skip
        """Ask for one action; returns when its outcome, its denial or its escalation is durable."""
        return self._result("/v1/actions", _asked(tool, args, call_id, run, reason, because))

    def admit(
        self, tool: str, args: Mapping[str, Value], *, call_id: str | None = None, run: str | None = None,
        reason: str = "", because: Sequence[str] = (),
    ) -> Result:  # fmt: skip
        """Ask whether this program may run a tool itself; ``result.admitted`` means go, then ``settle`` reports."""
        return self._result("/v1/admissions", _asked(tool, args, call_id, run, reason, because))

    def settle(
        self, action: str, outcome: str, *, ref: str = "", output: Mapping[str, Value] | None = None
    ) -> Result:
        """Report the outcome of an admitted action: ``confirmed``, ``failed`` or ``unknown``, once."""
        return self._result(f"/v1/actions/{action}/outcome", {"outcome": outcome, "ref": ref, "output": output or {}})

    def start_run(self, *, mandate: str | None = None, purpose: str = "") -> str:
        """Mint a run. Returns its ID."""
        return str(self.call("POST", "/v1/runs", {"mandate": mandate, "purpose": purpose})["run"])

    def show(self, action: str) -> Result:
        """The present answer about an action."""
        return result_from(self.call("GET", f"/v1/actions/{action}"))

    def call(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request; returns the JSON of its answer.

        Raises:
            CountermarkError: what the gate said no with; ``gate_halted`` when it did not answer.
        """
        status, document = self._exchange(method, target, body)
        if status < 400:
            return document
        raise CountermarkError(
            str(document.get("detail", "")), code=str(document.get("code", "internal_error")),
            hint=str(document.get("hint", "")), retryable=document.get("retryable") is True,
        )  # fmt: skip

    def _result(self, target: str, body: Mapping[str, Any]) -> Result:
        """A denial is a result like the others, though HTTP says 403."""
        status, document = self._exchange("POST", target, body)
        if status == 403 and type(document.get("result")) is dict:
            return result_from(document["result"])
        if status < 400:
            return result_from(document)
        raise CountermarkError(
            str(document.get("detail", "")), code=str(document.get("code", "internal_error")),
            hint=str(document.get("hint", "")), retryable=document.get("retryable") is True,
        )  # fmt: skip

    def _exchange(self, method: str, target: str, body: Mapping[str, Any] | None) -> tuple[int, dict[str, Any]]:
        try:
            raw = None if body is None else orjson.dumps(body)
        except orjson.JSONEncodeError as wrong:
            raise EncodingError(f"the request cannot be written as JSON: {wrong}") from None
        for _ in range(TRIES_MAX):
            connection, kept = self._take()
            try:
                connection.request(method, target, raw, self._headers)
                answer = connection.getresponse()
                whole = answer.read(ANSWER_BYTES_MAX + 1)
            except (OSError, HTTPException) as error:
                connection.close()
                if kept and not isinstance(error, TimeoutError):
                    continue
                raise _silent(type(error).__name__) from None
            self._give(connection, answer.will_close or len(whole) > ANSWER_BYTES_MAX)
            return answer.status, _document(whole)
        raise _silent("connections keep ending")

    def _take(self) -> tuple[HTTPConnection, bool]:
        """A connection, and whether it was used before."""
        with self._lock:
            if self._pool:
                return self._pool.pop(), True
        if self._tls is not None:
            return HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls), False
        return HTTPConnection(self._host, self._port, timeout=self._timeout_s), False

    def _give(self, connection: HTTPConnection, ended: bool) -> None:
        with self._lock:
            if not ended and len(self._pool) < POOL_MAX:
                self._pool.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            while self._pool:
                self._pool.pop().close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _asked(
    tool: str, args: Mapping[str, Value], call_id: str | None, run: str | None, reason: str, because: Sequence[str]
) -> dict[str, Any]:
    return {
        "run": run, "call_id": call_id or "c_" + secrets.token_hex(12), "tool": tool, "args": dict(args),
        "reason": reason, "because": list(because),
    }  # fmt: skip


def _silent(why: str) -> GateHaltedError:
    return GateHaltedError(f"the gate did not answer: {why}", hint="Ask again with the same run and call_id.")


def _document(raw: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(raw) if len(raw) <= ANSWER_BYTES_MAX else None
    except orjson.JSONDecodeError:
        found = None
    if type(found) is not dict:
        raise _silent("this is no answer of a gate")
    return found
