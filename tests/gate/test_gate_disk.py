"""G1 and G4 at the disk: what cannot be written does not happen, and files that are not right are not opened."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rig import Provider, bodies, doubled, hold, make, pay, rebuilt_equally, unsound

from countermark.model.errors import CountermarkError

HERE = Path(__file__).resolve().parent


SLOW = pytest.mark.slow


@pytest.mark.parametrize("room", [pytest.param(0, marks=SLOW), 4_096, pytest.param(40_000, marks=SLOW)])
def test_a_full_disk_stops_effects(tmp_path: Path, room: int) -> None:
    """When the journal cannot grow, calls end ``gate_halted`` and nothing is sent; with room the same calls work."""
    make(tmp_path / "d", Provider())
    done = subprocess.run(
        [sys.executable, str(HERE / "disk_child.py"), str(tmp_path / "d"), str(room)], capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-1_000:]
    told = json.loads(done.stdout)
    assert told["first"] == "confirmed"
    assert set(told["codes"]) <= {"confirmed", "gate_halted"}
    assert told["codes"][-1] == "gate_halted"
    # A refused call may be one whose intent was written, and its outcome not; when no intent fits, nothing is sent.
    assert max(told["sent"]) <= 1
    assert told["sent"][-10:] == [0] * 10
    assert told["after"] == ["confirmed"] * 28
    assert told["effects"] == 29
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def _mounted(folder: Path, size: str) -> bool:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or not _mounted(tmp_path / "disk", "3m"):
        pytest.skip("needs root and the right to mount a tmpfs: the full file system was NOT exercised")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


def test_a_real_full_file_system(small_disk: Path) -> None:
    """ENOSPC from a small tmpfs: no effect without its intent, no answer that is not true; room back, all is well."""
    provider = Provider()
    make(small_disk / "d", provider)
    ballast = small_disk / "ballast"
    with hold(small_disk / "d", provider) as handle:
        run = handle.start_run()
        assert pay(handle, 1, run=run).status == "confirmed"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4_096)
            except OSError:
                pass
        codes, sent_after_halt = [], []
        for number in range(2, 40):
            before = len(provider.sent)
            try:
                codes.append(pay(handle, number, run=run, reason="r" * 1_500).status)
            except CountermarkError as error:
                codes.append(error.code)
                sent_after_halt.append(len(provider.sent) - before)
        assert codes[-1] == "gate_halted"
        assert set(codes) <= {"confirmed", "gate_halted"}
        assert sum(sent_after_halt) <= 1
        ballast.unlink()
        handle.call("recover", {})  # one outcome may not have been written: it is found again under its key
        assert [pay(handle, n, run=run, reason="r" * 1_500).status for n in range(2, 40)] == ["confirmed"] * 38
    assert len(provider.effects) == 39
    assert doubled(provider.effects) == set()
    assert unsound(small_disk / "d") == []


@pytest.mark.parametrize("how", ["die", "on"])
def test_a_disk_that_is_full_exactly_at_a_save(small_disk: Path, how: str) -> None:
    """Killed there or later: with room again every answer stands, what failed is free and what was paid is taken."""
    root, ballast = small_disk / "d", small_disk / "ballast"
    make(root, Provider())
    done = subprocess.run(
        [sys.executable, str(HERE / "full_child.py"), str(root), str(ballast), how], capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr.decode()[-1_000:]
    told = done.stdout.decode().split()
    assert told[:2] == ["failed", "failed"]
    assert how == "die" or (int(told.pop()) > 2 and told[2:] == ["confirmed"] * 10)
    provider = Provider()
    if how == "die":
        with pytest.raises(CountermarkError) as caught:
            hold(root, provider)
        assert caught.value.code in ("gate_halted", "store_failed")
        ballast.unlink()
    assert not ballast.exists()
    left = len(bodies(root, "action.decided")) - len(bodies(root, "action.settled"))  # sent again under their own keys
    with hold(root, provider) as handle:
        codes = [pay(handle, number, call_id=f"again-{number}").code for number in range(len(told))]
    assert codes == ["ok" if status == "failed" else "duplicate_obligation" for status in told]
    assert len(provider.effects) == left + 2
    assert unsound(root) == []
    assert rebuilt_equally(root)


def test_a_full_disk_at_opening_leaves_nothing_behind(small_disk: Path) -> None:
    """A gate that cannot write its first record does not open, and its lane is free for the next try."""
    provider = Provider()
    make(small_disk / "d", provider)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4_096)
        except OSError:
            pass
    for _ in range(2):
        with pytest.raises(CountermarkError) as caught:
            hold(small_disk / "d", provider)
        assert caught.value.code in ("gate_halted", "store_failed")
    ballast.unlink()
    with hold(small_disk / "d", provider) as handle:
        assert handle.owner
        assert pay(handle, 1).status == "confirmed"


def test_a_read_only_file_system(small_disk: Path) -> None:
    """A deployment that cannot be written is refused with a stable code, and nothing is sent."""
    provider = Provider()
    make(small_disk / "d", provider)
    remount = ["mount", "-o", "remount", "tmpfs", str(small_disk)]
    subprocess.run([*remount[:2], "remount,ro", *remount[3:]], check=True)
    try:
        with pytest.raises(CountermarkError) as caught:
            hold(small_disk / "d", provider)
        assert caught.value.code in ("read_only", "store_failed")
    finally:
        subprocess.run([*remount[:2], "remount,rw", *remount[3:]], check=True)
    with hold(small_disk / "d", provider) as handle:
        assert pay(handle, 1).status == "confirmed"


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, provider = tmp_path_factory.mktemp("paid") / "d", Provider()
    make(root, provider)
    with hold(root, provider) as handle:
        for number in range(3):
            pay(handle, number)
    return root


@pytest.fixture
def closed(paid: Path, tmp_path: Path) -> Path:
    """A deployment with some records that nobody owns: a copy for each test, which may damage it."""
    return shutil.copytree(paid, tmp_path / "d", ignore=shutil.ignore_patterns("gate.sock"))


def _truncated(root: Path) -> None:
    path = root / "data" / "journal.db"
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def _empty(root: Path) -> None:
    (root / "data" / "journal.db").write_bytes(b"")


def _gone(root: Path) -> None:
    (root / "data" / "journal.db").unlink()


def _noise(root: Path) -> None:
    (root / "data" / "journal.db").write_bytes(os.urandom(200_000))


def _foreign(root: Path) -> None:
    _gone(root)
    db = sqlite3.connect(root / "data" / "journal.db")
    db.execute("create table record (seq integer primary key, raw blob)")
    db.commit()
    db.close()


def _sql(statement: str, *values: object) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        db = sqlite3.connect(root / "data" / "journal.db")
        db.execute(statement, values)
        db.commit()
        db.close()

    change.__name__ = "_".join(statement.replace("?", " ").split()[:4])
    return change


def _flipped(root: Path) -> None:
    db = sqlite3.connect(root / "data" / "journal.db")
    (raw,) = db.execute("select raw from record where seq=6").fetchone()
    db.execute("update record set raw=? where seq=6", (raw.replace(b"treasury", b"treasurz"),))
    db.commit()
    db.close()


def _last_changed(root: Path) -> None:
    db = sqlite3.connect(root / "data" / "journal.db")
    seq, raw = db.execute("select seq, raw from record order by seq desc limit 1").fetchone()
    db.execute("update record set raw=? where seq=?", (raw.replace(b'"reason"', b'"reasoN"'), seq))
    db.commit()
    db.close()


def _no_vault(root: Path) -> None:
    (root / "data" / "vault.db").unlink()


def _foreign_vault(root: Path) -> None:
    shutil.copy(root / "data" / "journal.db", root / "data" / "vault.db")


def _bad_mark(root: Path) -> None:
    (root / "highwater" / "head").write_text("countermark high-water v1\n5\n")


def _other_mark(root: Path) -> None:
    text = (root / "highwater" / "head").read_text().splitlines()
    (root / "highwater" / "head").write_text("\n".join([text[0], text[1], "0" * 64]) + "\n")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_truncated, "store_failed"), (_empty, "store_failed"), (_gone, "store_failed"), (_noise, "store_failed"),
        (_foreign, "store_failed"), (_flipped, "store_failed"), (_last_changed, "store_failed"),
        (_sql("pragma user_version=2"), "newer_schema"), (_sql("pragma user_version=0"), "store_failed"),
        (_sql("pragma application_id=7"), "store_failed"),
        (_sql("delete from record where seq=4"), "store_failed"),
        (_sql("update record set raw=? where seq=4", b"{}"), "store_failed"),
        (_sql("update record set raw=? where seq=4", b"\xff"), "store_failed"),
        (_sql("delete from head"), "behind_high_water"),
        (_sql("update head set note=?", b"x"), "behind_high_water"),
        (_sql("delete from record where seq>5"), "behind_high_water"),
        (_sql("drop table head"), "other_tables"), (_sql("drop table bundle"), "other_tables"),
        (_sql("delete from bundle"), "store_failed"), (_sql("update bundle set doc=?", b"{}"), "bad_policy"),
        (_no_vault, "store_failed"), (_foreign_vault, "store_failed"),
        (_bad_mark, "store_failed"), (_other_mark, "behind_high_water"),
    ],
)  # fmt: skip
def test_files_that_are_not_right_are_not_opened(closed: Path, damage: Callable[[Path], None], code: str) -> None:
    """Each kind of damage is named with a stable code; nothing is repaired, nothing is sent, no thread is left."""
    damage(closed)
    provider = Provider()
    with pytest.raises(CountermarkError) as caught:
        hold(closed, provider).close()
    assert caught.value.code == code
    assert provider.sent == []


@pytest.mark.parametrize("table", ["snapshot", "sealed"])
def test_what_is_only_a_cache_may_be_lost(closed: Path, table: str) -> None:
    """Without snapshots, or with one of garbage, the records alone open the gate with the same state."""
    if table == "snapshot":
        _sql("insert or replace into snapshot values (5, ?)", b"{garbage")(closed)
    else:
        _sql("delete from sealed")(closed)
    provider = Provider()
    with hold(closed, provider) as handle:
        assert pay(handle, 9).status == "confirmed"
        assert pay(handle, 0, call_id="again").code == "duplicate_obligation"
    assert unsound(closed) == []


def test_an_older_copy_is_refused(closed: Path) -> None:
    """A backup put back in place of the journal ends before the published head: the gate does not run on it."""
    copy = closed.parent / "copy.db"
    shutil.copy(closed / "data" / "journal.db", copy)
    provider = Provider()
    with hold(closed, provider) as handle:
        pay(handle, 7)
    newest = (closed / "data" / "journal.db").read_bytes()
    shutil.copy(copy, closed / "data" / "journal.db")
    with pytest.raises(CountermarkError) as caught:
        hold(closed, provider)
    assert caught.value.code == "behind_high_water"
    (closed / "data" / "journal.db").write_bytes(newest)
    with hold(closed, provider) as handle:
        assert pay(handle, 7, call_id="again").code == "duplicate_obligation"


MIXED = """
import os, shutil, sqlite3, sys
from pathlib import Path
from rig import Provider, hold, pay
from countermark.gate import caches
root, caches.SNAPSHOT_RECORDS, caches.SNAPSHOT_PART = Path(sys.argv[1]), 10, 0
handle, path = hold(root, Provider()), root / "data" / "journal.db"
run, other, number = handle.start_run(), sqlite3.connect(path), iter(range(1_000))
for part in map(int, sys.argv[2:]):
    for _ in range(part):
        pay(handle, next(number), run=run)
    if not root.with_name("old.db").exists():
        other.execute("pragma wal_checkpoint(restart)")
        shutil.copy(path, root.with_name("old.db"))
    elif part != int(sys.argv[-1]):
        other.execute("pragma wal_checkpoint(restart)")
