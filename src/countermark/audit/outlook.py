"""Whether an approval would have an action done now, in words: what people must know before they sign."""

from __future__ import annotations

from countermark.audit import sentences
from countermark.audit.rules import numbers, rules_of
from countermark.model.records import Record
from countermark.policy import Escalation, State, preview


def cannot(state: State, parked: Escalation, decided: Record, at: int) -> str:
    """Why an approval at ``at`` would not have it done: a clause, or "" when it would."""
    outlook = preview(state, parked, decided.body, at)
    judgement, bundle = outlook.judgement, state.bundle
    if outlook.possible or bundle is None:
        return ""
    if judgement.code == "approval_void" and "bundle" in judgement.reasons:
        return sentences.IN_VAIN
    compiled = bundle.document["compiled"]
    body = {**decided.body, "facts": dict(judgement.facts or {})}
    rules, said = rules_of(compiled), []
    for name in outlook.against or (judgement.reasons if judgement.stage == "policy" else ()):
        compared = numbers(rules[name], body, compiled) if name in rules else []
        said.append(name + (f": {' and '.join(compared)}" if compared else ""))
    if said:
        return "; ".join(said)
    if judgement.code == "approval_void":
        return "; ".join(sentences.VOID.get(name, name) for name in judgement.reasons)
    return sentences.CODES.get(judgement.code, judgement.code)
