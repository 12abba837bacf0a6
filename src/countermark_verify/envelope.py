"""V04: the envelope of a record, around the body of its kind (docs/spec/record.md)."""

import re
from functools import cache
from typing import Any

from countermark_verify import canon
from countermark_verify.bodies import BODIES as CORE
from countermark_verify.bodies_hindsight import HINDSIGHT
from countermark_verify.bodies_kept import KEPT
from countermark_verify.bodies_lane import LANES
from countermark_verify.bodies_published import PUBLISHED
from countermark_verify.bodies_workflow import FLOWS
from countermark_verify.errors import Malformed
from countermark_verify.fields import DIGEST, HEX32, NATURAL
from countermark_verify.shape import Check, anything, const, fixed, mapping, record, spelt, text

BODIES = CORE | HINDSIGHT | LANES | KEPT | PUBLISHED | FLOWS
STREAM_NAME = r"g|[arpw]\.[0-9a-f]{32}"

_SIGNED_BY = {
    "lane.accepted": ("acceptance", "person"),
    "policy.activated": ("activation", "activator"),
    "mandate.granted": ("mandate", "principal"),
    "mandate.revoked": ("revocation", "person"),
    "kill.cleared": ("clearance", "person"),
    "review.cleared": ("review", "person"),
    "key.removed": ("removal", "by"),
    "payee.changed": ("details", "person"),
    "hold.set": ("order", "person"),
    "escalation.answered": ("approval", "person"),
}

_BY_AGENT = frozenset(("run.started", "run.ended", "action.refused", "request.signed"))

MEMBERS: dict[str, Check] = {
    "v": const(1),
    "lane": text(r"[A-Za-z0-9_.-]{1,64}"),
    "seq": NATURAL,
    "prev": DIGEST,
    "kind": const(*BODIES),
    "at": NATURAL,
    "nonce": HEX32,
    "by": text(r"gate|(?:agent|person):[^\x00-\x1f]*", chars_max=1_010),
    "streams": mapping(fixed(NATURAL, DIGEST), key=STREAM_NAME),
    "body": mapping(anything),
}
_ENVELOPE = record(MEMBERS)
# By kind, how the whole record's text is spelt. Where nothing is known of a kind, its shapes are asked.
_SPELT = {
    kind: expression
    for kind, body in BODIES.items()
    if (expression := spelt(record({**MEMBERS, "kind": const(kind), "body": body}))) is not None
}


def parse_record(raw: bytes) -> dict[str, Any]:
    """The record of an entry's bytes; raises `Malformed` with the path of the first misfit.

    Who stands in `by` is not asked here: a record whose writer is wrong can still be read.
    """
    if (quick := _quick(raw)) is not None:
        return quick
    return parse_slowly(raw)


def _quick(raw: bytes) -> dict[str, Any] | None:
    """The record, where its text is canonical and spelt as its kind's shapes are; None says nothing about it."""
    found = canon.reread(raw)
    if found is None:
        return None
    text, value = found
    kind = value.get("kind")
    expression = _SPELT.get(kind) if type(kind) is str else None
    return value if expression is not None and _compiled(expression).fullmatch(text) else None


@cache
def _compiled(expression: str) -> re.Pattern[str]:
    """Compiled when the first record of its kind comes: a pack has few of the kinds."""
    return re.compile(expression, re.ASCII)


def parse_slowly(raw: bytes) -> dict[str, Any]:
    """The same by the shapes themselves, which can say what is wrong."""
    value: Any = canon.parse(raw)
    if reason := _ENVELOPE(value):
        raise Malformed(f"does not have the envelope{reason}")
    if reason := BODIES[value["kind"]](value["body"]):
        raise Malformed(f"does not have the body of {value['kind']}{reason}")
    return value  # type: ignore[no-any-return]


def writer(kind: str, body: dict[str, Any]) -> str:
    """Who stands in `by`: the agent that asked, the person who signed, else the gate."""
    if kind == "run.migrated":
        return f"person:{body['person']}"
    signed = _SIGNED_BY.get(kind)
    if signed is not None:
        document, member = signed
        return f"person:{body[document][member]}"
    if kind in _BY_AGENT:
        return f"agent:{body['agent']}"
    if kind == "action.decided" and body["escalation"] is None:
        return f"agent:{body['agent']}"
    return "gate"