handle.gate._publisher.write()
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    "parts", [(10, 6, 9), *(pytest.param(parts, marks=SLOW) for parts in ((10, 40, 15), (30, 5, 80)))]
)
def test_an_older_file_beside_a_newer_log_is_refused(tmp_path: Path, parts: tuple[int, ...]) -> None:
    """Killed, then an older journal put back, its write-ahead log left: the newest records are there, others not."""
    make(tmp_path / "d", Provider())
    words = [sys.executable, "-c", MIXED, str(tmp_path / "d"), *map(str, parts)]
    assert subprocess.run(words, cwd=HERE, check=False, timeout=60).returncode == -9
    mixed = tmp_path / "mixed"
    shutil.copytree(tmp_path / "d", mixed, ignore=shutil.ignore_patterns("gate.sock", "*-shm"))
    shutil.copy(tmp_path / "old.db", mixed / "data" / "journal.db")
    provider = Provider()
    with pytest.raises(CountermarkError) as caught:
        hold(mixed, provider).close()
    assert caught.value.code == "store_failed"
    assert provider.sent == []
    with hold(tmp_path / "d", provider) as handle:  # what was not touched goes on
        codes = {pay(handle, number, call_id=f"again-{number}").code for number in range(sum(parts))}
    assert codes == {"duplicate_obligation"}


