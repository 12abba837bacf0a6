"""Does a journal's cache say what its records say? A start believes it, so whoever looks folds every record instead."""

from __future__ import annotations

import orjson

from countermark.audit.sources import bundles_of
from countermark.journal import SqliteStore
from countermark.policy import DictKeys, DictStreams, State


def cache_faults(store: SqliteStore) -> list[str]:
    """What of snapshot, keys and streams differs from a fold of the records that they cover; empty when nothing does.

    Raises ``StoreError`` when the records cannot be read.
    """
    with store.steady():
        size, found = store.cached(), store.snapshot()
        keys, streams = DictKeys(), DictStreams()
        state = State(keys, bundles_of(store), streams)
        wrong: list[str] = []
        if found is not None and not 0 < found[0] <= size:
            wrong.append("snapshot")
        if size > store.size():
            return [*wrong, "keys", "streams"]
        for record in store.records(0, size):
            state.apply(record, lambda stop=record.seq: store.records(0, stop))  # type: ignore[misc]
            if found is not None and state.size == found[0] and not _same(state, found[1]):
                wrong.append("snapshot")
        if store.cached_rows() != (len(keys), len(streams)) or store.keys(list(keys)) != keys:
            wrong.append("keys")
        if any(store.stream(name) != place for name, place in streams.items()):
            wrong.append("streams")
        return wrong


def _same(state: State, raw: bytes) -> bool:
    try:
        doc = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return type(doc) is dict and doc.get("state") == orjson.loads(orjson.dumps(state.dump()))
