"""Publishes heads to the high-water file, at most once a second and once more at the end."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from countermark.journal import HighWater, write_high_water
from countermark.model.errors import StoreError

PUBLISH_S = 1.0

log = logging.getLogger("countermark.highwater")


class Publisher:
    """A thread that writes the newest committed head; the lane only leaves it here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._newest: tuple[int, bytes] | None = None
        self._written: tuple[int, bytes] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="countermark-highwater", daemon=True)

    def start(self) -> None:
        """Begin publishing."""
        self._thread.start()

    def offer(self, size: int, root: bytes) -> None:
        """A head that is durable in the journal."""
        self._newest = (size, root)

    def stop(self) -> None:
        """Publish the last head and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._write()

    def _run(self) -> None:
        while not self._stop.wait(PUBLISH_S):
            self._write()

    def _write(self) -> None:
        head = self._newest
        if head is None or head == self._written:
            return
        try:
            write_high_water(self._path, HighWater(head[0], head[1].hex()))
            self._written = head
        except StoreError as error:  # the journal itself stays true; the file lags and says so in the log
            log.warning("%s", error)
