"""A session order: by it a person says that one browser is theirs for a while. It authorises looking and stopping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.fields import Fields
from countermark.authority.keys import Key, parse_key, public_of, sign, verify
from countermark.authority.people import Person, enrolled
from countermark.model.digest import SESSION
from countermark.model.errors import AuthorityError

_NONCE = re.compile(r"[A-Za-z0-9_-]{16,128}")
_PAGE = re.compile(r"https?://[a-z0-9.:\[\]-]{1,253}")  # any page of the console; only a passkey needs more of it
_MEMBERS = frozenset(("v", "deployment", "person", "nonce", "origin", "not_after"))


@dataclass(frozen=True, slots=True)
class SessionOrder:
    """Whose browser it is. ``nonce`` is the server's, for one browser; ``not_after`` (microseconds) ends the order,
    not the session.
    """

    deployment: str
    person: str
    nonce: str
    origin: str
    not_after: int

    def document(self) -> dict[str, Any]:
        return {"v": 1, "deployment": self.deployment, "person": self.person, "nonce": self.nonce,
                "origin": self.origin, "not_after": self.not_after}  # fmt: skip


def parse_session(value: object) -> SessionOrder:
    """Check a session's document strictly. Raises ``AuthorityError`` (``bad_session``)."""
    fields = Fields("session", value, _MEMBERS)
    fields.version()
    return SessionOrder(
        fields.string("deployment"), fields.string("person"), fields.string("nonce", _NONCE),
        fields.string("origin", _PAGE), fields.integer("not_after"),
    )  # fmt: skip


def sign_session(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign a session order with a key file: ``{"session", "key", "sig"}``."""
    plain = parse_session(document).document()
    return {"session": plain, "key": str(public_of(private)), "sig": sign(private, SESSION, plain)}


def verify_session(body: Mapping[str, Any], asked: SessionOrder, people: Mapping[str, Person], now: int) -> Key:
    """Check a signed session order against the one that was asked for. Returns the key that signed it.

    Raises:
        AuthorityError: ``bad_session``, or ``not_authorised``: another browser's, too late, nobody enrolled.
        SignatureError: the key or the signature is wrong.
    """
    fields = Fields("session", body, frozenset(("session", "key", "sig")))
    order = parse_session(fields.member("session"))
    key = parse_key(fields.member("key"))
    verify(key, SESSION, order.document(), fields.member("sig"))
    if order != asked:
        raise AuthorityError("this was signed for another page, person or moment", hint="Begin again at /login.")
    if now >= order.not_after:
        raise AuthorityError("this was signed too long ago", hint="Begin again at /login.")
    enrolled(people, order.person, key)
    return key
