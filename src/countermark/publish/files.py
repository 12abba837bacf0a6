"""Files that others read while they change: written whole and durably, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from countermark.model.errors import StoreError


def replace_file(path: Path, raw: bytes, *, mode: int = 0o600, written: Callable[[], None] = lambda: None) -> None:
    """Write, fsync, rename, fsync the directory. Raises ``StoreError``; the file before stays as it was then.

    ``written`` is called between writing and renaming.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        written()
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path.name} cannot be written: {error.strerror}") from None


def sync_folder(path: Path) -> None:
    """Make the names in a directory durable. Raises ``OSError``."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
