"""Random salts and nonces from a pool: one read of the operating system's generator serves many records.

Every read of the generator gives up the interpreter lock, and on the lane's thread that costs a switch to another
thread each time. The pool is discarded in a forked child, so that two processes never hand out the same bytes.
"""

from __future__ import annotations

import os
import threading

POOL_BYTES = 8_192
NONCE_BYTES = 16


class RandomPool:
    """Hands out hex nonces of 128 bits. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hex = ""
        self._place = 0
        self._process = 0

    def hex16(self) -> str:
        """32 hex digits of fresh random bytes."""
        with self._lock:
            if self._place >= len(self._hex) or self._process != os.getpid():
                self._hex = os.urandom(POOL_BYTES).hex()
                self._place, self._process = 0, os.getpid()
            start = self._place
            self._place = start + 2 * NONCE_BYTES
            return self._hex[start : self._place]
