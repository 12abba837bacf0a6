"""Where events come from, and what is kept of one: settings of a source, and the body of ``event.received``.

Nothing here checks a signature or asks a node; whoever does hands over what was checked. ``docs/spec/
workflow-triggers.md`` has the rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from countermark.model.canon import INTEGER_ABS_MAX, canon
from countermark.model.digest import EVENT, digest
from countermark.model.errors import ConfigError, EncodingError, SignatureError

STRIPE, STANDARD, GITHUB, HMAC = SCHEMES = ("stripe", "standard", "github", "hmac")
HEX, BASE64 = ENCODINGS = ("hex", "base64")
EVENT_CHARS_MAX = KEY_CHARS_MAX = 200
PAYLOAD_BYTES_MAX = 16_000
PAYLOAD_DEPTH_MAX = 8
BODY_DEPTH_MAX = 32
KEPT_MAX = 32
POINTER_CHARS_MAX = 400
TOLERANCE_S = 300

_EVENT = re.compile(rf"[!-~]{{1,{EVENT_CHARS_MAX}}}")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_PENDING = re.compile(rb'"pending_webhooks":\s*[0-9]+')
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_OWN = ("id", "type", "key")


@dataclass(frozen=True, slots=True)
class WebhookSource:
    """A source that posts to us. ``secrets`` are references; all others are as in ``countermark.toml``.

    ``event``, ``type`` and ``key`` are JSON pointers into the body, ``""`` for none; ``keep`` maps names of the payload
    to pointers. ``header``, ``prefix``, ``encoding`` and ``time_header`` are those of the scheme ``hmac``.
    """

    name: str
    scheme: str
    secrets: tuple[str, ...]
    tolerance_s: int = TOLERANCE_S
    event: str = ""
    type: str = ""
    key: str = ""
    keep: Mapping[str, str] = field(default_factory=dict)
    header: str = ""
    prefix: str = ""
    encoding: str = HEX
    time_header: str = ""


def check_pointer(text: object) -> str:
    """A JSON pointer (RFC 6901), or ``""``. Raises ``ConfigError``."""
    if type(text) is not str or len(text) > POINTER_CHARS_MAX or _POINTER.fullmatch(text) is None:
        raise ConfigError("a JSON pointer begins with / and has ~0 for ~ and ~1 for /, such as /data/object/id")
    return text


def check_kept(name: str) -> bool:
    """Whether a member of a payload may have this name."""
    return _NAME.fullmatch(name) is not None and name not in _OWN


def at(document: Any, pointer: str) -> Any:
    """What stands at a pointer; None where nothing does."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if type(document) is dict:
            document = document.get(name)
        elif type(document) is list and _INDEX.fullmatch(name) is not None and int(name) < len(document):
            document = document[int(name)]
        else:
            return None
    return document


def read_body(body: bytes) -> dict[str, Any]:
    """The object in a delivery whose signature was checked; a number that no record holds is its text.

    Raises ``SignatureError`` (``bad_delivery``): it is signed and still none.
    """
    try:
        found = json.loads(
            body.decode("utf-8"), parse_float=str, parse_int=_integer, parse_constant=_refuse,
            object_pairs_hook=_members,
        )  # fmt: skip
    except (ValueError, RecursionError):
        found = None
    if type(found) is not dict or _depth(found) > BODY_DEPTH_MAX:
        raise _bad("a delivery is a JSON object, each member once, at most 32 deep")
    return found


def received(source: WebhookSource, body: bytes, identity: str | None, signed_at: int | None) -> dict[str, Any]:
    """The body of ``event.received`` for a delivery whose signature was checked.

    ``identity`` is the event's as its scheme signs it, None where it signs none; ``signed_at`` seconds since 1970.

    Raises ``SignatureError`` (``bad_delivery``): it has no identity, or what it names does not fit a record.
    """
    document, covered = read_body(body), digest(EVENT, digested(source.scheme, body))
    if source.event:
        identity = _text(at(document, source.event))
    elif identity is None:
        identity = covered
    if _EVENT.fullmatch(identity) is None:
        raise _bad("a delivery does not say which event it is of", "See the member event of the source.")
    key, kind = _text(at(document, source.key)) if source.key else "", at(document, source.type)
    if len(key) > KEY_CHARS_MAX or not key.isprintable():
        raise _bad(f"the key of a delivery is not printable, or longer than {KEY_CHARS_MAX} characters")
    payload = {"id": identity, "type": _text(kind)[:EVENT_CHARS_MAX] if source.type else "", "key": key}
    payload.update((name, at(document, pointer)) for name, pointer in source.keep.items())
    return {
        "source": source.name, "event": identity, "key": key, "payload": check_payload(payload), "digest": covered,
        "scheme": source.scheme, "evidence": {"at": signed_at},
    }  # fmt: skip


def digested(scheme: str, body: bytes) -> bytes:
    """The bytes that a delivery's digest covers: Stripe counts its own attempts in the body."""
    return _PENDING.sub(b'"pending_webhooks":0', body) if scheme == STRIPE else body


def check_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload, if a record may hold it. Raises ``SignatureError`` (``bad_delivery``)."""
    try:
        fits = _depth(payload) <= PAYLOAD_DEPTH_MAX and len(canon(payload, bytes_max=PAYLOAD_BYTES_MAX)) > 0
    except EncodingError as error:
        raise _bad(f"what is kept of a delivery does not fit a record: {error.message}") from None
    if not fits:
        raise _bad(f"what is kept of a delivery is more than {PAYLOAD_DEPTH_MAX} deep")
    return payload


def _text(value: Any) -> str:
    """A text, or the text of a number: what may name something."""
    if type(value) is str:
        return value
    return str(value) if type(value) is int else ""


def _integer(text: str) -> int | str:
    fits = len(text) <= 17 and abs(int(text)) <= INTEGER_ABS_MAX
    return int(text) if fits else text


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found


def _depth(root: Any) -> int:
    """How deep a value is: 1 for an object of plain values."""
    depth, level = 0, [root]
    while level := [one for one in level if type(one) in (dict, list)]:
        depth += 1
        level = [item for one in level for item in (one.values() if type(one) is dict else one)]
    return depth


def _bad(message: str, hint: str = "") -> SignatureError:
    return SignatureError(message, code="bad_delivery", hint=hint)
