"""Lane messages about keeping and erasing: legal holds, what was disclosed, and the erasure of a subject's values.

The order of an erasure: its record and the deletion of the ciphertexts are one transaction; then the key is destroyed.
A crash between the two leaves nothing that could be read, and the next start destroys every key that a record says is
gone. What a subject has is counted beside the lane; the lane itself looks only at the records since.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol, runtime_checkable

import orjson

from countermark.authority import Erasure, verify_erasure, verify_hold, verify_release
from countermark.gate.judging import eyes_of, in_force, people_of
from countermark.gate.lane import Lane, Rank
from countermark.gate.prepare import Pseudonyms
from countermark.gate.writer import Writer
from countermark.model.clock import iso
from countermark.model.errors import ArgumentError, AuthorityError, GateBusyError, StoreError
from countermark.model.ports import Connector, Store
from countermark.model.records import read
from countermark.model.values import is_reader
from countermark.policy import AGENT, Bundle, Holding, Holdings, key_name, subject_of

TAIL_MAX = 2_000  # records that the lane itself looks at; where more came meanwhile, they are counted beside it
TRIES_MAX = 3
DISCLOSED_FIELDS_MAX = 64
DISCLOSED_CHARS_MAX = 200

Aside = Callable[[Callable[[], Any]], Awaitable[Any]]


class Place(Protocol):
    """What a gate hands to an order that is taken partly beside the lane."""

    @property
    def deployment(self) -> str: ...
    @property
    def connectors(self) -> Mapping[str, Connector]: ...
    @property
    def pseudonym(self) -> Pseudonyms: ...


@runtime_checkable
class Forgetting(Protocol):
    """A connector that keeps answers of its provider in memory, and can let go of some."""

    def forget(self, responses: list[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Counted:
    """What a subject had among the first ``size`` records."""

    size: int
    holdings: Holdings


def hold(writer: Writer, body: Mapping[str, Any]) -> str:
    """Record a legal hold: from now on nothing that it covers is erased. Answers with its id."""
    state = writer.state
    order = verify_hold(body, deployment=state.deployment, people=people_of(writer))
    if order.hold in state.erasures.holds or order.hold in state.erasures.ended:
        raise AuthorityError("a hold of this id was set before", code="bad_hold")
    compiled = None if state.bundle is None else state.bundle.compiled
    unknown = (order.kind == "agent" and (compiled is None or order.value not in compiled.agents)) or (
        order.kind == "payee" and order.value not in state.register.known.payees
    )
    if unknown:
        raise ArgumentError(
            f"no {order.kind} has this name, so nothing would be held", field="value", hint="Or hold everything."
        )
    writer.add("hold.set", dict(body), by=f"person:{order.person}")
    return order.hold


def release(writer: Writer, body: Mapping[str, Any]) -> str:
    """End a hold by the word of two people. Answers with its id."""
    state = writer.state
    order = verify_release(body, deployment=state.deployment, eyes=eyes_of(in_force(writer)))
    if order.hold not in state.erasures.holds:
        raise ArgumentError(
            "no such hold stands", field="hold", code="unknown_hold", hint="See `countermark hold list`."
        )
    writer.add("hold.cleared", {"hold": order.hold, **body})
    return order.hold


def note_disclosure(writer: Writer, body: Mapping[str, Any]) -> int:
    """Record, before a pack with them is made, which fields it will show to whom. Answers with the record's seq."""
    fields, size, count = body.get("fields"), body.get("size"), body.get("count")
    texts = [body.get(name) for name in ("to", "reason")]
    if any(type(text) is not str or len(text) > DISCLOSED_CHARS_MAX for text in texts):
        raise ArgumentError("a disclosure says who discloses to whom, and why", field="to")
    if not is_reader(body.get("reader"), writer.state.people):
        raise ArgumentError("a reader is uid:N, or person:NAME of the policy in force", field="reader")
    right = type(fields) is list and 0 < len(fields) <= DISCLOSED_FIELDS_MAX and all(type(one) is str for one in fields)
    if not right or fields != sorted(set(fields or ())):
        raise ArgumentError("a disclosure names its fields, sorted", field="fields")
    if type(size) is not int or type(count) is not int or not 0 < size <= writer.state.size or count < 0:
        raise ArgumentError("nobody can disclose these records", field="size")
    names = ("reader", "to", "reason", "fields", "size", "count")
    return writer.add("data.disclosed", {name: body[name] for name in names}).seq


