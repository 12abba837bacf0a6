"""``policy diff``: what a draft changes, in the rules and in the decisions of the last records, and what it voids."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from countermark.audit import sentences
from countermark.audit.changes import bundle_changes
from countermark.audit.rebuild import Unseal
from countermark.audit.redecide import Again, Pseudonym, Redecision, by_action, counting, start_of_last
from countermark.audit.rules import numbers, rules_of
from countermark.audit.sources import bundles_of, present_state
from countermark.audit.words import money, safe, when
from countermark.journal import SqliteStore
from countermark.model.records import Record
from countermark.policy import Bundle, State

DECISIONS_LAST = 10_000
LISTED_MAX = 1_000  # of each list, the newest; the rest is counted

_SHOWN = re.compile(r"seq:[0-9]+|kill_[0-9a-f]+|[a-z][A-Za-z0-9_.\[\]-]{0,63}")  # not the digest of a mandate

Rules = Mapping[str, Any]


def policy_diff(
    store: SqliteStore, draft: Bundle, pseudonymous: Pseudonym, *, last: int | None = DECISIONS_LAST,
    since: int | None = None, unseal: Unseal | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What would change if ``draft`` were put in force now. Reads only.

    Args:
        last: how many of the newest decisions are made again; None for all.
        since: microseconds UTC; only decisions from then on.

    Returns:
        ``{"bundle": bundle_changes(...), "decisions": {"from", "to", "decided", "same", "changed", "partial",
        "counts": [{"was", "now", "count"}], "listed": [row], "more"}, "approvals": [...], "open": [...]}``; a row is
        ``{seq, at, id, agent, run, call_id, tool, terms, was: {disposition, code, reasons}, now: {...}, words}``.
    """
    with store.steady():
        present = present_state(store)
        start = 0 if last is None else start_of_last(store, last)
        again = Redecision(draft, bundles_of(store), pseudonymous, unseal)
        found = _Changed(draft)
        wanted: Callable[[Record], bool] = lambda r: (  # noqa: E731
            r.seq >= start and counting(r) and (since is None or r.at >= since)
        )
        if present.bundle is not None:
            for one in by_action(again.run(store.records(), wanted)):
                found.add(one)
        return {
            "bundle": bundle_changes(present.bundle, draft),
            "decisions": {"from": start, "to": store.size(), **found.document()},
            "approvals": _voided(store, present, again, draft), "open": _open(store, present, draft),
        }  # fmt: skip


class _Changed:
    """Counts and lists the decisions whose disposition changes."""

    def __init__(self, draft: Bundle) -> None:
        self._draft = draft
        self._rules = rules_of(draft.document["compiled"])
        self._counts: Counter[tuple[str, str]] = Counter()
        self._decided = self._partial = 0
        self._listed: deque[dict[str, Any]] = deque(maxlen=LISTED_MAX)

    def add(self, one: Again) -> None:
        self._decided += 1
        self._partial += one.partial
        was, now = one.record.body["disposition"], one.judgement.disposition
        if was != now:
            self._counts[was, now] += 1
            self._listed.append(row_of(one, self._rules, self._draft))

    def document(self) -> dict[str, Any]:
        changed = sum(self._counts.values())
        listed = sorted(self._listed, key=lambda row: row["seq"])
        counts = [{"was": was, "now": now, "count": count} for (was, now), count in sorted(self._counts.items())]
        return {
            "decided": self._decided, "same": self._decided - changed, "changed": changed, "partial": self._partial,
            "counts": counts, "listed": listed, "more": changed - len(listed),
        }  # fmt: skip


def row_of(one: Again, rules: Rules, bundle: Bundle) -> dict[str, Any]:
    """A decision made again, as a document."""
    record, judgement = one.record, one.judgement
    names = ("id", "agent", "run", "call_id", "tool")
    return {
        "seq": record.seq, "at": record.at, **{name: record.body[name] for name in names},
        "terms": dict(one.body["terms"]), "references": references(one.body, bundle),
        "was": {name: record.body[name] for name in ("disposition", "code", "reasons")},
        "now": {
            "disposition": judgement.disposition, "code": judgement.code, "reasons": list(judgement.reasons),
        },
        "words": words_of(one, rules, bundle.document["compiled"]),
    }  # fmt: skip


def references(body: Mapping[str, Any], bundle: Bundle) -> dict[str, str]:
    """What the action says it pays for, in the clear: the arguments of the class ``reference``."""
    tool = bundle.compiled.tools.get(body["tool"])
    named = () if tool is None else [arg.alias for arg in tool.args if arg.class_ == "reference"]
    return {alias: str(body["args"][alias]) for alias in named if type(body["args"].get(alias)) in (str, int)}


def words_of(one: Again, rules: Rules, compiled: Mapping[str, Any]) -> list[str]:
    """Why, rule by rule with its numbers; what stopped it when no rule did."""
    judgement = one.judgement
    if judgement.stage not in ("policy", "monitor") or not judgement.reasons:
        points = [name.replace("seq:", "#") for name in judgement.reasons if _SHOWN.fullmatch(name)]
        said = sentences.CODES.get(judgement.code, judgement.code)
        return [f"{said} ({', '.join(points)})" if points else said]
    said_of = []
    for name in judgement.reasons:
        if judgement.disposition == "flag" and name in rules and rules[name].flag is None:
            continue
        compared = numbers(rules[name], one.body, compiled) if name in rules else []
        said_of.append(safe(name) + (f": {' and '.join(compared)}" if compared else ""))
    return said_of


