"""API tokens of agents: ``cmk_ID_SECRET``. A deployment keeps a salted digest of the secret and never the secret.

The secret has 192 random bits, so one keyed hash is enough: there is nothing to guess that a slow hash would protect.
All functions take the time in microseconds and return values; who reads and writes the file stands in wiring.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from countermark.authority.fields import HEX32, Fields
from countermark.model.canon import canon, parse
from countermark.model.clock import US
from countermark.model.errors import AuthorityError
from countermark.model.values import NAME, RUN, TOOL

VERSION = 1
ID_HEX = 16
SECRET_HEX = 48
TOKEN_CHARS = 4 + ID_HEX + 1 + SECRET_HEX
TOKENS_MAX = 4_096
TOOLS_MAX = 64
LIFE_S_MAX = 366 * 86_400
OVERLAP_S_MAX = 30 * 86_400
KEEP_US = 30 * 86_400 * US  # how long the list shows a token after its end

_FORM = re.compile(r"cmk_([0-9a-f]{16})_([0-9a-f]{48})")
_ID = re.compile(r"[0-9a-f]{16}")
_HASH = re.compile(r"[0-9a-f]{64}")
_MEMBERS = frozenset(("id", "agent", "tools", "run", "not_before", "not_after", "issued", "revoked", "salt", "hash"))
_NOBODY = ("0" * 32, "0" * 64)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a credential allows beyond the bounds of its agent. Empty ``tools`` and ``run`` mean: no further bound."""

    tools: tuple[str, ...] = ()
    run: str = ""

    def allows(self, tool: str, run: str) -> bool:
        """Whether an action of ``tool`` in ``run`` is within it."""
        return (not self.tools or tool in self.tools) and (not self.run or run == self.run)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the deployment knows it. Times are microseconds; ``revoked`` is 0 while it is not."""

    id: str
    agent: str
    scope: Scope
    not_before: int
    not_after: int
    issued: int
    revoked: int
    salt: str
    hash: str

    def state(self, now: int) -> str:
        """``revoked``, ``expired``, ``not yet`` or ``active``."""
        if self.revoked:
            return "revoked"
        if now >= self.not_after:
            return "expired"
        return "not yet" if now < self.not_before else "active"

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id, "agent": self.agent, "tools": list(self.scope.tools), "run": self.scope.run or None,
            "not_before": self.not_before, "not_after": self.not_after, "issued": self.issued,
            "revoked": self.revoked, "salt": self.salt, "hash": self.hash,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class TokenBook:
    """All tokens of a deployment, by ID."""

    tokens: Mapping[str, Token]

    def render(self) -> bytes:
        """Canonical bytes, for the file."""
        return canon({"v": VERSION, "tokens": [token.document() for _, token in sorted(self.tokens.items())]})

    @classmethod
    def parse(cls, raw: bytes) -> TokenBook:
        """Read what ``render`` wrote. Raises ``AuthorityError`` (``bad_token``) or ``EncodingError``."""
        fields = Fields("token_book", parse(raw), frozenset(("v", "tokens")))
        fields.version()
        found = [_token(document) for document in fields.items("tokens", TOKENS_MAX)]
        book = cls({token.id: token for token in found})
        if len(book.tokens) != len(found):
            raise fields.error("has a token twice")
        return book


EMPTY = TokenBook({})


def issue(
    book: TokenBook, agent: str, now: int, *, life_s: int, tools: Sequence[str] = (), run: str = "",
    not_before: int | None = None,
) -> tuple[TokenBook, Token, str]:  # fmt: skip
    """Make a token: the new book, what it knows, and the plain token, which nobody can show again.

    Raises:
        AuthorityError: ``bad_token``: a bound or a name is not valid, or there are too many tokens.
    """
    start = now if not_before is None else not_before
    if type(life_s) is not int or not 1 <= life_s <= LIFE_S_MAX:
        raise _bad(f"lives for 1 to {LIFE_S_MAX} seconds")
    identity, secret, salt = secrets.token_hex(ID_HEX // 2), secrets.token_hex(SECRET_HEX // 2), secrets.token_hex(16)
    made = Token(
        identity, agent, Scope(tuple(sorted(set(tools))), run), start, start + life_s * US, now, 0, salt,
        _hash(salt, secret),
    )  # fmt: skip
    made = _token(made.document())  # whatever was asked for must be readable again
    kept = {key: token for key, token in book.tokens.items() if now < (token.revoked or token.not_after) + KEEP_US}
    if len(kept) >= TOKENS_MAX:
        raise _bad(f"would be one of more than {TOKENS_MAX}")
    return TokenBook({**kept, identity: made}), made, f"cmk_{identity}_{secret}"


def rotate(book: TokenBook, token: str, now: int, *, life_s: int, overlap_s: int) -> tuple[TokenBook, Token, str]:
    """A new token with the agent and scope of an active one, which itself ends after ``overlap_s`` seconds.

    Raises:
        AuthorityError: ``unknown_token``: there is no such active token; ``bad_token``: a bound is not valid.
    """
    old = _active(book, token, now)
    if type(overlap_s) is not int or not 0 <= overlap_s <= OVERLAP_S_MAX:
        raise _bad(f"overlaps with the next for 0 to {OVERLAP_S_MAX} seconds")
    book, made, plain = issue(book, old.agent, now, life_s=life_s, tools=old.scope.tools, run=old.scope.run)
    ended = replace(old, not_after=max(old.not_before + 1, min(old.not_after, now + overlap_s * US)))
    if overlap_s == 0:
        ended = replace(old, revoked=now)
    return TokenBook({**book.tokens, old.id: ended}), made, plain


def revoke_token(book: TokenBook, token: str, now: int) -> TokenBook:
    """End a token now. Raises ``AuthorityError`` (``unknown_token``)."""
    found = _active(book, token, now, or_later=True)
    return TokenBook({**book.tokens, found.id: replace(found, revoked=now)})


def check_token(book: TokenBook, presented: str, now: int) -> Token:
    """The token behind what was presented. An unknown one takes as long as a wrong one, and is told the same.

    Raises:
        AuthorityError: ``not_authenticated``.
    """
    match = _FORM.fullmatch(presented) if len(presented) == TOKEN_CHARS else None
    identity, secret = match.groups() if match is not None else ("", "")
    token = book.tokens.get(identity)
    salt, known = _NOBODY if token is None else (token.salt, token.hash)
    fits = hmac.compare_digest(_hash(salt, secret), known)
    if token is None or not fits or token.state(now) != "active":
        raise AuthorityError("the token is not valid here", code="not_authenticated")
    return token


def is_token(presented: str) -> bool:
    """Whether this claims to be one of our tokens, right or wrong."""
    return presented.startswith("cmk_")


def _active(book: TokenBook, token: str, now: int, *, or_later: bool = False) -> Token:
    found = book.tokens.get(token.removeprefix("cmk_"))
    if found is None or found.state(now) not in (("active", "not yet") if or_later else ("active",)):
        raise AuthorityError("no such active token", code="unknown_token", hint="See `countermark token list`.")
    return found


def _hash(salt: str, secret: str) -> str:
    return hmac.digest(bytes.fromhex(salt), b"countermark token\0" + secret.encode("ascii"), "sha256").hex()


def _bad(message: str) -> AuthorityError:
    return AuthorityError(f"the token {message}", code="bad_token")


def _token(document: object) -> Token:
    fields = Fields("token", document, _MEMBERS)
    token = Token(
        fields.string("id", _ID),
        fields.string("agent", NAME),
        Scope(fields.strings("tools", TOOL, TOOLS_MAX), fields.optional("run", RUN) or ""),
        fields.integer("not_before"),
        fields.integer("not_after"),
        fields.integer("issued"),
        fields.integer("revoked"),
        fields.string("salt", HEX32),
        fields.string("hash", _HASH),
    )
    if token.not_after <= token.not_before:
        raise fields.error("ends before it begins")
    return token
