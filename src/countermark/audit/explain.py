"""``explain``: an ID in, the story in plain words out, and the same as a document for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.audit import sentences, words
from countermark.audit.denials import rules_said
from countermark.audit.erasing import TOLD, erased_by
from countermark.audit.lookup import Found, find
from countermark.audit.rebuild import REASON, Unseal, hidden_of
from countermark.audit.sources import present_state
from countermark.audit.story import headline, sections
from countermark.audit.told import Told
from countermark.journal import SqliteStore
from countermark.model.clock import iso
from countermark.model.records import Record

RUN_ACTIONS_MAX = 200  # listed; the rest is counted
_WIDTH = 10


@dataclass(frozen=True, slots=True)
class Explanation:
    """``text`` is for people; ``document`` says the same for programs (``--json``)."""

    text: str
    document: Mapping[str, Any]


def explain(store: SqliteStore, ref: str, *, unseal: Unseal | None = None) -> Explanation:
    """The story of an action, a run, an escalation, a record or a provider's reference.

    Args:
        ref: ``act_...``, ``run_...``, ``esc_...``, ``#12`` or ``12``, or a name that stands in a record.
        unseal: opens sensitive values; without it they stay withheld.

    Raises:
        ArgumentError: ``unknown_action``.
        StoreError: the journal cannot be read.
    """
    found = find(store, ref)
    if found.kind == "action":
        return _action(Told(store, found.records, unseal))
    if found.kind == "run":
        return _run(store, found, unseal)
    return _record(found.records[0])


def _rendered(first: str, parts: list[tuple[str, list[str]]]) -> str:
    lines = [first]
    for title, rows in parts:
        lines.append("")
        lines += [f"{title if n == 0 else '':<{_WIDTH}}{row}" for n, row in enumerate(rows)]
    return "\n".join(lines)


def _action(told: Told) -> Explanation:
    parts = list(sections(told))
    first = headline(told, _in_force(told.store, [told]))
    body, outcome = told.body, told.outcome
    document = {
        "kind": "action", "summary": first, "id": body["id"], "status": told.status, "agent": body["agent"],
        "run": body["run"], "call_id": body["call_id"], "tool": body["tool"],
        "terms": dict(body["terms"]), "amount": told.amount() or None,
        "args": {**{a: v for a, v in body["args"].items() if type(v) is not dict},
                 **{a: v for a, v in told.hidden.items() if a != REASON}},
        **_unseen(told),
        "disposition": body["disposition"], "stage": body["stage"], "code": body["code"],
        "reasons": list(body["reasons"]),
        "rules": rules_said(told, body) if body["stage"] in ("policy", "monitor") else [],
        "facts": dict(body["facts"]), "limits": dict(told.compiled["limits"]),
        "budgets": [list(row) for row in body["budgets"]],
        "answers": [
            {"person": a.body["approval"]["person"], "verdict": a.body["approval"]["verdict"],
             "ladder": a.body["approval"]["ladder"], "at": iso(a.at), "state": a.body["state"]} for a in told.answers
        ],
        "reviewed": next(
            ({"person": r.body["review"]["person"], "note": r.body["review"]["note"], "at": iso(r.at)}
             for r in told.of("review.cleared")), None,
        ),
        "outcome": None if outcome is None else {
            name: outcome.body[name]
            for name in ("outcome", "code", "ref", "settled", "http_status", "attempts", "output", "via", "tier")
        },
        "unknown": next((rows for title, rows in parts if title == "Unknown"), []),
        "records": [_line(record) for record in told.records], "bundle": body["bundle"],
    }  # fmt: skip
    return Explanation(_rendered(first, parts), document)


def _unseen(told: Told) -> dict[str, Any]:
    """What is withheld, what is erased and what else is gone are never the same list; ``erasure`` names the record."""
    unseen = sorted(alias for alias in hidden_of(told.body) if alias not in told.hidden)
    found = erased_by(told.store, told.last)
    gone = found is not None or told.unseal is not None
    return {
        "withheld": [] if gone else unseen, "erased": unseen if gone else [],
        "erasure": None if found is None else {
            "seq": found.seq, "at": iso(found.at), "reason": found.body["erasure"]["reason"],
            "people": [row["person"] for row in found.body["signed"]],
        },
    }  # fmt: skip


def _line(record: Record) -> dict[str, Any]:
    return {"seq": record.seq, "kind": record.kind, "at": iso(record.at), "digest": record.digest}


def _in_force(store: SqliteStore, told: Sequence[Told]) -> str:
    """Digest of the policy bundle of now, when one of these waits for people; else ""."""
    if all(one.status != "waiting" for one in told):
        return ""
    bundle = present_state(store).bundle
    return "" if bundle is None else bundle.digest


def _run(store: SqliteStore, found: Found, unseal: Unseal | None) -> Explanation:
    """The run, and each of its actions in a sentence."""
    actions: dict[str, list[Record]] = {}
    others: list[Record] = []
    for record in found.records:
        name = record.body.get("id")
        if type(name) is str:
            actions.setdefault(name, []).append(record)
        else:
            others.append(record)
    told = [Told(store, tuple(rows), unseal) for rows in actions.values() if rows[0].kind == "action.decided"]
    counts: dict[str, int] = {}
    for one in told:
        counts[one.status] = counts.get(one.status, 0) + 1
    bundle = _in_force(store, told)
    rows = [f"{one.body['id']}  {headline(one, bundle)}" for one in told[:RUN_ACTIONS_MAX]]
    if len(told) > RUN_ACTIONS_MAX:
        rows.append(f"and {len(told) - RUN_ACTIONS_MAX:,} more")
    start = others[0] if others else found.records[0]
    agent = start.body["agent"]
    summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no actions"
    first = f"A run of agent {agent}, {_ended(others)}: {summary}."
    parts = [("Run", [f"#{r.seq} {words.when(r.at)}: {sentence(r)}" for r in others])] if others else []
    if rows:
        parts.append(("Actions", rows))
    document = {
        "kind": "run", "summary": first, "run": start.body["run"], "agent": agent, "counts": counts,
        "actions": [
            {"id": one.body["id"], "status": one.status, "summary": headline(one, bundle), "seq": one.last.seq}
            for one in told
        ],
        "records": [_line(record) for record in others],
    }  # fmt: skip
    return Explanation(_rendered(first, parts), document)


def _ended(others: list[Record]) -> str:
    end = next((record for record in others if record.kind == "run.ended"), None)
    return "still open" if end is None else f"ended on {words.when(end.at)}"


def _record(record: Record) -> Explanation:
    first = sentence(record)
    parts = [("Evidence", [f"#{record.seq} {record.kind} {words.when(record.at)} {record.digest}", f"by {record.by}"])]
    document = {
        "kind": "record",
        "summary": first,
        "by": record.by,
        "body": dict(record.body),
        "records": [_line(record)],
    }
    return Explanation(_rendered(first, parts), document)


def sentence(record: Record) -> str:
    """One record that is not about an action, in a sentence."""
    tell = _SENTENCES.get(record.kind)
    return words.safe(f"A record of the kind {record.kind}." if tell is None else tell(record.body))


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
        else f"{max(0, known['size'] - before['size']):,} later records are known to be lost"
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


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
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
    "run.ended": lambda body: "The run ended" + (f": {body['reason']}." if body["reason"] else "."),
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
