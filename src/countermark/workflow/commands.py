"""What the interpreter asks for: each is something that only the outside can do, and that a record answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CANCELLED = "cancelled"
# What cannot begin: a call whose inputs do not fit or whose group cannot be told, an agent step for an agent that the
# policy does not name, a wait for an event of a source that is not here.
UNFIT = "unfit"


@dataclass(frozen=True, slots=True)
class Compute:
    """Run the code of a pure step on ``inputs``; answered by ``compute.executed``."""

    place: str
    attempt: int
    code: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Act:
    """Ask the gate for an effect; answered by the records of that action. ``because`` are IDs of earlier actions."""

    place: str
    attempt: int
    tool: str
    args: Mapping[str, Any]
    because: tuple[str, ...]

    @property
    def call_id(self) -> str:
        """The call's name within its run."""
        return f"{self.place}:{self.attempt}"


@dataclass(frozen=True, slots=True)
class Wait:
    """Begin to wait, ``for_`` as in ``step.waiting``; ``timeout_s`` after that record, if that is not None.

    Of an event, as of the two below: answered by ``step.resumed`` with the code ``UNFIT`` when it cannot begin.
    """

    place: str
    for_: Mapping[str, Any]
    timeout_s: int | None


@dataclass(frozen=True, slots=True)
class Resume:
    """A wait is over, as far as the records say: ``step.resumed`` is due with these members."""

    place: str
    status: str
    code: str
    event: int | None
    outputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """Start a run of another definition and wait for it."""

    place: str
    definition: str
    inputs: Mapping[str, Any]
    timeout_s: int | None


@dataclass(frozen=True, slots=True)
class Delegate:
    """Start a run of an agent inside a boundary and wait for it; ``boundary`` as in ``run.started``, but ``until``."""

    place: str
    agent: str
    boundary: Mapping[str, Any]
    timeout_s: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """People need not answer any more about ``action``; answered by ``escalation.expired``."""

    place: str
    action: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """The run's own time is over: ``run.cancelled`` is due, with this reason and by nobody."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sleep:
    """Nothing to do before ``until`` (microseconds): a wait's time, a timeout, a retry."""

    until: int


@dataclass(frozen=True, slots=True)
class End:
    """The run is over; answered by ``run.ended``."""

    status: str
    outputs: Mapping[str, Any]
    undone: tuple[str, ...]
    left: tuple[str, ...]


def may_be_unfit(spec: Mapping[str, Any]) -> bool:
    """Whether a step of a definition may turn out not to be able to begin."""
    return spec["kind"] in ("call", "agent") or (spec["kind"] == "wait" and spec["for"]["kind"] == "event")


def unfit(place: str) -> Resume:
    """What should begin here cannot."""
    return Resume(place, "failure", UNFIT, None, {})


Command = Compute | Act | Wait | Call | Delegate | Resume | Withdraw | Cancel | Sleep | End
