"""What can be measured of the machine below a deployment: durable writes, the clock's discipline, room, who may read.

Each answers with figures; `doctor` says what they mean.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from countermark.journal import SqliteStore
from countermark.model.clock import US, SystemClock
from countermark.wiring.config import Config

TRIES = 24
BLOCK_BYTES = 4_096
DAY_US = 86_400 * US
_TIME_ERROR = 5  # adjtimex(2): the kernel's clock is not disciplined by any source
_TIMEX_BYTES = 512  # struct timex is 208 bytes on 64-bit Linux
_VOLATILE = frozenset(("tmpfs", "ramfs", "overlay"))
_REMOTE = frozenset(("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs"))


@dataclass(frozen=True, slots=True)
class Syncing:
    """Medians of writing one block, and of writing it durably, in microseconds; the file system's name."""

    write_us: int
    sync_us: int
    filesystem: str

    @property
    def volatile(self) -> bool:
        """Whether the file system is known to live in memory, or in a container's throw-away layer."""
        return self.filesystem in _VOLATILE

    @property
    def remote(self) -> bool:
        return self.filesystem in _REMOTE


def syncing(folder: Path) -> Syncing:
    """Write single blocks in ``folder``, with and without ``fdatasync``. Raises ``OSError``."""
    clock, plain, durable = SystemClock(), [], []
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        handle, block = file.fileno(), os.urandom(BLOCK_BYTES)
        for place in range(TRIES):
            begin = clock.steady_us()
            os.pwrite(handle, block, place * BLOCK_BYTES)
            middle = clock.steady_us()
            os.fdatasync(handle)
            plain.append(middle - begin)
            durable.append(clock.steady_us() - middle)
    return Syncing(sorted(plain)[TRIES // 2], sorted(durable)[TRIES // 2], filesystem_of(folder))


def filesystem_of(path: Path) -> str:
    """Type of the file system that holds ``path``, ``""`` when the kernel does not tell (Linux ``/proc``)."""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    wanted, best = str(path.resolve()), ("", "")
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = left.split()[4].encode("ascii", "replace").decode("unicode_escape")
        inside = wanted == mount or wanted.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best[0]):
            best = (mount, right.split()[0])
    return best[1]


def disciplined() -> bool | None:
    """Whether the kernel says that a time source keeps its clock right; None where it cannot be asked."""
    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    state = ask(ctypes.create_string_buffer(_TIMEX_BYTES))  # modes 0: a question, changes nothing
    return None if state < 0 else state != _TIME_ERROR


@dataclass(frozen=True, slots=True)
class Growth:
    """Bytes that the journal takes and, from its last day, grows in a day; bytes free beside it."""

    bytes_now: int
    bytes_per_day: int
    bytes_free: int

    @property
    def days_left(self) -> int | None:
        """Whole days until the disk is full at this pace; None when nothing was written."""
        return None if self.bytes_per_day == 0 else self.bytes_free // self.bytes_per_day


def growth(config: Config, store: SqliteStore) -> Growth:
    """Forecast from the records of the last day that has any. Raises ``StoreError`` or ``OSError``."""
    folder = config.journal.parent
    taken = sum(path.stat().st_size for path in folder.glob("journal.db*"))
    free = shutil.disk_usage(folder).free
    size = store.size()
    if size == 0:
        return Growth(taken, 0, free)
    last = store.record(size - 1).at
    low, high = 0, size - 1  # the first record of the last day: times never fall
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if store.record(middle).at < last - DAY_US else (low, middle)
    return Growth(taken, taken * (size - low) // size, free)


def exposed(config: Config) -> list[str]:
    """What other users of the machine could read, change or put in place of the deployment's own; one phrase each."""
    root, found = config.root, []
    uid = os.getuid()
    secret = [config.keys, config.journal.parent, config.high_water.parent, root / "access", root / "cache"]
    for folder in filter(Path.is_dir, secret):
        closed = not folder.stat().st_mode & 0o077  # then nobody reaches what is in it, whatever its own mode
        for path in (folder, *sorted(folder.rglob("*"))):
            found += _wrong(path, root, uid, others=0 if closed else 0o077)
    for path in (root / "countermark.toml", config.policy, *sorted(config.policy.rglob("*"))):
        if path.exists():
            found += _wrong(path, root, uid, others=0o022)
    for folder in (root.resolve(), *root.resolve().parents):
        info = folder.stat()
        if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
            found.append(f"others can rename what is in {folder}")
        if info.st_uid not in (0, uid):
            found.append(f"{folder} belongs to uid {info.st_uid}, who can put another deployment in this place")
    return found


def _wrong(path: Path, root: Path, uid: int, *, others: int) -> list[str]:
    info, name = path.lstat(), path.relative_to(root).as_posix()
    found = []
    if info.st_mode & others and not stat.S_ISLNK(info.st_mode):
        found.append(f"others can {'read' if others & 0o044 else 'change'} {name}")
    if info.st_uid != uid:
        found.append(f"{name} belongs to uid {info.st_uid}, not to you ({uid})")
    return found
