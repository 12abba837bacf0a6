"""``access/tokens.json``: a deployment's API tokens. The CLI writes it, the server reads it anew when it changed."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from countermark.authority import EMPTY, TokenBook
from countermark.model.canon import DOCUMENT_BYTES_MAX
from countermark.model.errors import AuthorityError, ConfigError, EncodingError

FOLDER = "access"
FILE = "tokens.json"
OWNER_ONLY = 0o600
# linux/posix_acl_xattr.h: a version, then entries of tag, permissions and id, little-endian.
ACL_VERSION = (2).to_bytes(4, "little")
ACL_HEAD = len(ACL_VERSION)
ACL_ENTRY = struct.Struct("<HHI")
ACL_OWNER, ACL_USER, ACL_MASK = 0x01, 0x02, 0x10
_T = TypeVar("_T")


class TokenFile:
    """The file and what was last read of it. One look at the file's metadata tells whether it changed."""

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER
        self._path = self._folder / FILE
        self._seen: tuple[int, int, int] | None = None
        self._book = EMPTY

    def book(self) -> TokenBook:
        """The tokens as they are now; none while there is no file.

        Raises:
            ConfigError: ``bad_tokens``: the file cannot be read, is not ours alone, or holds something else.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._book = None, EMPTY
            return EMPTY
        except OSError as error:
            raise _bad(f"cannot be read: {error.strerror}") from None
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            self._seen = None  # a file that cannot be read leaves nobody with a token that was once valid
            self._book = self._read()
            self._seen = seen
        return self._book

    def change(self, edit: Callable[[TokenBook], tuple[TokenBook, _T]]) -> _T:
        """Replace the file whole, durably, one writer at a time; returns what ``edit`` returns beside the new book.

        Raises:
            ConfigError: it cannot be read or written. Whatever ``edit`` raises goes through, and nothing changed.
        """
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)
        except OSError as error:
            raise _bad(f"cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            book, told = edit(self._read() if self._path.exists() else EMPTY)
            self._write(book.render())
        finally:
            os.close(lock)
        return told

    def _read(self) -> TokenBook:
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                check_private(file.fileno(), f"{FOLDER}/{FILE}")
                raw = file.read(DOCUMENT_BYTES_MAX + 1)
        except OSError as error:
            raise _bad(f"cannot be read: {error.strerror}") from None
        try:
            return TokenBook.parse(raw)
        except (AuthorityError, EncodingError) as error:
            raise _bad(f"does not hold tokens: {error.message}") from None

    def _write(self, raw: bytes) -> None:
        fresh = self._folder / f".{FILE}.{os.getpid()}"
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, OWNER_ONLY)
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), OWNER_ONLY)
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise _bad(f"cannot be written: {error.strerror}") from None


def check_private(handle: int, name: str) -> None:
    """Whether an open file is a regular one that only its owner, us or root, may read. Raises ``ConfigError``.

    Root may also have let us alone read its own by an ACL, as systemd does with credentials; the mode of such a file
    shows the ACL's mask where the group's bits stand.
    """
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{name} is not a regular file")
    others = stat.S_IMODE(found.st_mode) & 0o077
    if others and not (others == 0o040 and found.st_uid == 0 and only_for(_acl(handle), os.geteuid())):
        raise ConfigError(f"{name} can be read or written by others", hint=f"Run: chmod 600 {name}")
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{name} belongs to another user", hint="Whoever owns a secret can change it.")


def _acl(handle: int) -> bytes:
    try:
        return os.getxattr(handle, "system.posix_acl_access")
    except OSError:  # there is none, or the file system has none
        return b""


def only_for(acl: bytes, uid: int) -> bool:
    """Whether a POSIX ACL, as Linux keeps it in an attribute, lets nobody but the owner and ``uid`` do anything."""
    if len(acl) <= ACL_HEAD or acl[:ACL_HEAD] != ACL_VERSION or (len(acl) - ACL_HEAD) % ACL_ENTRY.size:
        return False
    for tag, permissions, who in ACL_ENTRY.iter_unpack(acl[ACL_HEAD:]):
        if permissions and tag not in (ACL_OWNER, ACL_MASK) and (tag, who) != (ACL_USER, uid):
            return False
    return True


def _bad(message: str) -> ConfigError:
    return ConfigError(f"{FOLDER}/{FILE} {message}", code="bad_tokens", hint="Put it back, or issue new tokens.")
