"""Floor 2: fact definitions and the pure state machines behind facts and budgets (``docs/spec/facts.md``)."""

from countermark.facts.budget import COUNT, BudgetMachine
from countermark.facts.definition import KINDS, PLAIN_FIELDS, USES, FactDef, Kind, Use
from countermark.facts.kinds import MissingFactError
from countermark.facts.machine import FactMachine, subject_of
from countermark.facts.window import Window

__all__ = [
    "COUNT",
    "KINDS",
    "PLAIN_FIELDS",
    "USES",
    "BudgetMachine",
    "FactDef",
    "FactMachine",
    "Kind",
    "MissingFactError",
    "Use",
    "Window",
    "subject_of",
]
