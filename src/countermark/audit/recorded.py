"""What one record says, in a sentence: every kind has its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from countermark.audit import sentences, words
from countermark.audit.erasing import TOLD
from countermark.authority import fingerprint
from countermark.model.records import Record

_SHORT = slice(7, 19)  # of a digest, as people compare it


def sentence(record: Record) -> str:
    """One record, in a sentence."""
    return words.safe(SENTENCES[record.kind](record.body))


def short(digest: str) -> str:
    """The digits of a digest that people compare."""
    return digest[_SHORT]


def _people(body: Mapping[str, Any]) -> str:
    return words.listed([row["person"] for row in body["signed"]])


def _started(body: Mapping[str, Any]) -> str:
    return (
        f"The gate of {body['deployment']} started (version {body['version']}, {body['tier']}), "
        f"after {body['recovered']:,} records."
    )


def _activated(body: Mapping[str, Any]) -> str:
    order = body["activation"]
    return f"{order['activator']} put the policy {order['bundle'][7:19]}, written by {order['author']}, in force."


def _granted(body: Mapping[str, Any]) -> str:
    doc = body["mandate"]
    parent = f" below mandate {doc['parent'][7:19]}" if doc["parent"] else ""
    limits = "; ".join(words.limit(row) for row in doc["limits"]) or "no limits of its own"
    return (
        f"{doc['principal']} granted agent {doc['agent']} the mandate {body['digest'][7:19]}{parent}: "
        f"{doc['purpose']}. Tools {', '.join(doc['tools'])}; payees {', '.join(doc['payees']) or 'none'}; {limits}; "
        f"from {words.when(doc['not_before'])} until {words.when(doc['not_after'])}."
    )


def _revoked(body: Mapping[str, Any]) -> str:
    order = body["revocation"]
    return f"{order['person']} ended the mandate {order['mandate'][7:19]} and all below it: {order['reason']}."


def _refused(body: Mapping[str, Any]) -> str:
    said = sentences.REFUSED.get(body["code"], body["code"])
    where = f" (argument {body['field']})" if body["field"] else ""
    tool = body["tool"] or "a tool"
    return f"A request of agent {body['agent']} for {tool} was no valid action: {said}{where}. Nothing was sent."


def _kill(body: Mapping[str, Any]) -> str:
    scope = body["scope"]
    said = sentences.stopped(scope["kind"], scope["value"], words.safe(body["reason"]))
    return f"{said[0].upper()}{said[1:]} [{body['kill']}]."


def _cleared(body: Mapping[str, Any]) -> str:
    order = body["clearance"]
    return f"{order['person']} lifted the stop {order['kill']}: {order['reason']}."


def _imported(body: Mapping[str, Any]) -> str:
    order = body["import"]
    pairs = ", ".join(f"{name} {value}" for name, value in order["pairs"])
    people = words.listed([row["person"] for row in body["signed"]])
    ref = f", reference {order['ref']}" if order["ref"] else ""
    return f"{people} say that {pairs} was settled on {order['date']}{ref} ({order['source']}): it is not paid again."


def _read(body: Mapping[str, Any]) -> str:
    what = {"export": "exported", "explain": "looked at", "audit": "checked"}[body["what"]]
    return f"{body['reader']} {what} records #{body['from']:,} to #{body['to'] - 1:,}."


def _stamped(body: Mapping[str, Any]) -> str:
    return (
        f"{body['authority']} stamped the head of {body['size']:,} records, asked at {words.when(body['asked'])} and "
        f"answered at {words.when(body['answered'])} by the gate's clock; the token says when by its own."
    )


def _succeeded(body: Mapping[str, Any]) -> str:
    before, known = body["predecessor"], body["known"]
    lost = (
        "how many records were lost cannot be established" if known is None
        else f"{known['size'] - before['size']:,} later records are known to be lost"
    )  # fmt: skip
    return f"Lane {body['lane']} was restored from {before['size']:,} records of lane {before['lane']}; {lost}."


def _moved(body: Mapping[str, Any]) -> str:
    terms = body["terms"]
    pairs = ", ".join(f"{name} {value}" for name, value in body["pairs"] or ())
    taken = f": {pairs} is not paid again" if pairs else ", and no business key of the policy could be made of it"
    deal = f"{words.money(terms['amount'], terms['currency'])} by {body['tool']}"
    return f"The provider lists {deal} ({words.safe(body['ref'])}) that no record explains{taken}."


def _accepted(body: Mapping[str, Any]) -> str:
    order = body["acceptance"]
    return f"{order['person']} accepted lane {order['lane']} with {order['imported']:,} movements found."


def _epoch(body: Mapping[str, Any]) -> str:
    return (
        f"Epoch {body['epoch']:,} was closed: records {body['from']:,} to {body['size'] - 1:,}, "
        f"before {words.when(body['until'])}, in {body['streams']:,} streams."
    )


def _ended(body: Mapping[str, Any]) -> str:
    flow = body.get("workflow")
    how = "" if flow is None else f" with {flow['status']}"
    return f"The run ended{how}" + (f": {body['reason']}." if body["reason"] else ".")


_BY_ITSELF = {
    "timeout": "its time was over",
    "superseded": "a newer run of its group took its place",
    "parent": "the run that called it waits for it no more",
}


def cancelled_by(person: str, reason: str) -> str:
    """Who cancelled a run and why, as a ``run.cancelled`` says: ``person`` is "" when the gate did by itself."""
    if person:
        return words.safe(f"by {person} (as said, not signed): {reason}")
    return words.safe(f"by the gate: {_BY_ITSELF.get(reason, reason)}")


def _cancelled(body: Mapping[str, Any]) -> str:
    return f"The run {body['run']} was cancelled {cancelled_by(body['person'], body['reason'])}."


def _migrated(body: Mapping[str, Any]) -> str:
    return (
        f"{body['person']} let the run {body['run']} go on by definition {short(body['to'])}, not "
        f"{short(body['from'])}: {body['reason']}."
    )


def _computed(body: Mapping[str, Any]) -> str:
    tries = "" if body["attempt"] == 1 else f", attempt {body['attempt']}"
    said = {"ok": "ran", "error": "ran and failed", "limit": "was stopped at a limit"}[body["status"]]
    why = f": {body['message']}" if body["message"] else ""
    return f"Step {body['place']}{tries} {said}{why} ({body['engine']}, {body['ticks']:,} ticks)."


def _waiting(body: Mapping[str, Any]) -> str:
    what = body["for"]
    said = {
        "time": lambda: f"until {words.when(what['at'])}",
        "event": lambda: f"for an event of {what['source']} with the key {what['key']}",
        "call": lambda: f"for the run {what['run']}",
        "agent": lambda: f"for its agent, in the run {what['run']}",
    }[what["kind"]]()
    until = "" if body["until"] is None else f", until {words.when(body['until'])} at the latest"
    return f"Step {body['place']} waits {said}{until}."


_RESUMED = {
    "time": "its time came", "ended": "the other run ended", "timeout": "it waited too long",
    "cancelled": "the run was cancelled", "unfit": "what it waits for could not begin",
}  # fmt: skip


def _resumed(body: Mapping[str, Any]) -> str:
    code = body["code"]
    why = f"the event of #{body['event']} came" if code == "event" else _RESUMED.get(code, code)
    return f"Step {body['place']} waits no more, {body['status']}: {why}."


def _decided(body: Mapping[str, Any]) -> str:
    code = sentences.CODES.get(body["code"], body["code"])
    said = sentences.DISPOSITIONS[body["disposition"]]
    return f"Action {body['id']} ({body['tool']}, agent {body['agent']}) was {said}: {code}."


def _settled(body: Mapping[str, Any]) -> str:
    said = sentences.OUTCOMES.get(body["code"], body["code"])
    return f"Action {body['id']} is {body['outcome']}: {said}."


def _answered(body: Mapping[str, Any]) -> str:
    approval = body["approval"]
    verb = "approved" if approval["verdict"] == "approve" else "refused"
    return f"{approval['person']} {verb} action {body['id']} on ladder {approval['ladder']}; then: {body['state']}."


def _enrolled(body: Mapping[str, Any]) -> str:
    said = body["enrolment"]
    label = f" ({said['label']})" if said["label"] else ""
    return f"A key of {said['person']}{label} was enrolled, signed by {_people(body)}: {fingerprint(said['key'])}."


def _removed(body: Mapping[str, Any]) -> str:
    said = body["removal"]
    return f"{said['by']} ended a key of {said['person']}, {fingerprint(said['key'])}: {said['reason']}."


def _rotated(body: Mapping[str, Any]) -> str:
    said = body["rotation"]
    return f"{_people(body)} handed the log over to a new key, {fingerprint(said['new'])}: {said['reason']}."


def _absent(body: Mapping[str, Any]) -> str:
    said = body["absence"]
    return (
        f"{said['stands_in']} stands in for {said['person']} from {words.when(said['from'])} until "
        f"{words.when(said['until'])}, signed by {_people(body)}."
    )


def _details(body: Mapping[str, Any]) -> str:
    said = body["details"]
    if not said["account"]:
        return f"{said['person']} closed the payee {said['payee']}: {said['reason']}."
    known = "set up" if said["previous"] is None else "changed"
    account = " and its account" if known == "changed" and body["was"] != body["now"] else ""
    return f"{said['person']} {known} the payee {said['payee']} ({said['name']}){account}: {said['reason']}."


SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "gate.started": _started,
    "gate.stopped": lambda body: f"The gate stopped: {body['reason']}.",
    "policy.activated": _activated,
    "mandate.granted": _granted,
    "mandate.accepted": _granted,
    "mandate.revoked": _revoked,
    "run.started": lambda body: (
        f"Agent {body['agent']} started the run under mandate {body['mandate'][7:19]}"
        + (f": {body['purpose']}." if body["purpose"] else ".")
    ),
    "run.ended": _ended,
    "run.cancelled": _cancelled,
    "run.migrated": _migrated,
    "workflow.defined": lambda body: (
        f"The workflow {body['document']['name']} was defined: definition {short(body['digest'])}."
    ),
    "compute.executed": _computed,
    "step.waiting": _waiting,
    "step.resumed": _resumed,
    "event.received": lambda body: f"The event {body['event']} came from {body['source']} ({body['scheme']}).",
    "request.signed": lambda body: f"Agent {body['agent']} signed the request for action {body['id']} with its key.",
    "action.decided": _decided,
    "action.settled": _settled,
    "action.resolved": lambda body: (
        f"{_people(body)} signed what became of action {body['id']}: {body['resolution']['outcome']}; "
        f"{body['resolution']['reason']}."
    ),
    "obligation.reopened": lambda body: (
        f"{_people(body)} signed that people may be asked again about what was refused as action {body['id']}: "
        f"{body['reopening']['reason']}."
    ),
    "escalation.raised": lambda body: (
        f"People were asked about action {body['id']} on {', '.join(sorted(body['ladders']))} [{body['escalation']}]."
    ),
    "escalation.answered": _answered,
    "escalation.climbed": lambda body: (
        f"The question {body['escalation']} went on to rung {body['rung']} of ladder {body['ladder']}."
    ),
    "escalation.expired": lambda body: (
        f"The question {body['escalation']} about action {body['id']} is over: {words.unanswered(body)}."
    ),
    "key.enrolled": _enrolled,
    "key.removed": _removed,
    "key.rotated": _rotated,
    "absence.set": _absent,
    "review.cleared": lambda body: (
        f"{body['review']['person']} looked at action {body['id']}, flagged by #{body['decided']}: "
        f"{body['review']['note']}."
    ),
    "payee.changed": _details,
    "anchor.published": lambda body: (
        f"The head of {body['size']:,} records stands in a contract on chain {body['chain_id']}, sequence "
        f"{body['sequence']}."
    ),
    "action.refused": _refused,
    "kill.set": _kill,
    "kill.cleared": _cleared,
    "obligation.imported": _imported,
    "log.read": _read,
    "epoch.closed": _epoch,
    **TOLD,
    "head.witnessed": lambda body: f"Witnesses cosigned the first {body['size']:,} records.",
    "head.stamped": _stamped,
    "lane.succeeded": _succeeded,
    "lane.imported": _moved,
    "lane.accepted": _accepted,
}
