"""What an agent may look at besides its actions, and how full the policy's limits are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.gate.writer import Writer
from countermark.model.streams import RUN, stream_of

GROUPS_MAX = 50  # of each limit, the fullest


def show_run(writer: Writer, agent: str, run: str) -> dict[str, Any] | None:
    """A run of the agent's: open, and under which mandate. None when it never was, or is another agent's.

    Of a run that has ended the lane knows only that it was: ``mandate`` is None then, and ``agent`` too, for whoever
    reads the journal to fill in. ``records`` counts those in the run's stream. ``boundary`` is there in an open run
    that a step of a workflow gave to the agent: its goal, what it sees, and what it may do.
    """
    place = writer.streams.get(stream_of(RUN, run))
    if place is None:
        return None
    shown: dict[str, Any] = {"run": run, "agent": None, "mandate": None, "open": False, "records": place[0] + 1}
    found = writer.state.runs.get(run)
    if found is None:
        return shown
    if found.agent != agent:
        return None
    more = {} if found.boundary is None else {"boundary": dict(found.boundary.rule)}
    return {**shown, "agent": agent, "mandate": found.mandate, "open": True, **more}


def limits(writer: Writer, _: Mapping[str, Any]) -> dict[str, Any]:
    """How full every window of the policy in force is, as of ``at`` (microseconds).

    Returns:
        ``{"at", "windows": [{"name", "of", "over_us", "group": [fields], "limit": amount or None, "groups", "more"}]}``
        with the groups of ``facts.usage``; amounts are minor units, counts are payments.
    """
    state, at = writer.state, writer.at
    if state.bundle is None:
        return {"at": at, "windows": []}
    found = state.facts.usage(at, GROUPS_MAX)
    numbers = state.bundle.compiled.limits
    return {
        "at": at,
        "windows": [
            {
                "name": one.name, "of": one.of, "over_us": one.over_us, "group": list(one.group),
                "limit": numbers.get(f"window_{one.name}"), **found[one.name],
            }
            for one in state.facts.defs
            if one.name in found
        ],
    }  # fmt: skip
