"""Effects that wait until witnesses have seen their intents: on the gate's loop, so that no worker stands idle.

A tool marked ``witness = "before"`` sends nothing before a ``head.witnessed`` record covers its intent. So an intent of
such a tool that no record covers was never sent, whatever the process died of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from countermark.gate.dispatch import Dispatch, Intent
from countermark.model.crash import crash_point
from countermark.model.errors import GateHaltedError
from countermark.model.ports import Clock

LOOK_S = 0.2  # between two looks at whether those who wait still may
NOT_WITNESSED = "not_witnessed"


class Waiting:
    """How far the log was seen, and who waits for more. ``nudge`` asks for the newest head to be published."""

    def __init__(self, dispatch: Dispatch, clock: Clock, nudge: Callable[[int], None]) -> None:
        self._dispatch = dispatch
        self._clock = clock
        self._nudge = nudge
        self._size = 0
        self._waits: dict[int, tuple[Intent, asyncio.Future[str]]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._ended = False

    def __contains__(self, seq: int) -> bool:
        return seq in self._waits

    def seen(self, size: int) -> None:
        """A quorum has seen ``size`` records, and the record that says so is durable."""
        self._size = max(self._size, size)
        self._more.set()
        for seq, (_, future) in self._waits.items():
            if seq < self._size and not future.done():
                future.set_result("")

    async def more(self, seconds: float) -> None:
        """Until something more was seen, or so long."""
        self._more.clear()
        self._nudge(self._size)
        try:
            await asyncio.wait_for(self._more.wait(), seconds)
        except TimeoutError:
            return

    async def until_seen(self, intent: Intent) -> str:
        """Wait. Returns ``""`` when the intent was seen; else why nothing may be sent: ``not_witnessed`` when its time
        is over, or what the barrier says.

        Raises:
            GateHaltedError: the gate closes; the intent stays open, and nothing was sent.
        """
        crash_point("effect.waiting")
        if not self.covers(intent):
            if self._ended:
                raise _closed()
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._waits[intent.seq] = (intent, future)
            self._nudge(intent.seq)
            if self._looking is None:
                self._looking = asyncio.get_running_loop().create_task(self._look())
            try:
                code = await future
            finally:
                del self._waits[intent.seq]
            if code:
                return code
        crash_point("effect.witnessed")
        return ""

    def covers(self, intent: Intent) -> bool:
        """Whether the intent was seen."""
        return intent.seq < self._size

    async def _look(self) -> None:
        """While anybody waits: a stop, or the end of the intent's time, ends the wait."""
        try:
            while self._waits:
                now = self._clock.now_us()
                for intent, future in self._waits.values():
                    if future.done():
                        continue
                    if now >= intent.not_after:
                        future.set_result(NOT_WITNESSED)
                    elif self._dispatch.stopped(intent):
                        future.set_result(self._dispatch.why_not(intent, now) or "gate_halted")
                await asyncio.sleep(LOOK_S)
        finally:
            self._looking = None

    def end(self) -> None:
        """Let everybody go who waits."""
        self._ended = True
        for _, future in self._waits.values():
            if not future.done():
                future.set_exception(_closed())


def _closed() -> GateHaltedError:
    return GateHaltedError(
        "the gate was closed while the effect waited for witnesses; nothing was sent",
        hint="Ask again with the same run and call_id.",
    )
