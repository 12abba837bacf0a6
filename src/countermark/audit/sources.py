"""Bundles and the present state, read from a journal beside its owner; nothing here writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from countermark.journal import SqliteStore
from countermark.model.errors import CountermarkError, StoreError
from countermark.policy import Bundle, State


def bundle_document(store: SqliteStore, digest: str) -> dict[str, Any]:
    """A bundle's document. Raises ``StoreError`` when the journal does not hold it."""
    raw = store.bundle(digest)
    if raw is None:
        raise StoreError(f"the journal has no policy bundle {digest[:23]}", hint="Restore a backup.")
    document: dict[str, Any] = orjson.loads(raw)
    return document


def bundles_of(store: SqliteStore) -> Callable[[str], Bundle]:
    """Bundles by digest, each read once."""
    known: dict[str, Bundle] = {}

    def bundle_of(digest: str) -> Bundle:
        if digest not in known:
            known[digest] = Bundle.from_document(bundle_document(store, digest))
        return known[digest]

    return bundle_of


def bodies_of(store: SqliteStore) -> Callable[[int], Mapping[str, Any]]:
    """Bodies of records by seq."""
    return lambda seq: store.record(seq).body


class _StoredKeys:
    """Keys as the journal has them, and what the records after its cache change."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._changed: dict[str, int | None] = {}

    def get(self, key: str) -> int | None:
        return self._changed[key] if key in self._changed else self._store.keys((key,)).get(key)

    def put(self, key: str, seq: int | None) -> None:
        self._changed[key] = seq


def present_state(store: SqliteStore) -> State:
    """The state of a lane as its committed records say: the snapshot and what follows it, else everything.

    Its keys are looked up as they are asked for: ``store.steady`` keeps them those of the state.
    """
    with store.steady():
        return _present(store)


def _present(store: SqliteStore) -> State:
    bundle_of, body_of = bundles_of(store), bodies_of(store)
    state = State(_StoredKeys(store), bundle_of, body_of=body_of)
    found = store.snapshot()
    if found is not None and store.cached() >= found[0]:
        try:
            state.load(orjson.loads(found[1])["state"])
        except (CountermarkError, KeyError, TypeError, ValueError, IndexError):
            state = State(
                _StoredKeys(store), bundle_of, body_of=body_of
            )  # a snapshot is a cache: read the records instead
    for record in store.records(state.size):
        if record.prev != state.prev:
            raise StoreError(f"record {record.seq} does not follow its predecessor", hint="Restore a backup.")
        state.apply(record, lambda stop=record.seq: store.records(0, stop))  # type: ignore[misc]
    return state
