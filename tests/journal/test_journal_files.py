"""The journal's files by themselves: store, vault and high-water file."""

from __future__ import annotations

import os
import sqlite3
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from countermark.journal import SCHEMA, HighWater, SqliteStore, Vault, read_high_water, upgrade, write_high_water
from countermark.journal.sqlite import PAGE_BYTES, WAL_PAGES
from countermark.model.errors import CountermarkError, StoreError
from countermark.model.ports import Batch, Cache
from countermark.model.records import GENESIS, Record, seal

MASTER = bytes(range(32))


def key(number: int) -> str:
    return f"id:act_{number:032x}"


def chain(count: int, start: int = 0, prev: str = GENESIS) -> list[Record]:
    found: list[Record] = []
    for seq in range(start, start + count):
        prev = found[-1].digest if found else prev
        found.append(
            seal(
                lane="l0",
                seq=seq,
                prev=prev,
                kind="kill.set",
                at=seq,
                nonce="0" * 32,
                by="gate",
                streams={},
                body={"n": seq},
            )
        )
    return found


def stored(path: Path, count: int) -> SqliteStore:
    store = SqliteStore(path, create=True)
    store.commit(Batch(records=chain(count), head=(count, b"note")))
    store.save(Cache(count, {key(n): n for n in range(count)}, {}))
    return store


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(sizes=st.lists(st.integers(1, 180), min_size=1, max_size=6))
def test_what_was_committed_is_read_back(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    """Batches of any size come back byte for byte, in order, in whole and in part, also through another connection."""
    path = tmp_path_factory.mktemp("store") / "journal.db"
    store, whole = SqliteStore(path, create=True), []
    for size in sizes:
        batch = chain(size, len(whole), whole[-1].digest if whole else GENESIS)
        whole += batch
        store.commit(Batch(records=batch, head=(len(whole), b"n%d" % len(whole))))
        store.save(Cache(len(whole), {key(len(whole)): len(whole)}, {}))
    reader = SqliteStore(path, readonly=True)
    for one in (store, reader):
        assert [r.raw for r in one.records()] == [r.raw for r in whole]
        assert [r.seq for r in one.records(len(whole) // 2, len(whole) - 1)] == list(
            range(len(whole) // 2, len(whole) - 1)
        )
        assert one.size() == len(whole)
        assert one.head() == (len(whole), b"n%d" % len(whole))
        assert one.head_before(len(whole)) == len(whole)
        assert one.head_at(len(whole) + 1) is None
        assert (one.key(key(len(whole))), one.cached()) == (len(whole), len(whole))
        one.close()


def test_keys_are_put_replaced_and_freed(tmp_path: Path) -> None:
    """A key points to its newest seq; ``None`` frees it; a look-up of many finds those that exist."""
    store = stored(tmp_path / "journal.db", 3)
    store.save(Cache(4, {key(0): 3, key(1): None, key(9): 9}, {}))
    assert [store.key(key(n)) for n in (0, 1, 2, 9)] == [3, None, 2, 9]
    assert store.keys([key(n) for n in range(2_000)]) == {key(0): 3, key(2): 2, key(9): 9}
    store.save(Cache(5, {"st:2": 4}, {}))
    assert [store.key(key(2)), store.key("st:2"), store.key("st:3")] == [4, 4, None]  # the newest record of an action
    store.close()


def test_a_failed_commit_leaves_nothing(tmp_path: Path) -> None:
    """A batch that breaks a constraint is an error, and after reopening none of its rows is there."""
    store = stored(tmp_path / "journal.db", 3)
    with pytest.raises(StoreError):
        store.commit(Batch(records=[*chain(1, 3), *chain(1, 0)], head=(5, b"")))
    store.close()
    store = SqliteStore(tmp_path / "journal.db")
    assert (store.size(), store.head()) == (3, (3, b"note"))
    store.close()


def test_a_reader_sees_committed_state_only(tmp_path: Path) -> None:
    """A reader beside the writer neither blocks it nor sees a transaction in the middle."""
    store = stored(tmp_path / "journal.db", 3)
    reader = SqliteStore(tmp_path / "journal.db", readonly=True)
    store._db.execute("begin immediate")
    store._db.execute("insert into record values(3, x'00')")
    assert reader.size() == 3
    store._db.execute("rollback")
    store.commit(Batch(records=chain(1, 3), head=(4, b"")))
    assert reader.size() == 4
    with pytest.raises(StoreError):
        reader.commit(Batch(records=chain(1, 4), head=(5, b"")))
    for one in (store, reader):
        one.close()


def test_the_journal_is_synced_on_every_commit(tmp_path: Path) -> None:
    """The connection that commits runs a write-ahead log with full synchronisation: never less."""
    store = stored(tmp_path / "journal.db", 1)
    assert store._db.execute("pragma synchronous").fetchone() == (2,)
    assert store._db.execute("pragma journal_mode").fetchone() == ("wal",)
    store.close()
    vault = Vault(tmp_path / "vault.db", MASTER, create=True)
    assert vault._db.execute("pragma synchronous").fetchone() == (2,)
    vault.close()


def test_the_write_ahead_log_stays_small(tmp_path: Path) -> None:
    """However much is committed, and saved beside it, the log is moved to the file in steps of a few megabytes."""
    stored(tmp_path / "journal.db", 1).close()
    store, wal = SqliteStore(tmp_path / "journal.db"), tmp_path / "journal.db-wal"
    reader = store.reader()
    size, sizes, prev = 1, [], store.record(0).digest
    for _ in range(60):
        records = chain(400, size, prev)
        size, prev = size + len(records), records[-1].digest
        store.commit(Batch(records=records, head=(size, b"note")))
        store.save(Cache(size, {key(r.seq): r.seq for r in records}, {}))
        assert reader.size() == size
        sizes.append(wal.stat().st_size)
    assert sum(later > before for before, later in pairwise(sizes)) < len(sizes) // 2  # it is written over
    assert max(sizes) < 2 * WAL_PAGES * PAGE_BYTES < 16 << 20
    for one in (store, reader):
        one.close()


def _gap(db: sqlite3.Connection) -> None:
    db.execute("delete from record where seq=2")


def _moved(db: sqlite3.Connection) -> None:
    db.execute("update record set raw=(select raw from record where seq=1) where seq=2")


def _noise(db: sqlite3.Connection) -> None:
    db.execute("update record set raw=x'7b7d' where seq=2")


def _spaced(db: sqlite3.Connection) -> None:
    db.execute("update record set raw=cast(replace(cast(raw as text), ':', ': ') as blob) where seq=2")


@pytest.mark.parametrize("damage", [_gap, _moved, _noise, _spaced])
def test_a_damaged_record_is_never_returned(tmp_path: Path, damage: object) -> None:
    """A missing, exchanged, foreign or re-spaced record is an error of the store when it is read."""
    stored(tmp_path / "journal.db", 5).close()
    db = sqlite3.connect(tmp_path / "journal.db")
    damage(db)  # type: ignore[operator]
    db.commit()
    db.close()
    store = SqliteStore(tmp_path / "journal.db", readonly=True)
    with pytest.raises(StoreError):
        list(store.records())
    with pytest.raises(StoreError):
        store.record(2)
    store.close()


@pytest.mark.parametrize("gap", [0, 3, 4])
def test_an_owner_does_not_open_what_has_a_gap(tmp_path: Path, gap: int) -> None:
    """A record that is missing among the newest is noticed before anything is read or written."""
    stored(tmp_path / "journal.db", 6).close()
    db = sqlite3.connect(tmp_path / "journal.db")
    db.execute("delete from record where seq=?", (gap,))
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="records are missing"):
        SqliteStore(tmp_path / "journal.db")


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(place=st.integers(0, 40_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_no_foreign_exception(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    """Whatever bit of the file is flipped: the records come back as they were, or an error of ours says no."""
    path = tmp_path_factory.mktemp("flip") / "journal.db"
    stored(path, 20).close()
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] ^= 1 << bit
    path.write_bytes(raw)
    try:
        store = SqliteStore(path)
        found = [(r.seq, len(r.raw)) for r in store.records()]
        store.close()
    except CountermarkError:
        return
    assert [seq for seq, _ in found] == list(range(len(found)))


@pytest.mark.parametrize(
    ("statement", "words"),
    [("pragma user_version=99", "newer"), ("pragma user_version=0", "upgrade"), ("pragma application_id=1", "not a")],
)
def test_foreign_and_other_schemas_are_refused(tmp_path: Path, statement: str, words: str) -> None:
    """A database of another program or another schema is refused before anything is written into it."""
    stored(tmp_path / "journal.db", 1).close()
    db = sqlite3.connect(tmp_path / "journal.db")
    db.execute(statement)
    db.close()
    for readonly in (False, True):
        with pytest.raises(StoreError) as caught:
            SqliteStore(tmp_path / "journal.db", readonly=readonly)
        assert words in str(caught.value).lower() or words in caught.value.hint.lower()


def test_the_cache_is_written_apart_from_the_records(tmp_path: Path) -> None:
    """The newest place of a stream counts; one snapshot at most; ``forget`` empties the cache, but no record."""
    store = stored(tmp_path / "journal.db", 3)
    many = {f"r.{n}": (n, f"sha256:{n:064x}") for n in range(200)}
    store.save(Cache(2, {}, many, b"old"))
    store.save(Cache(3, {}, {"r.7": (8, "sha256:" + "f" * 64)}))
    assert (store.snapshot(), store.cached()) == ((2, b"old"), 3)
    store.save(Cache(3, {}, {}, b"new"))
    assert (store.snapshot(), store.cached()) == ((3, b"new"), 3)
    assert [store.stream("r.6"), store.stream("r.7"), store.stream("r.x")] == [
        many["r.6"], (8, "sha256:" + "f" * 64), None,
    ]  # fmt: skip
    store.forget()
    assert (store.snapshot(), store.stream("r.6"), store.key(key(1)), store.cached()) == (None, None, None, 0)
    assert store.size() == 3
    store.close()


@pytest.mark.parametrize("bad", [(4, "text"), (1 << 70, b"doc")])
def test_a_cache_that_cannot_be_written_leaves_the_journal_usable(tmp_path: Path, bad: tuple[int, Any]) -> None:
    """Nothing of a failed ``save`` stays, and the next commit begins a transaction of its own."""
    store = stored(tmp_path / "journal.db", 3)
    store.save(Cache(3, {key(1): 1}, {"r.1": (1, "sha256:one")}, b"good"))
    with pytest.raises(StoreError):
        store.save(Cache(bad[0], {key(1): 2}, {"r.1": (2, "sha256:two")}, bad[1]))
    assert (store.key(key(1)), store.cached()) == (1, 3)
    assert (store.snapshot(), store.stream("r.1")) == ((3, b"good"), (1, "sha256:one"))
    store.commit(Batch(records=chain(1, 3, store.record(2).digest), head=(4, b"note")))
    assert store.size() == 4
    store.close()


def test_there_is_nothing_to_upgrade_yet(tmp_path: Path) -> None:
    """``upgrade`` tells the schema of our own journals and refuses others; a missing file is an error, not created."""
    stored(tmp_path / "journal.db", 1).close()
    assert upgrade(tmp_path / "journal.db") == SCHEMA
    (tmp_path / "other.db").write_bytes(b"not a database at all, but long enough to be looked at" * 20)
    for name in ("other.db", "missing.db"):
        with pytest.raises(StoreError):
            upgrade(tmp_path / name)
    assert not (tmp_path / "missing.db").exists()


def test_a_vault_opens_what_it_sealed_and_nothing_else(tmp_path: Path) -> None:
    """A value opens under its own subject and label only; a flipped bit, another label or subject is an error."""
    vault = Vault(tmp_path / "vault.db", MASTER, create=True)
    blob = vault.seal("ann", "act_1", b"plain")
    other = vault.seal("bob", "act_1", b"plain")
    vault.flush()
    assert vault.open("ann", "act_1", blob) == b"plain"
    for subject, label, raw in (
        ("ann", "act_2", blob), ("bob", "act_1", blob), ("ann", "act_1", other), ("ann", "act_1", blob[:-1]),
        ("ann", "act_1", bytes([blob[0] ^ 1]) + blob[1:]), ("ann", "act_1", b""), ("ann", "act_1", b"short"),
    ):  # fmt: skip
        with pytest.raises(StoreError):
            vault.open(subject, label, raw)
    assert vault.open("nobody", "act_1", blob) is None
    vault.close()
    assert b"plain" not in (tmp_path / "vault.db").read_bytes()
    with pytest.raises(StoreError):
        Vault(tmp_path / "vault.db", bytes(32)).open("ann", "act_1", blob)
    again = Vault(tmp_path / "vault.db", MASTER)
    assert again.open("ann", "act_1", blob) == b"plain"
    again.close()


def test_a_key_that_was_not_flushed_is_not_in_the_file(tmp_path: Path) -> None:
    """Keys become durable by ``flush``, which comes before the commit of the records that need them."""
    vault = Vault(tmp_path / "vault.db", MASTER, create=True)
    blob = vault.seal("ann", "a", b"x")
    other = Vault(tmp_path / "vault.db", MASTER)
    assert other.open("ann", "a", blob) is None
    vault.flush()
    assert other.open("ann", "a", blob) == b"x"
    for one in (vault, other):
        one.close()


@given(size=st.integers(0, 10**15), root=st.binary(min_size=32, max_size=32))
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_high_water_file_comes_back(tmp_path_factory: pytest.TempPathFactory, size: int, root: bytes) -> None:
    """What was published is read back exactly; before anything was published there is nothing."""
    path = tmp_path_factory.mktemp("mark") / "head"
    assert read_high_water(path) is None
    write_high_water(path, HighWater(size, root.hex()))
    assert read_high_water(path) == HighWater(size, root.hex())
    assert [p.name for p in path.parent.iterdir()] == ["head"]


@pytest.mark.parametrize(
    "raw",
    [b"", b"x", b"countermark high-water v2\n1\n" + b"0" * 64 + b"\n",
     b"countermark high-water v1\n-1\n" + b"0" * 64 + b"\n",
     b"countermark high-water v1\n01\n" + b"0" * 64 + b"\n", b"countermark high-water v1\n1\n" + b"0" * 63 + b"\n",
     b"countermark high-water v1\n1\n" + b"0" * 64 + b"\nmore", b"\xff" * 40],
)  # fmt: skip
def test_a_damaged_high_water_file_is_no_permission(tmp_path: Path, raw: bytes) -> None:
    """A file that is not exactly one published head is an error, never "nothing was published"."""
    (tmp_path / "head").write_bytes(raw)
    with pytest.raises(StoreError):
        read_high_water(tmp_path / "head")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError):
        read_high_water(tmp_path / "folder")


def test_readers_on_many_threads_agree(tmp_path: Path) -> None:
    """One reader per thread beside a writer that commits: each sees a prefix without gaps."""
    store = stored(tmp_path / "journal.db", 50)
    wrong: list[object] = []

    def read() -> None:
        reader = SqliteStore(tmp_path / "journal.db", readonly=True)
        try:
            for _ in range(5):
                seqs = [r.seq for r in reader.records()]
                if seqs != list(range(len(seqs))) or len(seqs) < 50:
                    wrong.append(seqs)
        except StoreError as error:
            wrong.append(error)
        finally:
            reader.close()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for size in range(50, 90, 4):
        store.commit(Batch(records=chain(4, size), head=(size + 4, b"")))
    for thread in threads:
        thread.join()
    store.close()
    assert wrong == []
    assert os.listdir(tmp_path)


def test_a_destroyed_key_leaves_no_bytes(tmp_path: Path) -> None:
    """Neither file nor write-ahead log holds the wrapped key; another's opens; to destroy it again changes nothing."""
    path = tmp_path / "vault.db"
    vault = Vault(path, MASTER, create=True)
    blobs = {name: vault.seal(name, "act", b"secret") for name in ("a", "b")}
    vault.flush()
    with sqlite3.connect(path) as db:
        (wrapped,) = db.execute("select wrapped from subject where id='a'").fetchone()
    db.close()
    assert wrapped in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    vault.destroy(["a", "never"])
    vault.destroy(["a"])
    vault.destroy([])
    assert wrapped not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert vault.open("a", "act", blobs["a"]) is None
    assert vault.open("b", "act", blobs["b"]) == b"secret"
    vault.close()


def test_the_end_of_an_erasure_that_a_full_disk_prevented_comes_with_the_next_start(tmp_path: Path) -> None:
    """The key is gone and the file was not written anew; its write-ahead log went when it was closed, and all the same
    the next time finishes.
    """
    path, master = tmp_path / "v.db", bytes(32)
    vault = Vault(path, master, create=True)
    vault.seal("acme", "act_1", b"secret")
    vault.flush()
    deny = {sqlite3.SQLITE_ATTACH: sqlite3.SQLITE_DENY}  # what writing anew begins with
    vault._db.set_authorizer(lambda action, *_: deny.get(action, sqlite3.SQLITE_OK))
    with pytest.raises(StoreError):
        vault.destroy(["acme"])
    vault.close()
    for said in ([1], []):  # once more, and then nothing is left to do
        vault, seen = Vault(path, master), []
        vault._db.set_trace_callback(lambda text, seen=seen: seen.append(1) if text == "vacuum" else None)  # type: ignore[misc]
        vault.destroy(["acme"])
        assert seen == said
        vault.close()
