"""Private keys in files: PEM (PKCS #8), readable by their owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from countermark.model.errors import ConfigError, SignatureError

KEY_FILE_BYTES_MAX = 4_096
OWNER_ONLY = 0o600


def save_private(path: Path, private: Ed25519PrivateKey | MLDSA44PrivateKey) -> None:
    """Write a new key file with mode 0600 and sync it. An existing file is never replaced, and a process that dies
    meanwhile leaves no half of one under its name.

    Raises:
        ConfigError: the file exists or cannot be written.
    """
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    half = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY)
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), OWNER_ONLY)  # a umask may have taken the owner's bits as well
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(half, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                if path.exists():
                    raise
                half.rename(path)
        finally:
            half.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be created: {error.strerror}") from error


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_private(path: Path) -> Ed25519PrivateKey:
    """Read a key file that its owner alone may read.

    Raises:
        ConfigError: it is missing, no regular file, too large, or its mode lets group or others in.
        SignatureError: it holds no Ed25519 private key in PEM.
    """
    private = _load(path)
    if not isinstance(private, Ed25519PrivateKey):
        raise SignatureError(f"{path} holds a key that is not Ed25519", code="bad_key")
    return private


def load_mldsa(path: Path) -> MLDSA44PrivateKey:
    """Read a file with an ML-DSA-44 key. Raises as ``load_private`` does."""
    private = _load(path)
    if not isinstance(private, MLDSA44PrivateKey):
        raise SignatureError(f"{path} holds a key that is not ML-DSA-44", code="bad_key")
    return private


def _load(path: Path) -> object:
    pem = _read_owner_only(path)
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SignatureError(f"{path} holds no unencrypted private key in PEM", code="bad_key") from None


def _read_owner_only(path: Path) -> bytes:
    try:
        # Not blocking: opening a pipe would otherwise wait for a writer. Mode and bytes come from one descriptor.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"the key file {path} is not a regular file")
            if found.st_mode & 0o077:
                raise ConfigError(
                    f"the key file {path} can be read or written by others (mode {stat.S_IMODE(found.st_mode):04o})",
                    hint=f"Run: chmod 600 {path}",
                )
            pem = file.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be read: {error.strerror}") from error
    if len(pem) > KEY_FILE_BYTES_MAX:
        raise ConfigError(f"the key file {path} is longer than {KEY_FILE_BYTES_MAX} bytes")
    return pem
