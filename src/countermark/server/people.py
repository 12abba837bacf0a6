"""Routes of people. A document signed by a person's key is the authority; an agent's credential never reaches these.

Where an order has no signed document of its own (to stop, to look), the person signs the request itself: a pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from countermark.authority import SCHEME, challenge_of, encode64, verify_pass
from countermark.gate import Caller
from countermark.model.clock import SystemClock
from countermark.model.digest import ENROLMENT_PROOF
from countermark.model.errors import ArgumentError, AuthorityError
from countermark.model.ports import Clock
from countermark.server.actions import answer, query_of, target_of
from countermark.server.bodies import check_json, header, read_body, read_object
from countermark.server.problems import HttpError, plain
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
        """``GET /v1/escalations``: what waits, the newest first; ``share``: of each agent its part of so many."""
        await self._person(scope, await self._body(scope, receive))
        query = query_of(scope, ("limit", "after", "share"))
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

    async def people(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``GET /v1/people``: everybody, with keys and absence."""
        await self._person(scope, await self._body(scope, receive))
        query_of(scope, ())
        await answer(send, 200, {"people": await self._call("people", {})})

    async def offer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``GET /v1/people/offers/{offer}``: a passkey that somebody offers, by the code that they read aloud."""
        await self._person(scope, await self._body(scope, receive))
        query_of(scope, ())
        found = self._all.offers.find(scope["path_params"]["offer"])
        if found is None:
            raise plain(404, "no passkey is offered under this code, or not any more")
        await answer(send, 200, found.document())

    async def draft(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/people/drafts``: the document that a new passkey signs, and its challenge. Nothing is kept."""
        asked = await self._signed(scope, receive)
        if asked.keys() != {"person", "key", "label"} or any(type(one) is not str for one in asked.values()):
            raise ArgumentError("a draft is asked for with person, key and label", code="unknown_argument")
        document = self._all.offers.draft(asked["person"], asked["key"], asked["label"])
        challenge = encode64(challenge_of(ENROLMENT_PROOF, document))
        await answer(send, 201, {"enrolment": document, "challenge": challenge})

    async def offered(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/people/offers``: a passkey waits to be enrolled. Nobody needs to be known for that."""
        asked = await self._signed(scope, receive)
        if asked.keys() != {"enrolment", "proof"}:
            raise ArgumentError("an offer has enrolment and proof", code="unknown_argument")
        await answer(send, 201, self._all.offers.add(asked["enrolment"], asked["proof"]).document())

    async def enrol(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/people/keys``: a key becomes a person's."""
        await answer(send, 201, await self._call("key.enrol", await self._signed(scope, receive)))

    async def remove(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/people/keys/removals``: a key ends."""
        await answer(send, 201, await self._call("key.remove", await self._signed(scope, receive)))

    async def away(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/people/absences``: somebody answers for a person."""
        await answer(send, 201, await self._call("absence.set", await self._signed(scope, receive)))

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
