"""Secrets by reference: ``env:NAME``, ``file:PATH``, ``keyring:SERVICE/NAME``. A value is read when it is used.

No error here quotes what was read, nor what a library says about it.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path

from countermark.model.errors import ConfigError
from countermark.wiring.access import check_private

SECRET_BYTES_MAX = 4_096
FORMS = "env:NAME, file:PATH or keyring:SERVICE/NAME"

_REFERENCE = re.compile(
    r"env:[A-Za-z_][A-Za-z0-9_]{0,127}|file:[^\x00-\x1f]{1,1024}|keyring:[^/\x00-\x1f]{1,128}/[^\x00-\x1f]{1,128}"
)


def is_reference(value: object) -> bool:
    """Whether a value of the configuration refers to a secret, and is not perhaps one itself."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def resolve_secret(reference: str, root: Path) -> str:
    """The secret behind a reference. A file belongs to us or to root, and nobody else may read it.

    Raises:
        ConfigError: ``missing_secret``: there is none, or it cannot be read; ``bad_config``: others could read it.
    """
    kind, _, where = reference.partition(":")
    value = {"env": _from_environment, "file": _from_file, "keyring": _from_keyring}[kind](where, root)
    if not value:
        raise _missing(f"nothing stands behind {reference}")
    return value


def _from_environment(name: str, root: Path) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise _missing(f"the environment variable {name} is not set")
    return value


def _from_file(where: str, root: Path) -> str:
    path = root / where  # an absolute one stays as it is
    try:
        # Not blocking: opening a pipe would otherwise wait for a writer. Mode and bytes come from one descriptor.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            check_private(file.fileno(), str(path))
            raw = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise _missing(f"the secret file {path.name} cannot be read: {error.strerror}") from None
    if len(raw) > SECRET_BYTES_MAX:
        raise _missing(f"the secret file {path.name} is longer than {SECRET_BYTES_MAX} bytes")
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise _missing(f"the secret file {path.name} is not text in UTF-8") from None


def _from_keyring(where: str, root: Path) -> str:
    """From the operating system's store of secrets, through the package ``keyring``, which is asked for only here."""
    try:
        keyring, errors = import_module("keyring"), import_module("keyring.errors")
    except ImportError:
        raise _missing(f"keyring:{where} needs the package keyring", hint="Install it: pip install keyring.") from None
    service, _, name = where.partition("/")
    try:
        found = keyring.get_password(service, name)
    except (errors.KeyringError, RuntimeError, OSError):
        raise _missing(f"the keyring did not give keyring:{where}") from None
    return found if isinstance(found, str) else ""


def _missing(message: str, hint: str = "") -> ConfigError:
    return ConfigError(message, code="missing_secret", hint=hint)
