"""Approved against executed: the bytes that people signed, those that were sent, what was booked, and what the payee
stood for at each of these moments, as far as the records say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from countermark.audit.lookup import find
from countermark.audit.sources import bundles_of
from countermark.audit.words import listed, money, safe, when
from countermark.journal import SqliteStore
from countermark.model.errors import ArgumentError
from countermark.model.records import Record
from countermark.model.values import EXECUTING

CHANGES_MAX = 20  # of the payee, the newest
_DIGESTS = ("action", "request")


def approved_and_executed(store: SqliteStore, ref: str) -> dict[str, Any]:
    """Compare, for one action, what was asked, approved, decided, and booked.

    Returns:
        ``{"id", "tool", "terms", "asked", "approved": [...], "executed", "booked", "same_bytes", "same_money",
        "changes": [...], "behind": {...}, "other": [...]}``. ``asked``, each of ``approved`` and ``executed`` hold
        ``seq``, ``at`` and both digests (``executed`` and ``booked`` may be null). ``changes`` are confirmed actions of
        tools of the class ``change`` about the same payee, and orders of the register:
        ``{seq, at, agent, run, granted_by, tool, args, when}``, ``agent`` null where a person signed. ``behind`` is
        what was read behind the payee, where a tool reads that; ``other`` names what an outcome puts out under a name
        that a change wrote, with both values.

    Raises:
        ArgumentError: ``unknown_action``, or there is nothing of this name that a decision was about.
    """
    with store.steady():
        records = find(store, ref).records
        decided = [record for record in records if record.kind == "action.decided"]
        if not decided:
            raise ArgumentError("this is no action", field="id", code="unknown_action")
        first, last = decided[0], decided[-1]
        asked = next((r for r in records if r.kind == "escalation.raised"), first)
        approvals = [
            r for r in records if r.kind == "escalation.answered" and r.body["approval"]["verdict"] == "approve"
        ]
        settled = next((r for r in reversed(records) if r.kind == "action.settled"), None)
        executed = last if last.body["disposition"] in EXECUTING else None
        changes = list(_changes(store, first, executed or last, settled))
        digests = [_digests(asked), *(r.body["approval"] for r in approvals), *([executed.body] if executed else [])]
        moved = None if settled is None else settled.body["settled"]
        return {
            "id": first.body["id"], "tool": first.body["tool"], "terms": dict(first.body["terms"]),
            "asked": _row(asked, _digests(asked)),
            "approved": [{**_row(r, r.body["approval"]), "person": r.body["approval"]["person"]} for r in approvals],
            "executed": None if executed is None else _row(executed, executed.body),
            "booked": None if settled is None else {
                "seq": settled.seq, "at": settled.at, "outcome": settled.body["outcome"], "ref": settled.body["ref"],
                "settled": moved, "output": dict(settled.body["output"]),
            },
            "same_bytes": all(one[name] == digests[0][name] for one in digests for name in _DIGESTS),
            "same_money": moved is None or moved["amount"] == first.body["terms"]["amount"],
            "changes": changes, "behind": _behind(first, executed or last, settled),
            "other": list(_other(changes, settled)),
        }  # fmt: skip


def _behind(asked: Record, sent: Record, settled: Record | None) -> dict[str, Any]:
    """What was read behind the payee at each moment, for tools that read it: ``{"digest", "last4"}`` or null."""
    found = (("asked", asked), ("decided", sent), *((("settled", settled),) if settled is not None else ()))
    return {name: record.body["reference"] for name, record in found if "reference" in record.body}


def _digests(record: Record) -> Mapping[str, Any]:
    return {name: record.body[name] for name in _DIGESTS}


def _row(record: Record, digests: Mapping[str, Any]) -> dict[str, Any]:
    return {"seq": record.seq, "at": record.at, **{name: digests[name] for name in _DIGESTS}}


def _changes(store: SqliteStore, asked: Record, sent: Record, settled: Record | None) -> Iterator[dict[str, Any]]:
    """Confirmed changes of the payee up to the outcome, in order; the last ``CHANGES_MAX``."""
    payee = asked.body["terms"]["payee"]
    bundle_of = bundles_of(store)
    stop = store.size() if settled is None else settled.seq
    intents: dict[int, Record] = {}
    granted: dict[str, str] = {}
    found: list[dict[str, Any]] = []
    for record in store.records(0, stop):
        if record.kind == "payee.changed" and record.body["details"]["payee"] == payee:
            found.append(_registered(record, _moment(record, asked, sent)))
        elif record.kind == "mandate.granted":
            granted[record.body["digest"]] = record.body["mandate"]["principal"]
        elif record.kind == "action.decided" and payee is not None and record.body["terms"]["payee"] == payee:
            tool = bundle_of(record.body["bundle"]).compiled.tools[record.body["tool"]]
            if tool.class_ == "change" and record.body["disposition"] in EXECUTING:
                intents[record.seq] = record
        elif record.kind == "action.settled" and record.body["outcome"] == "confirmed":
            change = intents.pop(record.body["intent"], None)
            if change is not None:
                found.append(_change(change, record, granted, _moment(record, asked, sent)))
    yield from found[-CHANGES_MAX:]


def _moment(change: Record, asked: Record, sent: Record) -> str:
    if change.seq < asked.seq:
        return "before the question"
    return "between the question and the decision that sent it" if change.seq < sent.seq else "after it was sent"


def _change(change: Record, settled: Record, granted: Mapping[str, str], moment: str) -> dict[str, Any]:
    body = change.body
    return {
        "seq": change.seq, "at": settled.at, "agent": body["agent"], "run": body["run"], "tool": body["tool"],
        "granted_by": granted.get(body["mandates"][-1]) if body["mandates"] else None, "when": moment,
        "args": {alias: value for alias, value in body["args"].items() if type(value) is not dict},
    }  # fmt: skip


def _registered(record: Record, moment: str) -> dict[str, Any]:
    """A person's order about the payee."""
    details = record.body["details"]
    return {
        "seq": record.seq, "at": record.at, "agent": None, "run": None, "tool": record.kind,
        "granted_by": details["person"], "when": moment, "args": {n: details[n] for n in ("name", "account")},
    }  # fmt: skip


