"""A successor lane: how a restored journal goes on under a new name, and how people open it.

The new lane's log begins with every record of the restored one, so that mandates, holds, escalations and business keys
stay what the records say; its name is another, because the predecessor may have signed longer heads that are now lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.authority import verify_acceptance
from countermark.gate.lane import AfterCommit
from countermark.gate.writer import Writer
from countermark.log import LogSigner
from countermark.model.digest import ACTIVITY, digest_of
from countermark.model.errors import AuthorityError
from countermark.model.records import GENESIS

MOVEMENTS_MAX = 100_000
BATCH_RECORDS = 256


@dataclass(frozen=True, slots=True)
class Movement:
    """Money that a provider moved, as its own list says it.

    ``key`` is our provider key in its metadata, ``""`` without one; ``tool``, ``pairs`` and ``obligation`` say which
    business key it takes, when a tool of the policy in force could have asked for it; ``at`` is microseconds.
    """

    ref: str
    key: str
    terms: Mapping[str, Any]
    at: int
    tool: str = ""
    pairs: Sequence[Sequence[str]] | None = None
    obligation: str | None = None

    def document(self) -> dict[str, Any]:
        return {
            "ref": self.ref, "key": self.key, "tool": self.tool, "terms": dict(self.terms),
            "pairs": None if self.pairs is None else [list(pair) for pair in self.pairs],
            "obligation": self.obligation, "moved_at": self.at,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Activity:
    """What the providers say happened in ``[since, until)`` (microseconds) that the restored records do not.

    ``asked`` are the connectors whose lists were read to their end, ``unasked`` those that could not be.
    """

    since: int
    until: int
    asked: Sequence[str]
    unasked: Sequence[str]
    movements: Sequence[Movement]

    def document(self) -> dict[str, Any]:
        digest = GENESIS
        for movement in self.movements:
            digest = digest_of(ACTIVITY, [digest, movement.document()])
        return {
            "since": self.since, "until": self.until, "asked": list(self.asked), "unasked": list(self.unasked),
            "found": len(self.movements), "digest": digest,
        }  # fmt: skip


def successor(lane: str) -> str:
    """The name of the lane after ``lane``."""
    return f"l{int(lane[1:]) + 1}"


def succeed(writer: Writer, signer: LogSigner, known: tuple[int, str] | None, activity: Activity) -> str:
    """Write the succession and what the providers moved since. Returns the digest of ``lane.succeeded``.

    ``known`` is size and root (hex) of the longest head of the predecessor that anybody still has: what lies between
    it and the restored records is declared lost.
    """
    before, state = writer.lane, writer.state
    body = {
        "lane": successor(before), "log_key": signer.vkey,
        "predecessor": {
            "lane": before, "size": state.size, "root": writer.frontier.root().hex(), "log_key": state.log_key
        },
        "known": None if known is None else {"size": known[0], "root": known[1]},
        "activity": activity.document(),
    }  # fmt: skip
    writer.succeed(signer, successor(before))
    record = writer.add("lane.succeeded", body)
    for movement in activity.movements:
        writer.add("lane.imported", movement.document())
        if len(writer.batch.records) >= BATCH_RECORDS:
            writer.commit()
    writer.commit()
    return record.digest


def accept(writer: Writer, body: Mapping[str, Any]) -> AfterCommit:
    """Take a person's acceptance of a restored lane; the second person's opens it.

    Raises:
        AuthorityError: nothing waits, it is for something else, or this person accepted before.
        SignatureError: the key or the signature is wrong.
    """
    state = writer.state
    waiting, bundle = state.succession, state.bundle
    if waiting is None or bundle is None:
        raise AuthorityError("no restored lane waits to be accepted", code="nothing_to_accept")
    order = verify_acceptance(body, deployment=state.deployment, people=state.people)
    asked = (waiting.lane, waiting.record, waiting.imported, bundle.digest)
    if (order.lane, order.succession, order.imported, order.bundle) != asked:
        raise AuthorityError("the acceptance is for another restore or another policy", hint="Look again: `lane show`.")
    if order.person in waiting.people:
        raise AuthorityError(f"{order.person} has accepted already", hint="It takes two different people.")
    writer.add("lane.accepted", dict(body), by=f"person:{order.person}")
    opened = state.succession is None
    return AfterCommit(lambda _: {"lane": order.lane, "open": opened})