async def order(lane: Lane, aside: Aside, body: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Erase a subject's values. What it has is counted beside the lane, and anew when much was recorded meanwhile."""
    for _ in range(TRIES_MAX):
        subject, size, store = await lane.ask(partial(_open, body=body), rank=Rank.ORDER)
        counted: Counted = await aside(partial(count, store, subject, size))
        done: dict[str, Any] | None = await lane.ask(partial(erase, body=body, counted=counted), rank=Rank.ORDER)
        if done is not None:
            break
    else:
        raise GateBusyError("too much is recorded meanwhile; nothing was erased", hint="Ask again when less goes on.")
    place.pseudonym.forget()
    for connector in place.connectors.values():
        if isinstance(connector, Forgetting):
            connector.forget(counted.holdings.responses)
    return done


def _verified(writer: Writer, body: Mapping[str, Any]) -> Erasure:
    """The order, if two people who may have signed it. An agent's values: its owner is not the independent one."""
    said = body.get("erasure")
    subject = said.get("subject") if isinstance(said, Mapping) else None
    agent = subject[len(AGENT) :] if type(subject) is str and subject.startswith(AGENT) else None
    return verify_erasure(body, deployment=writer.state.deployment, eyes=eyes_of(in_force(writer), agent))


def _open(writer: Writer, body: Mapping[str, Any]) -> tuple[str, int, Store]:
    size = writer.batch.records[0].seq if writer.batch.records else writer.state.size
    return _verified(writer, body).subject, size, writer.store.reader()


def count(store: Store, subject: str, size: int) -> Counted:
    """Read what a subject has in the first ``size`` records, and close the store. Raises ``StoreError``."""

    @cache
    def bundle_of(digest: str) -> Bundle:
        raw = store.bundle(digest)
        if raw is None:
            raise StoreError("the journal lacks a policy bundle", hint="Restore a backup.")
        return Bundle.from_document(orjson.loads(raw))

    holdings = Holdings(bundle_of, subject)
    # Records are canonical: a name stands there as a whole string, or not at all.
    marks = (orjson.dumps(subject.removeprefix(AGENT)), orjson.dumps(subject))
    with closing(store):
        for _, raw in store.raw(0, size):
            if any(mark in raw for mark in marks):
                holdings.add(read(raw))
    return Counted(size, holdings)


def erase(writer: Writer, body: Mapping[str, Any], counted: Counted) -> dict[str, Any] | None:
    """Record the erasure and let go of the values; None when too much was recorded since they were counted.

    Raises:
        AuthorityError, SignatureError: the document or its signatures.
        ArgumentError: ``nothing_to_erase``, ``erasure_stale``, ``legal_hold``, ``subject_busy``, ``no_retention_rule``
            or ``retention_duty``.
    """
    asked = _verified(writer, body)
    if writer.state.size - counted.size > TAIL_MAX:
        return None
    for seq in range(counted.size, writer.state.size):
        counted.holdings.add(writer.record(seq))
    has = counted.holdings.of.get(asked.subject)
    until, keep_s = _may_erase(writer, asked, has)
    record = writer.add("data.erased", {**body, "retention": {"keep_s": keep_s, "until": until}})
    batch = writer.batch
    batch.unsealed = (*batch.unsealed, *(() if has is None else has.seqs))
    batch.erased = (*batch.erased, key_name(asked.subject, asked.generation))
    return {"subject": asked.subject, "records": asked.records, "values": asked.values, "seq": record.seq}


def _may_erase(writer: Writer, asked: Erasure, has: Holding | None) -> tuple[int, int]:
    """When the duty ended, and the seconds of its rule. Raises ``ArgumentError`` where nothing may be erased."""
    state = writer.state
    if has is None:
        raise ArgumentError("nothing is sealed for this subject", field="subject", code="nothing_to_erase",
                            hint="See `countermark erase --list`.")  # fmt: skip
    seen = (asked.generation, asked.records, asked.values, asked.digest)
    if seen != (state.erasures.generation(asked.subject), has.records, has.values, has.digest):
        raise ArgumentError("the subject has other values now than two people signed for", field="subject",
                            code="erasure_stale", hint="Sign anew.")  # fmt: skip
    holds = state.erasures.holding(asked.subject, has)
    if holds:
        raise ArgumentError(f"a legal hold stands: {', '.join(holds[:5])}", field="subject", code="legal_hold",
                            hint="Two people end it with `countermark hold clear`.")  # fmt: skip
    if has.open or _under_way(writer, asked.subject):
        raise ArgumentError("something of this subject is under way, unknown, or waits for people", field="subject",
                            code="subject_busy", hint="See `countermark status`; settle it first.")  # fmt: skip
    keep_s = has.keep_s(state.bundle)
    if keep_s is None:
        raise ArgumentError("no retention rule covers this, so nothing may be erased", field="subject",
                            code="no_retention_rule",
                            hint='Add [retention] with keep = "7y" to limits.toml, and activate it.')  # fmt: skip
    until = has.until(keep_s)
    if writer.at < until:
        raise ArgumentError(f"it must be kept until {iso(until)}", field="subject", code="retention_duty")
    return until, keep_s


def _under_way(writer: Writer, subject: str) -> bool:
    state = writer.state
    if any(subject_of(parked.body) == subject for parked in state.parked.values()):
        return True
    return any(subject_of(writer.record(seq).body) == subject for seq in state.open)
