"""Random salts and nonces from a pool: one read of the operating system's generator serves many records.

Every read of the generator gives up the interpreter lock, and on the lane's thread that costs a switch to another
thread each time. The pool is discarded in a forked child, so that two processes never hand out the same bytes.
"""

from __future__ import annotations

import os
import threading
import weakref

POOL_BYTES = 8_192
NONCE_BYTES = 16


class RandomPool:
    """Hands out hex nonces of 128 bits. Thread-safe."""

    def __init__(self) -> None:
        self._empty()
        mine = weakref.ref(self)  # what is registered for forks stays registered, and must not keep the pool alive

        def forked() -> None:
            pool = mine()
            if pool is not None:
                pool._empty()

        os.register_at_fork(after_in_child=forked)

    def _empty(self) -> None:
        self._lock = threading.Lock()  # in a forked child the old one may be held by a thread that is not there
        self._hex = ""
        self._place = 0

    def hex16(self) -> str:
        """32 hex digits of fresh random bytes."""
        with self._lock:
            if self._place >= len(self._hex):
                self._hex = os.urandom(POOL_BYTES).hex()
                self._place = 0
            start = self._place
            self._place = start + 2 * NONCE_BYTES
            return self._hex[start : self._place]
