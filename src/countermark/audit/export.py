"""``export``: gather what a pack holds from a journal, and write it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from countermark.audit import page as pages
from countermark.audit.pack import write_pack
from countermark.audit.rebuild import REASON, Sealed, Unseal, hidden_of, opened
from countermark.audit.seen import witnessed_back
from countermark.audit.zipped import PackError
from countermark.journal import SqliteStore
from countermark.log import Checkpoint, LogSigner, open_checkpoint
from countermark.model.records import Record, read
from countermark.policy import sealed_in

Disclose = Literal["all", "none"] | Collection[str]
"""All sensitive values, none, or those of these aliases (``$reason`` is what the agent said)."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What a pack holds. ``root`` is base64, as a trust file has it; ``size`` and ``root`` are the head
    that an auditor should retain elsewhere. Of an extract, ``scope`` is what it is about, ``records`` how many it has,
    and ``reaches`` whether a closed epoch covers all of it.
    """

    path: Path
    size: int
    root: str
    bundles: int
    disclosed: int
    withheld: int
    erased: int
    witnessed: bool = False  # whether the head carries the cosignatures that the log has of it
    later: int = 0  # records of the journal that the pack does not hold
    scope: Mapping[str, Any] | None = None
    records: int = 0
    reaches: bool = True

    def document(self) -> dict[str, Any]:
        """JSON form."""
        document = {
            "pack": str(self.path), "size": self.size, "root": self.root, "bundles": self.bundles,
            "disclosed": self.disclosed, "withheld": self.withheld, "erased": self.erased,
            "witnessed": self.witnessed, "later": self.later,
        }  # fmt: skip
        if self.scope is not None:
            document |= {"scope": dict(self.scope), "records": self.records, "reaches": self.reaches}
        return document


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
    before: Callable[[list[str], int, int], None] | None = None,
    page: bool = True,
) -> Exported:
    """Write the evidence pack of a lane up to the signed head ``at`` (default: ``head_to_show``).

    Args:
        unseal: opens sealed values, to disclose them or to tell what is withheld from what is erased; without it
            nothing is disclosed and everything counts as withheld.
        before: told, before anything is written, which aliases will be disclosed, how many values and of how many
            records; not called where nothing will.
        page: put ``index.html`` and ``population.csv`` in, for people.

    Raises:
        PackError: no head of that size, the parts do not fit, or values of these records were erased by a later record,
            which the pack would not have.
        StoreError: the journal cannot be read.
    """
    headed = head_of(store, signer, at)
    size, head, root = headed.head.size, headed.head, headed.root
    raws = [raw for _, raw in store.raw(0, size)]
    shown = Shown(disclose, unseal)
    bundles = gathered(store, raws, shown, size, before)
    people = {}
    if page:
        people = for_people(raws, bundles, shown, headed.note, origin=head.origin, root=root)
    write_pack(
        path, deployment=deployment, lane=lane, records=raws, checkpoint=headed.note, signer=headed.signer,
        bundles=bundles,
        disclosures={"fields": shown.fields, "requests": shown.requests}, withheld=shown.withheld, erased=shown.erased,
        people=people,
    )  # fmt: skip
    later = store.size() - size
    return Exported(
        path, size, root, len(bundles), len(shown.fields), shown.withheld, shown.erased, headed.witnessed, later
    )


@dataclass(frozen=True, slots=True)
class Headed:
    """A signed head that a pack is about: its note, the log's key of its time, and whether it is cosigned."""

    head: Checkpoint
    note: bytes
    signer: LogSigner
    witnessed: bool

    @property
    def root(self) -> str:
        """In base64, as a trust file has it."""
        return base64.b64encode(self.head.root).decode("ascii")


def head_of(store: SqliteStore, signer: LogSigner, at: int | None) -> Headed:
    """The head of that size, or ``head_to_show``, with the cosignatures that the log has. Raises ``PackError``."""
    at = head_to_show(store) if at is None else at
    note, cosigned = head_at(store, at), cosigned_note(store, at)
    note = cosigned or note
    signer = signer.of_head(note)
    return Headed(open_checkpoint(note, signer.vkeys), note, signer, cosigned is not None)


def gathered(
    store: SqliteStore, raws: Sequence[bytes], shown: Shown, size: int,
    before: Callable[[list[str], int, int], None] | None,
) -> dict[str, bytes]:  # fmt: skip
    """The bundles that the records activate; their sealed values go to ``shown``, and ``before`` is told of them.

    Raises ``PackError``: values of these records were erased by a record after the first ``size``.
    """
    bundles: dict[str, bytes] = {}
    for raw in raws:
        # Between a key and its value canonical bytes have no space, and quotes within strings are escaped.
        if b'"$sd"' in raw:
            shown.add(read(raw))
        elif b'"kind":"policy.activated"' in raw:
            _add_bundle(store, read(raw), bundles)
    with closing(store.reader()) as now:  # also of what was erased while these values were gathered
        _check_erased(now, size)
    if before is not None and shown.fields:
        before(sorted({row["alias"] for row in shown.fields}), size, len(shown.fields))
    return bundles


