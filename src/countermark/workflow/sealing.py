"""Sealed runs: whose their values are, and how the engine gets at them again (``docs/spec/workflow.md``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from countermark.model.errors import ArgumentError
from countermark.model.records import Record
from countermark.model.sealing import SUBJECT
from countermark.workflow.definition import Definition
from countermark.workflow.errors import ExpressionError
from countermark.workflow.expressions import fill


class Seals(Protocol):
    """The deployment's vault, as far as runs need it."""

    def opened(self, records: Sequence[Record]) -> list[Record]:
        """The records, those of sealed runs as unsealed ones would have them. Raises ``CountermarkError``."""
        ...

    def pseudonym(self, value: str) -> str:
        """What stands for a group of sealed runs outside of memory."""
        ...


def subject_in(definition: Definition, inputs: Mapping[str, Any]) -> str:
    """Whose the values of a run are, empty when they stand in clear. Raises ``ArgumentError``: such a run is none."""
    if definition.sensitive is None:
        return ""
    try:
        found = fill(definition.sensitive, {"inputs": inputs})
    except ExpressionError:
        found = None  # what failed may name a value
    if type(found) is not str or SUBJECT.fullmatch(found) is None:
        raise ArgumentError(
            "the inputs name no subject whose values the run could seal", field="sensitive",
            hint="A subject has 1 to 64 of A-Z a-z 0-9 _ . - and begins with a letter or digit.",
        )  # fmt: skip
    return found