def _voided(store: SqliteStore, present: State, again: Redecision, draft: Bundle) -> list[dict[str, Any]]:
    """Open escalations that were raised under another bundle: an approval of any is void once the draft is in force.

    ``now`` is what the draft would say if the same were asked again.
    """
    rows: list[dict[str, Any]] = []
    for name, parked in sorted(present.parked.items(), key=lambda item: item[1].seq):
        if parked.body["bundle"] == draft.digest:
            continue
        asked = store.record(parked.body["decided"])
        answered = sorted({person for people in parked.answers.values() for person in people})
        now = _asked_again(asked, again, present.at) if len(rows) < LISTED_MAX else None
        rows.append({
            "escalation": name, "id": asked.body["id"], "agent": asked.body["agent"], "tool": asked.body["tool"],
            "terms": dict(asked.body["terms"]), "references": references(asked.body, draft),
            "not_after": parked.body["not_after"], "approved_by": answered, "now": now,
        })  # fmt: skip
    return rows


def _asked_again(record: Record, again: Redecision, at: int) -> str:
    ask, refused, _ = again.asked(record)
    if ask is None or refused is not None or ask.run not in again.state.runs:
        return "deny"
    waiting = again.state.waiting.pop(ask.obligation or "", None)
    try:
        return again.judged(record, ask, at).judgement.disposition
    finally:
        if waiting is not None and ask.obligation is not None:
            again.state.waiting[ask.obligation] = waiting


def _open(store: SqliteStore, present: State, draft: Bundle) -> list[dict[str, Any]]:
    """Payments under way or unknown: their holds stay; what the draft takes away from finding out is named."""
    rows = []
    for seq, intent in sorted(present.open.items())[:LISTED_MAX]:
        body = store.record(seq).body
        rows.append({
            "seq": seq, "id": intent.id, "tool": intent.tool, "terms": dict(body["terms"]),
            "references": references(body, draft), "status": intent.status, "at": intent.at,
            "tool_stays": intent.tool in draft.compiled.tools,
        })  # fmt: skip
    return rows


def diff_lines(found: Mapping[str, Any], shown_max: int = 40) -> list[str]:
    """The document of ``policy_diff`` for a terminal."""
    bundle, decisions = found["bundle"], found["decisions"]
    if bundle["same"]:
        lines = [f"The draft is the policy in force ({bundle['to'][7:19]}): nothing changes."]
    else:
        before = "no policy" if bundle["from"] is None else f"the policy {bundle['from'][7:19]}"
        lines = [f"From {before} to the draft {bundle['to'][7:19]}:"]
        files = ", ".join(f"{row['file']} {row['change']}" for row in bundle["files"]) or "none"
        lines += [f"  files: {safe(files)}", *(f"  {line}" for line in bundle["words"])]
    lines += ["", _decisions_line(decisions)]
    lines += [f"  {row['was']} -> {row['now']}: {row['count']:,}" for row in decisions["counts"]]
    listed = decisions["listed"][-shown_max:]
    lines += [_row_line(row) for row in listed]
    if decisions["changed"] > len(listed):
        lines.append(f"  and {decisions['changed'] - len(listed):,} earlier ones (--json lists {LISTED_MAX:,})")
    if decisions["partial"]:
        lines.append(f"  of {decisions['partial']:,} not everything could be looked at again")
    return [*lines, *_approval_lines(found["approvals"], shown_max), *_open_lines(found["open"], shown_max)]


def _decisions_line(decisions: Mapping[str, Any]) -> str:
    if not decisions["decided"]:
        return "No decision was made yet that could change."
    end = ":" if decisions["changed"] else "."
    return f"Of the last {decisions['decided']:,} decisions {decisions['changed']:,} would be other ones{end}"


def deal(row: Mapping[str, Any]) -> str:
    """``480.00 EUR to acme-paper, invoice INV-1`` of a row; an unknown payee by the beginning of its pseudonym."""
    terms, payee = row["terms"], row["terms"]["payee"]
    amount = row["tool"] if terms["amount"] is None else money(terms["amount"], terms["currency"])
    if payee is not None and payee.startswith("p:"):
        payee = f"unknown {payee[:10]}"
    refs = ", ".join(f"{name} {value}" for name, value in sorted(row.get("references", {}).items()))
    return safe(amount + ("" if payee is None else f" to {payee}") + (f", {refs}" if refs else ""))


def _row_line(row: Mapping[str, Any]) -> str:
    change = f"{row['was']['disposition']} -> {row['now']['disposition']}"
    return f"  #{row['seq']} {when(row['at'])} {deal(row)}: {change}, {safe('; '.join(row['words']))}"


_VOIDED = "Once this is in force, none can be approved; asked for again under a new call_id, it is decided anew"


def _approval_lines(rows: list[dict[str, Any]], shown_max: int) -> list[str]:
    if not rows:
        return ["", "No open question is voided."]
    lines = ["", f"Open questions: {len(rows):,}. {_VOIDED}:"]
    for row in rows[:shown_max]:
        answered = f", approved so far by {', '.join(row['approved_by'])}" if row["approved_by"] else ""
        now = f"; asked again: {row['now']}" if row["now"] else ""
        lines.append(f"  {row['escalation']} {deal(row)}, open until {when(row['not_after'])}{answered}{now}")
    if len(rows) > shown_max:
        lines.append(f"  and {len(rows) - shown_max:,} more")
    return lines


def _open_lines(rows: list[dict[str, Any]], shown_max: int) -> list[str]:
    if not rows:
        return ["No payment is under way."]
    lines = [f"Under way or unknown: {len(rows):,}. Their holds stay as they are:"]
    for row in rows[:shown_max]:
        lost = "" if row["tool_stays"] else "; THE DRAFT HAS NO SUCH TOOL: what became of it can then not be asked"
        lines.append(f"  #{row['seq']} {deal(row)}, {row['status']} since {when(row['at'])}{lost}")
    if len(rows) > shown_max:
        lines.append(f"  and {len(rows) - shown_max:,} more")
    return lines
