"""A pass: by it a person makes one HTTP request. It names method, address and body, ends soon and counts once."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.fields import DIGEST, Fields
from countermark.authority.keys import PublicKey, public_of, sign, verify
from countermark.authority.people import Person, enrolled
from countermark.model.canon import canon, parse
from countermark.model.clock import US
from countermark.model.digest import PASS, digest
from countermark.model.errors import AuthorityError, EncodingError

LIFE_S_MAX = 300
PASS_BYTES_MAX = 4_096
SCHEME = "Countermark-Pass"

_METHOD = re.compile(r"[A-Z]{3,7}")
_TARGET = re.compile(r"/[\x21-\x7e]{0,2047}")
_MEMBERS = frozenset(("deployment", "person", "method", "target", "body", "not_after"))


def make_pass(
    private: Ed25519PrivateKey, *, deployment: str, person: str, method: str, target: str, body: bytes, not_after: int
) -> str:
    """The value of an ``Authorization`` header for one request. ``not_after``: microseconds, at most 300 s ahead."""
    plain = {
        "deployment": deployment, "person": person, "method": method, "target": target, "body": digest(PASS, body),
        "not_after": not_after,
    }  # fmt: skip
    whole = {"pass": plain, "key": str(public_of(private)), "sig": sign(private, PASS, plain)}
    return f"{SCHEME} {base64.b64encode(canon(whole)).decode('ascii')}"


def verify_pass(
    value: str, *, deployment: str, people: Mapping[str, Person], method: str, target: str, body: bytes, now: int
) -> tuple[str, int]:
    """Check a pass against the request it came with. Returns the person and when it ends.

    Raises:
        AuthorityError: ``bad_pass``, or ``not_authorised``: for another request, too old, nobody enrolled.
        SignatureError: the key or the signature is wrong.
    """
    whole = Fields("pass", _decoded(value), frozenset(("pass", "key", "sig")))
    plain = whole.member("pass")
    fields = Fields("pass", plain, _MEMBERS)
    key = PublicKey.parse(whole.member("key"))
    verify(key, PASS, plain, whole.member("sig"))
    person, not_after = fields.string("person"), fields.integer("not_after")
    asked = (fields.string("deployment"), fields.string("method", _METHOD), fields.string("target", _TARGET))
    if asked != (deployment, method, target) or fields.string("body", DIGEST) != digest(PASS, body):
        raise AuthorityError("the pass is for another request")
    if not now < not_after <= now + LIFE_S_MAX * US:
        raise AuthorityError("the pass is over, or lasts too long", hint=f"Make one for at most {LIFE_S_MAX} seconds.")
    enrolled(people, person, key)
    return person, not_after


def _decoded(value: str) -> Any:
    scheme, _, text = value.partition(" ")
    if scheme != SCHEME or len(text) > PASS_BYTES_MAX:
        raise AuthorityError(f"a pass is written {SCHEME} BASE64", code="bad_pass")
    try:
        return parse(base64.b64decode(text, validate=True), bytes_max=PASS_BYTES_MAX)
    except (ValueError, EncodingError):
        raise AuthorityError("the pass cannot be read", code="bad_pass") from None
