"""A log as plain files, for any static host or object store: heads and hash tiles, C2SP tlog-tiles, never an entry.

    DIR/checkpoint             the newest published head
    DIR/tile/LEVEL/INDEX       256 hashes; never changes
    DIR/tile/LEVEL/INDEX.p/N   the last tile of a level while it is not full

Tiles come before the head that needs them, and a file is renamed into its place when it is whole: whoever copies DIR in
this order, or serves it as it grows, never shows a head whose tiles are missing.

What stands there is gone on from: its tiles hold the upper part of the tree up to its head, so that of the journal only
the records after that are read, as long as both together lead to its head and to the new one. Where they do not, all is
read again, and what is not as the journal has it is put right or refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from countermark.journal import LogView, SqliteStore
from countermark.log import HASH_BYTES, NOTE_BYTES_MAX, TILE_WIDTH, Checkpoint, open_checkpoint, tile_path
from countermark.model.canon import parse
from countermark.model.errors import ProofError, SignatureError, StoreError
from countermark.publish.files import replace_file, replace_files

STEP_RECORDS = 1_024
LOOK_BACK_MAX = 131_072  # records among which the newest cosigned head is looked for
FILE_MODE = 0o644  # what is here is for everybody


@dataclass(frozen=True, slots=True)
class Published:
    """What was published: the head's size, and how many tiles were written for it."""

    size: int
    tiles: int


def publish_static(folder: Path, store: SqliteStore, note: bytes, vkeys: tuple[str, ...]) -> Published:
    """Bring the files in ``folder`` to the signed head ``note`` of the log in ``store``.

    Raises:
        SignatureError: the head, or that which is published there, is not signed by the log's keys.
        ProofError: what is published there is not a prefix of this log, or is longer; nothing was written.
        StoreError: the folder cannot be read or written.
    """
    head = open_checkpoint(note, vkeys)
    before = _published(folder / "checkpoint", vkeys)
    view = None if before is None else _going_on(folder, store, before, head)
    start = 0  # records whose tiles are there
    if before is not None and view is not None:
        start = before.size
    else:
        view = _from_the_journal(store, before, head)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = replace_files(folder, _new_tiles(folder, view, start, head.size), mode=FILE_MODE)
        replace_file(folder / "checkpoint", note, mode=FILE_MODE)
        _clear(folder, (0 if before is None else before.size, head.size))
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror}") from None
    return Published(head.size, written)


