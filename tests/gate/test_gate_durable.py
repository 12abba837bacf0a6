"""G1 at the system calls: the intent is on the disk, not in the page cache, before the first byte to the provider."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rig import Stand, transfers

from countermark.journal import SqliteStore
from countermark.model.errors import StoreError

HERE = Path(__file__).resolve().parent
CALLS = "openat,close,pwrite64,write,ftruncate,fdatasync,fsync,unlink,rename,sendto,sendmsg,connect,dup,dup2,dup3,fcntl"
_LINE = re.compile(rb"^(?:\[pid\s+)?(\d+)\]?\s+(?:[\d.]+\s+)?(.*)$")
_CALL = re.compile(rb"^(\w+)\((.*)\)\s+=\s+(-?\d+)")
_HEX = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True)
class Call:
    """One finished system call: name, raw arguments, result."""

    name: str
    args: bytes
    result: int


def calls(trace: bytes) -> Iterator[Call]:
    """The calls of a trace of several threads in the order in which they ended; interrupted lines are joined."""
    open_calls: dict[bytes, bytes] = {}
    for raw in trace.splitlines():
        match = _LINE.match(raw)
        if match is None:
            continue
        thread, text = match[1], match[2]
        if text.endswith(b"<unfinished ...>"):
            open_calls[thread] = text[: -len(b"<unfinished ...>")]
            continue
        resumed = re.match(rb"<\.\.\. \w+ resumed>(.*)$", text)
        if resumed is not None:
            text = open_calls.pop(thread, b"") + resumed[1]
        found = _CALL.match(text)
        if found is not None:
            yield Call(found[1].decode(), found[2], int(found[3]))


def path_of(call: Call) -> str:
    """The file behind the descriptor of a call (strace -y writes it after the number)."""
    match = re.match(rb"\d+<([^>]*)>", call.args)
    return "" if match is None else _plain(match[1]).decode("utf-8", "replace")


def _plain(raw: bytes) -> bytes:
    return _HEX.sub(lambda m: bytes([int(m[1], 16)]), raw)


def data_of(call: Call) -> bytes:
    """The bytes that a write handed over."""
    match = re.search(rb'"((?:\\x[0-9a-f]{2})*)"', call.args)
    return b"" if match is None else _plain(match[1])


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Call]]:
    """A copy of the deployment as it was, the deployment afterwards, and every call in between."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs debian: strace")
    folder = tmp_path_factory.mktemp("durable")
    with Stand(folder, tools=transfers(timeout_ms=10_000)) as stand:
        before = folder / "before"
        shutil.copytree(stand.root, before, ignore=shutil.ignore_patterns("gate.sock"))
        trace = folder / "trace"
        done = subprocess.run(
            [strace, "-f", "-y", "-xx", "-s", "1048576", "-e", f"trace={CALLS}", "-o", str(trace), sys.executable,
             str(HERE / "durable_child.py"), str(stand.root)],
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        if b"PTRACE" in done.stderr or b"ptrace" in done.stderr:
            pytest.skip("needs debian: strace, and the right to trace a child")
        assert done.stdout == b"confirmed\n", done.stderr[-2_000:]
        return before, stand.root, list(calls(trace.read_bytes()))


def first_provider_byte(found: list[Call]) -> int:
    """Index of the first call that hands bytes of the payment's request to a socket."""
    for index, call in enumerate(found):
        if call.name in ("sendto", "sendmsg", "write") and b"POST /v1/transfers" in data_of(call):
            return index
    raise AssertionError("no request to the provider in the trace")


def test_the_intent_is_synced_before_the_first_provider_byte(traced: tuple[Path, Path, list[Call]]) -> None:
    """The write of the intent to the write-ahead log and an fdatasync of that file both end before anything is sent."""
    _, root, found = traced
    sent = first_provider_byte(found)
    key = re.search(rb"cm_[0-9a-f]{48}", data_of(found[sent]))
    assert key is not None
    wal = str(root / "data" / "journal.db-wal")
    written = [
        i for i, call in enumerate(found)
        if call.name in ("pwrite64", "write") and path_of(call) == wal and key[0] in data_of(call)
    ]  # fmt: skip
    assert written
    assert written[0] < sent, "the intent was written after the provider was called"
    last = max(i for i in written if i < sent)
    synced = [
        i for i, c in enumerate(found) if c.name in ("fdatasync", "fsync") and path_of(c) == wal and c.result == 0
    ]
    assert any(last < i < sent for i in synced), "no fdatasync between the intent and the first byte to the provider"


def test_the_vaults_new_key_is_synced_before_its_record(traced: tuple[Path, Path, list[Call]]) -> None:
    """A sealed value's key is on the disk before the record that needs it is written."""
    _, root, found = traced
    sent = first_provider_byte(found)
    vault, wal = str(root / "data" / "vault.db-wal"), str(root / "data" / "journal.db-wal")
    key = re.search(rb"cm_[0-9a-f]{48}", data_of(found[sent]))
    assert key is not None
    intent = next(i for i, c in enumerate(found) if path_of(c) == wal and key[0] in data_of(c))
    wrote = [i for i, c in enumerate(found[:intent]) if c.name == "pwrite64" and path_of(c) == vault]
    synced = [i for i, c in enumerate(found[:intent]) if c.name in ("fdatasync", "fsync") and path_of(c) == vault]
    assert wrote
    assert synced
    assert synced[-1] > wrote[-1]


def rebuild(before: Path, root: Path, found: list[Call], target: Path) -> None:
    """The data files as a power cut would leave them: only what was synced before ``found`` ends, nothing else."""
    shutil.copytree(before, target)
    stable: dict[str, bytearray] = {}
    pending: dict[str, list[tuple[int, bytes] | int]] = {}
    for call in found:
        path = path_of(call)
        if not path.startswith(str(root / "data")):
            continue
        name = Path(path).name
        if name not in stable:
            source = before / "data" / name
            stable[name] = bytearray(source.read_bytes()) if source.exists() else bytearray()
        if call.name == "pwrite64":
            pending.setdefault(name, []).append((int(call.args.rsplit(b",", 1)[1]), data_of(call)))
        elif call.name == "ftruncate":
            pending.setdefault(name, []).append(int(call.args.rsplit(b",", 1)[1]))
        elif call.name in ("fdatasync", "fsync") and call.result == 0:
            for change in pending.pop(name, []):
                _apply(stable[name], change)
    for name, raw in stable.items():
        if not name.endswith("-shm"):
            (target / "data" / name).write_bytes(raw)


def _apply(raw: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del raw[change:]
        return
    offset, data = change
    raw.extend(b"\0" * (offset - len(raw)))
    raw[offset : offset + len(data)] = data


def test_a_power_cut_at_the_first_provider_byte_keeps_the_intent(
    traced: tuple[Path, Path, list[Call]], tmp_path: Path
) -> None:
    """Files rebuilt from only the writes that were synced before the first byte open, and hold the intent."""
    before, root, found = traced
    sent = first_provider_byte(found)
    key = re.search(rb"cm_[0-9a-f]{48}", data_of(found[sent]))
    assert key is not None
    rebuild(before, root, found[:sent], tmp_path / "after")
    store = SqliteStore(tmp_path / "after" / "data" / "journal.db")
    try:
        records = list(store.records())
        head = store.head()
    finally:
        store.close()
    intents = [r for r in records if r.kind == "action.decided" and r.body["key"] == key[0].decode()]
    assert len(intents) == 1
    assert intents[0].body["disposition"] == "allow"
    assert not [r for r in records if r.kind == "action.settled" and r.body["intent"] == intents[0].seq]
    assert head is not None
    assert head[0] == len(records)


def test_without_the_last_sync_the_intent_would_be_lost(traced: tuple[Path, Path, list[Call]], tmp_path: Path) -> None:
    """The rebuild can tell: leave out the sync that covers the intent, and the reopened journal does not hold it."""
    before, root, found = traced
    sent = first_provider_byte(found)
    key = re.search(rb"cm_[0-9a-f]{48}", data_of(found[sent]))
    assert key is not None
    wal = str(root / "data" / "journal.db-wal")
    intent = next(i for i, c in enumerate(found) if path_of(c) == wal and key[0] in data_of(c))
    rebuild(before, root, found[:intent], tmp_path / "cut")
    store = SqliteStore(tmp_path / "cut" / "data" / "journal.db")
    try:
        assert key[0].decode() not in str([r.body for r in store.records()])
    except StoreError:
        pytest.fail("a cut before the intent must leave a whole journal")
    finally:
        store.close()
