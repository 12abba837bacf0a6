"""What an agent may look at besides its actions."""

from __future__ import annotations

from typing import Any

from countermark.gate.writer import Writer


def show_run(writer: Writer, agent: str, run: str) -> dict[str, Any] | None:
    """A run of the agent's: open, and under which mandate. None when it never was, or is another agent's.

    Of a run that has ended the lane knows only that it was: ``mandate`` is None then, and ``agent`` too, for whoever
    reads the journal to fill in. ``records`` counts those in the run's stream.
    """
    place = writer.streams.get("r." + writer.pseudonym("run", run))
    if place is None:
        return None
    shown: dict[str, Any] = {"run": run, "agent": None, "mandate": None, "open": False, "records": place[0] + 1}
    found = writer.state.runs.get(run)
    if found is None:
        return shown
    return {**shown, "agent": agent, "mandate": found.mandate, "open": True} if found.agent == agent else None
