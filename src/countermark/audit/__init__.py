"""Floor 5: what an auditor asks of a deployment. It never imports the gate."""

from countermark.audit.asking import Looked, Question, question
from countermark.audit.backtest import backtest, backtest_lines, backtest_list
from countermark.audit.cached import cache_faults
from countermark.audit.changes import bundle_changes
from countermark.audit.daybook import Daybook
from countermark.audit.daybook_find import DISPOSITIONS, PAGE_ROWS, STATUSES, Entry, Filter, Page, find_page
from countermark.audit.explain import Explanation, explain, sentence
from countermark.audit.export import Exported, export_pack
from countermark.audit.lookup import Near, kills, newest
from countermark.audit.monitored import monitored
from countermark.audit.outlook import cannot
from countermark.audit.pack import PackError, write_pack
from countermark.audit.paid import PaidError, import_documents, read_paid
from countermark.audit.paths import audit_paths, forbids_in, rule_ids
from countermark.audit.paths_text import paths_lines
from countermark.audit.payments import BYTES_MAX as PAYMENTS_BYTES_MAX
from countermark.audit.payments import Payment, PaymentsError, read_payments
from countermark.audit.preview import diff_lines, policy_diff
from countermark.audit.rebuild import Sealed, Unseal, hidden_of, is_decided, opened, request_of, unsealer
from countermark.audit.reperform import Mismatch, Report, reperform
from countermark.audit.review import review_queue, review_row
from countermark.audit.rules import numbers, rules_of
from countermark.audit.sentences import CODES, stopped
from countermark.audit.sources import bundle_document, bundles_of, present_state
from countermark.audit.story import Told
from countermark.audit.substituted import approved_and_executed, approved_lines
from countermark.audit.told_page import covered_by, payment_page
from countermark.audit.told_row import Documents, near, path_of, row_of, told_by
from countermark.audit.trial import Trial, only_agent, try_action
from countermark.audit.whole import whole_log
from countermark.audit.words import (
    claim,
    counted,
    day,
    escaped,
    lasting,
    limit,
    listed,
    minute,
    money,
    safe,
    span,
    weekday,
    when,
)

__all__ = [
    "CODES",
    "DISPOSITIONS",
    "PAGE_ROWS",
    "PAYMENTS_BYTES_MAX",
    "STATUSES",
    "Daybook",
    "Documents",
    "Entry",
    "Explanation",
    "Exported",
    "Filter",
    "Looked",
    "Mismatch",
    "Near",
    "PackError",
    "Page",
    "PaidError",
    "Payment",
    "PaymentsError",
    "Question",
    "Report",
    "Sealed",
    "Told",
    "Trial",
    "Unseal",
    "approved_and_executed",
    "approved_lines",
    "audit_paths",
    "backtest",
    "backtest_lines",
    "backtest_list",
    "bundle_changes",
    "bundle_document",
    "bundles_of",
    "cache_faults",
    "cannot",
    "claim",
    "counted",
    "covered_by",
    "day",
    "diff_lines",
    "escaped",
    "explain",
    "export_pack",
    "find_page",
    "forbids_in",
    "hidden_of",
    "import_documents",
    "is_decided",
    "kills",
    "lasting",
    "limit",
    "listed",
    "minute",
    "money",
    "monitored",
    "near",
    "newest",
    "numbers",
    "only_agent",
    "opened",
    "path_of",
    "paths_lines",
    "payment_page",
    "policy_diff",
    "present_state",
    "question",
    "read_paid",
    "read_payments",
    "reperform",
    "request_of",
    "review_queue",
    "review_row",
    "row_of",
    "rule_ids",
    "rules_of",
    "safe",
    "sentence",
    "span",
    "stopped",
    "told_by",
    "try_action",
    "unsealer",
    "weekday",
    "when",
    "whole_log",
    "write_pack",
]
