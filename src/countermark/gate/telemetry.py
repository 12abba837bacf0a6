"""What a gate tells whoever watches it: names, codes and times of what is already decided; never an argument's value.

Without a telemetry each place costs one comparison with None. With one, the gate only leaves facts in it: nothing that
an exporter does can hold up or fail an action.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from countermark.model.errors import CountermarkError
from countermark.model.ports import Clock
from countermark.model.records import Record
from countermark.model.values import Result


@dataclass(slots=True)
class Watch:
    """One call of ``act``. Times are microseconds on the wall clock, 0 where it did not come that far.

    The decision was made between ``began`` and ``decided_at``, durable at ``durable_at``, answered at ``ended``;
    ``code`` is an error's when there is no result. ``context`` is the telemetry's own.
    """

    began: int
    agent: str
    tool: str = ""
    decided_at: int = 0
    durable_at: int = 0
    ended: int = 0
    result: Result | None = None
    code: str = ""
    context: Any = None


WATCH: ContextVar[Watch | None] = ContextVar("countermark_watch", default=None)


class Telemetry(Protocol):
    """Takes facts and returns at once; it must never raise and never wait."""

    def context(self) -> Any:
        """Whatever links a call to what its caller is doing."""
        ...

    def acted(self, watch: Watch) -> None:
        """A call of ``act`` has been answered."""
        ...

    def committed(self, records: Sequence[Record], took_us: int) -> None:
        """A batch is durable; the lane's thread says so."""
        ...


async def watched(
    telemetry: Telemetry, clock: Clock, agent: str, work: Callable[[], Coroutine[Any, Any, Result]]
) -> Result:
    """Run one ``act`` and tell what became of it."""
    watch = Watch(clock.now_us(), agent, context=telemetry.context())
    token = WATCH.set(watch)
    try:
        watch.result = await work()
        return watch.result
    except CountermarkError as error:
        watch.code = error.code
        raise
    finally:
        WATCH.reset(token)
        watch.ended = clock.now_us()
        telemetry.acted(watch)


def timed(clock: Clock, tool: str, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A lane's handler that notes when it has decided."""
    watch = WATCH.get()
    if watch is None:
        return handler
    watch.tool = tool

    def run(writer: Any) -> Any:
        reply = handler(writer)
        watch.decided_at = clock.now_us()
        return reply

    return run


def durable(clock: Clock) -> None:
    """Note that the decision of the present call is durable."""
    watch = WATCH.get()
    if watch is not None:
        watch.durable_at = clock.now_us()
