"""Durable copies of a deployment's files, also while a process writes the originals."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

from countermark.model.errors import StoreError

CHUNK_BYTES = 1 << 20
_ALL_PAGES = -1  # in one step: SQLite holds one read snapshot for it, so that no writer can tear the copy


def copy_database(source: Path, target: Path) -> str:
    """One consistent snapshot of a SQLite database, mode 0600, fsynced; returns SHA-256 in hex.

    Writers go on meanwhile: in WAL mode a reader holds nobody up. Raises ``StoreError``.
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        origin = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=30.0)
        try:
            copy = sqlite3.connect(target, isolation_level=None)
            try:
                origin.backup(copy, pages=_ALL_PAGES)
                copy.execute("pragma journal_mode=delete").fetchone()  # one file, complete by itself
            finally:
                copy.close()
        finally:
            origin.close()
        return _synced(target)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{source.name} could not be copied: {error}", hint="Free disk space at the target.") from None


def copy_file(source: Path, target: Path) -> str:
    """A plain file, mode 0600, fsynced; returns SHA-256 in hex. Raises ``StoreError``."""
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with source.open("rb") as reader, os.fdopen(handle, "wb") as writer:
            while chunk := reader.read(CHUNK_BYTES):
                writer.write(chunk)
        return _synced(target)
    except OSError as error:
        raise StoreError(f"{source.name} could not be copied: {error.strerror}") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synced(path: Path) -> str:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return file_sha256(path)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises ``OSError``."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
