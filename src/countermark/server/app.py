"""The whole HTTP face as one ASGI app: routes, one error shape, a bound on what is under way."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import Message, Receive, Scope, Send

from countermark.model.clock import SystemClock
from countermark.model.errors import CountermarkError, GateBusyError, GateHaltedError
from countermark.server.actions import Actions, answer, answer_error, query_of, send_whole
from countermark.server.bodies import GoneError, read_body
from countermark.server.console import Console, console_of
from countermark.server.hooks import Hooks
from countermark.server.logs import LogReader
from countermark.server.metrics import Latency, Pulse, gauges_of, render
from countermark.server.openapi import Handler, Operation, write
from countermark.server.people import People
from countermark.server.problems import plain
from countermark.server.surroundings import WHOLE, Headers, Surroundings

ACTIONS = "/v1/actions"
FOREVER = b"public, max-age=31536000, immutable"  # a tile never changes; nor does a partial one of the same width
OCTETS = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger("countermark.server")


class _Heard:
    """Passes an answer on and remembers its status."""

    __slots__ = ("_whole", "send", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.send = send
        self.status = 0
        self._whole = scope.get(WHOLE)

    def whole(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send an answer in one piece, where the wire can."""
        if self.status or self._whole is None or not self._whole(status, headers, body):
            return False
        self.status = status
        return True

    async def __call__(self, message: Message) -> None:
        if not self.status and message["type"] == "http.response.start":
            self.status = message["status"]
        await self.send(message)


