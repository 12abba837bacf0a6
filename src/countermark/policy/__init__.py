"""Floor 3: policy bundles and the strict decision (``docs/spec/policy.md``, ``docs/spec/decision.md``)."""

from countermark.policy.bundle import Agent, Bundle, Compiled, Payee
from countermark.policy.cases import Case, CaseResult, run_cases
from countermark.policy.compile import compile_bundle
from countermark.policy.engine import Engine, Verdict
from countermark.policy.findings import Finding
from countermark.policy.hours import BusinessHours, due_at
from countermark.policy.imports import import_pairs, imported_obligation
from countermark.policy.judgement import Ask, Judgement, ask_of, decided_body, judge, killed_by, normal, obligation_of
from countermark.policy.ladders import Ladder, Rung, first_dues
from countermark.policy.parked import Escalation, Step, asked_of, state_after
from countermark.policy.preview import Outlook, preview
from countermark.policy.report import Reach, Report, check
from countermark.policy.roll import Away, EnrolledKey, Roll, check_disjoint, check_free, check_left
from countermark.policy.seats import Seats
from countermark.policy.separation import barred, owners_behind
from countermark.policy.sources import load_sources
from countermark.policy.standing import standing
from countermark.policy.state import DictKeys, DictStreams, Keys, OpenIntent, Run, State, Streams
from countermark.policy.succession import Succession
from countermark.policy.templates import template_files, template_names, template_people, with_keys

__all__ = [
    "Agent",
    "Ask",
    "Away",
    "Bundle",
    "BusinessHours",
    "Case",
    "CaseResult",
    "Compiled",
    "DictKeys",
    "DictStreams",
    "Engine",
    "EnrolledKey",
    "Escalation",
    "Finding",
    "Judgement",
    "Keys",
    "Ladder",
    "OpenIntent",
    "Outlook",
    "Payee",
    "Reach",
    "Report",
    "Roll",
    "Run",
    "Rung",
    "Seats",
    "State",
    "Step",
    "Streams",
    "Succession",
    "Verdict",
    "ask_of",
    "asked_of",
    "barred",
    "check",
    "check_disjoint",
    "check_free",
    "check_left",
    "compile_bundle",
    "decided_body",
    "due_at",
    "first_dues",
    "import_pairs",
    "imported_obligation",
    "judge",
    "killed_by",
    "load_sources",
    "normal",
    "obligation_of",
    "owners_behind",
    "preview",
    "run_cases",
    "standing",
    "state_after",
    "template_files",
    "template_names",
    "template_people",
    "with_keys",
]
