"""Floor 5: what an auditor asks of a deployment. It never imports the gate."""

from countermark.audit.asking import Looked, Question, question
from countermark.audit.cached import cache_faults
from countermark.audit.explain import Explanation, explain, sentence
from countermark.audit.export import Exported, export_pack
from countermark.audit.lookup import kills, newest
from countermark.audit.monitored import monitored
from countermark.audit.outlook import cannot
from countermark.audit.pack import PackError, write_pack
from countermark.audit.paid import PaidError, import_documents, read_paid
from countermark.audit.rebuild import Sealed, Unseal, hidden_of, is_decided, opened, request_of, unsealer
from countermark.audit.reperform import Mismatch, Report, reperform
from countermark.audit.review import review_queue, review_row
from countermark.audit.rules import numbers, rules_of
from countermark.audit.sentences import CODES, stopped
from countermark.audit.sources import bundle_document, bundles_of, present_state
from countermark.audit.story import limit
from countermark.audit.trial import Trial, only_agent, try_action
from countermark.audit.whole import whole_log
from countermark.audit.words import claim, day, escaped, listed, money, safe, span, when

__all__ = [
    "CODES",
    "Explanation",
    "Exported",
    "Looked",
    "Mismatch",
    "PackError",
    "PaidError",
    "Question",
    "Report",
    "Sealed",
    "Trial",
    "Unseal",
    "bundle_document",
    "bundles_of",
    "cache_faults",
    "cannot",
    "claim",
    "day",
    "escaped",
    "explain",
    "export_pack",
    "hidden_of",
    "import_documents",
    "is_decided",
    "kills",
    "limit",
    "listed",
    "money",
    "monitored",
    "newest",
    "numbers",
    "only_agent",
    "opened",
    "present_state",
    "question",
    "read_paid",
    "reperform",
    "request_of",
    "review_queue",
    "review_row",
    "rules_of",
    "safe",
    "sentence",
    "span",
    "stopped",
    "try_action",
    "unsealer",
    "when",
    "whole_log",
    "write_pack",
]
