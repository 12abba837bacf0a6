"""JWTs as credentials of agents: OIDC access tokens, SPIFFE JWT-SVIDs, delegated tokens (RFC 8725 is the rule list).

What a token says decides nothing before its signature is verified, but for which issuer's keys it is verified with;
those verify it or nobody does.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jwt import PyJWS
from jwt.exceptions import PyJWTError

from countermark.authority import ACTORS_MAX, Behalf
from countermark.gate import Caller
from countermark.model.canon import read_json
from countermark.model.clock import US
from countermark.model.errors import AuthorityError, EncodingError, GateBusyError
from countermark.model.ports import Clock
from countermark.model.values import NAME
from countermark.server.jwks import KID_CHARS_MAX, KeySet
from countermark.wiring import Issuer

TOKEN_CHARS_MAX = 8_192
LEEWAY_S = 30
LIFE_S_MAX = 86_400
CLAIM_CHARS_MAX = 1_024
AUDIENCES_MAX = 32
USED_MAX = 65_536  # tokens for one request that are remembered until they expire

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
# Everything else could name or bring a key (jku, jwk, x5u, x5c), or change what is signed (crit, b64, zip).
_HEADER = frozenset(("alg", "kid", "typ", "x5t", "x5t#S256"))
_TYPES = ("", "jwt", "jose", "at+jwt", "application/at+jwt")
_ACT = frozenset(("sub", "iss", "act"))


class Refused(AuthorityError):
    """A token that is not valid here. The message is for the log of whoever runs the server, never for a stranger."""

    code = "not_authenticated"


class Bearers:
    """Checks JWTs against the issuers of the configuration."""

    def __init__(self, issuers: Sequence[Issuer], clock: Clock) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._keys = {issuer.issuer: KeySet(issuer.jwks, clock) for issuer in issuers}
        self._clock = clock
        self._used: dict[tuple[str, str], int] = {}  # issuer and jti of tokens for one request, and when they expire

    async def caller(self, token: str, tier: str) -> Caller:
        """The agent that a token names. Raises ``Refused``, or ``GateBusyError`` when too many are remembered."""
        header, claims = _opened(token)
        issuer = self._issuer(claims)
        algorithm, kid = header.get("alg"), header.get("kid")
        if type(algorithm) is not str or algorithm not in issuer.algorithms:
            raise Refused("the token's algorithm is not one of its issuer's")
        if kid is not None and (type(kid) is not str or len(kid) > KID_CHARS_MAX):
            raise Refused("the token's key ID is no text")
        key = await self._keys[issuer.issuer].find(kid, algorithm)
        if key is None:
            raise Refused("no key of the issuer is the token's")
        try:
            PyJWS(algorithms=[algorithm], options={"enforce_minimum_key_length": True}).decode(
                token, key, algorithms=[algorithm]
            )
        except (PyJWTError, ValueError, TypeError):
            raise Refused("the token's signature does not verify") from None
        self._check(issuer, claims)
        agent, behalf = _named(issuer, claims)
        return Caller(agent, tier, behalf=behalf)

    def _issuer(self, claims: Mapping[str, Any]) -> Issuer:
        """Whose token it says it is: a trust domain's by its subject, anybody else's by its issuer."""
        subject, name = claims.get("sub"), claims.get("iss")
        if type(subject) is str and subject.startswith("spiffe://"):
            name = "/".join(subject.split("/", 3)[:3])
        found = self._issuers.get(name) if type(name) is str else None
        if found is None:
            raise Refused("nobody here knows the token's issuer")
        return found

    def _check(self, issuer: Issuer, claims: Mapping[str, Any]) -> None:
        """Times and audience; all times are whole seconds."""
        now = self._clock.now_us() // US
        expires, issued, begins = (claims.get(name) for name in ("exp", "iat", "nbf"))
        for value in (expires, issued, begins):
            if value is not None and type(value) is not int:
                raise Refused("a time of the token is no whole number of seconds")
        if expires is None or (issued is None and not issuer.spiffe):  # a JWT-SVID need not say when it was issued
            raise Refused("the token lacks exp or iat")
        if expires <= now - LEEWAY_S or expires > now + LIFE_S_MAX:
            raise Refused("the token has expired, or lives too long")
        if max(issued or 0, begins or 0) > now + LEEWAY_S or (issued is not None and expires - issued > LIFE_S_MAX):
            raise Refused("the token is not valid yet, or lives too long")
        audience = claims.get("aud")
        listed = audience if type(audience) is list else [audience]
        if len(listed) > AUDIENCES_MAX or issuer.audience not in listed:
            raise Refused("the token is for another audience")
        if issuer.once:
            self._once(issuer, claims.get("jti"), expires + LEEWAY_S, now)

    def _once(self, issuer: Issuer, jti: object, until: int, now: int) -> None:
        if type(jti) is not str or not 1 <= len(jti) <= CLAIM_CHARS_MAX:
            raise Refused("a token for one request has no jti")
        if (issuer.issuer, jti) in self._used:
            raise Refused("the token was used before")
        if len(self._used) >= USED_MAX:
            self._used = {key: end for key, end in self._used.items() if end > now}
            if len(self._used) >= USED_MAX:
                raise GateBusyError("too many tokens for one request are in use", hint="Ask again, later.")
        self._used[issuer.issuer, jti] = until


def _opened(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims, not verified yet. Raises ``Refused``."""
    parts = token.split(".") if len(token) <= TOKEN_CHARS_MAX else []
    if len(parts) != 3 or any(_SEGMENT.fullmatch(part) is None for part in parts):
        raise Refused("not a signed JWT")
    try:
        header, claims = (
            read_json(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), bytes_max=TOKEN_CHARS_MAX)
            for part in parts[:2]
        )
    except (binascii.Error, ValueError, EncodingError):
        raise Refused("a part of the token is not JSON") from None
    if type(header) is not dict or type(claims) is not dict or not header.keys() <= _HEADER:
        raise Refused("the token's header has a member that is not allowed")
    kind = header.get("typ", "")
    if type(kind) is not str or kind.lower() not in _TYPES:
        raise Refused("the token is of another type")
    return header, claims


def _named(issuer: Issuer, claims: Mapping[str, Any]) -> tuple[str, Behalf | None]:
    """The calling agent, and the delegation when the token has an ``act`` claim (RFC 8693 section 4.1)."""
    if "act" not in claims:
        return _agent(issuer, claims.get(issuer.claim)), None
    principal = issuer.principals.get(_text(claims.get("sub")))
    if principal is None:
        raise Refused("the token acts for somebody whom [serve.issuer.principals] does not name")
    actors: list[str] = []
    act: object = claims["act"]
    while act is not None:
        if type(act) is not dict or not act.keys() <= _ACT or act.get("iss", issuer.issuer) != issuer.issuer:
            raise Refused("an actor of the token has another form, or another issuer")
        if len(actors) == ACTORS_MAX:
            raise Refused("the token's chain of actors is too long")
        actors.append(_agent(issuer, act.get("sub")))
        act = act.get("act")
    if not actors:
        raise Refused("the token acts through nobody")
    return actors[0], Behalf(principal, tuple(actors))


def _agent(issuer: Issuer, value: object) -> str:
    text = _text(value)
    agent = issuer.agents.get(text) if issuer.agents else text
    if agent is None or NAME.fullmatch(agent) is None:
        raise Refused("the token names no agent")
    return agent


def _text(value: object) -> str:
    if type(value) is not str or not 1 <= len(value) <= CLAIM_CHARS_MAX:
        raise Refused("a claim of the token is no text")
    return value