def for_people(
    raws: Sequence[bytes], bundles: Mapping[str, bytes], shown: Shown, checkpoint: bytes, *, origin: str, root: str,
    size: int | None = None, scope: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """The members that people open, of a pack or (``size`` and ``scope``) of an extract."""
    told = pages.Shown(shown.fields, withheld=shown.withheld, erased=shown.erased, gone=shown.gone)
    documents = {name: json.loads(raw) for name, raw in bundles.items()}
    # The names on the head's signature lines: the log's, and those of whoever cosigned it.
    lines = checkpoint.decode("utf-8").partition("\n\n")[2].splitlines()
    return pages.for_people(
        raws, documents, told, origin=origin, root=root, signers=[line.split(" ")[1] for line in lines], size=size,
        scope=scope,
    )  # fmt: skip


def head_to_show(store: SqliteStore) -> int:
    """The size of the newest head that witnesses saw, where any did; else of the newest. Raises ``PackError``."""
    newest = store.head()
    if newest is None:
        raise PackError("the journal is empty: there is nothing to export")
    return next((record.body["size"] for record in witnessed_back(store, 0)), newest[0])


def cosigned_note(store: SqliteStore, at: int) -> bytes | None:
    """The newest note with cosignatures of the head of that size, as the log has it."""
    for record in witnessed_back(store, at):
        if record.body["size"] == at:
            return str(record.body["note"]).encode("utf-8")
        if record.body["size"] < at:
            break
    return None


def head_at(store: SqliteStore, at: int) -> bytes:
    """The note of the head of that size. Raises ``PackError``."""
    note = store.head_at(at)
    if note is not None:
        return note
    nearest = store.head_before(at)
    hint = "There is no smaller one." if nearest is None else f"The nearest smaller head has {nearest}: --at {nearest}"
    raise PackError(f"there is no signed head of {at} records", hint=hint)


def _check_erased(store: SqliteStore, size: int) -> None:
    """Whoever sees that values are gone also sees the record that says by whom."""
    if size == store.size():
        return
    for record in store.records(size):
        if record.kind == "data.erased":
            raise PackError(
                f"values were erased at record {record.seq}, after these {size} records",
                hint=f"Export a head of more than {record.seq} records: it shows by whom.",
            )


def _add_bundle(store: SqliteStore, record: Record, bundles: dict[str, bytes]) -> None:
    if record.kind != "policy.activated":
        return
    digest = record.body["activation"]["bundle"]
    raw = store.bundle(digest)
    if raw is None:
        raise PackError(f"the journal has no policy bundle {digest[:23]}", hint="Restore a backup.")
    bundles[digest] = raw


class Shown:
    """Counts and collects the sensitive values of decisions."""

    def __init__(self, disclose: Disclose, unseal: Unseal | None) -> None:
        self._disclose = disclose
        self._unseal = unseal
        self.fields: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.withheld = 0
        self.erased = 0
        self.gone: set[tuple[int, str]] = set()

    def _chosen(self, alias: str) -> bool:
        return self._disclose == "all" or (self._disclose != "none" and alias in self._disclose)

    def add(self, record: Record) -> None:
        if not sealed_in(record):
            return
        hidden = hidden_of(record.body)
        if self._unseal is None:
            self.withheld += len(hidden)
            return
        sealed = self._unseal(record.seq)
        known = opened(record.body, sealed)
        self.erased += len(hidden) - len(known)
        self.gone.update((record.seq, alias) for alias in hidden if alias not in known)
        chosen = {alias: value for alias, value in known.items() if self._chosen(alias)}
        self.withheld += len(known) - len(chosen)
        if sealed is None or not chosen:
            return
        self.fields += _rows(record.seq, sealed, chosen)
        if record.kind != "action.decided":
            return
        # The salt of the request opens it only together with every argument.
        arguments = {alias for alias in hidden if alias != REASON}
        if record.body["salt"] is None and sealed.salt is not None and arguments <= chosen.keys():
            self.requests.append({"seq": record.seq, "salt": sealed.salt})


def _rows(seq: int, sealed: Sealed, known: dict[str, Any]) -> Sequence[dict[str, Any]]:
    return [
        {"seq": seq, "alias": alias, "salt": salt, "value": value}
        for alias, salt, value in sealed.fields
        if alias in known
    ]
