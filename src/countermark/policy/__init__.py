"""Floor 3: policy bundles and the strict decision (``docs/spec/policy.md``, ``docs/spec/decision.md``)."""

from countermark.policy.alike import Alike, alike
from countermark.policy.bundle import Agent, Bundle, Compiled, Ladder, Payee
from countermark.policy.cases import Case, CaseResult, run_cases
from countermark.policy.compile import compile_bundle
from countermark.policy.engine import Engine, Verdict
from countermark.policy.findings import Finding
from countermark.policy.imports import import_pairs, imported_obligation
from countermark.policy.judgement import Ask, Judgement, ask_of, decided_body, judge, killed_by, normal, obligation_of
from countermark.policy.register import NOBODY, Known, Register, Version, last4
from countermark.policy.report import Reach, Report, check
from countermark.policy.sources import laid_over, load_rule, load_sources
from countermark.policy.state import DictKeys, DictStreams, Escalation, Keys, OpenIntent, Run, State, Streams
from countermark.policy.succession import Succession
from countermark.policy.templates import template_files, template_names, template_people, with_keys

__all__ = [
    "NOBODY",
    "Agent",
    "Alike",
    "Ask",
    "Bundle",
    "Case",
    "CaseResult",
    "Compiled",
    "DictKeys",
    "DictStreams",
    "Engine",
    "Escalation",
    "Finding",
    "Judgement",
    "Keys",
    "Known",
    "Ladder",
    "OpenIntent",
    "Payee",
    "Reach",
    "Register",
    "Report",
    "Run",
    "State",
    "Streams",
    "Succession",
    "Verdict",
    "Version",
    "alike",
    "ask_of",
    "check",
    "compile_bundle",
    "decided_body",
    "import_pairs",
    "imported_obligation",
    "judge",
    "killed_by",
    "laid_over",
    "last4",
    "load_rule",
    "load_sources",
    "normal",
    "obligation_of",
    "run_cases",
    "template_files",
    "template_names",
    "template_people",
    "with_keys",
]
