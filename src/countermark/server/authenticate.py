"""Who asks: an API token, a JWT, or the agent's own signature on the request; exactly one of them.

Whoever is not known learns nothing but that: one message whatever was wrong, one time of checking whether a token
exists or not, no record. What a request's signature lacks in form is said, since it tells nothing about who is known.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Mapping

from countermark.authority import (
    Head,
    SignedRequest,
    TokenBook,
    check_token,
    is_token,
    read_signed,
)
from countermark.gate import Caller, Gate
from countermark.model.clock import US, SystemClock
from countermark.model.errors import AuthorityError, ConfigError, GateBusyError
from countermark.model.ports import Clock
from countermark.server.bearer import TOKEN_CHARS_MAX, Bearers
from countermark.server.surroundings import Headers
from countermark.wiring import Config, TokenFile

SIGNED_AGE_S_MAX = 60
SIGNED_AHEAD_S_MAX = 10
NONCES_MAX = 131_072

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1
_HEADER_CHARS_MAX = TOKEN_CHARS_MAX + 16
_MINE = (b"authorization", b"signature", b"signature-input")

log = logging.getLogger("countermark.server")


class AgentAuthenticator:
    """The agent behind a request, by what it shows. One for a server; runs on the gate's loop."""

    def __init__(self, config: Config, gate: Gate, clock: Clock | None = None) -> None:
        self._gate = gate
        self._deployment = config.deployment
        self._tier = config.serve.tier
        self._clock = clock or SystemClock()
        self._tokens = TokenFile(config.root)
        self._book: TokenBook | None = None
        self._bearers = Bearers(config.serve.issuer, self._clock)
        self._nonces: dict[tuple[str, str], int] = {}  # of signatures that were accepted, and until when they could be
        self._since = self._clock.now_us() // US  # what was signed before could be a replay from before a restart

    async def authenticate(self, method: str, target: str, headers: Headers, body: bytes) -> Caller:
        """See ``Authenticator``.

        Raises:
            AuthorityError: ``not_authenticated``.
            SignatureError: the signature has not the form that is asked for here.
            GateBusyError: more signatures come than can be remembered.
        """
        shown = _shown(headers)
        if len(shown) == 1 and "authorization" in shown:
            return await self._authorized(shown["authorization"])
        if shown.keys() == {"signature", "signature-input"}:
            return await self._signed(method, target, headers, body, shown)
        raise AuthorityError(
            "show exactly one credential", code="not_authenticated",
            hint="Authorization: Bearer TOKEN, or Signature-Input and Signature.",
        )  # fmt: skip

    async def _authorized(self, value: str) -> Caller:
        token = _presented(value)
        try:
            if is_token(token):
                found = check_token(self._tokens_now(), token, self._clock.now_us())
                return Caller(found.agent, self._tier, scope=found.scope)
            return await self._bearers.caller(token, self._tier)
        except (AuthorityError, ConfigError) as error:
            log.debug("a credential was refused: %s", error.message)
            raise _refused() from None

    def _tokens_now(self) -> TokenBook:
        """The tokens, looked at after the request was read. All requests of one turn of the loop share the look, which
        gives up the interpreter's lock: what ends it stands in the loop's queue before anything that is read later.
        """
        if self._book is None:
            self._book = self._tokens.book()
            asyncio.get_running_loop().call_soon(self._look_again)
        return self._book

    def _look_again(self) -> None:
        self._book = None

    async def _signed(
        self, method: str, target: str, headers: Headers, body: bytes, shown: Mapping[str, str]
    ) -> Caller:
        head = _head(method, target, headers)
        signed = read_signed(shown["signature-input"], shown["signature"], head, body, self._deployment)
        bundle = await self._gate.policy()
        agent = next((one.id for one in bundle.compiled.agents.values() if signed.key in one.keys), None)
        if agent is None:
            raise _refused()
        self._fresh(signed)
        return Caller(agent, self._tier, signed=signed)

    def _fresh(self, signed: SignedRequest) -> None:
        """Made just now, after this server began, and never seen before."""
        now = self._clock.now_us() // US
        oldest = max(now - SIGNED_AGE_S_MAX, self._since)
        over = signed.expires is not None and now >= signed.expires
        if over or not oldest <= signed.created <= now + SIGNED_AHEAD_S_MAX:
            raise AuthorityError(
                "the signature is not of now", code="not_authenticated",
                hint=f"Sign each request anew, with a clock that is right within {SIGNED_AHEAD_S_MAX} seconds.",
            )  # fmt: skip
        if (signed.key, signed.nonce) in self._nonces:
            raise AuthorityError(
                "the signature was used before", code="not_authenticated", hint="Use a fresh nonce for each request."
            )
        if len(self._nonces) >= NONCES_MAX:
            self._nonces = {pair: until for pair, until in self._nonces.items() if until >= now}
            if len(self._nonces) >= NONCES_MAX:
                raise GateBusyError("too many signed requests at once; nothing was recorded", hint="Ask again, later.")
        self._nonces[signed.key, signed.nonce] = signed.created + SIGNED_AGE_S_MAX


def _refused() -> AuthorityError:
    hint = "`countermark token list` says which tokens are in force, `countermark token issue` makes one."
    return AuthorityError("the credential is not valid here", code="not_authenticated", hint=hint)


def _shown(headers: Headers) -> dict[str, str]:
    """The headers that carry a credential, each at most once: two could mean one thing here and another elsewhere."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name in _MINE:
            key = name.decode("ascii")
            if key in found or len(value) > _HEADER_CHARS_MAX:
                raise AuthorityError(f"{key} stands twice or is too long", code="not_authenticated")
            found[key] = value.decode("latin-1").strip(" \t")
    return found


def _presented(value: str) -> str:
    """The token of an ``Authorization`` header: a bearer's, or the user of ``Basic`` with an empty password."""
    scheme, _, rest = value.partition(" ")
    token = rest.strip(" ")
    if scheme.lower() == "basic":
        try:
            user, colon, password = base64.b64decode(token, validate=True).decode("ascii").partition(":")
        except (binascii.Error, ValueError):
            raise _refused() from None
        if password or not colon or not is_token(user):
            raise _refused()
        return user
    if scheme.lower() != "bearer" or _BEARER.fullmatch(token) is None:
        raise _refused()
    return token


def _head(method: str, target: str, headers: Headers) -> Head:
    """What a signature may cover. The authority is the Host header, lower-case; a default port stays as it was sent."""
    path, question, query = target.partition("?")
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    hosts = fields.get("host", [])
    authority = hosts[0].strip(" \t").lower() if len(hosts) == 1 else ""
    return Head(method, authority, path, query if question else None, fields)
