"""Keys and streams are a cache: after any death, at any point around it, they are what a naive fold of the records is.

And what reads beside the owner sees one committed state; a cache that does not fit, or other tables, are noticed.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from contextlib import closing
from functools import partialmethod
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from histories import History, Naive
from rig import Provider, hold, make, pay, rebuilt_equally, unsound

from countermark.audit import cache_faults, newest, present_state
from countermark.gate import caches
from countermark.journal import SqliteStore, upgrade
from countermark.model.errors import StoreError
from countermark.model.ports import Cache
from countermark.model.records import KINDS

LIVES, SOME_LIVES = 20, 6
SEEDS = int(os.environ.get("COUNTERMARK_SEEDS", "5"))
PAYMENTS_MAX = 400


@pytest.mark.parametrize("change", ["save", "forget"])
def test_a_look_up_beside_the_owner_sees_one_state(
    seed_journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A key that the owner moves from the records to the table, or back, while it is looked up is still found."""
    root = tmp_path / "d"
    shutil.copytree(seed_journal, root, ignore=shutil.ignore_patterns("gate.sock"))
    monkeypatch.setattr(caches, "DIRTY_MAX", 1)
    with hold(root, Provider()) as handle:
        if change == "save":
            monkeypatch.setattr(caches, "DIRTY_MAX", 1 << 40)
        action = pay(handle, 3).action
        pen = handle.gate.lane._writer
        assert pen is not None
        owner, pending = SqliteStore(root / "data" / "journal.db"), [True]
        with closing(owner), closing(SqliteStore(root / "data" / "journal.db", readonly=True)) as reader:

            def meanwhile(self: SqliteStore, *args: Any, original: Any) -> Any:
                """The owner writes just before the reader's second question, whichever that is."""
                found = original(self, *args)
                if self is reader and pending and pending.pop():
                    if change == "save":
                        owner.save(Cache(owner.size(), pen.keys.dirty, pen.streams.dirty))
                    else:
                        owner.forget()
                return found

            for name in ("key", "cached"):
                original = getattr(SqliteStore, name)
                monkeypatch.setattr(SqliteStore, name, partialmethod(meanwhile, original=original))
            assert newest(reader, "id:" + action) is not None
            assert pending == []
        monkeypatch.undo()


