"""Floor 5: what an auditor asks of a deployment. It never imports the gate."""

from countermark.audit.actions import Span, actions_in, span_of, whole_span
from countermark.audit.asking import Looked, Question, question
from countermark.audit.backtest import backtest, backtest_lines, backtest_list
from countermark.audit.cached import cache_faults
from countermark.audit.changes import bundle_changes
from countermark.audit.clocks import Compared, compared
from countermark.audit.daybook import DAYBOOK, Daybook
from countermark.audit.daybook_find import DISPOSITIONS, PAGE_ROWS, STATUSES, Entry, Filter, Page, find_page
from countermark.audit.driven import DrivenRun, Opened, Source, driven_run, driven_runs, recorded_definition
from countermark.audit.erasing import Subject, erasure_document, subjects
from countermark.audit.excepted import Exempt, read_exceptions
from countermark.audit.explain import Explanation, explain
from countermark.audit.export import Disclose, Exported, export_pack, head_to_show
from countermark.audit.extract import export_extract
from countermark.audit.lookup import Near, kills, newest
from countermark.audit.monitored import monitored
from countermark.audit.outlook import cannot
from countermark.audit.pack import PackError, write_pack
from countermark.audit.packed import PackedRecords
from countermark.audit.page import script_digest
from countermark.audit.paid import PaidError, import_documents, read_paid
from countermark.audit.paths import audit_paths, forbids_in, rule_ids
from countermark.audit.paths_text import paths_lines
from countermark.audit.payments import BYTES_MAX as PAYMENTS_BYTES_MAX
from countermark.audit.payments import Payment, PaymentsError, read_payments
from countermark.audit.preview import diff_lines, policy_diff
from countermark.audit.proving import prove
from countermark.audit.rebuild import (
    Sealed,
    Unseal,
    hidden_of,
    is_decided,
    open_run_record,
    opened,
    request_of,
    unsealer,
)
from countermark.audit.recorded import cancelled_by, sentence
from countermark.audit.reperform import Mismatch, Report, reperform
from countermark.audit.review import review_queue, review_row
from countermark.audit.rules import numbers, rules_of
from countermark.audit.run_paths import audit_runs, run_drawn, run_receipt
from countermark.audit.run_paths_text import receipt_lines, runs_lines
from countermark.audit.scope import Wanted
from countermark.audit.seen import Seen, newest_seen
from countermark.audit.sentences import BARRIER, CODES, stopped
from countermark.audit.sources import bundle_document, bundles_of, present_state
from countermark.audit.substituted import approved_and_executed, approved_lines
from countermark.audit.told import Told
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
    "BARRIER",
    "CODES",
    "DAYBOOK",
    "DISPOSITIONS",
    "PAGE_ROWS",
    "PAYMENTS_BYTES_MAX",
    "STATUSES",
    "Compared",
    "Daybook",
    "Disclose",
    "Documents",
    "DrivenRun",
    "Entry",
    "Exempt",
    "Explanation",
    "Exported",
    "Filter",
    "Looked",
    "Mismatch",
    "Near",
    "Opened",
    "PackError",
    "PackedRecords",
    "Page",
    "PaidError",
    "Payment",
    "PaymentsError",
    "Question",
    "Report",
    "Sealed",
    "Seen",
    "Source",
    "Span",
    "Subject",
    "Told",
    "Trial",
    "Unseal",
    "Wanted",
    "actions_in",
    "approved_and_executed",
    "approved_lines",
    "audit_paths",
    "audit_runs",
    "backtest",
    "backtest_lines",
    "backtest_list",
    "bundle_changes",
    "bundle_document",
    "bundles_of",
    "cache_faults",
    "cancelled_by",
    "cannot",
    "claim",
    "compared",
    "counted",
    "covered_by",
    "day",
    "diff_lines",
    "driven_run",
    "driven_runs",
    "erasure_document",
    "escaped",
    "explain",
    "export_extract",
    "export_pack",
    "find_page",
    "forbids_in",
    "head_to_show",
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
    "newest_seen",
    "numbers",
    "only_agent",
    "open_run_record",
    "opened",
    "path_of",
    "paths_lines",
    "payment_page",
    "policy_diff",
    "present_state",
    "prove",
    "question",
    "read_exceptions",
    "read_paid",
    "read_payments",
    "receipt_lines",
    "recorded_definition",
    "reperform",
    "request_of",
    "review_queue",
    "review_row",
    "row_of",
    "rule_ids",
    "rules_of",
    "run_drawn",
    "run_receipt",
    "runs_lines",
    "safe",
    "script_digest",
    "sentence",
    "span",
    "span_of",
    "stopped",
    "subjects",
    "told_by",
    "try_action",
    "unsealer",
    "weekday",
    "when",
    "whole_log",
    "whole_span",
    "write_pack",
]
