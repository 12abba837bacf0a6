"""What other threads finish, handed to a loop: whatever comes while the loop is busy comes in one of its turns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol


class Workers(Protocol):
    """Where pure steps run (``countermark.compute.Pool``)."""

    def submit(self, code: str, inputs: Mapping[str, Any]) -> Future[Any]: ...
    def close(self) -> None: ...


class Arrivals:
    """Futures of one loop for futures of other threads. ``asyncio.wrap_future`` wakes the loop for each one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._come: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._told = False

    def of(self, theirs: Future[Any]) -> asyncio.Future[Any]:
        """On the loop: done when ``theirs`` is. To cancel it leaves ``theirs`` alone."""
        mine: asyncio.Future[Any] = self._loop.create_future()

        def arrived(theirs: Future[Any]) -> None:
            self._come.append((mine, theirs))
            if not self._told:
                self._told = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop has closed: nobody waits any more
                    self._come.clear()

        theirs.add_done_callback(arrived)
        return mine

    def _deliver(self) -> None:
        self._told = False  # first, so that nothing comes behind the last look without a turn of its own
        while self._come:
            mine, theirs = self._come.popleft()
            if mine.done():
                continue
            error = theirs.exception()
            if error is None:
                mine.set_result(theirs.result())
            else:
                mine.set_exception(error)