def test_readers_beside_a_living_owner(seed_journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader shows at size N is the fold of the first N records, while payments, saves and snapshots go on."""
    root = tmp_path / "d"
    shutil.copytree(seed_journal, root, ignore=shutil.ignore_patterns("gate.sock"))
    for name, value in (("DIRTY_MAX", 3), ("SNAPSHOT_RECORDS", 7), ("SNAPSHOT_PART", 0)):
        monkeypatch.setattr(caches, name, value)
    sizes: set[int] = set()
    provider = Provider(["refused", ""] * PAYMENTS_MAX)
    with hold(root, provider) as handle:
        run = handle.start_run()

        def paying() -> None:
            for number in range(PAYMENTS_MAX):  # each invoice fails first, and is paid under another name
                if number >= 40 and len(sizes) > 10:  # how often the reader looks meanwhile is the machine's
                    break
                pay(handle, f"r{number // 2}", run=run, call_id=f"c-{number}")

        payer = threading.Thread(target=paying)
        payer.start()
        with closing(SqliteStore(root / "data" / "journal.db", readonly=True)) as reader:
            naive = Naive(reader)
            while payer.is_alive():
                with reader.steady():
                    present = present_state(reader)
                    naive.take(reader.records(naive.state.size, present.size), reader)
                    assert present.dump() == naive.state.dump()
                    keys = naive.keys.keys()
                    assert {key: present.keys.get(key) for key in keys} == dict(naive.keys)
                    assert (reader.head() or (0, b""))[0] == present.size
                    last = next((key for key in reversed(keys) if key.startswith("id:")), "")
                    assert newest(reader, last) == naive.state.newest(last[3:])
                sizes.add(present.size)
        payer.join()
    assert len(sizes) > 10
    assert len(provider.effects) == 20


def test_a_cache_ahead_of_the_records_is_not_used(
    seed_journal: Path, tmp_path: Path, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What says that it covers records that nobody made would let keys of the tail go unwritten: all is folded anew."""
    root = tmp_path / "d"
    shutil.copytree(seed_journal, root, ignore=shutil.ignore_patterns("gate.sock"))
    with hold(root, Provider()) as handle:
        pay(handle, 5)
        monkeypatch.setattr(caches, "SNAPSHOT_RECORDS", 1 << 40)
        run = handle.start_run()
        for number in range(6, 12):
            pay(handle, number, run=run)
    with closing(sqlite3.connect(root / "data" / "journal.db")) as db:
        db.execute("update cached set size=size+1000000")
        db.commit()
    with closing(SqliteStore(root / "data" / "journal.db", readonly=True)) as store:
        assert set(cache_faults(store)) >= {"keys", "streams"}
    monkeypatch.setattr(caches, "DIRTY_MAX", 2)
    with hold(root, Provider()) as handle:
        assert {pay(handle, n, call_id=f"again-{n}").code for n in range(5, 12)} == {"duplicate_obligation"}
    assert rebuilt_equally(root)


def test_a_cache_behind_its_snapshot_is_not_used(seed_journal: Path, tmp_path: Path, often: None) -> None:
    """Tables of keys that were emptied below a snapshot are noticed at the start: no business key is free again."""
    root = tmp_path / "d"
    shutil.copytree(seed_journal, root, ignore=shutil.ignore_patterns("gate.sock"))
    with hold(root, Provider()) as handle:
        pay(handle, 5)
    with closing(sqlite3.connect(root / "data" / "journal.db")) as db:
        assert db.execute("select count(*) from snapshot").fetchone() == (1,)
        db.executescript("delete from idem; delete from outcome; delete from stream; delete from cached;")
    with closing(SqliteStore(root / "data" / "journal.db", readonly=True)) as store:
        taken = next(r.body["obligation"] for r in store.records() if r.kind == "action.decided")
        assert present_state(store).keys.get("ob:" + taken) is not None
    with hold(root, Provider()) as handle:
        assert pay(handle, 5, call_id="again").code == "duplicate_obligation"
    assert rebuilt_equally(root)
    assert unsound(root) == []


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("delete from idem where substr(key, 1, 1) = x'6f'", "keys"), ("update outcome set seq=seq-1", "keys"),
        ("insert into outcome values(3, 4)", "keys"), ("delete from stream where name like 'p.%'", "keys"),
        ("update stream set seq=seq+1", "streams"),
        ("update snapshot set doc=cast(replace(cast(doc as text), 'treasury', 'treasurz') as blob)", "snapshot"),
        ("update snapshot set doc=x'7b'", "snapshot"), ("update cached set size=size-1", "snapshot"),
    ],
)  # fmt: skip
def test_a_falsified_cache_is_seen_before_it_is_believed(
    seed_journal: Path, tmp_path: Path, often: None, statement: str, what: str
) -> None:
    """Whoever looks sees that the cache is not what the records say; without its snapshot nothing of it is used."""
    root = tmp_path / "d"
    shutil.copytree(seed_journal, root, ignore=shutil.ignore_patterns("gate.sock"))
    with hold(root, Provider()) as handle:
        pay(handle, 5)
    path = root / "data" / "journal.db"
    with closing(SqliteStore(path, readonly=True)) as store:
        assert cache_faults(store) == []
    with closing(sqlite3.connect(path)) as db:
        assert db.execute(statement).rowcount > 0
        db.commit()
        with closing(SqliteStore(path, readonly=True)) as store:
            assert what in cache_faults(store)
        db.execute("delete from snapshot")
        db.commit()
    with hold(root, Provider()) as handle:
        assert pay(handle, 5, call_id="again").code == "duplicate_obligation"
    assert rebuilt_equally(root)


@pytest.mark.parametrize(
    "statement",
    [
        "create trigger t after insert on record begin delete from idem; end",
        "create view v as select * from record", "create index i on record (raw)", "create table extra (a)",
        "drop table cached", "alter table idem rename to other",
    ],
)  # fmt: skip
def test_other_tables_are_refused(seed_journal: Path, tmp_path: Path, statement: str) -> None:
    """A journal made before ``cached`` was, or with something that would run inside it, is refused by name."""
    root = tmp_path / "d"
    shutil.copytree(seed_journal, root, ignore=shutil.ignore_patterns("gate.sock"))
    path = root / "data" / "journal.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()
    for opening in (lambda: hold(root, Provider()), lambda: SqliteStore(path, readonly=True), lambda: upgrade(path)):
        with pytest.raises(StoreError) as caught:
            opening()
        assert caught.value.code == "other_tables"


