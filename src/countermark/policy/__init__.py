"""Floor 3: policy bundles and the strict decision (``docs/spec/policy.md``, ``docs/spec/decision.md``)."""

from countermark.policy.alike import Alike, alike
from countermark.policy.bundle import Agent, Bundle, Compiled, Payee
from countermark.policy.cases import Case, CaseResult, run_cases
from countermark.policy.compile import compile_bundle
from countermark.policy.days import day_bounds, midnight_after
from countermark.policy.engine import Engine, Verdict
from countermark.policy.epochs import Closed
from countermark.policy.erasure import AGENT, Erasures, Holding, Holdings, key_name, sealed_in, subject_of
from countermark.policy.findings import Finding
from countermark.policy.hours import BusinessHours, due_at
from countermark.policy.imports import import_pairs, imported_obligation
from countermark.policy.judgement import Ask, Judgement, ask_of, decided_body, judge, killed_by, normal, obligation_of
from countermark.policy.ladders import Ladder, Rung, first_dues
from countermark.policy.parked import Escalation, Step, asked_of, state_after
from countermark.policy.preview import Outlook, preview
from countermark.policy.register import NOBODY, Known, Register, Version, last4
from countermark.policy.report import Reach, Report, check
from countermark.policy.retention import Retention
from countermark.policy.roll import Away, EnrolledKey, Roll, check_disjoint, check_free, check_left
from countermark.policy.rotation import check_rotation
from countermark.policy.rows import DictKeys, DictStreams, Keys, Streams
from countermark.policy.runs import Boundary, Run, event_key, trigger_key
from countermark.policy.seats import Seats
from countermark.policy.separation import barred, owners_behind
from countermark.policy.sources import laid_over, load_rule, load_sources
from countermark.policy.standing import standing
from countermark.policy.state import OpenIntent, State
from countermark.policy.succession import Succession
from countermark.policy.templates import folder_files, template_files, template_names, template_people, with_keys
from countermark.policy.witness import Witnessed, WitnessRule, check_own, check_witnessed, is_own, is_stale, rule_from

__all__ = [
    "AGENT",
    "NOBODY",
    "Agent",
    "Alike",
    "Ask",
    "Away",
    "Boundary",
    "Bundle",
    "BusinessHours",
    "Case",
    "CaseResult",
    "Closed",
    "Compiled",
    "DictKeys",
    "DictStreams",
    "Engine",
    "EnrolledKey",
    "Erasures",
    "Escalation",
    "Finding",
    "Holding",
    "Holdings",
    "Judgement",
    "Keys",
    "Known",
    "Ladder",
    "OpenIntent",
    "Outlook",
    "Payee",
    "Reach",
    "Register",
    "Report",
    "Retention",
    "Roll",
    "Run",
    "Rung",
    "Seats",
    "State",
    "Step",
    "Streams",
    "Succession",
    "Verdict",
    "Version",
    "WitnessRule",
    "Witnessed",
    "alike",
    "ask_of",
    "asked_of",
    "barred",
    "check",
    "check_disjoint",
    "check_free",
    "check_left",
    "check_own",
    "check_rotation",
    "check_witnessed",
    "compile_bundle",
    "day_bounds",
    "decided_body",
    "due_at",
    "event_key",
    "first_dues",
    "folder_files",
    "import_pairs",
    "imported_obligation",
    "is_own",
    "is_stale",
    "judge",
    "key_name",
    "killed_by",
    "laid_over",
    "last4",
    "load_rule",
    "load_sources",
    "midnight_after",
    "normal",
    "obligation_of",
    "owners_behind",
    "preview",
    "rule_from",
    "run_cases",
    "sealed_in",
    "standing",
    "state_after",
    "subject_of",
    "template_files",
    "template_names",
    "template_people",
    "trigger_key",
    "with_keys",
]
