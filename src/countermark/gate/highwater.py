"""Publishes heads to the high-water file, at most once a second and once more at the end; then offers them further."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from countermark.gate.publishing import is_busy
from countermark.journal import HighWater, write_high_water
from countermark.model.errors import StoreError
from countermark.model.ports import Head
from countermark.model.records import Record

PUBLISH_S = 1.0
NUDGED_S = 0.2  # between two writes, however many wait for one

log = logging.getLogger("countermark.highwater")


class Publisher:
    """A thread that writes the newest committed head; the lane only leaves it here.

    ``further`` takes each head that was written, and the size of the newest whose batch was more than publications.
    """

    def __init__(self, path: Path, further: Callable[[Head, int], None]) -> None:
        self._path = path
        self._further = further
        self._newest: Head | None = None
        self._busy_size = 0
        self._written: Head | None = None
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="countermark-highwater", daemon=True)

    def start(self) -> None:
        """Begin publishing."""
        self._thread.start()

    def offer(self, head: Head, records: Sequence[Record]) -> None:
        """A head that is durable in the journal, and the records of its batch."""
        self._newest = head
        if is_busy(records):
            self._busy_size = head.size

    def nudge(self) -> None:
        """Somebody waits for the newest head to be published."""
        self._wake.set()

    def stop(self) -> None:
        """Publish the last head and end."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self.write()

    def _run(self) -> None:
        while not self._stop.wait(NUDGED_S):
            self._wake.wait(PUBLISH_S - NUDGED_S)
            self._wake.clear()
            self.write()

    def write(self) -> None:
        """Write and offer further the newest head, if that has not been done."""
        with self._writing:
            busy_size, head = self._busy_size, self._newest
            if head is None or head == self._written:
                return
            try:
                write_high_water(self._path, HighWater(head.size, head.root.hex()))
                self._written = head
            except StoreError as error:  # the journal itself stays true; the file lags and says so in the log
                log.warning("%s", error)
                return
            self._further(head, busy_size)
