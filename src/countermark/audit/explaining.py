"""``explain``: an ID in, the story in plain words out, and the same as a document for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.audit import words
from countermark.audit.denials import rules_said
from countermark.audit.erasing import erased_by
from countermark.audit.lookup import Found, find, holding
from countermark.audit.rebuild import REASON, Unseal, hidden_of
from countermark.audit.recorded import sentence
from countermark.audit.sources import present_state
from countermark.audit.story import headline, sections
from countermark.audit.told import Told
from countermark.journal import SqliteStore
from countermark.model.clock import iso
from countermark.model.records import Record

RUN_ACTIONS_MAX = 200  # listed; the rest is counted
_WIDTH = 12


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
    return _record(store, found.records[0])


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


def _record(store: SqliteStore, record: Record) -> Explanation:
    """One record, and the one that ended what it began."""
    first, over = sentence(record), _over(store, record)
    parts = [] if over is None else [("Since then", [over[0]])]
    records = [record] if over is None or over[1] is None else [record, over[1]]
    lines = [f"#{one.seq} {one.kind} {words.when(one.at)} {one.digest}, by {one.by}" for one in records]
    parts.append(("Evidence", lines))
    document = {
        "kind": "record", "summary": first, "by": record.by, "body": dict(record.body),
        "ended": None if len(records) == 1 else {**_line(records[1]), "summary": sentence(records[1])},
        "records": [_line(one) for one in records],
    }  # fmt: skip
    return Explanation(_rendered(first, parts), document)


# kind -> the kind that ends it, its name in the first, and in the second
_ENDS: Mapping[str, tuple[str, Callable[[Any], Any], Callable[[Any], Any], str]] = {
    "kill.set": ("kill.cleared", lambda b: b["kill"], lambda b: b["clearance"]["kill"], "The stop stands."),
    "hold.set": ("hold.cleared", lambda b: b["order"]["hold"], lambda b: b["hold"], "The hold stands."),
    "mandate.granted": ("mandate.revoked", lambda b: b["digest"], lambda b: b["revocation"]["mandate"], ""),
    "mandate.accepted": ("mandate.revoked", lambda b: b["digest"], lambda b: b["revocation"]["mandate"], ""),
}


def _over(store: SqliteStore, record: Record) -> tuple[str, Record | None] | None:
    """What has become of what the record began: the sentence, and the record that ended it."""
    if record.kind not in _ENDS:
        return None
    kind, name, ended, standing = _ENDS[record.kind]
    for later in holding(store, name(record.body), record.seq + 1, store.size()):
        if later.kind == kind and ended(later.body) == name(record.body):
            return f"#{later.seq} {words.when(later.at)}: {sentence(later)}", later
    return (standing, None) if standing else None
