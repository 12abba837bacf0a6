"""What a gate's loop does beside answering: jobs that repeat, and effects whose callers have their answer already."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from countermark.gate.actions import Decided
from countermark.model.errors import CountermarkError

UNHEARD_MAX = 1_024  # effects under way whose callers have their answer already

log = logging.getLogger("countermark.gate")


class Background:
    """Tasks of one loop; all but ``cancel`` is called on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unheard: set[asyncio.Task[Decided]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run until it ends or the gate closes."""
        task: asyncio.Task[Any] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def repeat(self, every: float, job: Callable[[], Awaitable[Any]]) -> None:
        """Do it again and again, ``every`` so many seconds."""
        while True:
            await asyncio.sleep(every)
            try:
                await job()
            except CountermarkError as error:
                log.warning("background work: %s", error)

    async def cancel(self) -> None:
        """End what was spawned, and wait for it."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def full(self) -> bool:
        """Whether so many effects are under way unheard that the next caller waits for its own."""
        return len(self._unheard) >= UNHEARD_MAX

    def go_on(self, work: Coroutine[Any, Any, Decided]) -> None:
        """Work whose caller has its answer already. Closing waits for it; what it leaves open is recovered."""
        task = self._loop.create_task(work)
        self._unheard.add(task)
        task.add_done_callback(self._heard)

    def _heard(self, task: asyncio.Task[Decided]) -> None:
        self._unheard.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("an effect that nobody waits for: %s", error)


async def others(seconds: float) -> set[asyncio.Task[Any]]:
    """Wait so long for every other task of the loop; returns those that have not ended."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    return (await asyncio.wait(rest, timeout=seconds))[1] if rest else set()
