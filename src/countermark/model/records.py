"""The record: one JSON object per thing that happened. The envelope is the same for every kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from countermark.model.canon import RECORD_BYTES_MAX, parse, render, structure
from countermark.model.digest import RECORD, digest
from countermark.model.errors import EncodingError

VERSION = 1
GENESIS = "sha256:" + "0" * 64  # ``prev`` of a lane's first record, and of a stream's first entry

KINDS = (
    "gate.started",
    "gate.stopped",
    "policy.activated",
    "mandate.granted",
    "mandate.accepted",
    "mandate.revoked",
    "run.started",
    "run.ended",
    "run.cancelled",
    "run.migrated",
    "workflow.defined",
    "compute.executed",
    "step.waiting",
    "step.resumed",
    "event.received",
    "request.signed",
    "action.refused",
    "action.decided",
    "action.settled",
    "action.resolved",
    "escalation.raised",
    "escalation.answered",
    "escalation.climbed",
    "escalation.expired",
    "key.enrolled",
    "key.removed",
    "absence.set",
    "key.rotated",
    "kill.set",
    "kill.cleared",
    "lane.succeeded",
    "lane.imported",
    "lane.accepted",
    "review.cleared",
    "obligation.imported",
    "obligation.reopened",
    "payee.changed",
    "log.read",
    "epoch.closed",
    "hold.set",
    "hold.cleared",
    "data.erased",
    "data.disclosed",
    "head.witnessed",
    "head.stamped",
    "anchor.published",
)
# What came back for a published head. Each is evidence about an earlier part of the log and says nothing new itself.
PUBLICATIONS = frozenset(("head.witnessed", "head.stamped", "anchor.published"))
_KNOWN = frozenset(KINDS)
_FIELDS = frozenset(("v", "lane", "seq", "prev", "kind", "at", "nonce", "by", "streams", "body"))


class Record(NamedTuple):
    """A sealed record. ``at`` is microseconds UTC; ``digest`` covers ``raw``, the canonical bytes."""

    seq: int
    kind: str
    at: int
    by: str
    body: Mapping[str, Any]
    prev: str
    streams: Mapping[str, Any]
    raw: bytes
    digest: str


def seal(
    *, lane: str, seq: int, prev: str, kind: str, at: int, nonce: str, by: str,
    streams: dict[str, list[Any]], body: dict[str, Any],
) -> Record:  # fmt: skip
    """Build a record and its canonical bytes. Raises ``EncodingError`` when it leaves the profile or is too long."""
    structure(body, 1)  # the envelope around it is the gate's own: texts and integers of known form
    raw = render(
        {
            "v": VERSION, "lane": lane, "seq": seq, "prev": prev, "kind": kind, "at": at, "nonce": nonce,
            "by": by, "streams": streams, "body": body,
        },
        RECORD_BYTES_MAX,
    )  # fmt: skip
    return Record(seq, kind, at, by, body, prev, streams, raw, digest(RECORD, raw))


def read(raw: bytes) -> Record:
    """Parse a record's bytes strictly. Raises ``EncodingError``."""
    value = parse(raw, bytes_max=RECORD_BYTES_MAX)
    if type(value) is not dict or value.keys() != _FIELDS:
        raise EncodingError("not a record envelope")
    if type(value["v"]) is not int or value["v"] != VERSION:
        raise EncodingError("unknown record version", hint="Written by a newer countermark?")
    typed = (
        type(value["seq"]) is int and type(value["at"]) is int and type(value["body"]) is dict
        and type(value["streams"]) is dict and type(value["lane"]) is str and type(value["prev"]) is str
        and type(value["kind"]) is str and type(value["nonce"]) is str and type(value["by"]) is str
    )  # fmt: skip
    if not typed:
        raise EncodingError("a record field has the wrong type")
    if value["kind"] not in _KNOWN:  # reading over a kind we do not know could read over a kind of stop
        raise EncodingError("unknown record kind", hint="Written by a newer countermark?")
    return Record(
        value["seq"], value["kind"], value["at"], value["by"], value["body"], value["prev"], value["streams"],
        raw, digest(RECORD, raw),
    )  # fmt: skip
