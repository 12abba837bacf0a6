"""Routes of people. A document signed by a person's key is the authority; an agent's credential never reaches these.

Where an order has no signed document of its own (to stop, to look), the person signs the request itself: a pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from countermark.authority import SCHEME, verify_pass
from countermark.gate import Caller
from countermark.model.clock import SystemClock
from countermark.model.errors import ArgumentError, AuthorityError
from countermark.model.ports import Clock
from countermark.server.actions import answer, query_of, target_of
from countermark.server.bodies import check_json, header, read_body, read_object
from countermark.server.problems import HttpError
from countermark.server.surroundings import Surroundings

PASSES_MAX = 4_096  # used ones, remembered until they end

_CREDENTIALS = (b"signature", b"signature-input", b"x-api-key")


class People:
    """Handlers of people's routes."""

    def __init__(self, surroundings: Surroundings, clock: Clock | None = None) -> None:
        self._all = surroundings
        self._gate = surroundings.gate
        self._clock = clock or SystemClock()
        self._bytes_max = surroundings.settings.limits.body_bytes_max
        self._used: dict[str, int] = {}

    async def escalations(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``GET /v1/escalations``: what waits for people, the newest first."""
        await self._person(scope, await self._body(scope, receive))
        query = query_of(scope, ("limit", "after"))
        body = {name: _whole_number(name, text) for name, text in query.items()}
        found = await self._call("escalations", body)
        await answer(send, 200, {"escalations": found})

    async def answers(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/escalations/{escalation}/answers``."""
        signed = await self._signed(scope, receive)
        _same(signed, "approval", "escalation", scope["path_params"]["escalation"])
        await answer(send, 200, await self._call("answer", signed))

    async def kill(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/kills``: stop a scope."""
        raw = await self._body(scope, receive)
        await self._person(scope, raw)
        check_json(scope["headers"])
        await answer(send, 201, await self._call("kill.set", read_object(raw, self._bytes_max)))

    async def clear(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/kills/{kill}/clearance``."""
        signed = await self._signed(scope, receive)
        _same(signed, "clearance", "kill", scope["path_params"]["kill"])
        await answer(send, 200, {"cleared": await self._call("kill.clear", signed)})

    async def grant(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/mandates``."""
        await answer(send, 201, {"mandate": await self._call("mandate.grant", await self._signed(scope, receive))})

    async def revoke(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/mandates/{mandate}/revocation``."""
        signed = await self._signed(scope, receive)
        _same(signed, "revocation", "mandate", scope["path_params"]["mandate"])
        await answer(send, 200, await self._call("mandate.revoke", signed))

    async def _call(self, op: str, body: Mapping[str, Any]) -> Any:
        return await self._gate.call(op, body, Caller("", self._all.settings.tier))

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request that no agent made."""
        _no_agent(scope, self._all)
        return await read_body(scope, receive, self._bytes_max)

    async def _signed(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        """A signed document. The gate verifies it; here it is only read."""
        raw = await self._body(scope, receive)
        check_json(scope["headers"])
        return read_object(raw, self._bytes_max)

    async def _person(self, scope: Scope, body: bytes) -> str:
        """Who signed this very request. Raises ``HttpError`` 401 without a pass."""
        shown = header(scope["headers"], b"authorization").decode("latin-1")
        if not shown:
            raise HttpError(
                401, "a person signs this request", code="pass_missing", headers={"www-authenticate": SCHEME},
                hint="Send a pass: see docs/serving.md.",
            )  # fmt: skip
        people, now = await self._gate.people(), self._clock.now_us()
        person, not_after = verify_pass(
            shown, deployment=self._all.config.deployment, people=people, method=scope["method"],
            target=target_of(scope), body=body, now=now,
        )  # fmt: skip
        self._used = {one: end for one, end in self._used.items() if end > now}
        if shown in self._used or len(self._used) >= PASSES_MAX:
            raise AuthorityError("this pass was used before")
        self._used[shown] = not_after
        return person


def _no_agent(scope: Scope, surroundings: Surroundings) -> None:
    """An agent's credential here is refused unread, whatever else the request holds."""
    for name, value in scope["headers"]:
        if name in _CREDENTIALS or (name == b"authorization" and not value.startswith(SCHEME.encode("ascii") + b" ")):
            surroundings.counters.add("refused", "people_only")
            raise HttpError(
                403, "this is for people; an agent's credential is not accepted here", code="people_only",
                hint="Ask a person.",
            )  # fmt: skip


def _same(signed: Mapping[str, Any], document: str, name: str, expected: str) -> None:
    """What is signed and what is addressed must be one. Raises ``ArgumentError``."""
    inner = signed.get(document)
    if type(inner) is dict and inner.get(name) != expected:
        raise ArgumentError(f"the address names another {name} than the signed document", field=name)


def _whole_number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise ArgumentError(f"{name} must be an integer", field=name)
    return int(text)
