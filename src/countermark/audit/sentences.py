"""The words for every disposition, stage and code. What a code means is said in one place."""

from __future__ import annotations

from countermark.audit.words import safe

DISPOSITIONS = {
    "allow": "allowed",
    "flag": "allowed, and marked for review",
    "escalate": "parked until people answer",
    "deny": "refused",
}
STAGES = {
    "kill": "because of a stop",
    "boundary": "by the boundary of the agent's step",
    "witness": "because no witness has seen the log lately",
    "mandate": "by the agent's mandate",
    "payee": "because of the payee's account",
    "obligation": "because of what was paid or refused before",
    "facts": "for want of a fact",
    "policy": "by the policy",
    "approval": "after an approval",
    "monitor": "because this tool is only monitored",
}
CODES = {
    "allowed": "the policy permits it",
    "flagged": "the policy permits it and asks for a review afterwards",
    "needs_approval": "the policy forbids it unless people say yes",
    "killed": "a stop covers it",
    "boundary_over": "the time that the agent's step had is over",
    "boundary_calls": "the agent's step has used all its calls",
    "boundary_tool": "the agent's step may not use this tool",
    "boundary_argument": "the agent's step may not give this value",
    "boundary_budget": "the budget of the agent's step would be exceeded",
    "witness_stale": "the witnesses of the policy have not answered lately, so no money moves",
    "mandate_not_in_force": "a mandate of the chain is revoked, not yet valid or no longer valid",
    "mandate_tool": "the mandate does not cover this tool",
    "mandate_payee": "the mandate does not cover this payee",
    "mandate_currency": "the mandate has limits, and none in this currency",
    "mandate_limit": "a budget of the mandate would be exceeded",
    "duplicate_obligation": "the same obligation is already paid or under way",
    "refused_by_person": "a person refused this obligation",
    "already_waiting": "people are being asked about the same obligation",
    "account_replaced": "the payee has another account now, or is closed",
    "reference_unread": "what stands behind the account at the provider could not be read",
    "fact_missing": "a fact that the policy needs could not be computed",
    "policy_error": "a policy raised an error, or the request does not fit the policy's schema",
    "not_permitted": "no policy permits it",
    "denied_by_policy": "a policy forbids it, and nobody may lift that",
    "would_deny": "the policy forbids it, and only monitors this tool",
    "would_escalate": "the policy forbids it unless people say yes, and only monitors this tool",
    "monitor_over": "the time for which this tool was to be monitored is over",
    "approval_void": "what people approved is no longer what would be done",
}
VOID = {
    "bundle": "another policy is in force",
    "reasons": "other rules stand against it now",
    "request": "the request is another one",
    "run": "its run has ended",
    "tool": "the policy in force no longer has its tool",
    "payee": "the payee's details were changed",
}
IN_VAIN = "another policy is in force; asked for again under a new call_id, it is withdrawn and decided anew"
OUTCOMES = {
    "not_witnessed": "no witness saw it in time, so nothing was sent",
    "ok": "the provider answered that it is done",
    "found": "the provider, asked by the payment's own key, knows it",
    "booked_differently": "the provider booked another amount or currency than was asked",
    "provider_refused": "the provider refused it",
    "provider_error": "the provider answered with an error",
    "provider_rate_limited": "the provider would not take more requests at that time",
    "timeout": "the provider did not answer in time",
    "not_sent": "the request never left",
    "cancelled": "a person gave the payment's number on the chain to a transfer of nothing, and that is final",
    "not_found": "the provider does not know it, after everything that could have been on its way",
    "key_expired": "the provider may have forgotten the payment's key, so nothing was sent again",
    "reported": "the program that ran the tool reported this itself",
    "not_reported": "the program that was to run the tool never said what happened",
    "interrupted": "the gate was interrupted, and the provider could not say what happened",
    "resolved": "two people found out and signed it",
    "needs_resolution": "this tool leaves it to people to find out what happened",
}
BARRIER = {
    "gate_halted": "the gate had stopped",
    "too_late": "its time to start had passed",
    "policy_changed": "another policy was in force by then",
    "mandate_not_in_force": "the mandate had ended by then",
    "killed": "people had stopped it by then",
    "payee_changed": "the payee's details had been changed by then",
    "reference_changed": "another bank account stood behind the payee's account by then",
    "reference_unread": "what stands behind the payee's account could not be read again",
    "request_changed": "the request was not the one that had been decided",
    "not_enough_people": "too few different people stood behind the policy for a live credential",
    "missing_secret": "the gate had no credential for this tool",
    "other_origin": "the policy and countermark.toml name different origins for this tool",
    "no_connection": "no connection to the provider came about",
    "malformed_request": "the request is not one that may go on the wire",
    "wrong_chain": "the node is of another chain than the policy names",
    "insufficient_funds": "the account cannot pay the amount and the fee",
    "would_revert": "the contract would refuse it",
    "no_contract": "there is no contract at that address",
    "fee_too_high": "the chain asks a higher fee than the policy allows",
    "nonce_blocked": "an earlier payment of the account is not final yet",
    "ledger_new": "the account's list of numbers was new, and an earlier payment may be on its way",
    "bad_chain_answer": "the node's answer could not be read",
    "store_failed": "the account's list of numbers could not be written",
}
TIERS = {
    "enforcing": "whether the gate really ran apart from the agent and alone held the credential: its operator says so",
    "embedded": "The gate ran inside the calling program: this shows what the gate did, not what the program could.",
    "observing": "The agent's own process ran the tool and reported the outcome; the gate did not send it.",
}
CLOCK_JUMP = "clock_jump"  # reasons that the gate gives when it stops something by itself
BOOKED_DIFFERENTLY = "booked_differently"
RESTORED = "restored"  # the stop of a lane that was made from a backup; no record sets it


def stopped(kind: str, value: str, reason: str) -> str:
    """What a stop stops. Who asked for it is not known: nobody needs a key to stop something."""
    what = "everything here" if kind == "deployment" else f"{kind} {safe(value)}"
    if reason == CLOCK_JUMP:
        return f"the gate stopped {what}, because the clock jumped"
    if reason == BOOKED_DIFFERENTLY:
        return f"the gate stopped {what}, because the provider booked something else than was asked"
    if reason == RESTORED:
        return f"{what} is stopped until two people accept this lane, which was restored from a backup"
    return f"{what} was stopped" + (f" ({reason})" if reason else "")


REFUSED = {
    "bad_argument": "an argument does not fit the tool",
    "unknown_argument": "the tool has no such argument",
    "missing_argument": "a required argument is missing",
    "unknown_tool": "there is no such tool here",
    "unknown_run": "there is no such open run of this agent",
    "identity_conflict": "this call ID was used for a different action before",
}
