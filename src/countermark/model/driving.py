"""What a driver of runs and the gate say to each other: parts of one commit, and what became of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from countermark.model.errors import CountermarkError
from countermark.model.random import RandomPool
from countermark.model.records import Record

RUN_MARK = "run_f10e"  # how the names of runs of definitions begin: what watches all records finds theirs at a glance


def new_run(random: RandomPool) -> str:
    """A name for a run of a definition: 112 bits of it are random."""
    return RUN_MARK + random.hex16()[4:]


@dataclass(frozen=True, slots=True)
class Note:
    """A record about an open run; ``by`` as in the envelope.

    ``optional``: when it cannot be recorded any more it alone is left out, and what follows it stands all the same.
    """

    kind: str
    body: dict[str, Any]
    by: str = "gate"
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a run: of a definition (``workflow``) or, inside one, of an agent's step (``boundary``).

    ``workflow`` and ``boundary`` are the members of ``run.started``, without the bundle in force; ``document`` is the
    definition, to be recorded when it is new here. ``mandate`` None: the agent's only one in force. ``subject``: whose
    the values of a sealed run are, which the gate then seals in all its records; empty for any other run. ``nobody`` is
    recorded in place of a run for a step when the policy does not name the agent.
    """

    run: str
    agent: str
    mandate: str | None = None
    purpose: str = ""
    workflow: Mapping[str, Any] | None = None
    boundary: Mapping[str, Any] | None = None
    document: Mapping[str, Any] | None = None
    subject: str = ""
    nobody: Note | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """An action, prepared; ``prepared`` is the gate's own. With ``error`` it was none by this ``bundle``, and that is
    recorded.
    """

    call_id: str
    tool: str
    prepared: Any = None
    error: CountermarkError | None = None
    bundle: str = ""


Part = Start | Note | Asked


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a part.

    ``record``: what was recorded for it. ``error``: why nothing was; it and, unless it was an optional note, what
    follows it were left out. ``run``: of
    a ``Start``, the run there is now, ``fresh`` unless its event had started it before or nobody may run it.
    ``intent``: the gate's own, to be performed. ``stale``: the policy changed meanwhile, or it is too late for this, so
    it must be planned again.
    """

    record: Record | None = None
    error: CountermarkError | None = None
    run: str = ""
    fresh: bool = True
    intent: Any = None
    stale: bool = False


@dataclass(slots=True)
class Following:
    """What a driver wants in the same commit as an outcome, and what became of it (None: not tried)."""

    run: str
    parts: Sequence[Part] = ()
    edge: int | None = None
    replies: list[Reply] | None = field(default=None)


Then = Callable[[Mapping[str, Any]], Awaitable[Following | None]]


class Desk(Protocol):
    """The gate, as whoever drives runs in its own process sees it. All of it runs on the gate's loop."""

    async def advance(self, run: str, parts: Sequence[Part], edge: int | None = None) -> list[Reply]:
        """Record parts in one commit, in order, up to the first that cannot be; nothing from the time ``edge`` on.

        An optional one that cannot be is passed over. Raises ``CountermarkError``.
        """
        ...

    async def asked(
        self, agent: str, run: str, call_id: str, tool: str, args: Mapping[str, Any], because: Sequence[str]
    ) -> Asked:
        """Prepare an action."""
        ...

    async def perform(self, reply: Reply, then: Then) -> Record | None:
        """Execute an intent; ``then`` is given the body of its ``action.settled`` before that is recorded.

        Returns the record of the outcome. May take as long as the provider takes.
        """
        ...

    def follow(self, follower: Callable[[Sequence[Record]], None]) -> None:
        """Tell ``follower`` of every batch that is durable, on the lane's thread; it must not raise nor wait."""
        ...

    def now_us(self) -> int:
        """The gate's own time, about that of the next record."""
        ...

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something on the loop until it ends or the gate closes."""
        ...
