"""``export``: gather what a pack holds from a journal, and write it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from countermark.audit.pack import PackError, write_pack
from countermark.audit.rebuild import Sealed, Unseal, hidden_of, opened
from countermark.journal import SqliteStore
from countermark.log import LogSigner, open_checkpoint
from countermark.model.records import Record, read

Disclose = Literal["all", "none"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What a pack holds. ``root`` is base64, as a trust file has it; ``size`` and ``root`` are the head
    that an auditor should retain elsewhere.
    """

    path: Path
    size: int
    root: str
    bundles: int
    disclosed: int
    withheld: int
    erased: int

    def document(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "pack": str(self.path), "size": self.size, "root": self.root, "bundles": self.bundles,
            "disclosed": self.disclosed, "withheld": self.withheld, "erased": self.erased,
        }  # fmt: skip


def export_pack(
    path: Path,
    store: SqliteStore,
    signer: LogSigner,
    *,
    deployment: str,
    lane: str = "l0",
    at: int | None = None,
    disclose: Disclose = "none",
    unseal: Unseal | None = None,
) -> Exported:
    """Write the evidence pack of a lane up to the signed head ``at`` (default: the newest).

    Args:
        unseal: opens sealed values, to disclose them or to tell what is withheld from what is erased; without it
            nothing is disclosed and everything counts as withheld.

    Raises:
        PackError: no head of that size, or the parts do not fit.
        StoreError: the journal cannot be read.
    """
    size, checkpoint = _head(store, at)
    raws = [raw for _, raw in store.raw(0, size)]
    shown = _Shown(disclose == "all", unseal)
    bundles: dict[str, bytes] = {}
    for raw in raws:
        # Between a key and its value canonical bytes have no space, and quotes within strings are escaped.
        if b'"kind":"action.decided"' in raw and b'"$sd"' in raw:
            shown.add(read(raw))
        elif b'"kind":"policy.activated"' in raw:
            _bundle(store, read(raw), bundles)
    write_pack(
        path, deployment=deployment, lane=lane, records=raws, checkpoint=checkpoint, signer=signer, bundles=bundles,
        disclosures={"fields": shown.fields, "requests": shown.requests}, withheld=shown.withheld, erased=shown.erased,
    )  # fmt: skip
    root = base64.b64encode(open_checkpoint(checkpoint, [signer.vkey]).root).decode()
    return Exported(path, size, root, len(bundles), len(shown.fields), shown.withheld, shown.erased)


def _head(store: SqliteStore, at: int | None) -> tuple[int, bytes]:
    if at is None:
        newest = store.head()
        if newest is None:
            raise PackError("the journal is empty: there is nothing to export")
        return newest
    note = store.head_at(at)
    if note is not None:
        return at, note
    nearest = store.head_before(at)
    hint = "There is no smaller one." if nearest is None else f"The nearest smaller head has {nearest}: --at {nearest}"
    raise PackError(f"there is no signed head of {at} records", hint=hint)


def _bundle(store: SqliteStore, record: Record, bundles: dict[str, bytes]) -> None:
    if record.kind != "policy.activated":
        return
    digest = record.body["activation"]["bundle"]
    raw = store.bundle(digest)
    if raw is None:
        raise PackError(f"the journal has no policy bundle {digest[:23]}", hint="Restore a backup.")
    bundles[digest] = raw


class _Shown:
    """Counts and collects the sensitive values of decisions."""

    def __init__(self, disclose: bool, unseal: Unseal | None) -> None:
        self._disclose = disclose
        self._unseal = unseal
        self.fields: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.withheld = 0
        self.erased = 0

    def add(self, record: Record) -> None:
        if record.kind != "action.decided":
            return
        hidden = hidden_of(record.body)
        if self._unseal is None:
            self.withheld += len(hidden)
            return
        sealed = self._unseal(record.seq)
        known = opened(record.body, sealed)
        self.erased += len(hidden) - len(known)
        if not self._disclose or sealed is None:
            self.withheld += len(known)
            return
        self.fields += _rows(record.seq, sealed, known)
        if record.body["salt"] is None and sealed.salt is not None and len(known) == len(hidden):
            self.requests.append({"seq": record.seq, "salt": sealed.salt})


def _rows(seq: int, sealed: Sealed, known: dict[str, Any]) -> Sequence[dict[str, Any]]:
    return [
        {"seq": seq, "alias": alias, "salt": salt, "value": value}
        for alias, salt, value in sealed.fields
        if alias in known
    ]