def test_statistics_of_the_database_are_nothing_else(seed_journal: Path, tmp_path: Path) -> None:
    """What SQLite itself adds for an operator's ``analyze`` opens as before."""
    root = tmp_path / "d"
    shutil.copytree(seed_journal, root, ignore=shutil.ignore_patterns("gate.sock"))
    with closing(sqlite3.connect(root / "data" / "journal.db")) as db:
        db.execute("analyze")
    with hold(root, Provider()) as handle:
        assert pay(handle, 6).status == "confirmed"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot after every batch."""
    monkeypatch.setattr(caches, "SNAPSHOT_RECORDS", 1)
    monkeypatch.setattr(caches, "SNAPSHOT_PART", 0)


def test_a_save_that_fails_is_not_tried_with_every_batch(
    seed_journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for as many changes again; while records are folded its failure costs neither snapshot nor start."""
    root = tmp_path / "d"
    shutil.copytree(seed_journal, root, ignore=shutil.ignore_patterns("gate.sock"))
    monkeypatch.setattr(caches, "DIRTY_MAX", 8)
    tried: list[int] = []

    def full(_: SqliteStore, cache: Cache) -> None:
        tried.append(len(cache.keys))
        raise StoreError("disk full")

    monkeypatch.setattr(SqliteStore, "save", full)
    provider = Provider()
    with hold(root, provider) as handle:
        run = handle.start_run()
        for number in range(10, 30):
            assert pay(handle, number, run=run).status == "confirmed"
    assert 2 <= len(tried) <= 11
    assert all(after - before >= 8 for before, after in pairwise(tried))
    with hold(root, provider) as handle:
        assert pay(handle, 12, call_id="again").code == "duplicate_obligation"
    assert rebuilt_equally(root)


@pytest.fixture(scope="module")
def seed_journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment with one payment and one escalation, whose bodies the histories vary."""
    root = tmp_path_factory.mktemp("keys") / "d"
    make(root, Provider())
    with hold(root, Provider()) as handle:
        pay(handle, 1)
        assert pay(handle, 2, 600_000).status == "escalated"
    return root


def _told(seed_journal: Path, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, lives: int = LIVES) -> None:
    root = tmp_path / f"d{seed}"
    shutil.copytree(seed_journal, root, ignore=shutil.ignore_patterns("gate.sock"))
    history = History(root, seed, monkeypatch)
    for _ in range(lives):
        lane = history.lane
        history.live()
        with closing(history.store()) as store:  # a death before the succession was committed: the lane of before
            history.lane = next((r.body["lane"] for r in reversed(list(store.records())) if r.kind == "lane.succeeded"),
                                "l0")  # fmt: skip
        assert int(history.lane[1:]) >= int(lane[1:])
    shutil.rmtree(root)


def test_keys_are_what_the_records_say(seed_journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After deaths before, in and after saves, forgets and folds each key, stream and reader's answer is the fold's."""
    _told(seed_journal, tmp_path, 0, monkeypatch, SOME_LIVES)


def test_histories_have_every_kind_of_record() -> None:
    """What a start makes of a kind that no history has would be compared with nothing."""
    written = (Path(__file__).parent / "histories.py").read_text()
    elsewhere = {"gate.started", "lane.succeeded", "lane.imported"}  # of the seed, and what ``succeed`` writes
    assert [kind for kind in KINDS if f'"{kind}"' not in written and kind not in elsewhere] == []


@pytest.mark.slow
def test_keys_are_what_the_records_say_over_many_histories(
    seed_journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same over longer histories of many seeds."""
    for seed in range(1_000, 1_000 + SEEDS):
        try:
            _told(seed_journal, tmp_path, seed, monkeypatch)
        except AssertionError:
            print(f"seed {seed}")
            raise