class _Endpoint:
    """A declared route as an ASGI app."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["countermark.route"] = self.operation.path
        await self.operation.handler(scope, receive, send)


class Front:
    """The ASGI app. ``operations`` are its own routes; further faces are mounted beside them."""

    def __init__(
        self, surroundings: Surroundings, further: Sequence[BaseRoute] = (), console: Console | None = None
    ) -> None:
        self._all = surroundings
        self._requests_max = surroundings.settings.limits.requests_max
        config, tiles = surroundings.config, surroundings.gate.tiles
        self._log, self._told = LogReader(config, "log", tiles), LogReader(config, "told", tiles)
        self._actions = Actions(surroundings, self._log, self._told)
        self._people, self._pulse = People(surroundings), Pulse(surroundings)
        self._hooks = Hooks(surroundings)
        self._latency, self._clock = Latency(surroundings), SystemClock()
        self.in_flight = 0
        self.connections = 0
        self.operations = (*self._of_agents(), *self._of_people(), *self._of_anyone())
        self._openapi = write(self.operations, _version())
        own = [Route(one.path, _Endpoint(one), methods=[one.method]) for one in self.operations]
        self._console = console
        self.routes: list[BaseRoute] = [*own, *further, *(() if console is None else console.routes())]
        self._router = Router(self.routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        heard = _Heard(scope, send)
        self.in_flight += 1
        try:
            if self.in_flight > self._requests_max:
                raise GateBusyError("too many requests are under way; nothing was recorded", hint="Ask again, later.")
            if scope["path"] == ACTIONS and scope["method"] == "POST":
                begun = self._clock.steady_us()
                scope["countermark.route"] = ACTIONS
                await self._actions.act(scope, receive, heard)
                self._latency.add(self._clock.steady_us() - begun)
            else:
                scope["app"] = self  # by this the router leaves its refusals to us
                await self._router(scope, receive, heard)
        except GoneError:
            log.debug("a client went away before its request was whole")
        except CountermarkError as error:
            await self._fail(heard, error)
        except HTTPException as error:
            await self._fail(heard, plain(error.status_code, headers=error.headers))
        except asyncio.CancelledError:
            await self._fail(heard, GateHaltedError("the server is stopping", hint="Ask the same again, later."))
            raise
        except Exception:
            await self._fail(heard, CountermarkError("the server could not handle this", code="internal_error"))
            raise  # uvicorn writes it down
        finally:
            self.in_flight -= 1
            self._all.counters.add("requests", scope.get("countermark.route", "other"), str(heard.status))

    @staticmethod
    async def _fail(heard: _Heard, error: CountermarkError) -> None:
        if not heard.status:
            await answer_error(heard, error)

    def close(self) -> None:
        """Let go of the journal."""
        self._log.close()
        self._told.close()
        if self._console is not None:
            self._console.close()

    def _of_agents(self) -> tuple[Operation, ...]:
        run, action, do = "/v1/runs/{run}", "/v1/actions/{id}", self._actions
        wait = {"wait": {"enum": ["outcome", "decision"]}}
        acted, asked = {200: "Result", 202: "Result"}, (404, 409, 429)
        return (
            Operation("POST", "/v1/runs", do.start_run, "startRun", "Mint a run.", "agent", {201: "StartedRun"},
                      "AskedRun", problems=(429,)),
            Operation("GET", run, do.show_run, "showRun", "A run of the agent's.", "agent", {200: "Run"},
                      problems=(404,)),
            Operation("POST", run + "/end", do.end_run, "endRun", "End a run.", "agent", {200: "ClosedRun"},
                      "EndedRun", problems=(404,)),
            Operation("POST", ACTIONS, do.act, "act", "Ask for one action.", "agent", acted, "AskedAction", wait,
                      asked),
            Operation("GET", action, do.show, "showAction", "The present answer.", "agent", {200: "Result"},
                      problems=(404,)),
            Operation("GET", action + "/receipt", do.receipt, "showReceipt", "Receipt, signed head, proofs.", "agent",
                      {200: "Receipt"}, problems=(404,)),
            Operation("GET", action + "/explanation", do.explanation, "explainAction", "What became of it, and why.",
                      "agent", {200: "Explanation"}, problems=(404,)),
            Operation("POST", action + "/outcome", do.settle, "settle", "Report what an admitted action did.", "agent",
                      {200: "Result"}, "Outcome", problems=(404, 409)),
            Operation("POST", "/v1/admissions", do.admit, "admit", "Decide and record; the caller acts itself.",
                      "agent", acted, "AskedAdmission", problems=asked),
        )  # fmt: skip

    def _of_people(self) -> tuple[Operation, ...]:
        do, whole = self._people, {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
        page = {
            "limit": {"type": "integer", "minimum": 1, "maximum": 100},
            "after": whole,
            "share": {"type": "integer", "minimum": 1, "maximum": 10_000},
        }
        return (
            Operation("GET", "/v1/escalations", do.escalations, "listEscalations", "What waits for people.", "person",
                      {200: "Escalations"}, query=page),
            Operation("POST", "/v1/escalations/{escalation}/answers", do.answers, "answerEscalation",
                      "A person's signed answer.", "signature", {200: "Answered"}, "SignedApproval", problems=(409,)),
            Operation("POST", "/v1/kills", do.kill, "setKill", "Stop a scope.", "person", {201: "Killed"}, "Kill"),
            Operation("POST", "/v1/kills/{kill}/clearance", do.clear, "clearKill", "Lift a stop.", "signature",
                      {200: "Cleared"}, "SignedClearance"),
            Operation("POST", "/v1/mandates", do.grant, "grantMandate", "Grant a mandate.", "signature",
                      {201: "Granted"}, "SignedMandate"),
            Operation("POST", "/v1/mandates/{mandate}/revocation", do.revoke, "revokeMandate", "End a mandate.",
                      "signature", {200: "Revoked"}, "SignedRevocation"),
            Operation("GET", "/v1/people", do.people, "listPeople", "Everybody, with keys and absence.", "person",
                      {200: "People"}),
            Operation("POST", "/v1/people/drafts", do.draft, "draftEnrolment", "What a new passkey signs.", "anyone",
                      {201: "Drafted"}, "AskedDraft", problems=(403,)),
            Operation("POST", "/v1/people/offers", do.offered, "offerPasskey", "A passkey waits to be enrolled.",
                      "anyone", {201: "Offer"}, "Offered", problems=(403, 409)),
            Operation("GET", "/v1/people/offers/{offer}", do.offer, "showOffer", "A passkey that somebody offers.",
                      "person", {200: "Offer"}, problems=(404,)),
            Operation("POST", "/v1/people/keys", do.enrol, "enrolKey", "A key becomes a person's.", "signature",
                      {201: "KeyChanged"}, "SignedEnrolment", problems=(409,)),
            Operation("POST", "/v1/people/keys/removals", do.remove, "removeKey", "A key ends.", "signature",
                      {201: "KeyChanged"}, "SignedRemoval", problems=(409,)),
            Operation("POST", "/v1/people/absences", do.away, "setAbsence", "Somebody answers for a person.",
                      "signature", {201: "AwaySet"}, "SignedAbsence"),
        )  # fmt: skip

    def _of_anyone(self) -> tuple[Operation, ...]:
        return (
            Operation("POST", "/hooks/{source}", self._hooks.deliver, "deliverEvent",
                      "An event that starts or wakes runs, signed by its source.", "anyone", {200: "Delivered"},
                      "Delivery", problems=(401, 404, 409)),
            Operation("GET", "/log/checkpoint", self._checkpoint, "checkpoint",
                      "The newest head, cosigned if any is.", "anyone", {200: TEXT}, problems=(404,)),
            Operation("GET", "/log/tile/{path:path}", self._tile, "tile", "A hash tile.", "anyone", {200: OCTETS},
                      problems=(404,)),
            Operation("GET", "/metrics", self._metrics, "metrics", "Numbers for Prometheus.", "anyone", {200: METRICS}),
            Operation("GET", "/healthz", self._healthz, "health", "Whether the lane is open.", "anyone",
                      {200: "Health", 503: "Health"}),
            Operation("GET", "/openapi.json", self._described, "openapi", "This description.", "anyone",
                      {200: "OpenAPI"}),
        )  # fmt: skip

    async def _checkpoint(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _nothing_asked(scope, receive)
        note = await self._log.checkpoint()
        if note is None:
            raise plain(404, "the log is empty")
        await _bytes(send, note, TEXT, b"no-cache")

    async def _tile(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _nothing_asked(scope, receive)
        tile = await self._log.tile(scope["path_params"]["path"])
        if tile is None:
            raise plain(404, "there is no such tile, or not yet")
        await _bytes(send, tile, OCTETS, FOREVER)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _nothing_asked(scope, receive)
        numbers: dict[str, Any] = {
            **self._all.gate.numbers(), "requests_in_flight": self.in_flight, "connections": self.connections,
            "ready": not await self._pulse.reasons(), "trigger_faults": len(self._all.trigger_faults()),
        }  # fmt: skip
        await _bytes(send, render(self._all, gauges_of(numbers)), METRICS, b"no-store")

    async def _healthz(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _nothing_asked(scope, receive)
        reasons = await self._pulse.reasons()
        lacking = dict.fromkeys(await self._all.lacking(), "missing_secret")
        told = {"ready": not reasons, "reasons": lacking | reasons, "trigger_faults": len(self._all.trigger_faults())}
        await answer(send, 503 if reasons else 200, told)

    async def _described(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _nothing_asked(scope, receive)
        await answer(send, 200, self._openapi)


async def _nothing_asked(scope: Scope, receive: Receive) -> None:
    query_of(scope, ())
    await read_body(scope, receive, 0)


async def _bytes(send: Send, body: bytes, kind: str, cache: bytes) -> None:
    headers = [
        (b"content-type", kind.encode("ascii")), (b"content-length", b"%d" % len(body)), (b"cache-control", cache),
        (b"x-content-type-options", b"nosniff"),
    ]  # fmt: skip
    await send_whole(send, 200, headers, body)


def _version() -> str:
    from countermark import __version__

    return __version__


def build(surroundings: Surroundings) -> Front:
    """The app with every face that is installed."""
    return Front(surroundings, further_faces(surroundings), console_of(surroundings))


def further_faces(surroundings: Surroundings) -> list[BaseRoute]:
    """Routes of the faces beside this one."""
    found: list[BaseRoute] = []
    for module, maker in (
        ("countermark.server.stripe_face", "stripe_routes"), ("countermark.server.webhooks", "webhook_routes"),
    ):  # fmt: skip
        found += getattr(importlib.import_module(module), maker)(surroundings)
    if importlib.util.find_spec("mcp"):
        face = importlib.import_module("countermark.server.mcp_face")
        found += [Route("/mcp", face.mcp_app(surroundings)), Mount("/escalations", face.page_app())]
    return found


__all__ = ["Front", "Handler", "build", "further_faces"]
