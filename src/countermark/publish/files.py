"""Files that others read while they change: written whole and durably, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from countermark.journal import sync_folder
from countermark.model.errors import StoreError

TOGETHER_MAX = 1_024  # files that are made durable side by side


def replace_file(path: Path, raw: bytes, *, mode: int = 0o600, written: Callable[[], None] = lambda: None) -> None:
    """Write, fsync, rename, fsync the directory. Raises ``StoreError``; the file before stays as it was then.

    ``written`` is called between writing and renaming.
    """
    try:
        temporary = _write(path, raw, mode)
        _sync(temporary)
        written()
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path.name} cannot be written: {error.strerror}") from None


def replace_files(folder: Path, files: Iterable[tuple[Path, bytes]], *, mode: int) -> int:
    """As ``replace_file`` for many below ``folder``, with their directories; returns how many. Raises ``OSError``.

    All of a part are written before the first is waited for: a journal of the file system takes them together then.
    """
    left, done = iter(files), 0
    while part := list(islice(left, TOGETHER_MAX)):
        folders = {path.parent for path, _ in part}
        for one in folders:
            one.mkdir(parents=True, exist_ok=True)
        whole = [(_write(path, raw, mode), path) for path, raw in part]
        for temporary, _ in whole:
            _sync(temporary)
        for temporary, path in whole:
            temporary.replace(path)
        for one in folders.union(*(one.parents for one in folders)):
            if one.is_relative_to(folder):
                sync_folder(one)
        done += len(part)
    return done


def _write(path: Path, raw: bytes, mode: int) -> Path:
    """A new file beside ``path``, whole but not durable yet."""
    temporary = path.with_name(f".{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(raw)
    return temporary


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
