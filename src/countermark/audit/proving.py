"""One record and the proof that it is in the log (C2SP tlog-proof)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from countermark.audit.lookup import find
from countermark.journal import LogView, SqliteStore
from countermark.log import tlog_proof
from countermark.model.errors import ArgumentError
from countermark.model.records import read

_SEQ = re.compile(r"#?([0-9]{1,16})")
_WITNESSED = b'"kind":"head.witnessed"'


@dataclass(frozen=True, slots=True)
class Proof:
    """``proof`` is the text for whoever is to be shown ``record``, the canonical bytes at ``seq``.

    ``size`` is that of the head it leads to; ``witnessed`` whether cosignatures stand under that head.
    """

    seq: int
    size: int
    record: bytes
    proof: bytes
    witnessed: bool


def prove(store: SqliteStore, ref: str) -> Proof:
    """The proof of a record (``12`` or ``#12``) or of an action's newest decision.

    Raises:
        ArgumentError: ``unknown_action`` when nothing has that name, or no signed head covers it yet.
        StoreError: the journal cannot be read.
    """
    seq = _seq_of(store, ref)
    covering = _covering(store, seq)
    if covering is None:
        raise ArgumentError(f"no signed head covers record #{seq}", field="id", code="unknown_action")
    size, note, witnessed = covering
    view = LogView(store)
    view.grow()
    ((_, raw),) = store.raw(seq, seq + 1)
    return Proof(seq, size, raw, tlog_proof(seq, view.inclusion(seq, size), note), witnessed)


def _seq_of(store: SqliteStore, ref: str) -> int:
    number = _SEQ.fullmatch(ref)
    if number is not None and int(number[1]) < store.size():
        return int(number[1])
    records = find(store, ref).records  # which says what is wrong with a name that is none
    decided = [record.seq for record in records if record.kind == "action.decided"]
    return decided[-1] if decided else records[-1].seq


def _covering(store: SqliteStore, seq: int) -> tuple[int, bytes, bool] | None:
    """The newest head over the record that was cosigned, else the newest at all: size, note, whether cosigned."""
    best: tuple[int, bytes, bool] | None = None
    for _, raw in store.raw(seq, store.size()):  # a head over the record is recorded after it
        if _WITNESSED in raw and (record := read(raw)).kind == "head.witnessed" and record.body["size"] > seq:
            best = record.body["size"], record.body["note"].encode(), True
    newest = store.head()
    if best is None and newest is not None and newest[0] > seq:
        best = (*newest, False)
    return best
