"""V04: the envelope of a record, around the body of its kind (docs/spec/record.md)."""

from typing import Any

from countermark_verify import canon
from countermark_verify.bodies import BODIES, DIGEST, HEX32, NATURAL
from countermark_verify.errors import Malformed
from countermark_verify.shape import anything, const, fixed, mapping, record, text

STREAM_NAME = r"[arp]\.[0-9a-f]{32}"

_SIGNED_BY = {
    "lane.accepted": ("acceptance", "person"),
    "policy.activated": ("activation", "activator"),
    "mandate.granted": ("mandate", "principal"),
    "mandate.revoked": ("revocation", "person"),
    "kill.cleared": ("clearance", "person"),
    "review.cleared": ("review", "person"),
    "key.removed": ("removal", "by"),
    "payee.changed": ("details", "person"),
    "escalation.answered": ("approval", "person"),
}

_ENVELOPE = record(
    {
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
)


def parse_record(raw: bytes) -> dict[str, Any]:
    """The record of an entry's bytes; raises `Malformed` with the path of the first misfit.

    Who stands in `by` is not asked here: a record whose writer is wrong can still be read.
    """
    value: Any = canon.parse(raw)
    if reason := _ENVELOPE(value):
        raise Malformed(f"does not have the envelope{reason}")
    if reason := BODIES[value["kind"]](value["body"]):
        raise Malformed(f"does not have the body of {value['kind']}{reason}")
    return value  # type: ignore[no-any-return]


def writer(kind: str, body: dict[str, Any]) -> str:
    """Who stands in `by`: the agent that asked, the person who signed, else the gate."""
    signed = _SIGNED_BY.get(kind)
    if signed is not None:
        document, member = signed
        return f"person:{body[document][member]}"
    if kind.startswith("run.") or kind in ("action.refused", "request.signed"):
        return f"agent:{body['agent']}"
    if kind == "action.decided" and body["escalation"] is None:
        return f"agent:{body['agent']}"
    return "gate"
