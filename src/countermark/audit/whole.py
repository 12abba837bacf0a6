"""Is a journal whole? Chain, tree and newest signed head, from the raw records; nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence

from countermark.journal import SqliteStore
from countermark.log import Checkpoint, Frontier, leaf_hash, open_checkpoint
from countermark.model.errors import SignatureError, StoreError
from countermark.model.records import GENESIS, read


def whole_log(store: SqliteStore, vkeys: Sequence[str]) -> Checkpoint | None:
    """The newest head, after its records were read one by one: chained, and with the root that it signed.

    None for an empty journal. ``vkeys`` are the log's verifier keys. Raises ``StoreError`` or ``EncodingError``.
    """
    head = store.head()
    frontier, prev = Frontier(), GENESIS
    for seq, raw in store.raw(0, store.size() if head is None else head[0]):
        record = read(raw)
        if record.prev != prev or record.seq != seq:
            raise StoreError(f"record {seq} does not follow its predecessor", hint="Restore a backup.")
        prev = record.digest
        frontier.append(leaf_hash(raw))
    if head is None:
        if frontier.size:
            raise StoreError("there are records and no signed head", hint="Restore a backup.")
        return None
    try:
        checkpoint = open_checkpoint(head[1], vkeys)
    except SignatureError as error:
        raise StoreError(f"the newest head is not signed by this log's key: {error.message}") from None
    if (checkpoint.size, checkpoint.root) != (frontier.size, frontier.root()):
        raise StoreError(
            f"the records are not those that the newest head of {head[0]:,} signed", hint="Restore a backup."
        )
    return checkpoint
