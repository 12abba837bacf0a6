"""Keys enrolled and removed, and absences, checked against the state before each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from countermark.audit.follow import Differs
from countermark.authority import verify_absence, verify_enrolment, verify_removal
from countermark.model.errors import CountermarkError
from countermark.model.records import Record
from countermark.policy import State, check_free, check_left, check_rotation


class Enrolments:
    """``checks`` maps a kind to its check."""

    def __init__(self, state: State, differs: Differs) -> None:
        self._state = state
        self._differs = differs
        self.checks: Mapping[str, Callable[[Record], None]] = {
            "key.enrolled": lambda record: self._holds("enrolment", record, self._enrolled),
            "key.removed": lambda record: self._holds("removal", record, self._removed),
            "key.rotated": lambda record: self._holds("rotation", record, self._rotated),
            "absence.set": lambda record: self._holds("absence", record, self._away),
        }

    def _holds(self, what: str, record: Record, verify: Callable[[Record], None]) -> None:
        """A document that does not hold is a difference like any other."""
        try:
            verify(record)
        except CountermarkError as error:
            self._differs(what, "a document that verifies", str(error)[:300])

    def _enrolled(self, record: Record) -> None:
        state = self._state
        test = state.bundle is not None and state.bundle.compiled.test
        order = verify_enrolment(
            record.body, deployment=state.deployment, people=state.people, test=test, at_us=record.at
        )
        check_free(state, order.person, order.key)

    def _removed(self, record: Record) -> None:
        state = self._state
        order = verify_removal(record.body, deployment=state.deployment, people=state.people)
        check_left(state, order.key)

    def _rotated(self, record: Record) -> None:
        check_rotation(self._state, record.body, record.at)

    def _away(self, record: Record) -> None:
        verify_absence(record.body, deployment=self._state.deployment, people=self._state.people)
