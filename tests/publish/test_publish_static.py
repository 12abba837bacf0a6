"""The log as plain files: complete, incremental, and never over another log."""

from __future__ import annotations

from pathlib import Path

import pytest
from publish_support import MemoryLog

from countermark.log import leaf_hash, open_checkpoint, root_of, tiles
from countermark.model.canon import canon
from countermark.model.errors import CountermarkError, ProofError, SignatureError, StoreError
from countermark.publish import NewestHead, note_to_publish, publish_static, static


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def expected(log: MemoryLog) -> dict[str, bytes]:
    return dict(tiles([leaf_hash(raw) for raw in log.raws]))


@pytest.mark.parametrize("sizes", [(1,), (255, 256, 257), pytest.param((3, 66_000), marks=pytest.mark.slow)])
def test_the_files_are_the_logs_tiles_and_its_head(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """After any steps: every hash tile of the tree, the head last published, and no entry."""
    log = MemoryLog(0)
    store = log.store()
    for size in sizes:
        log.grow(size - len(log.raws))
        note = log.head().note
        done = publish_static(tmp_path, store, note, (log.signer.vkey,))
        found = files_of(tmp_path)
        assert done.size == size
        assert found.pop("checkpoint") == note
        assert expected(log).items() <= found.items()
        assert not any("entries" in path for path in found)
    assert publish_static(tmp_path, store, note, (log.signer.vkey,)).tiles == 0


def test_only_what_is_new_is_written_and_what_is_old_goes_one_head_later(tmp_path: Path) -> None:
    """A partial tile stays while the head before needs it, and is gone after the next one."""
    log = MemoryLog(300)
    store = log.store()
    publish_static(tmp_path, store, log.head().note, (log.signer.vkey,))
    log.grow(300)
    assert publish_static(tmp_path, store, log.head().note, (log.signer.vkey,)).tiles == 3
    assert (tmp_path / "tile/0/001.p/44").exists()
    log.grow(1)
    publish_static(tmp_path, store, log.head().note, (log.signer.vkey,))
    assert sorted(path for path in files_of(tmp_path) if ".p/" in path) == [
        "tile/0/002.p/88", "tile/0/002.p/89", "tile/1/000.p/2",
    ]  # fmt: skip


def test_only_what_is_new_is_read_of_the_journal(tmp_path: Path) -> None:
    """Over 65,536 records and more, a call reads the records after the head that stands there, and of those before it
    the ones in the tile in which it ends; what it publishes is what a first call publishes.
    """
    log = MemoryLog(66_000)
    publish_static(tmp_path / "kept", log.store(), log.head().note, (log.signer.vkey,))
    log.grow(700)
    store, note = log.store(), log.head().note
    assert publish_static(tmp_path / "kept", store, note, (log.signer.vkey,)).tiles == 5
    assert min(store.read) == 66_000 // 256 * 256
    publish_static(tmp_path / "fresh", log.store(), note, (log.signer.vkey,))
    assert files_of(tmp_path / "fresh").items() <= files_of(tmp_path / "kept").items()


@pytest.mark.parametrize(
    ("path", "mended"),
    [("tile/1/000.p/3", True), ("tile/0/003.p/32", True), ("tile/0/001", False), ("tile/0/002", False)],
)
@pytest.mark.parametrize("how", ["altered", "cut", "gone"])
def test_a_tile_that_is_not_the_logs_is_put_right_where_it_is_gone_on_from(
    tmp_path: Path, path: str, mended: bool, how: str
) -> None:
    """What the next head is computed from is held against the signed heads: where it does not lead there, the journal
    is read from its beginning and every file is as it should be. A full tile of level 0 below is not looked at.
    """
    log = MemoryLog(800)
    publish_static(tmp_path, log.store(), log.head().note, (log.signer.vkey,))
    good = (tmp_path / path).read_bytes()
    (tmp_path / path).write_bytes(good[:-1] + bytes([good[-1] ^ 1]) if how == "altered" else good[:-1])
    if how == "gone":
        (tmp_path / path).unlink()
    store = log.store()
    log.grow(0 if mended else 300)
    publish_static(tmp_path, store, log.head().note, (log.signer.vkey,))
    found = files_of(tmp_path)
    assert (found.get(path) == good) is mended
    if mended:
        assert expected(log).items() <= found.items()


def test_where_the_upper_tiles_are_another_logs_all_of_them_are_put_right(tmp_path: Path) -> None:
    """Tiles of a rewrite under the head of the log: none of them is left, on any level."""
    log, forged = MemoryLog(1_000), MemoryLog(1_000, changed=7)
    publish_static(tmp_path, forged.store(), forged.head().note, (forged.signer.vkey,))
    (tmp_path / "checkpoint").write_bytes(log.head(900).note)
    done = publish_static(tmp_path, log.store(), log.head().note, (log.signer.vkey,))
    assert done.tiles == 2, "the one that holds the record, and the one above it"
    assert expected(log).items() <= files_of(tmp_path).items()


def test_a_call_that_ended_anywhere_is_made_good_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off before the head was put there, with tiles whole, cut or missing: the old head stands until then, with all
    that it needs; afterwards everything is there.
    """
    log = MemoryLog(300)
    publish_static(tmp_path, log.store(), log.head().note, (log.signer.vkey,))
    before = files_of(tmp_path)
    log.grow(900)

    def cut(*_: object, **__: object) -> None:
        raise StoreError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(static, "replace_file", cut)
        with pytest.raises(StoreError):
            publish_static(tmp_path, log.store(), log.head().note, (log.signer.vkey,))
    assert before.items() <= files_of(tmp_path).items()
    (tmp_path / "tile/0/002").write_bytes(b"")
    (tmp_path / "tile/0/003").unlink()
    (tmp_path / "tile/0/001").write_bytes(bytes(8_192))  # the right length: a crash of a machine may leave it
    publish_static(tmp_path, log.store(), log.head().note, (log.signer.vkey,))
    assert expected(log).items() <= files_of(tmp_path).items()


def test_another_log_is_never_published_over_this_one(tmp_path: Path) -> None:
    """A rewrite, a shorter log, a stranger's files, a head that is not the journal's: refused, and nothing changed."""
    log = MemoryLog(300)
    publish_static(tmp_path, log.store(), log.head().note, (log.signer.vkey,))
    before = files_of(tmp_path)
    forged, short, other = MemoryLog(400, changed=7), MemoryLog(200), MemoryLog(400, number=2)
    for one, note, error in (
        (forged, forged.head().note, ProofError), (short, short.head().note, ProofError),
        (other, other.head().note, SignatureError), (log, forged.head(300).note, ProofError),
    ):  # fmt: skip
        with pytest.raises(error):
            publish_static(tmp_path, one.store(), note, (one.signer.vkey,))
    (tmp_path / "checkpoint").write_bytes(b"hello\n")
    with pytest.raises(CountermarkError):
        publish_static(tmp_path, log.store(), log.head().note, (log.signer.vkey,))
    (tmp_path / "checkpoint").write_bytes(before["checkpoint"])
    assert files_of(tmp_path) == before
    assert open_checkpoint(before["checkpoint"], [log.signer.vkey]).root == root_of([leaf_hash(r) for r in log.raws])


def test_the_head_to_show_is_the_newest_that_witnesses_cosigned() -> None:
    """As the log's own records say, however far back; without such a record it is the newest signed head."""
    log = MemoryLog(0)
    store, newest = log.store(), NewestHead()
    assert newest.read(store) is None
    log.grow(10)
    assert newest.read(store) == log.head().note
    assert note_to_publish(store) == (log.head().note, False)
    for size in (10, 12):
        note = log.head(size).note
        log.raws.append(canon({"kind": "head.witnessed", "body": {"note": note.decode()}}))
        log.raws.append(canon({"kind": "log.read", "body": {"note": '"kind":"head.witnessed"'}}))
        log.grow(1_500)
        assert newest.read(store) == note
        assert newest.read(store) == note
        assert note_to_publish(store) == (note, True)
        assert note_to_publish(store, newest=True) == (log.head().note, False)
