"""Floor 3: policy bundles and the strict decision (``docs/spec/policy.md``, ``docs/spec/decision.md``)."""

from countermark.policy.bundle import Agent, Bundle, Compiled, Ladder, Payee
from countermark.policy.cases import Case, CaseResult, run_cases
from countermark.policy.compile import compile_bundle
from countermark.policy.engine import Engine, Verdict
from countermark.policy.findings import Finding
from countermark.policy.imports import import_pairs, imported_obligation
from countermark.policy.judgement import Ask, Judgement, ask_of, decided_body, judge, killed_by, normal, obligation_of
from countermark.policy.report import Reach, Report, check
from countermark.policy.sources import load_sources
from countermark.policy.standing import standing
from countermark.policy.state import DictKeys, DictStreams, Escalation, Keys, OpenIntent, Run, State, Streams
from countermark.policy.succession import Succession
from countermark.policy.templates import template_files, template_names, template_people, with_keys

__all__ = [
    "Agent",
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
    "Ladder",
    "OpenIntent",
    "Payee",
    "Reach",
    "Report",
    "Run",
    "State",
    "Streams",
    "Succession",
    "Verdict",
    "ask_of",
    "check",
    "compile_bundle",
    "decided_body",
    "import_pairs",
    "imported_obligation",
    "judge",
    "killed_by",
    "load_sources",
    "normal",
    "obligation_of",
    "run_cases",
    "standing",
    "template_files",
    "template_names",
    "template_people",
    "with_keys",
]
