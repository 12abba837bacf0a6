"""``/stripe/v1/...``: a base URL for unmodified Stripe SDKs. Their key is the agent's token; the credential stays here.

A request becomes one governed action: its fields are the tool's arguments, its ``Idempotency-Key`` the call_id. Every
answer has Stripe's shape, the refusals too.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.routing import BaseRoute, Mount
from starlette.types import Receive, Scope, Send

from countermark.connectors import StripeConnector
from countermark.gate import Caller, Told, told
from countermark.model.errors import CountermarkError, GateBusyError, GateHaltedError
from countermark.model.tool import ToolSpec
from countermark.model.values import CALL_ID
from countermark.server.actions import caller_of
from countermark.server.bodies import GoneError, header, read_body
from countermark.server.problems import HttpError
from countermark.server.stripe_errors import API, IDEMPOTENCY, INVALID, RefusedError, Said, of_error, refusal
from countermark.server.stripe_form import FORM, Routes, arguments, check_business_key, pairs_of
from countermark.server.stripe_runs import Runs
from countermark.server.surroundings import Surroundings

CONNECTOR = "stripe"
PREFIX = "/stripe"
RUNS_FILE = "stripe-runs.json"
KEY, RUN_HEADER = b"idempotency-key", b"countermark-run"
FOR_OTHERS = (b"stripe-account", b"stripe-context")  # on whose behalf: the gate's credential speaks for one account
OBJECTS = {"tr": "transfer", "re": "refund", "po": "payout", "pi": "payment_intent"}
_JSON = (b"content-type", b"application/json")

# our code -> status, Stripe's type, Stripe's code; every other denial is plainly a denial
_DENIED: Mapping[str, tuple[int, str, str]] = {
    "duplicate_obligation": (400, IDEMPOTENCY, "countermark_duplicate_obligation"),
    "already_waiting": (400, IDEMPOTENCY, "countermark_already_waiting"),
}
_RUN_IS_OVER = ("unknown_run", "other_delegation")


def stripe_routes(surroundings: Surroundings) -> list[BaseRoute]:
    """The face under ``/stripe``; none when the deployment has no Stripe connector."""
    if not isinstance(surroundings.gate.connectors.get(CONNECTOR), StripeConnector):
        return []
    return [Mount(PREFIX, app=StripeFace(surroundings, PREFIX))]


class StripeFace:
    """An ASGI app that speaks Stripe's API over the gate. ``prefix`` is the part of the path that is not Stripe's."""

    def __init__(self, surroundings: Surroundings, prefix: str = "") -> None:
        self._all = surroundings
        self._gate = surroundings.gate
        self._prefix = prefix
        self._runs = Runs(self._gate, surroundings.config.journal.parent / RUNS_FILE, "requests of a Stripe SDK")
        self._routes: tuple[str, Routes] | None = None
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        scope["countermark.route"] = PREFIX  # for the numbers, which name no object
        self.in_flight += 1
        try:
            if self.in_flight > self._all.settings.limits.requests_max:
                raise GateBusyError("too many requests are under way; nothing was recorded", hint="Ask again, later.")
            said = await self._answer(scope, receive)
        except GoneError:
            return
        except CountermarkError as error:
            self._all.counters.add("stripe_refused", error.code)
            said = of_error(error)
        except asyncio.CancelledError:
            await _send(send, of_error(GateHaltedError("the server is stopping", hint="Ask the same again, later.")))
            raise
        except Exception:
            await _send(send, of_error(HttpError(500, "the gate could not handle this", code="internal_error")))
            raise  # the server writes it down
        finally:
            self.in_flight -= 1
        await _send(send, said)

    async def _answer(self, scope: Scope, receive: Receive) -> Said:
        method, headers = scope["method"], scope["headers"]
        body = await read_body(scope, receive, self._all.settings.limits.body_bytes_max)
        caller = await caller_of(self._all, scope, body)
        path = scope["raw_path"].decode("latin-1").removeprefix(self._prefix)
        found = (await self._known()).find(method, path)
        if found is None:
            raise RefusedError(
                404, f"The gate has no tool for {method} {path[:200]}.", code="countermark_no_tool",
                hint="Declare it in tools.toml; what is not declared is not passed on.",
            )  # fmt: skip
        tool, ids = found
        for name in FOR_OTHERS:
            if header(headers, name):
                raise RefusedError(
                    400, f"The gate acts for its own account: {name.decode()} is not passed on.",
                    code="countermark_other_account",
                )  # fmt: skip
        sent = self._sent(method, headers, body, scope["query_string"])
        args = arguments(tool, pairs_of(sent), ids)
        if method == "POST":
            check_business_key(tool, args)
            call_id = _call_id(header(headers, KEY))
        else:
            call_id = "get-" + secrets.token_hex(16)
        return await self._act(caller, tool, {"tool": tool.name, "call_id": call_id, "args": args}, headers)

    @staticmethod
    def _sent(method: str, headers: Sequence[tuple[bytes, bytes]], body: bytes, query: bytes) -> bytes:
        """The one part of a request that has its parameters."""
        other = query if method == "POST" else body
        if other:
            raise RefusedError(400, "Parameters stand in the body of a POST, in the address of a GET.",
                               code="parameter_invalid")  # fmt: skip
        if method != "POST":
            return query
        if body and header(headers, b"content-type").partition(b";")[0].strip().lower() != FORM:
            raise RefusedError(400, "The body must be form-encoded.", code="parameter_invalid")
        return body

    async def _known(self) -> Routes:
        bundle = await self._gate.bundle()
        if self._routes is None or self._routes[0] != bundle.digest:
            self._routes = (bundle.digest, Routes(bundle.compiled.tools, CONNECTOR))
        return self._routes[1]

    async def _act(
        self, caller: Caller, tool: ToolSpec, body: dict[str, Any], headers: Sequence[tuple[bytes, bytes]]
    ) -> Said:
        named = header(headers, RUN_HEADER).decode("latin-1")
        run = named or await self._runs.of(caller)
        try:
            result = await self._gate.call("act", {**body, "run": run}, caller)
        except CountermarkError as error:
            if error.code not in _RUN_IS_OVER or not self._runs.forget(caller, run):
                raise
            run = await self._runs.of(caller)
            result = await self._gate.call("act", {**body, "run": run}, caller)
        if result["code"] == "mandate_not_in_force":  # the next request begins anew, under whatever is granted then
            self._runs.forget(caller, run)
        self._all.counters.add("stripe", result["status"], result["disposition"])
        said = await self._said(caller, tool, result)
        more = {"countermark-action": result["action"], "countermark-run": result["run"]}
        if tool.class_ != "read":
            more["idempotency-key"] = body["call_id"]
        return Said(said.status, said.body, {"request-id": result["action"], **more, **said.headers})

    async def _said(self, caller: Caller, tool: ToolSpec, result: Mapping[str, Any]) -> Said:
        status = result["status"]
        if status in ("confirmed", "failed"):
            agent, action = caller.agent, result["action"]
            known: Told | None = await self._gate.lane.ask(lambda writer: told(writer, agent, action))
            if known is not None:
                return await self._confirmed(known) if status == "confirmed" else self._failed(known, result)
        ours = result["code"]
        http, kind, code = _DENIED.get(ours, (403, INVALID, "countermark_denied"))
        message = f"The gate denied {tool.name}: {ours}."
        if status == "escalated":
            http, kind, code = 409, API, "countermark_escalated"
            message = f"A person must approve this first: {result['escalation']}."
        elif status == "pending":
            http, kind, code = 409, IDEMPOTENCY, "idempotency_key_in_use"
            message = "This request is under way."
        elif status == "unknown":
            http, kind, code = 504, API, "countermark_unknown"
            message = "Stripe did not answer, and nobody knows yet whether it was done. The gate goes on asking."
        # Asking again under the same key never sends anything a second time; a person's answer takes longer than that.
        again = status in ("pending", "unknown")
        error = RefusedError(http, message, code=code, kind=kind, hint=result["next_step"], retryable=again)
        return refusal(
            error, code=ours, action=result["action"], run=result["run"], status=status,
            disposition=result["disposition"], escalation=result["escalation"],
        )  # fmt: skip

    async def _confirmed(self, known: Told) -> Said:
        """Stripe's own object: as it was answered, else as it is now, else what the record has of it."""
        stripe = self._gate.connectors[CONNECTOR]
        if not isinstance(stripe, StripeConnector):
            raise RefusedError(503, "There is no Stripe connector here.", code="countermark_no_connector", kind=API)
        body = stripe.answer_of(known.response) if known.code != "found" else None
        # A payment intent whose first charge was declined exists, and its answer is an error all the same.
        status = known.http_status if body is not None and known.http_status >= 400 else 200
        headers = {"stripe-version": dict(known.tool.headers).get("Stripe-Version", ""), "stripe-should-retry": "false"}
        if body is None and known.ref:
            loop = asyncio.get_running_loop()
            body = await loop.run_in_executor(None, stripe.fetch, known.tool, known.ref)
        if body is None and known.tool.class_ == "read":
            raise RefusedError(502, "Stripe's answer is not kept any more.", code="countermark_answer_gone", kind=API)
        if body is None:
            kind = OBJECTS.get(known.ref.partition("_")[0], "object")
            body = orjson.dumps({"id": known.ref, "object": kind, **known.output})
            headers["countermark-partial"] = "true"
        return Said(status, body, headers)

    def _failed(self, known: Told, result: Mapping[str, Any]) -> Said:
        """Stripe's own refusal, or why nothing was sent."""
        stripe = self._gate.connectors[CONNECTOR]
        body = stripe.answer_of(known.response) if isinstance(stripe, StripeConnector) and known.response else None
        if body is not None and known.http_status >= 400:
            return Said(known.http_status, body, {"stripe-should-retry": "false"})
        http = known.http_status if known.http_status >= 400 else 502
        message = f"Nothing was done: {known.request_id if known.code == 'not_sent' else known.code}."
        error = RefusedError(
            http, message, code=f"countermark_{known.code}", kind=API if http >= 500 else INVALID,
            hint=result["next_step"],
        )  # fmt: skip
        return refusal(error, code=known.code, action=result["action"], run=result["run"], status="failed")


async def _send(send: Send, said: Said) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(said.body)), (b"cache-control", b"no-store")]
    headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in said.headers.items()]
    await send({"type": "http.response.start", "status": said.status, "headers": headers})
    await send({"type": "http.response.body", "body": said.body})


def _call_id(given: bytes) -> str:
    """The call_id that an Idempotency-Key is. Raises ``RefusedError``."""
    text = given.decode("latin-1")
    if CALL_ID.fullmatch(text) is None:
        raise RefusedError(
            400, "Idempotency-Key must be 1 to 128 of A-Z a-z 0-9 _ . : -.", code="countermark_bad_idempotency_key",
            hint="SDKs send one with every POST; a key of your own must have this form.",
        )  # fmt: skip
    return text
