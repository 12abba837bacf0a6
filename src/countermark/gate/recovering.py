"""Recovery of intents without a final outcome, at the start and in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from countermark.gate.actions import Decided
from countermark.gate.dispatch import Dispatch
from countermark.gate.executor import Effect, Executor, effect_of
from countermark.gate.lane import Lane
from countermark.gate.writer import Writer
from countermark.model.canon import parse
from countermark.model.clock import US
from countermark.model.ports import Clock, Connector

RECOVERY_S = 5.0
RECOVERY_US_MAX = 3_600 * US  # between two looks at an intent that stays unknown
RECOVERING_MAX = 16  # a provider that hangs must not keep a gate from opening, one intent after the other


class Recovering:
    """Settles what nobody is executing now."""

    def __init__(
        self, lane: Lane, executor: Executor, dispatch: Dispatch, connectors: Mapping[str, Connector], clock: Clock,
        go_on: Callable[[Coroutine[Any, Any, Decided]], None],
    ) -> None:  # fmt: skip
        self._lane = lane
        self._executor = executor
        self._dispatch = dispatch
        self._connectors = connectors
        self._clock = clock
        self._go_on = go_on
        self._pauses: dict[int, tuple[int, int]] = {}  # intent -> when to look again, and how long it waited

    async def now(self, only: Collection[int] | None = None) -> None:
        """Every open intent, or ``only`` these."""
        await self._recover([seq for seq in await self._unsettled() if only is None or seq in only])

    async def due(self) -> None:
        """Recovery in the background: what stays unknown is asked for less and less often."""
        now, left = self._clock.steady_us(), await self._unsettled()
        self._pauses = {seq: self._pauses[seq] for seq in left if seq in self._pauses}
        due = [seq for seq in left if now >= self._pauses.get(seq, (0, 0))[0]]
        for seq in due:
            pause = min(2 * self._pauses.get(seq, (0, round(RECOVERY_S * US) // 2))[1], RECOVERY_US_MAX)
            self._pauses[seq] = (now + pause, pause)
        await self._recover(due)

    async def _unsettled(self) -> list[int]:
        running, waiting = set(self._dispatch.in_flight), self._executor.waiting
        left: list[int] = await self._lane.ask(lambda writer: [seq for seq in writer.state.open if seq not in running])
        return [seq for seq in left if seq not in waiting]

    async def _recover(self, left: list[int]) -> None:
        room = asyncio.Semaphore(RECOVERING_MAX)

        async def one(seq: int) -> None:
            async with room:
                effect, unsent = await self._open_effect(seq)
                if effect is None or seq in self._dispatch.in_flight or seq in self._executor.waiting:
                    return
                if unsent:  # it goes on where it stood: it waits for its witnesses, and for nobody's answer here
                    self._go_on(self._executor.run(self._lane, effect))
                    return
                seen = not effect.tool.witness or self._executor.waiting.covers(effect.intent)
                resend = seen and not self._dispatch.stopped(effect.intent)
                await self._executor.recover(self._lane, effect, resend=resend)

        for error in await asyncio.gather(*(one(seq) for seq in left), return_exceptions=True):
            if error is not None:
                raise error

    async def _open_effect(self, seq: int) -> tuple[Effect | None, bool]:
        """The effect, and whether nothing of it can have been sent.

        Asked anew for each: one that was settled while an earlier one was recovered must not be sent again.
        """
        found: tuple[Effect | None, bool] = await self._lane.ask(lambda writer: self._looked_up(writer, seq))
        return found

    def _looked_up(self, writer: Writer, seq: int) -> tuple[Effect | None, bool]:
        effect = effect_of(writer, seq, self._connectors) if seq in writer.state.open else None
        return effect, effect is not None and unsent(writer, effect)


def unsent(writer: Writer, effect: Effect) -> bool:
    """Whether the effect wants witnesses first and none has seen its intent.

    An intent of an earlier lane may have been seen in what a restore lost.
    """
    if not effect.tool.witness:
        return False
    witnessed = writer.state.witnessed
    covered = witnessed is not None and witnessed.size > effect.intent.seq
    return not covered and parse(effect.intent.record.raw)["lane"] == writer.lane
