"""What people say afterwards, on paper: resolutions, reviews, reopenings, imports, readings (docs/spec/record.md)."""

from __future__ import annotations

from typing import Any

from acts import Action
from build import DEPLOYMENT, Key, doc_digest, pseudonym
from bundle import person_key
from fields import normal
from scribe import Alter, Story

BOTH = ("treasurer", "controller")


def four_eyes(domain: str, doc: dict[str, Any], people: tuple[str, ...], keys: dict[str, Key]) -> list[dict[str, str]]:
    """Each person's signature over the document, with another key where `keys` has one."""
    rows = []
    for person in people:
        key = keys.get(person) or person_key(person)
        rows.append({"person": person, "key": key.text, "sig": key.sign_doc(domain, doc)})
    return rows


def resolve(
    story: Story,
    action: Action,
    outcome: str = "confirmed",
    amount: int | None = None,
    people: tuple[str, ...] = BOTH,
    keys: dict[str, Key] | None = None,
    sign: Alter | None = None,
    alter: Alter | None = None,
    told: Alter | None = None,
    outcome_follows: bool = True,
) -> int:
    """Two people settle an intent; `sign` falsifies what they sign, `alter` the record, `told` the outcome after it."""
    body = action.body
    terms = body["terms"]
    paid = (terms["amount"] if amount is None else amount) if outcome == "confirmed" else None
    doc = {
        "v": 1,
        "deployment": DEPLOYMENT,
        "action": body["id"],
        "intent_digest": story.log.digest_of(action.seq),
        "outcome": outcome,
        "ref": "by hand" if outcome == "confirmed" else "",
        "amount": paid,
        "reason": "seen on the statement",
    }
    if sign is not None:
        sign(doc)
    record = {k: body[k] for k in ("id", "agent", "run", "terms")}
    record |= {"intent": action.seq, "resolution": doc, "signed": four_eyes("resolution", doc, people, keys or {})}
    if alter is not None:
        alter(record)
    seq = story.add("action.resolved", "gate", story.streams(body["agent"], body["run"], terms["payee"]), record)
    if outcome_follows:
        story.now -= 1_000_000  # in the same commit

        def as_signed(settled: dict[str, Any]) -> None:
            differs = settled["code"] == "booked_differently"
            settled |= {"code": "booked_differently" if differs else "resolved", "ref": doc["ref"]}
            settled |= {"http_status": 0, "request_id": "", "response": "", "attempts": 0}
            if told is not None:
                told(settled)

        story.settle(action, outcome, paid, "people", alter=as_signed)
    return seq


def review(
    story: Story, action: Action, person: str = "controller", key: Key | None = None, sign: Alter | None = None
) -> int:
    """Somebody looks at a flagged action."""
    doc = {
        "deployment": DEPLOYMENT,
        "action": action.body["id"],
        "decided_digest": story.log.digest_of(action.seq),
        "person": person,
        "note": "the delivery note agrees",
    }
    if sign is not None:
        sign(doc)
    key = key or person_key(person)
    body = {"id": action.body["id"], "decided": action.seq, "review": doc}
    body |= {"key": key.text, "sig": key.sign_doc("review", doc)}
    return story.add("review.cleared", f"person:{person}", [], body)


def reopen(
    story: Story,
    refusal: int,
    people: tuple[str, ...] = BOTH,
    keys: dict[str, Key] | None = None,
    sign: Alter | None = None,
    alter: Alter | None = None,
) -> int:
    """Two people let what the answer at `refusal` refused be asked about again."""
    answer = story.log.records[refusal]["body"]
    doc = {
        "v": 1,
        "deployment": DEPLOYMENT,
        "action": answer["id"],
        "refusal_digest": story.log.digest_of(refusal),
        "reason": "the goods have come after all",
    }
    if sign is not None:
        sign(doc)
    body = {k: answer[k] for k in ("id", "agent", "run", "terms")}
    body |= {"refused": refusal, "reopening": doc, "signed": four_eyes("reopening", doc, people, keys or {})}
    if alter is not None:
        alter(body)
    return story.add("obligation.reopened", "gate", [], body)


def imported(
    story: Story,
    invoice: str,
    payee: str = "aurora",
    tool: str = "bank.transfers.create",
    people: tuple[str, ...] = BOTH,
    keys: dict[str, Key] | None = None,
    sign: Alter | None = None,
    obligation: str = "",
) -> int:
    """An invoice that was paid before the gate; the payee is an id, or an account that nobody enrolled."""
    draft = story.tool(tool)
    known = {row["id"] for row in story.bundles[-1]["compiled"]["payees"]}
    named = payee if payee in known else "p:" + pseudonym("payee", payee)
    doc = {
        "v": 1,
        "deployment": DEPLOYMENT,
        "tool": tool,
        "pairs": [["invoice", normal(invoice)], ["payee", named]],
        "ref": "statement 9, line 4",
        "date": "2026-09-30",
        "source": "ledger of the third quarter",
    }
    if sign is not None:
        sign(doc)
    name = obligation or doc_digest("obligation", [draft["once_scope"], doc["pairs"]])
    body = {"obligation": name, "import": doc, "signed": four_eyes("import", doc, people, keys or {})}
    return story.add("obligation.imported", "gate", [], body)


def read(story: Story, start: int = 0, stop: int | None = None, what: str = "export", reader: str = "uid:1000") -> int:
    """Somebody reads the log."""
    body = {"reader": reader, "what": what, "from": start, "to": len(story.log.leaves) if stop is None else stop}
    return story.add("log.read", "gate", [], body)
