"""The vault: one key per subject, in a file of its own. Destroying a key erases what it sealed (ADR 0002).

Ciphertexts stand in the journal, written in the same transaction as their record, so the hot path pays one fsync; a
new subject's key is made durable before the first record that needs it is.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from countermark.model.crash import crash_point
from countermark.model.errors import StoreError

APPLICATION_ID = 0x434D4B56  # "CMKV"
CACHE_SUBJECTS_MAX = 4_096
_NONCE_BYTES = 12

log = logging.getLogger("countermark.vault")


class Vault:
    """Per-subject AES-256-GCM keys, each wrapped by the deployment's vault key. One writer: the lane thread."""

    def __init__(self, path: Path, master: bytes, *, create: bool = False) -> None:
        """Open the vault at ``path`` with the 32-byte ``master`` key. Raises ``StoreError``."""
        if not create and not path.is_file():
            raise StoreError("the vault is missing", hint="Restore data/vault.db from its own backup.")
        self._path = path
        self._master = AESGCM(master)
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._fresh: dict[str, bytes] = {}
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._db.execute("pragma synchronous=full")
            self._db.execute("pragma secure_delete=on")  # no page keeps what was deleted from it
            (found,) = self._db.execute("pragma application_id").fetchone()
            (tables,) = self._db.execute("select count(*) from sqlite_master").fetchone()
            if tables == 0 and create:
                self._db.execute("pragma journal_mode=wal")
                self._db.execute("create table subject (id text primary key, wrapped blob not null) strict")
                self._db.execute(f"pragma application_id={APPLICATION_ID}")
            elif found != APPLICATION_ID:
                raise StoreError(f"{path.name} is not a countermark vault")
        except sqlite3.Error as error:
            raise StoreError(f"the vault cannot be opened: {error}") from None

    def seal(self, subject: str, label: str, plain: bytes) -> bytes:
        """Encrypt ``plain`` for ``subject``; ``label`` (the action's ID) is authenticated with it."""
        key = self._key(subject, create=True)
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(key).encrypt(nonce, plain, label.encode())

    def open(self, subject: str, label: str, blob: bytes) -> bytes | None:
        """Decrypt; None when the subject's key was destroyed. Raises ``StoreError`` for a damaged value."""
        key = self._key(subject, create=False)
        if not key:
            return None
        try:
            return AESGCM(key).decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], label.encode())
        except (InvalidTag, ValueError):
            raise StoreError("a sealed value is damaged or belongs to another action") from None

    def flush(self) -> None:
        """Make the keys of new subjects durable. Called before the commit of the records that need them."""
        if not self._fresh:
            return
        rows = [(subject, self._wrap(subject, key)) for subject, key in self._fresh.items()]
        try:
            self._db.execute("begin immediate")
            self._db.executemany("insert or ignore into subject values(?,?)", rows)
            self._db.execute("commit")
        except sqlite3.Error as error:
            raise StoreError(f"the vault could not be written: {error}") from None
        crash_point("vault.flushed")
        self._fresh.clear()

    def destroy(self, subjects: Collection[str]) -> None:
        """Destroy the keys of these subjects, wherever this process or the file has them; those gone before as well.

        The rows are overwritten, the file is written anew without what earlier versions of its pages held, and the
        write-ahead log is cut to nothing. Raises ``StoreError``; then it is to be called again.
        """
        if not subjects:
            return
        wal = self._path.with_name(self._path.name + "-wal")
        for subject in subjects:
            self._cache.pop(subject, None)
            self._fresh.pop(subject, None)
        try:
            there = any(
                self._db.execute("select 1 from subject where id=?", (subject,)).fetchone() for subject in subjects
            )
            (unfinished,) = self._db.execute("pragma user_version").fetchone()
            if not there and not unfinished and not (wal.exists() and wal.stat().st_size):
                return  # as at nearly every start: nothing to write, and nothing waits in the log
            self._db.execute("begin immediate")
            gone = self._db.executemany("delete from subject where id=?", [(subject,) for subject in subjects]).rowcount
            if gone > 0:
                self._db.execute("pragma user_version=1")  # so that a full disk or a death before the next step is seen
            self._db.execute("commit")
            if gone > 0 or unfinished:
                crash_point("vault.destroyed")
                self._db.execute("vacuum")
                self._db.execute("pragma user_version=0")
            (busy, _, _) = self._db.execute("pragma wal_checkpoint(truncate)").fetchone()
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise StoreError(f"the vault could not be written: {error}") from None
        if busy:  # a reader holds the old pages: they are wrapped, and the next start or erasure cuts them off
            log.warning("the vault's write-ahead log could not be cut: somebody reads the vault")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _wrap(self, subject: str, key: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._master.encrypt(nonce, key, subject.encode())

    def _key(self, subject: str, *, create: bool) -> bytes:
        key = self._cache.get(subject)
        if key is not None:
            self._cache.move_to_end(subject)
            return key
        key = self._load(subject)
        if key is None:
            if not create:
                return b""
            key = self._fresh[subject] = os.urandom(32)
        self._cache[subject] = key
        if len(self._cache) > CACHE_SUBJECTS_MAX:
            self._cache.popitem(last=False)
        return key

    def _load(self, subject: str) -> bytes | None:
        if subject in self._fresh:
            return self._fresh[subject]
        try:
            row = self._db.execute("select wrapped from subject where id=?", (subject,)).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"the vault could not be read: {error}") from None
        if row is None:
            return None
        try:
            return self._master.decrypt(row[0][:_NONCE_BYTES], row[0][_NONCE_BYTES:], subject.encode())
        except (InvalidTag, ValueError):
            raise StoreError("the vault key does not open the vault", hint="Is keys/vault.key the right one?") from None
