"""How a passkey signs in a page: the page shows a document's digest as the challenge, the server rebuilds the document.

What a page sends back is the document's digest and the passkey's answer, never the document: what is signed is what
the server makes anew from its own records, or nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.authority import Passkey, Person, challenge_of, decode64, encode64
from countermark.model.canon import read_json
from countermark.model.errors import AuthorityError, CountermarkError, SignatureError

ASSERTION_BYTES_MAX = 12_288
FIELDS = ("challenge", "credential", "assertion")  # of a form that a passkey signs, beside its own
_MEMBERS = frozenset(("authenticator_data", "client_data", "signature"))


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a form needs so that a passkey can sign a document: all of it public."""

    challenge: str
    rp_id: str
    credentials: str  # which may answer, base64url, with spaces between

    @classmethod
    def of(cls, domain: str, document: Any, rp_id: str, credentials: Sequence[bytes]) -> Challenge:
        return cls(encode64(challenge_of(domain, document)), rp_id, " ".join(encode64(one) for one in credentials))


def passkeys_of(person: Person, origin: str) -> tuple[Passkey, ...]:
    """The person's passkeys that work on this page."""
    return tuple(key for key in person.keys if isinstance(key, Passkey) and key.origin == origin)


def signed(
    name: str, domain: str, document: dict[str, Any], keys: Sequence[Passkey], form: Mapping[str, str]
) -> dict[str, Any]:
    """The signed body ``{NAME: document, "key", "sig"}`` from a form that a passkey signed; the gate verifies it.

    Raises:
        AuthorityError: ``challenge_changed``: what the page showed is not what would be signed now.
        SignatureError: no passkey of the person's answered, or what it answered cannot be read.
    """
    shown, now = form.get("challenge", ""), encode64(challenge_of(domain, document))
    if not hmac.compare_digest(shown.encode("utf-8"), now.encode("ascii")):
        raise AuthorityError("what you were shown is not what would be signed now; nothing was signed",
                             code="challenge_changed", hint="Read the page again.")  # fmt: skip
    used = decode64(form.get("credential", ""), 255)
    key = next((one for one in keys if one.credential == used), None)
    if key is None:
        raise SignatureError("this passkey is not enrolled for you here", hint="Use another one, or enrol it first.")
    return {name: document, "key": str(key), "sig": assertion_of(form.get("assertion", ""))}


def assertion_of(text: str) -> dict[str, str]:
    """A passkey's answer as the script wrote it. Raises ``SignatureError``."""
    try:
        found = read_json(text.encode("utf-8"), bytes_max=ASSERTION_BYTES_MAX)
    except CountermarkError:
        found = None
    if type(found) is not dict or found.keys() != _MEMBERS or any(type(value) is not str for value in found.values()):
        raise SignatureError("the browser sent no answer of a passkey")
    return found
