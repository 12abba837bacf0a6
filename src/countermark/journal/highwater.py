"""The high-water file: size and root of the last published head, apart from the database, fsynced.

A database that ends before it, or has another root there, was truncated or replaced: the gate refuses to run.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from countermark.model.crash import crash_point
from countermark.model.errors import StoreError

_FORM = re.compile(r"countermark high-water v1\n(0|[1-9][0-9]{0,15})\n([0-9a-f]{64})\n")


@dataclass(frozen=True, slots=True)
class HighWater:
    """Size (records) and root (hex) of a head that was shown to somebody."""

    size: int
    root: str


def read_high_water(path: Path) -> HighWater | None:
    """The last published head, or None when nothing was published yet. Raises ``StoreError`` if unreadable."""
    try:
        text = path.read_text("ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"the high-water file cannot be read: {error}") from None
    match = _FORM.fullmatch(text)
    if match is None:
        raise StoreError("the high-water file is damaged", hint="Restore it; do not delete it to get past this.")
    return HighWater(int(match[1]), match[2])


def write_high_water(path: Path, head: HighWater) -> None:
    """Replace the file atomically and durably: write, fsync, rename, fsync the directory."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("w", encoding="ascii") as file:
            file.write(f"countermark high-water v1\n{head.size}\n{head.root}\n")
            file.flush()
            os.fsync(file.fileno())
        crash_point("highwater.written")
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(f"the high-water file cannot be written: {error}") from None
