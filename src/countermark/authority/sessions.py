"""A session order: by it a person says that one browser is theirs for a while. It authorises looking and stopping."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.fields import Fields
from countermark.authority.keys import Key, parse_key, public_of, sign, verify
from countermark.authority.people import Person, enrolled
from countermark.model.canon import canon, parse
from countermark.model.digest import SESSION
from countermark.model.errors import AuthorityError, EncodingError

CODE_BYTES_MAX = 4_096

_NONCE = re.compile(r"[0-9a-f]{80}")  # 16 random bytes, until when (8), the server's tag (16)
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


def until_of(nonce: str) -> int:
    """When a sign-in that a server began is over, microseconds. Raises ``AuthorityError`` (``bad_session``)."""
    if _NONCE.fullmatch(nonce) is None:
        raise AuthorityError("this is not what a page of the console shows", code="bad_session",
                             hint="Copy the whole command from the page.")  # fmt: skip
    return int.from_bytes(bytes.fromhex(nonce)[16:24], "big")


def write_code(body: Mapping[str, Any]) -> str:
    """A signed session order as a code that a person carries to the page."""
    return base64.urlsafe_b64encode(canon(body)).decode("ascii")


def read_code(code: str) -> dict[str, Any]:
    """Read ``write_code``'s. Raises ``AuthorityError`` (``bad_session``)."""
    try:
        value = parse(base64.b64decode("".join(code.split()), altchars=b"-_", validate=True), bytes_max=CODE_BYTES_MAX)
    except (binascii.Error, ValueError, EncodingError):
        value = None
    if type(value) is not dict:
        raise AuthorityError("this is not a code of `countermark console link`", code="bad_session")
    return value


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
