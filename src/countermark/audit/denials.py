"""Why an action was denied, with what the decision points to: the rule, the earlier payment, the stop, the mandate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.audit import accounts, sentences, words
from countermark.audit.lookup import granted, kills, revoked
from countermark.audit.rules import numbers, rules_of
from countermark.audit.told import Told


def because(told: Told) -> str:
    """Why the newest decision denied, with what it points to; a full sentence."""
    body = told.body
    code = body["code"]
    if code in ("duplicate_obligation", "refused_by_person", "already_waiting"):
        return _earlier(told, int(body["reasons"][0].removeprefix("seq:")))
    if code == "killed":
        return _killed(told)
    if code == "account_replaced":
        return accounts.replaced(told)
    if code.startswith("mandate_"):
        return _mandate(told)
    if code == "fact_missing":
        return (
            f"the fact {', '.join(body['reasons'])}, which the policy needs, could not be computed for {told.deal()}."
        )
    if code == "approval_void":
        changed = words.listed([sentences.VOID.get(name, name) for name in body["reasons"]])
        return f"{told.deal()} was approved, but then {changed}, so the approval no longer counts.{accounts.why(told)}"
    rules = rules_said(told, body)
    if code == "denied_by_policy" and rules:
        return f"{told.deal()}: {'; '.join(rules)}."
    return f"{told.deal()}: {sentences.CODES.get(code, code)}."


def _earlier(told: Told, seq: int) -> str:
    """The record that took the obligation, in words."""
    record = told.store.record(seq)
    subject = told.subject()
    if record.kind == "escalation.answered":
        person = told.person(record.body["approval"]["person"])
        return f"{subject} was refused by {person} on {words.day(record.at)}, and that refusal stands (#{seq})."
    if record.kind == "obligation.imported":
        order = record.body["import"]
        ref = f" as {words.safe(order['ref'])}" if order["ref"] else ""
        return (
            f"{subject} was already settled{ref} on {order['date']}, before the gate or around it, as "
            f"{words.listed([told.person(row['person']) for row in record.body['signed']])} say (#{seq})."
        )
    if record.kind == "escalation.raised":
        return f"{subject} was already waiting for people to answer, who were asked on {words.day(record.at)} (#{seq})."
    terms, agent = record.body["terms"], record.body["agent"]
    last = told.newest(record.body["id"])
    latest = record if last is None else told.store.record(last)
    status = latest.body["outcome"] if latest.kind == "action.settled" else "open"
    done = "paid" if terms["amount"] is not None else "done"
    said = {
        "confirmed": f"was already {done} on",
        "unknown": f"may already be {done} (the provider could not say), since a decision on",
        "failed": "was under way at that time (it failed later), since a decision on",
    }.get(status, "is already under way, since a decision on")
    amount = "" if terms["amount"] is None else words.money(terms["amount"], terms["currency"]) + ", "
    return f"{subject} {said} {words.day(record.at)} ({amount}by agent {agent}, #{seq})."


def _killed(told: Told) -> str:
    names = told.body["reasons"]
    found = kills(told.store, list(names), told.last.seq, told.of_kind)
    said = []
    for name in names:
        kill = found.get(name)
        if kill is None:
            said.append(name)
            continue
        scope = kill["scope"]
        said.append(f"{sentences.stopped(scope['kind'], scope['value'], words.safe(kill['reason']))} [{name}]")
    return f"{words.listed(said)}. The agent had asked for {told.deal()}."


def _mandate(told: Told) -> str:
    body = told.body
    digest = body["reasons"][0] if body["reasons"] else ""
    doc = granted(told.store, [digest], told.last.seq, told.of_kind).get(digest)
    said = f"{told.deal()}: {sentences.CODES[body['code']]} (mandate {digest[7:19]})"
    if doc is None:
        return said + "."
    if body["code"] == "mandate_limit":
        return f"{said}; its limits: {'; '.join(words.limit(row) for row in doc['limits'])}."
    if body["code"] == "mandate_not_in_force":
        order = revoked(told.store, [digest], told.last.seq, told.of_kind).get(digest)
        if order is not None:
            return f"{said}; {told.person(order['person'])} ended it: {words.safe(order['reason'])}."
        return f"{said}; it was granted from {words.when(doc['not_before'])} until {words.when(doc['not_after'])}."
    named = {"mandate_tool": "tools", "mandate_payee": "payees"}.get(body["code"])
    if named is not None:
        return f"{said}; it covers {', '.join(doc[named]) or 'none'}."
    return f"{said}; its limits: {'; '.join(words.limit(row) for row in doc['limits'])}."


def rules_said(told: Told, body: Mapping[str, Any]) -> list[str]:
    """Each deciding rule of a decision with the numbers it compared, by the policy that was in force for it."""
    same = body["bundle"] == told.body["bundle"]
    compiled = told.compiled if same else told.bundle(body["bundle"])
    rules = rules_of(compiled)
    said = []
    for name in body["reasons"]:
        rule = rules.get(name)
        found = [] if rule is None else numbers(rule, body, compiled)
        extra = f" [{rule.flag}]" if rule is not None and rule.flag else ""
        said.append(f"rule {name}{extra}" + (f": {' and '.join(found)}" if found else ""))
    return said
