"""The one anchor under way, in a small durable file: a process that dies finds its transaction again by it.

The file is written and synced before anything is sent. Signing is deterministic, so what was sent can be made again
from the numbers in it; no key and no signed transaction stands there. Even without the file no head is anchored twice,
because the contract takes each sequence number once: the file saves the evidence, not the order.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from countermark.model.canon import canon, parse
from countermark.model.errors import ConfigError, EncodingError, StoreError

FILE_BYTES_MAX = 65_536
ATTEMPTS_MAX = 64
_KEYS = frozenset(
    ("v", "chain_id", "contract", "origin", "size", "root", "previous", "sequence", "sender", "nonce", "gas",
     "attempts", "began", "body")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pending:
    """A head on its way to the chain. Roots are hex; ``attempts`` are fee and tip of each, in wei for a unit of gas.

    ``began`` is our clock in microseconds when it was planned. ``body`` is the record, once the anchor is final.
    """

    chain_id: int
    contract: str
    origin: str
    size: int
    root: str
    previous: str
    sequence: int
    sender: str
    nonce: int
    gas: int
    attempts: tuple[tuple[int, int], ...]
    began: int
    body: Mapping[str, Any] | None = None

    def also(self, fee: int, tip: int) -> Pending:
        """With one attempt more; the oldest are forgotten beyond ``ATTEMPTS_MAX``."""
        return replace(self, attempts=(*self.attempts, (fee, tip))[-ATTEMPTS_MAX:])


class PendingFile:
    """Reads and replaces the file, one process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the file. Raises ``ConfigError`` while another process or thread anchors."""
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(
                self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise StoreError(f"the file of the pending anchor cannot be locked: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise ConfigError("another process is anchoring now", code="anchor_busy", retryable=True) from None
        try:
            yield
        finally:
            os.close(handle)

    def read(self) -> Pending | None:
        """The pending anchor; None when there is none. Raises ``StoreError`` when the file is damaged."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"the pending anchor cannot be read: {error.strerror}") from None
        try:
            found = parse(raw, bytes_max=FILE_BYTES_MAX)
            if type(found) is not dict or found.keys() != _KEYS or found.pop("v") != 1:
                raise ValueError
            pairs = found["attempts"]
            found["attempts"] = tuple((int(fee), int(tip)) for fee, tip in pairs)
            return Pending(**found)
        except (EncodingError, ValueError, TypeError):
            raise StoreError(
                "the file of the pending anchor is damaged", hint="Delete it: the contract knows what was anchored."
            ) from None

    def write(self, pending: Pending) -> None:
        """Replace the file atomically and durably. Raises ``StoreError``."""
        document = {name: getattr(pending, name) for name in _KEYS if name != "v"}
        document["attempts"] = [[str(fee), str(tip)] for fee, tip in pending.attempts]  # fees may pass 2^53
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(canon({"v": 1, **document}))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StoreError(f"the pending anchor cannot be written: {error.strerror}") from None

    def forget(self) -> None:
        """Without a pending anchor. Raises ``StoreError``."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"the pending anchor cannot be removed: {error.strerror}") from None
