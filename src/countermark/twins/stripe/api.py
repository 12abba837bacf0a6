"""The simulator between the wire and the resources: authentication, faults, idempotency, one transaction a request.

Everything here runs in one event loop, so two requests overlap only where one waits (the ``slow`` fault). The order of
a request's life: route, key, permission, fault before, idempotency key, parameters, effect and answer in one
transaction, fault after.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from countermark.model.clock import US, SystemClock
from countermark.twins.stripe.accounts import ACCOUNTS
from countermark.twins.stripe.books import Ledger, Stored
from countermark.twins.stripe.faults import Faults, faults_from
from countermark.twins.stripe.intents import INTENTS
from countermark.twins.stripe.params import Refusal, parse
from countermark.twins.stripe.resources import ROUTES, Call, Route, mature

ALL_ROUTES = {**ROUTES, **INTENTS, **ACCOUNTS}
KEY_TTL_S = 24 * 3600
KEY_CHARS_MAX = 255
SLOW_S_MAX = 5
START_S = 1_790_000_000
SERVER = "countermark-stripe-simulator"

_ID = re.compile(r"[A-Za-z0-9_]{1,80}")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A parsed HTTP request; header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. ``fate``: ``send``, ``reset`` (close with RST, no answer) or ``hang`` (never answer)."""

    status: int = 200
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    fate: str = "send"