@pytest.mark.parametrize(
    "share", ["seq % 2 = 0", *(pytest.param(share, marks=SLOW) for share in ("seq >= 0", "seq < 40"))]
)
def test_keys_that_were_lost_by_the_page_are_noticed(tmp_path: Path, share: str) -> None:
    """A start looks at some records at random, and does not believe tables that do not know them."""
    make(tmp_path / "d", Provider())
    script = MIXED.replace("handle.gate._publisher.write()", "handle.close()")
    words = [sys.executable, "-c", script, str(tmp_path / "d"), "30", "5"]
    assert subprocess.run(words, cwd=HERE, check=False, timeout=60).returncode == -9
    _sql(f"delete from idem where {share}")(tmp_path / "d")
    with hold(tmp_path / "d", Provider()) as handle:
        codes = {pay(handle, number, call_id=f"again-{number}").code for number in range(35)}
    assert codes == {"duplicate_obligation"}
    assert rebuilt_equally(tmp_path / "d")


def test_a_deleted_wal_is_noticed(tmp_path: Path) -> None:
    """Killed with everything in the write-ahead log, then the log deleted: behind the high-water file, so refused."""
    make(tmp_path / "d", Provider())
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom rig import Provider, hold, pay\n"
        "handle = hold(Path(sys.argv[1]), Provider())\nfor n in range(5): pay(handle, n)\n"
        "handle.gate._publisher.write()\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "d")], cwd=HERE, check=False, timeout=60)
    assert done.returncode == -9
    kept = tmp_path / "wal"
    shutil.copy(tmp_path / "d" / "data" / "journal.db-wal", kept)
    for name in ("journal.db-wal", "journal.db-shm"):
        (tmp_path / "d" / "data" / name).unlink()
    provider = Provider()
    with pytest.raises(CountermarkError) as caught:
        hold(tmp_path / "d", provider)
    assert caught.value.code == "behind_high_water"
    assert provider.sent == []


