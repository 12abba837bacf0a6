"""From an ID to the records about it, with look-ups where the journal has them and a scan of raw bytes where not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from countermark.audit import sentences
from countermark.journal import SqliteStore
from countermark.model.errors import ArgumentError
from countermark.model.records import Record, read
from countermark.policy import Succession

_SEQ = re.compile(r"(?:#|seq:)?([0-9]{1,16})")
_ACTION = re.compile(r"act_[0-9a-f]{32}")
_ESCALATION = re.compile(r"esc_[0-9a-f]{32}")
_RUN = re.compile(r"run_[0-9a-f]{32}")
_POINTING = {
    "id": frozenset(("action.decided", "action.settled", "escalation.answered", "escalation.expired")),
    "es": frozenset(("escalation.raised",)),
    "rv": frozenset(("review.cleared",)),
    "ro": frozenset(("obligation.reopened",)),
}
REF_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class Found:
    """What a reference leads to: the records of one action, of one run, or a single other record."""

    kind: str
    records: tuple[Record, ...]


def find(store: SqliteStore, ref: str) -> Found:
    """Records about an action, run, escalation, seq (``#12``), provider reference or any other name in a record.

    Raises:
        ArgumentError: ``unknown_action`` when nothing here has that name.
    """
    seq = _SEQ.fullmatch(ref)
    if seq is not None:
        number = int(seq[1])
        if number >= store.size():
            raise _nothing(f"there is no record #{number}; the journal has {store.size()}")
        return _about(store, store.record(number))
    if _RUN.fullmatch(ref):
        records = tuple(holding(store, ref, 0, store.size()))
        if not records:
            raise _nothing("no record is of this run")
        return Found("run", records)
    if _ACTION.fullmatch(ref):
        seq_of = newest(store, "id:" + ref)
    elif _ESCALATION.fullmatch(ref):
        seq_of = newest(store, "es:" + ref)
    else:
        seq_of = _named(store, ref)
    if seq_of is None:
        raise _nothing("nothing in this journal has that ID or name")
    return _about(store, store.record(seq_of))


def newest(store: SqliteStore, key: str) -> int | None:
    """The seq that a key (``id:``, ``es:``, ``rv:``) points to: by the cache, then by the records after it."""
    kind, name = key.split(":", 1)
    member = "escalation" if kind == "es" else "id"
    with store.steady():  # else the owner's next ``save`` could take the key out of both places that are looked at
        found = store.key(key)
        for record in holding(store, name, store.cached(), store.size()):
            points = record.kind in _POINTING[kind] and record.body.get(member) == name
            if points and record.body.get("state", "refused") == "refused":  # a decision follows an approval
                found = record.seq
    return found


def _nothing(message: str) -> ArgumentError:
    return ArgumentError(
        message, field="id", code="unknown_action",
        hint="Use an action (act_...), run (run_...), escalation (esc_...), record (#12), a call id, an invoice or the "
        "provider's reference.",
    )  # fmt: skip


def _named(store: SqliteStore, ref: str) -> int | None:
    """The first record that holds ``ref`` as a whole string; one that has it as the provider's reference wins."""
    if not ref or len(ref) > REF_CHARS_MAX:
        return None
    first: int | None = None
    for record in holding(store, ref, 0, store.size()):
        if record.body.get("ref") == ref:
            return record.seq
        first = record.seq if first is None else first
    return first


def holding(store: SqliteStore, ref: str, start: int, stop: int) -> Iterator[Record]:
    """Records whose bytes hold ``ref`` as a JSON string. Records are canonical, so a string has one spelling."""
    mark = orjson.dumps(ref)
    for _, raw in store.raw(start, stop):
        if mark in raw:
            yield read(raw)


def _about(store: SqliteStore, record: Record) -> Found:
    """The whole action when the record is about one, else the record alone."""
    name = record.body.get("id")
    if type(name) is not str:
        return Found("record", (record,))
    first = first_of(store, record)
    last = newest(store, "id:" + name)
    stop = store.size() if last is None or not final(store.record(last)) else last + 1
    records = tuple(r for r in holding(store, name, first.seq, stop) if r.body.get("id") == name)
    for later in (newest(store, "rv:" + name), newest(store, "ro:" + name)):
        if later is not None and later >= stop:
            records += (store.record(later),)
    return Found("action", records)


def first_of(store: SqliteStore, record: Record) -> Record:
    """The first decision of the action that ``record`` is about."""
    at = record
    for _ in range(5):  # reviewed -> settled -> decided again -> raised -> decided; reopened -> answered -> ...
        body = at.body
        if at.kind in ("action.settled", "action.resolved"):
            at = store.record(body["intent"])
        elif at.kind in ("escalation.raised", "review.cleared"):
            at = store.record(body["decided"])
        elif at.kind == "obligation.reopened":
            at = store.record(body["refused"])
        elif body.get("escalation") is not None:
            raised = newest(store, "es:" + body["escalation"])
            if raised is None:
                return at
            at = store.record(raised)
        else:
            return at
    return at


def final(record: Record) -> bool:
    """Whether nothing can follow this newest record about an action."""
    body = record.body
    if record.kind == "action.settled":
        return bool(body["outcome"] != "unknown")
    if record.kind == "action.decided":
        return bool(body["disposition"] == "deny")
    return record.kind == "escalation.expired" or (record.kind == "escalation.answered" and body["state"] == "refused")


OfKind = Callable[[str, int], Iterable[Record]]
"""Records of a kind before a place, for whoever has a way that is shorter than reading everything."""


@dataclass(frozen=True, slots=True)
class Near:
    """Shorter ways to what a story points to than reading the whole journal (``daybook``)."""

    of_kind: OfKind
    newest: Callable[[str], int | None]
    document: Callable[[str], Mapping[str, Any]]
    names: Mapping[str, str] | None = None  # of all payees of now, where whoever asks has them at hand


def granted(
    store: SqliteStore, digests: list[str], stop: int, of_kind: OfKind | None = None
) -> dict[str, Mapping[str, Any]]:
    """Mandate documents by digest, from the records before ``stop``."""
    read_kind = of_kind or _scan(store)
    found = _collected(read_kind, "mandate.granted", digests, stop, _mandate)
    rest = [name for name in digests if name not in found]
    return found | _collected(read_kind, "mandate.accepted", rest, stop, _mandate)


def _mandate(record: Record) -> tuple[str, Mapping[str, Any]]:
    return record.body["digest"], record.body["mandate"]


def revoked(
    store: SqliteStore, digests: list[str], stop: int, of_kind: OfKind | None = None
) -> dict[str, Mapping[str, Any]]:
    """Revocation documents by the mandate's digest."""
    return _collected(
        of_kind or _scan(store), "mandate.revoked", digests, stop,
        lambda r: (r.body["revocation"]["mandate"], r.body["revocation"]),
    )  # fmt: skip


def kills(
    store: SqliteStore, names: list[str], stop: int, of_kind: OfKind | None = None
) -> dict[str, Mapping[str, Any]]:
    """Bodies of ``kill.set`` records by the kill's ID; and a restored lane's own stop, which none sets."""
    read_kind = of_kind or _scan(store)
    found = _collected(read_kind, "kill.set", names, stop, lambda r: (r.body["kill"], r.body))
    rest = [name for name in names if name not in found]
    return found | _collected(read_kind, "lane.succeeded", rest, stop, _closed)


def _closed(record: Record) -> tuple[str, Mapping[str, Any]]:
    name = Succession(record.digest, record.body["lane"]).kill
    return name, {"kill": name, "scope": {"kind": "deployment", "value": ""}, "reason": sentences.RESTORED}


def _scan(store: SqliteStore) -> OfKind:
    def found(kind: str, stop: int) -> Iterator[Record]:
        mark = f'"kind":"{kind}"'.encode()
        for _, raw in store.raw(0, stop):
            # The same text may stand in another record's body, so it only says which records to read.
            if mark in raw and (record := read(raw)).kind == kind:
                yield record

    return found


def _collected(
    of_kind: OfKind, kind: str, names: list[str], stop: int,
    entry: Callable[[Record], tuple[str, Mapping[str, Any]]],
) -> dict[str, Mapping[str, Any]]:  # fmt: skip
    found: dict[str, Mapping[str, Any]] = {}
    wanted = set(names)
    if not wanted:
        return found
    for record in of_kind(kind, stop):
        name, value = entry(record)
        if name in wanted:
            found.setdefault(name, value)
            if len(found) == len(wanted):
                break
    return found
