"""What ends together, in one commit: a run that is cancelled, what it asks people, and the runs that it waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from countermark.model.crash import crash_point
from countermark.model.driving import RUN_MARK, Note, Part, Start
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.workflow.commands import CANCELLED, Resume, Withdraw
from countermark.workflow.live import Live
from countermark.workflow.plan import plan_of
from countermark.workflow.roster import ELSEWHERE, Roster

PARENT, SUPERSEDED = "parent", "superseded"

log = logging.getLogger("countermark.workflow")


class Ending:
    """Used on the gate's loop. What is planned for a run is added to its ``parts``, with its lock held."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    async def of(self, run: str, reason: str, person: str, now: int) -> tuple[list[Part], Callable[[], None]]:
        """The parts that cancel a run, and what lets others plan for it again once they are recorded.

        None, when it is superseded and ends anyway. Raises ``ArgumentError``: there is no such run, or it is over.
        """
        live, row = self._roster.live.get(run), self._roster.rows.row(run)
        if live is None and row is None:
            what = "no such run of a definition" if self._roster.rows.over(run) is None else "the run is over"
            raise ArgumentError(what, field="run", code="unknown_run", hint=ELSEWHERE)
        agent = live.agent if live is not None else row.agent if row is not None else ""
        release = await self._roster.hold(run)
        try:
            seen = self._seen(run)
            if seen is None:
                return [Note("run.cancelled", _cancelled(run, agent, reason, person))], release
            if reason == SUPERSEDED and (seen.machine.cancelled or seen.machine.over):
                return [], release
            try:
                await self.cancel(seen, reason, person, now)
                crash_point("workflow.cancelling")
            except BaseException:
                seen.let_go()
                raise
        except BaseException:
            release()
            raise

        def let_go() -> None:
            seen.let_go()
            release()

        return [part for _, part in seen.parts], let_go

    def _seen(self, run: str) -> Live | None:
        """A run by its records, beside whoever drives it. None: nobody can tell how it is; it ends all the same."""
        try:
            self._roster.hear()
            return self._roster.looked_at(run)
        except CountermarkError as error:
            log.warning("what the run %s waits for is not ended with it: %s", run, error)
            return None

    async def cancel(self, live: Live, reason: str, person: str, now: int, command: object = None) -> None:
        """From here on nothing begins in it but what is meant for that."""
        live.note(command, "run.cancelled", _cancelled(live.run, live.agent, reason, person), now)
        wanted = live.wanted()
        for one in wanted:
            if isinstance(one, Withdraw):
                self.withdraw(live, one, now)
        cut = [one for one in wanted if isinstance(one, Resume) and one.code == CANCELLED]
        # Agents' runs last: one may have ended its own by now, and then the rest is left to the next plan.
        for one in sorted(cut, key=lambda one: not any(child.startswith(RUN_MARK) for child in _at(live, one.place))):
            if _at(live, one.place) and await self.child(live, one, now):
                live.note(one, "step.resumed", live.resumed(one), now)

    def withdraw(self, live: Live, command: Withdraw, now: int) -> None:
        """People are not asked any more, unless they have answered by then."""
        body = self._roster.folder.withdrawn(live, command.action)
        live.note(command, "escalation.expired", body, now, optional=True)

    async def child(self, live: Live, command: Resume, now: int) -> bool:
        """What a step waited for does nothing more, once it is not waited for any more.

        False: it cannot be ended in this commit, or ended by itself, which the run has not heard of yet.
        """
        if any(isinstance(part, Start) and live.children.get(part.run) == command.place for _, part in live.parts):
            return False  # what begins in this commit is ended in another one
        for child in _at(live, command.place):
            if not child.startswith(RUN_MARK):
                agent = str(plan_of(live.definition).step(command.place).spec["agent"])
                reason = "time" if command.code == "timeout" else "cancelled"
                note = Note("run.ended", {"run": child, "agent": agent, "reason": reason}, f"agent:{agent}")
                live.parts.append((None, note))
                continue
            release = await self._roster.hold(child)
            seen = self._seen(child)
            if seen is not None and seen.machine.ended:
                release()
                return False
            live.holds.append(release)
            if seen is None:
                live.parts.append((None, Note("run.cancelled", _cancelled(child, live.agent, PARENT))))
                continue
            try:
                await self.cancel(seen, PARENT, "", now)
            finally:
                live.holds += seen.holds
            live.parts += [(None, part) for _, part in seen.parts]
        return True


def _cancelled(run: str, agent: str, reason: str, person: str = "") -> dict[str, Any]:
    return {"run": run, "agent": agent, "reason": reason, "person": person}


def _at(live: Live, place: str) -> list[str]:
    """The runs that the step at a place waits for."""
    return [child for child, at in live.children.items() if at == place]
