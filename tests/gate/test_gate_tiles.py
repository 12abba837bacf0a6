"""What the lane leaves of its tree for whoever shows it to others: durable, contiguous, and what the journal says."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rig import Provider, hold, make, unsound

import countermark
from countermark.gate import Writer, note_reading
from countermark.journal import LogView, SqliteStore
from countermark.log import HASH_BYTES, TILE_WIDTH, consistency_proof, leaf_hash, root_of
from countermark.model.errors import GateHaltedError, StoreError
from countermark.model.ports import Batch

READING = {"reader": "uid:1", "what": "audit", "from": 0, "to": 1}


def _write(count: int, writer: Writer) -> None:
    for _ in range(count):
        note_reading(writer, READING)


def record(handle: countermark.Deployment, count: int) -> None:
    """So many records, in one batch."""
    handle.gate.wait(handle.gate.lane.ask(partial(_write, count)))


class Counted(SqliteStore):
    """A reader of the journal that counts the records it gives."""

    read = 0

    def raw(self, start: int = 0, stop: int | None = None) -> Any:
        for item in super().raw(start, stop):
            self.read += 1
            yield item


def reader(root: Path) -> Counted:
    return Counted(root / "data" / "journal.db", readonly=True)


def leaves_of(root: Path) -> list[bytes]:
    with closing(reader(root)) as store:
        return [leaf_hash(raw) for _, raw in store.raw()]


def whole_tiles(leaves: list[bytes]) -> list[bytes]:
    full = len(leaves) // TILE_WIDTH
    return [root_of(leaves[n * TILE_WIDTH : (n + 1) * TILE_WIDTH]) for n in range(full)]


def test_the_roots_of_full_tiles_are_those_of_the_records(tmp_path: Path) -> None:
    """Batch by batch the lane leaves the roots of what became full, and a view of the journal reads none of it."""
    provider, root = Provider(), tmp_path / "d"
    make(root, provider)
    with hold(root, provider) as handle, closing(reader(root)) as store:
        view = LogView(store, handle.gate.tiles)
        for count in (1, 200, 255, 256, 700, 3):
            record(handle, count)
            view.grow()
            leaves = leaves_of(root)
            assert handle.gate.tiles.take(0, 1_000) == b"".join(whole_tiles(leaves))
            assert view.root(len(leaves)) == root_of(leaves)
        store.read = 0
        assert view.consistency(5, len(leaves)) == consistency_proof(leaves, 5, len(leaves))
        assert store.read < 2 * TILE_WIDTH
    assert unsound(root) == []


@pytest.mark.parametrize("durable", [False, True])
def test_a_batch_that_fails_leaves_nothing_and_the_gap_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    """A commit that raises, before or after it was durable: no root of its tiles is left, the lane goes on, later ones
    are left again, and a view reads what lies between.
    """
    provider, root = Provider(), tmp_path / "d"
    make(root, provider)
    with hold(root, provider) as handle, closing(reader(root)) as store:
        view = LogView(store, handle.gate.tiles)
        record(handle, 600)
        view.grow()
        before, kept = store.read, handle.gate.tiles.take(0, 1_000)

        def fail(self: SqliteStore, batch: Batch, commit: Any = SqliteStore.commit) -> None:
            if durable:
                commit(self, batch)
            raise StoreError("the disk is gone")

        with monkeypatch.context() as patch:
            patch.setattr(SqliteStore, "commit", fail)
            with pytest.raises(GateHaltedError):
                record(handle, 600)
        assert handle.gate.tiles.take(0, 1_000) == kept, "what nobody knows to be durable is left to nobody"
        for _ in range(3):
            record(handle, 300)
            view.grow()
        leaves = leaves_of(root)
        assert (len(leaves) > 2_000) is durable
        newest = handle.gate.tiles.take(len(leaves) // TILE_WIDTH - 1, 1_000)
        assert newest == whole_tiles(leaves)[-1]
        assert (store.read > before) is durable, "only what became durable in a batch that failed is read"
        assert view.root(len(leaves)) == root_of(leaves)
    assert unsound(root) == []


def test_after_a_restart_the_old_is_read_and_the_new_is_taken(tmp_path: Path) -> None:
    """A gate that opens knows the tree's edge and no tile before it: those come from the journal, the next do not."""
    provider, root = Provider(), tmp_path / "d"
    make(root, provider)
    with hold(root, provider) as handle:
        record(handle, 700)
    with hold(root, provider) as handle, closing(reader(root)) as store:
        view = LogView(store, handle.gate.tiles)
        view.grow()
        old = store.size() // TILE_WIDTH * TILE_WIDTH
        assert store.read == old
        assert handle.gate.tiles.take(0, 1_000) == b""
        record(handle, 700)
        view.grow()
        assert store.read == old
        leaves = leaves_of(root)
        fresh = handle.gate.tiles.take(old // TILE_WIDTH, 1_000)
        assert fresh == b"".join(whole_tiles(leaves)[-(len(fresh) // HASH_BYTES) :])
        assert len(fresh) // HASH_BYTES == len(leaves) // TILE_WIDTH - old // TILE_WIDTH
        assert view.root(len(leaves)) == root_of(leaves)
