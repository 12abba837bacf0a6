"""What a caller is told: a code, whether to retry, the next step. Never a threshold, never another agent's data."""

from __future__ import annotations

from countermark.gate.actions import Decided
from countermark.model.values import EXECUTING, Receipt, Result

_NEXT = {
    "allowed": "Done.",
    "flagged": "Done; a person will look at it afterwards.",
    "needs_approval": "Wait: a person must answer. Ask again with the same run and call_id to see the answer.",
    "killed": "Stop. People have stopped this; do not try another way.",
    "duplicate_obligation": "Do not pay again: this obligation is already paid or under way.",
    "refused_by_person": "Do not try again: a person refused this obligation.",
    "already_waiting": "Wait: people are being asked about this obligation under another call_id; do not ask again.",
    "denied_by_policy": "Do not retry unchanged; ask a person if this must happen.",
    "not_permitted": "This is not permitted here; ask a person.",
    "account_replaced": "This account is no longer the payee's. Do not pay it; ask a person.",
    "reference_unread": "What stands behind this account could not be read. Ask anew later, with a new call_id.",
    "fact_missing": "A fact that the policy needs is missing; ask a person.",
    "policy_error": "The policy could not decide; ask a person.",
    "monitor_over": "The trial period of this tool is over; tell whoever runs the gate.",
    "approval_void": "The approval no longer fits; ask anew with a new call_id.",
    "refused": "A person refused this. Do not try again.",
    "expired": "Nobody answered in time, which means no.",
}
_NOT_SENT = {  # who runs the gate can mend these; the barrier's own reasons need no words for an agent
    "not_enough_people": "Nothing was sent: too few people stand behind the policy. Tell whoever runs the gate.",
    "missing_secret": "Nothing was sent: the gate has no credential for this tool. Tell whoever runs the gate.",
    "other_origin": "Nothing was sent: policy and countermark.toml name different origins. Tell whoever runs the gate.",
    "tool_changed": "Nothing was sent: the tool is not what was approved any more. Tell whoever runs the gate.",
    "payee_changed": "Nothing was sent: the payee's account was changed. Ask a person.",
    "reference_changed": "Nothing was sent: another bank account stands behind this account now. Ask a person.",
    "reference_unread": "Nothing was sent: what stands behind this account could not be read. Ask anew later, with a"
    " new call_id.",
    "no_connection": "Nothing was sent: the provider could not be reached. Ask anew later, with a new call_id.",
}
_SETTLED = {
    "confirmed": "Done.",
    "failed": "Nothing was moved.",
    "unknown": "Do not ask under a new call_id: the provider is being asked. Ask later with the same run and call_id.",
}


def result_of(decided: Decided) -> Result:
    """The caller's answer from the records."""
    body, settled = decided.record.body, decided.settled
    code = body["code"]
    status, step, retryable, ref = "denied", _NEXT.get(code, "Ask a person."), False, ""
    output = {}
    if settled is not None:
        status, code, ref = settled.body["outcome"], settled.body["code"], settled.body["ref"]
        step, output = _SETTLED[status], settled.body["output"]
        if code == "tool_changed":
            step = _NOT_SENT[code]
        if status == "failed" and code == "not_sent":
            step = _NOT_SENT.get(settled.body["request_id"], step)
        retryable = status == "unknown"
    elif body["disposition"] in EXECUTING:
        status, step, retryable = "pending", "Under way. Ask again with the same run and call_id.", True
    elif body["disposition"] == "escalate" and decided.parked:
        status, retryable = "escalated", True
    elif body["disposition"] == "escalate" and decided.void:
        code, step = "approval_void", "Another policy came into force before an answer; ask anew with a new call_id."
    elif body["disposition"] == "escalate":
        code = "not_approved"
        step = "No approval: refused, not answered in time, or the run was cancelled. Do not try again."
    elif code.startswith("mandate_"):
        step = "The mandate does not cover this; ask whoever granted it."
    receipt = Receipt(
        decided.record.seq, decided.record.digest, None if settled is None else settled.seq,
        None if settled is None else settled.digest, decided.size, body["tier"],
    )  # fmt: skip
    return Result(
        action=body["id"], run=body["run"], disposition=body["disposition"], status=status, code=code,
        retryable=retryable, next_step=step, escalation=decided.escalation, ref=ref, output=output, receipt=receipt,
    )  # fmt: skip
