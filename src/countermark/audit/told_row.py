"""One action as a line of a list, and as the steps of a path: plain documents for pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from countermark.audit import sentences, words
from countermark.audit.daybook import Daybook
from countermark.audit.daybook_find import Entry
from countermark.audit.lookup import Near
from countermark.audit.sources import bundle_document
from countermark.audit.told import Told
from countermark.journal import SqliteStore
from countermark.model.errors import StoreError
from countermark.model.records import Record
from countermark.model.values import EXECUTING

DOCUMENTS_MAX = 64

Documents = dict[str, Mapping[str, Any]]


def near(
    store: SqliteStore, book: Daybook, documents: Documents, names: Mapping[str, str] | None = None
) -> Near:  # fmt: skip
    """Look-ups by the daybook; ``documents`` keeps bundles from one question to the next.

    ``names`` are those of all payees of now: without them, a payee of the register costs a reading of the state.
    """

    def document(digest: str) -> Mapping[str, Any]:
        if digest not in documents:
            if len(documents) >= DOCUMENTS_MAX:
                documents.clear()
            documents[digest] = bundle_document(store, digest)
        return documents[digest]

    return Near(book.of_kind(store), book.newest, document, names)


def row_of(store: SqliteStore, entry: Entry, ways: Near) -> dict[str, Any]:
    """One action of a page, read from its own records; sensitive values stay withheld.

    Raises:
        StoreError: the daybook leads to a record that is not about this action.
    """
    places = dict.fromkeys((entry.first, entry.last, entry.newest))
    records = tuple(sorted((store.record(seq) for seq in places), key=lambda record: record.seq))
    if any(record.body.get("id") != entry.id for record in records) or records[0].kind != "action.decided":
        raise StoreError("the daybook is not of this journal", hint="Delete it: it is made anew.", code="bad_daybook")
    return row_from(Told(store, records, None, ways))


def row_from(told: Told) -> dict[str, Any]:
    """One action as a line of a list."""
    terms = told.body["terms"]
    return {
        "id": told.body["id"], "seq": told.first.seq, "at": told.first.at, "agent": told.body["agent"],
        "tool": told.body["tool"], "payee": None if terms["payee"] is None else told.payee(terms["payee"]),
        "amount": told.amount() or None, "reference": told.reference(), "status": told.status,
        "disposition": told.body["disposition"], "code": told.body["code"],
        "why": sentences.CODES.get(told.body["code"], told.body["code"]),
        "ref": "" if told.outcome is None else told.outcome.body["ref"],
        "outcome": "" if told.outcome is None else told.outcome.body["code"],
    }  # fmt: skip


def told_by(store: SqliteStore, book: Daybook, action: str, ways: Near, unseal: Any = None) -> Told | None:
    """The story of an action by its ID, from exactly its own records; None when the journal has none.

    Raises:
        StoreError: the daybook leads to a record that is not about this action.
    """
    records = tuple(store.record(seq) for seq in book.about(action))
    if not records:
        return None
    if any(record.body.get("id") != action for record in records):
        raise StoreError("the daybook is not of this journal", hint="Delete it: it is made anew.", code="bad_daybook")
    return Told(store, records, unseal, ways)


def path_of(told: Told) -> list[dict[str, Any]]:
    """What the decision called for beside what happened: steps from the request to the provider's books.

    Returns:
        ``[{"step", "planned": text, "actual": text, "state"}]``; ``state`` is ``done``, ``open``, ``stopped`` (the
        path ends here, as it may), ``differs`` (not as planned) or ``never`` (not reached).
    """
    steps = [_step("Asked", "an agent asks", f"{told.first.body['agent']} asked", "done"), _decided(told)]
    first = told.first.body["disposition"]
    if first == "deny":
        return steps
    if first == "escalate":
        steps.append(_people(told))
        if steps[-1]["state"] == "done":
            steps.append(_again(told))
    states = [step["state"] for step in steps]
    return steps + _effect(told, "" if set(states) == {"done"} else "not yet" if states[-1] == "open" else "never")


def _step(step: str, planned: str, actual: str, state: str) -> dict[str, Any]:
    return {"step": step, "planned": planned, "actual": actual, "state": state}


def _decided(told: Told) -> dict[str, Any]:
    disposition = told.first.body["disposition"]
    said = sentences.DISPOSITIONS[disposition]
    return _step("Decided", "the gate decides", said, "stopped" if disposition == "deny" else "done")


def _people(told: Told) -> dict[str, Any]:
    ladders: Mapping[str, Sequence[str]] = {}
    for raised in told.of("escalation.raised"):
        ladders = raised.body["ladders"]
    planned = f"{words.listed(sorted(ladders))} says yes" if ladders else "people say yes"
    refused = [a for a in told.answers if a.body["state"] == "refused"]
    if refused:
        return _step("People", planned, f"{_named(told, refused)} refused", "stopped")
    if told.last is not told.first:
        agreed = [a for a in told.answers if a.body["approval"]["verdict"] == "approve"]
        return _step("People", planned, f"{_named(told, agreed)} approved" if agreed else "approved", "done")
    if expired := told.of("escalation.expired"):
        return _step("People", planned, f"{words.unanswered(expired[0].body)}: no", "stopped")
    return _step("People", planned, "not answered yet", "open")


def _named(told: Told, answers: Sequence[Record]) -> str:
    return words.listed(list(dict.fromkeys(told.person(a.body["approval"]["person"]) for a in answers)))


def _again(told: Told) -> dict[str, Any]:
    disposition = told.body["disposition"]
    state = "done" if disposition in EXECUTING else "differs"
    return _step("Decided again", "still allowed", sentences.DISPOSITIONS[disposition], state)


def _effect(told: Told, missing: str) -> list[dict[str, Any]]:
    """The steps at the provider; ``missing`` says why there are none."""
    outcome = told.outcome
    asked = told.amount() or str(told.body["tool"])
    sent, settled, booked = f"send {asked}", "the provider confirms", f"booked as {asked}"
    if missing:
        rows = [("Sent", sent), ("Confirmed", settled)] + ([("Booked", booked)] if told.amount() else [])
        return [_step(name, planned, missing, "never") for name, planned in rows]
    if outcome is None:
        return [_step("Sent", sent, "under way: no outcome is recorded", "open"),
                _step("Confirmed", settled, "not yet", "open")]  # fmt: skip
    return _settled(told, outcome, (sent, settled, booked))


def _settled(told: Told, outcome: Record, planned: tuple[str, str, str]) -> list[dict[str, Any]]:
    body = outcome.body
    said = sentences.OUTCOMES.get(body["code"], body["code"])
    if body["code"] == "not_sent":
        return [_step("Sent", planned[0], said, "differs"), _step("Confirmed", planned[1], "never", "never")]
    by = {"report": "the agent's own process says so", "people": "by two people's word"}.get(body["via"], "")
    sent = by or (f"sent {words.times(body['attempts'])}" if body["attempts"] else "sent")
    state = {"confirmed": "done", "failed": "differs", "unknown": "open"}[body["outcome"]]
    steps = [_step("Sent", planned[0], sent, "done"), _step("Confirmed", planned[1], said, state)]
    if told.amount() and body["outcome"] == "confirmed":
        moved = body["settled"]
        if moved is None:
            steps.append(_step("Booked", planned[2], "the provider did not say what it moved", "open"))
        else:
            same = moved["amount"] == told.body["terms"]["amount"]
            shown = words.money(moved["amount"], moved["currency"])
            steps.append(_step("Booked", planned[2], f"booked as {shown}", "done" if same else "differs"))
    return steps