@dataclass
class SimClock:
    """Seconds. Still: stands where it was put. Running: the machine's clock plus what was advanced."""

    running: bool
    base_s: int

    def now_s(self) -> int:
        return self.base_s + (SystemClock().now_us() // US if self.running else 0)


@dataclass
class Api:
    """The simulated API over one ledger. ``key`` is its secret key; ``counters`` count routes, statuses and faults."""

    ledger: Ledger
    seed: int
    clock: SimClock
    faults: Faults
    key: str
    boot: int
    counters: Counter[str] = field(default_factory=Counter)
    held: set[str] = field(default_factory=set)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    _serial: int = 0

    def find(self, request: Incoming) -> tuple[Route, str]:
        """The route and its path parameter, or two of them with a slash between. Raises ``Refusal`` (404)."""
        route = ALL_ROUTES.get((request.method, request.path))
        if route is not None:
            return route, ""
        parts = request.path.split("/")
        if len(parts) >= 4:
            template = "/".join([*parts[:3], "{id}", *parts[4:]])
            route = ALL_ROUTES.get((request.method, template))
            if route is not None and _ID.fullmatch(parts[3]):
                return route, parts[3]
        if len(parts) == 6 and _ID.fullmatch(parts[3]) and _ID.fullmatch(parts[5]):
            route = ALL_ROUTES.get((request.method, "/".join([*parts[:3], "{id}", parts[4], "{id}"])))
            if route is not None:
                return route, f"{parts[3]}/{parts[5]}"
        raise Refusal(404, f"Unrecognized request URL ({request.method}: {request.path[:200]}).")

    def authorise(self, request: Incoming, scope: str) -> None:
        """Check the key and its permission. Raises ``Refusal`` (401 or 403)."""
        given = _key_of(request.headers.get("authorization", ""))
        if not given:
            raise Refusal(401, "You did not provide an API key. Use Bearer auth or basic auth with the key.")
        scopes = ["*"] if given == self.key else self.ledger.scopes(given)
        if scopes is None:
            raise Refusal(401, f"Invalid API Key provided: {_masked(given)}")
        noun, _, verb = scope.partition(":")
        if not {"*", scope, f"{noun}:write"} & set(scopes):
            raise Refusal(
                403, f"The provided key '{_masked(given)}' does not have the required permissions for this endpoint."
                f" Having the 'rak_{noun}_{verb}' permission would allow this request to continue.",
            )  # fmt: skip

    async def handle(self, request: Incoming) -> Answer:
        """Answer one request to ``/v1``. What a fault schedule asks for is part of the answer."""
        self._serial += 1
        request_id = f"req_sim{self.boot:04x}{self._serial:010x}"
        headers = [("Request-Id", request_id), ("Stripe-Version", request.headers.get("stripe-version", "simulator"))]
        key = request.headers.get("idempotency-key", "") if request.method == "POST" else ""
        if key:
            headers.append(("Idempotency-Key", key))
        fault = "ok"
        try:
            route, id_ = self.find(request)
            self.counters[route.name] += 1
            self.authorise(request, route.scope)
            if len(key) > KEY_CHARS_MAX or not key.isascii():
                raise Refusal(400, f"Idempotency keys are at most {KEY_CHARS_MAX} characters.")
            drew = self.faults.concerns(route.name)
            fault = self.faults.draw(route.name) if drew else "ok"
            self.counters[f"fault:{fault}"] += drew
            answer = await self._with_fault(request, route, id_, key, request_id, fault, drew)
        except Refusal as error:
            answer = Answer(error.status, json.dumps(error.document()))
        self.counters[f"status:{answer.status}"] += 1
        if answer.fate == "send" and fault in ("reset_after", "timeout_after_commit"):
            answer = Answer(fate="reset" if fault == "reset_after" else "hang")
        return Answer(answer.status, answer.body, (*headers, *answer.headers), answer.fate)

    async def _with_fault(
        self, request: Incoming, route: Route, id_: str, key: str, request_id: str, fault: str, drew: bool
    ) -> Answer:
        if fault in ("reset_before", "http_409", "http_429", "slow") and drew:
            with self.ledger.transaction():  # the schedule moved on although nothing else is written
                self.ledger.set_meta("faults", self.faults.document())
            drew = False
        if fault == "reset_before":
            return Answer(fate="reset")
        if fault == "http_429":
            raise Refusal(429, "Request rate limit exceeded. (A fault of the simulator.)", code="rate_limit")
        if fault == "http_409":
            raise Refusal(409, "This object is locked by another request. (A fault.)", code="lock_timeout")
        if key and key in self.held:
            raise Refusal(
                409, "There is currently another in-progress request using this Idempotency-Key.",
                type_="idempotency_error", code="idempotency_key_in_use",
            )  # fmt: skip
        if fault == "slow":
            await self._hold(key)
        return self._execute(request, route, id_, key, request_id, fault, drew)

    async def _hold(self, key: str) -> None:
        if key:
            self.held.add(key)
        self.counters["held"] += 1
        try:
            await asyncio.wait_for(self.release.wait(), SLOW_S_MAX)
        except TimeoutError:
            pass  # nobody released it: the request goes on by itself
        finally:
            self.held.discard(key)
            self.counters["held"] -= 1

    def _execute(
        self, request: Incoming, route: Route, id_: str, key: str, request_id: str, fault: str, drew: bool
    ) -> Answer:
        if request.method == "GET" and not drew:
            call = self._call(key, request_id, id_, parse(request.query, route.params))
            return Answer(200, json.dumps(route.handler(call)))
        with self.ledger.transaction():
            if drew:
                self.ledger.set_meta("faults", self.faults.document())
            return self._settle(request, route, id_, key, request_id, fault)

    def _settle(self, request: Incoming, route: Route, id_: str, key: str, request_id: str, fault: str) -> Answer:
        """Replay what the key keeps, or do it and keep the answer; an error that began no execution is not kept."""
        fingerprint = ""
        try:
            raw = _text(request.body) if request.method == "POST" else request.query
            fingerprint = hashlib.sha256(f"{request.method} {request.path} {_sorted(raw)}".encode()).hexdigest()
            if (replay := self._replay(key, fingerprint)) is not None:
                return replay
            call = self._call(key, request_id, id_, parse(raw, route.params))
            if fault == "http_500_before":
                raise _broken()
            with self.ledger.savepoint():
                doc = route.handler(call)
                answer = Answer(402 if "error" in doc else 200, json.dumps(doc))  # declined, yet something was made
            if fault == "http_500_after":  # outside the savepoint: the effect stays
                raise _broken()
        except Refusal as error:
            answer = Answer(error.status, json.dumps(error.document()))
            if not error.stored:
                return answer
        if key:
            now = self.clock.now_s()
            self.ledger.prune(now - KEY_TTL_S)
            self.ledger.store(key, now, Stored(fingerprint, answer.status, answer.body, request_id))
        return answer

    def _call(self, key: str, request_id: str, id_: str, params: Mapping[str, Any]) -> Call:
        return Call(self.ledger, self.clock.now_s(), self.seed, key, request_id, id_, params)

    def _replay(self, key: str, fingerprint: str) -> Answer | None:
        kept = self.ledger.stored(key, self.clock.now_s() - KEY_TTL_S) if key else None
        if kept is None:
            return None
        if kept.fingerprint != fingerprint:
            raise Refusal(
                400, "Keys for idempotent requests can only be used with the same parameters they were first used"
                f" with. Try using a key other than '{key}' if you meant to execute a different request.",
                type_="idempotency_error",
            )  # fmt: skip
        headers = (("Idempotent-Replayed", "true"), ("Original-Request", kept.request_id))
        return Answer(kept.status, kept.body, headers)

    def set_faults(self, doc: Mapping[str, Any]) -> None:
        self.faults = faults_from({"seed": self.seed, **doc})
        with self.ledger.transaction():
            self.ledger.set_meta("faults", self.faults.document())

    def advance(self, seconds: int) -> int:
        """Move the clock forward, forget old keys, pay payouts that are due. Returns the new time in seconds."""
        self.clock.base_s += seconds
        now = self.clock.now_s()
        with self.ledger.transaction():
            self.ledger.set_meta("clock", {"running": self.clock.running, "base_s": self.clock.base_s})
            self.ledger.prune(now - KEY_TTL_S)
            mature(self.ledger, now, self.seed)
        return now


def _broken() -> Refusal:
    message = "An unexpected error occurred. (A fault of the simulator.)"
    return Refusal(500, message, type_="api_error", stored=True)


def _sorted(raw: str) -> str:
    return repr(sorted(parse_qsl(raw, keep_blank_values=True)))


def _text(body: bytes) -> str:
    try:
        return body.decode("ascii")
    except UnicodeDecodeError:
        raise Refusal(400, "Invalid request: the body is not form-encoded.") from None


def _key_of(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("ascii").partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _masked(key: str) -> str:
    return key[:8] + "*" * 8 if key.startswith(("sk_test_", "rk_test_")) else "****"


def secret_key(seed: int) -> str:
    """The simulator's secret key for a seed; it opens nothing but a simulator."""
    return "sk_test_simulator" + hashlib.sha256(f"countermark simulator {seed}".encode()).hexdigest()[:24]