def _going_on(folder: Path, store: SqliteStore, before: Checkpoint, head: Checkpoint) -> LogView | None:
    """The log as the tiles under the published head have it and the journal goes on; None unless it leads to both."""
    if not before.size <= head.size <= store.size():
        return None
    view = LogView(store)
    full = before.size // TILE_WIDTH
    for index in range(-(-full // TILE_WIDTH)):  # a tile of level 1 holds the roots of 256 of level 0
        width = min(TILE_WIDTH, full - index * TILE_WIDTH)
        raw = _read(folder / tile_path(1, index, width), width * HASH_BYTES)
        if raw is None:
            return None
        view.add(raw)
    if view.root(before.size) != before.root:
        return None
    view.grow()
    return view if view.root(head.size) == head.root else None


def _from_the_journal(store: SqliteStore, before: Checkpoint | None, head: Checkpoint) -> LogView:
    """The log from its first record on. Raises ``ProofError`` where it leads to one of the heads not."""
    view = LogView(store)
    view.grow()
    if head.size > store.size() or view.root(head.size) != head.root:
        raise ProofError("the head is not one of this journal")
    if before is not None and (before.size > head.size or view.root(before.size) != before.root):
        raise ProofError("what is published there is another log, or goes further than this one")
    return view


def _new_tiles(folder: Path, view: LogView, start: int, size: int) -> Iterator[tuple[Path, bytes]]:
    """Each tile that a log of ``size`` has, one of ``start`` records had not and the folder has not: path and bytes."""
    for level, index, width in _tiles(start, size):
        path = folder / tile_path(level, index, width)
        raw = view.tile(level, index, width)
        if raw is None:
            raise StoreError("the journal has no such tile")
        if _read(path, len(raw)) != raw:
            yield path, raw


def _read(path: Path, size: int) -> bytes | None:
    """A file of exactly ``size`` bytes, else None. Raises ``StoreError`` when it cannot be read."""
    raw = _start_of(path, size + 1)
    return raw if raw is not None and len(raw) == size else None


def _start_of(path: Path, most: int) -> bytes | None:
    """The first bytes of a file; None where there is none. Raises ``StoreError`` when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None


def _published(path: Path, vkeys: tuple[str, ...]) -> Checkpoint | None:
    raw = _start_of(path, NOTE_BYTES_MAX + 1)
    if raw is None:
        return None
    try:
        return open_checkpoint(raw, vkeys)
    except SignatureError as error:
        raise SignatureError(f"the head that is published there is not this log's: {error.message}") from None


def _tiles(start: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Level, index and width of each tile of a log of ``size`` that one of ``start`` records did not have."""
    level = 0
    while size:
        full, rest = divmod(size, TILE_WIDTH)
        for index in range(start // TILE_WIDTH, full):
            yield level, index, TILE_WIDTH
        if rest:
            yield level, full, rest
        level, start, size = level + 1, start // TILE_WIDTH, full


def _clear(folder: Path, sizes: tuple[int, int]) -> None:
    """Remove partial tiles that neither the head now nor the one before needs: somebody may still be reading that."""
    needed = set()
    for size in sizes:
        level = 0
        while size:
            full, rest = divmod(size, TILE_WIDTH)
            if rest:
                needed.add(folder / tile_path(level, full, rest))
            level, size = level + 1, full
    for partial in folder.glob("tile/*/**/*.p"):
        for path in partial.iterdir():
            if path not in needed:
                path.unlink(missing_ok=True)
        if not any(partial.iterdir()):
            partial.rmdir()


def note_to_publish(store: SqliteStore, *, newest: bool = False) -> tuple[bytes, bool]:
    """The newest head that witnesses cosigned, as the log recorded it, else (or with ``newest``) the newest signed one;
    whether it is the former.

    Raises:
        StoreError: the journal is empty, or cannot be read.
    """
    head = store.head()
    if head is None:
        raise StoreError("the journal is empty: there is nothing to publish")
    stop = 0 if newest else head[0]
    for _ in range(LOOK_BACK_MAX // STEP_RECORDS):
        if not stop:
            break
        start = max(0, stop - STEP_RECORDS)
        note = _last_witnessed(store, start, stop)
        if note is not None:
            return note, True
        stop = start
    return head[1], False


class NewestHead:
    """The head to show to others, asked for again and again: only what was recorded since is looked through."""

    def __init__(self) -> None:
        self._seen: int | None = None
        self._witnessed: bytes | None = None

    def read(self, store: SqliteStore) -> bytes | None:
        """The newest head that witnesses cosigned, else the newest signed one; None in an empty log."""
        head = store.head()
        if head is None:
            return None
        if self._seen is None:
            note, witnessed = note_to_publish(store)
            self._witnessed = note if witnessed else None
        else:
            self._witnessed = _last_witnessed(store, self._seen, head[0]) or self._witnessed
        self._seen = head[0]
        return self._witnessed or head[1]


def _last_witnessed(store: SqliteStore, start: int, stop: int) -> bytes | None:
    """The note of the last record of a cosigned head among these."""
    found = None
    for _, raw in store.raw(start, stop):
        # Between a key and its value canonical bytes have no space, and quotes within strings are escaped.
        if b'"kind":"head.witnessed"' in raw:
            found = raw
    return None if found is None else str(parse(found)["body"]["note"]).encode("utf-8")