@pytest.mark.parametrize("name", ["log.pem", "pseudonym.key", "vault.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_key_that_others_may_read_is_refused(closed: Path, name: str, mode: int) -> None:
    """Key files let nobody in but their owner; so, too, missing and mangled ones are refused."""
    path = closed / "keys" / name
    path.chmod(mode)
    with pytest.raises(CountermarkError):
        hold(closed, Provider())
    path.chmod(0o600)
    kept = path.read_bytes()
    for raw in (b"", b"zz", kept[: len(kept) // 2], os.urandom(64)):
        path.write_bytes(raw)
        with pytest.raises(CountermarkError):
            hold(closed, Provider())
    path.unlink()
    with pytest.raises(CountermarkError):
        hold(closed, Provider())


def test_a_foreign_vault_key_opens_nothing(closed: Path) -> None:
    """With another vault key a sealed value is never served wrongly and no new one is written under it."""
    provider = Provider()
    with hold(closed, provider) as handle:
        assert pay(handle, "a", reason="because").status == "confirmed"
    (closed / "keys" / "vault.key").write_text("11" * 32 + "\n")
    with hold(closed, provider) as handle, pytest.raises(CountermarkError) as caught:
        pay(handle, "b", reason="because")
    assert caught.value.code in ("gate_halted", "store_failed")
    assert len(provider.sent) == 1


def test_a_foreign_log_key_is_refused(closed: Path) -> None:
    """A journal signed by another key is not continued."""
    from countermark.authority import generate, save_private

    (closed / "keys" / "log.pem").unlink()
    save_private(closed / "keys" / "log.pem", generate())
    with pytest.raises(CountermarkError):
        hold(closed, Provider())