def _other(changes: list[dict[str, Any]], settled: Record | None) -> Iterator[dict[str, Any]]:
    """What the provider said it used, against what was written when people were asked."""
    output = {} if settled is None else settled.body["output"]
    before = [change for change in changes if change["when"] == "before the question"]
    for name, value in sorted(output.items()):
        written = [change["args"][name] for change in before if name in change["args"]]
        if written and written[-1] != value:
            yield {"name": name, "asked": written[-1], "booked": value}


def approved_lines(found: Mapping[str, Any]) -> list[str]:
    """The document for a terminal."""
    terms = found["terms"]
    amount = found["tool"] if terms["amount"] is None else money(terms["amount"], terms["currency"])
    lines = [f"{amount}{'' if terms['payee'] is None else ' to ' + terms['payee']} ({found['id']})"]
    rows = [("asked", found["asked"]), *(("approved", row) for row in found["approved"])]
    rows += [("executed", found["executed"])] if found["executed"] else []
    for title, row in rows:
        who = f", {row['person']}" if "person" in row else ""
        lines.append(f"  {title:<9} {when(row['at'])}  #{row['seq']}  action {row['action'][7:19]}  "
                     f"request {row['request'][7:19]}{who}")  # fmt: skip
    booked = found["booked"]
    if booked is not None:
        output = ", ".join(f"{name} {value}" for name, value in sorted(booked["output"].items()))
        moved = "" if booked["settled"] is None else f"  {money(booked['settled']['amount'], terms['currency'])}"
        ref = f" as {booked['ref']}" if booked["ref"] else ""
        said = safe(f"{booked['outcome']}{ref}{'; ' + output if output else ''}")
        lines.append(f"  booked    {when(booked['at'])}  #{booked['seq']}{moved} {said}")
    lines.append(f"  {_verdict(found)}")
    for change in found["changes"]:
        args = ", ".join(f"{name} {value}" for name, value in sorted(change["args"].items()))
        by = f", under a mandate of {change['granted_by']}" if change["granted_by"] else ""
        who = f"agent {change['agent']}{by}" if change["agent"] else change["granted_by"]
        said = safe(f"{change['tool']} ({args}) by {who}")
        lines.append(f"  {change['when']}: {when(change['at'])}  #{change['seq']} {said}")
    return lines


def _verdict(found: Mapping[str, Any]) -> str:
    if not found["same_bytes"]:
        return "THE BYTES DIFFER: what was sent is not what was approved."
    behind = {name: found["behind"].get(name) for name in ("decided", "settled")}
    moved = None if behind["settled"] is None else behind["settled"]["last4"] or "another"
    if found["executed"] is None:
        return "Nothing was sent."
    if found["booked"] is not None and found["booked"]["outcome"] == "failed":
        return "Nothing was moved" + (f": by then the account behind the payee was {safe(moved)}." if moved else ".")
    same = "The same bytes were asked about, approved and sent" if found["approved"] else "No person was asked"
    if not found["same_money"]:
        return f"{same}, but another amount was booked."
    if found["other"]:
        named = listed([safe(f"{row['name']} {row['booked']}, not {row['asked']}") for row in found["other"]])
        return f"{same}, and yet it went elsewhere: {named}."
    return f"{same}, and nothing that the records know of the payee had changed since."
