"""One action as a page tells it: the timeline, the receipt, and how far the evidence reaches. Plain documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.audit import climbed, sentences, words
from countermark.audit.denials import rules_said
from countermark.audit.erasing import fate
from countermark.audit.rebuild import REASON, hidden_of
from countermark.audit.rules import about, fact
from countermark.audit.seen import Seen, covering
from countermark.audit.story import headline, key_said, unknown
from countermark.audit.told import Told
from countermark.audit.told_row import path_of
from countermark.model.records import Record
from countermark.model.values import EXECUTING
from countermark.policy import rule_from

_TONES = {"allow": "good", "flag": "warn", "escalate": "wait", "deny": "bad"}
_OUTCOMES = {"confirmed": "good", "failed": "bad", "unknown": "warn"}


def payment_page(told: Told) -> dict[str, Any]:
    """Everything that the page of one payment shows.

    Returns:
        ``{"id", "status", "headline", "agent", "tool", "run", "call_id", "amount", "payee", "reference", "escalation",
        "args": [[name, value]], "claims": {"reason", "model", "trace", "because"}, "withheld", "erased": [names],
        "timeline": [{"seq", "at", "title", "lines", "tone"}], "path": steps, "facts": [{"name", "value", "about"}],
        "receipt", "axes", "unknown": [text]}``. Texts of agents and providers are made visible, never markup.
    """
    body, first = told.body, told.first.body
    hidden = hidden_of(body)
    shown = {name: value for name, value in body["args"].items() if type(value) is not dict}
    shown |= {name: value for name, value in told.hidden.items() if name != REASON}
    closed = sorted("the reason" if name == REASON else name for name in hidden if name not in told.hidden)
    payee = body["terms"]["payee"]
    return {
        "id": body["id"], "status": told.status, "headline": headline(told), "agent": body["agent"],
        "tool": body["tool"], "run": body["run"], "call_id": body["call_id"], "amount": told.amount() or None,
        "payee": None if payee is None else told.payee(payee), "reference": told.reference(),
        "escalation": next((r.body["escalation"] for r in told.of("escalation.raised")), None),
        "args": [[name, words.safe(value)] for name, value in sorted(shown.items())],
        "claims": {
            "reason": words.safe(told.hidden[REASON]) if REASON in told.hidden else "",
            "model": words.safe(first["claimed"]["model"]), "trace": words.safe(first["claimed"]["trace"]),
            "because": list(first["claimed"]["because"]),
        },
        **_closed(told, closed),
        "timeline": timeline(told), "path": path_of(told),
        "facts": [
            {"name": name, "value": fact(name, body, told.compiled), "about": about(name, told.compiled)}
            for name in sorted(body["facts"])
        ],
        "receipt": receipt(told), "axes": axes(told), "unknown": unknown(told),
    }  # fmt: skip


def _closed(told: Told, closed: list[str]) -> dict[str, list[str]]:
    """What is sealed, what is erased, and who erased it."""
    state, said = fate(told.store, told.last, opened=told.unseal is not None) if closed else ("withheld", [])
    gone = state == "erased"
    return {"withheld": [] if gone else closed, "erased": closed if gone else [], "erased_by": said}


def timeline(told: Told) -> list[dict[str, Any]]:
    """Every record of the action in order, in words."""
    found = [
        _row(record, f"{record.body['agent']} asked for {told.deal()}", [], "plain")
        for record in told.decisions[:1]
    ]  # fmt: skip
    for record in told.records:
        found += _told(told, record)
    return found


def _row(record: Record, title: str, lines: list[str], tone: str) -> dict[str, Any]:
    return {"seq": record.seq, "at": record.at, "title": title, "lines": lines, "tone": tone, "kind": record.kind}


def _told(told: Told, record: Record) -> list[dict[str, Any]]:
    body, kind = record.body, record.kind
    if kind == "action.decided":
        return [_decision(told, record)]
    if kind == "escalation.raised":
        title = f"People are asked, until {words.when(body['not_after'])} at the latest"
        return [_row(record, title, climbed.raised(body, _rungs(told)), "wait")]
    if kind == "escalation.climbed":
        title = f"Ladder {body['ladder']} goes on to rung {body['rung']}"
        return [_row(record, title, [climbed.climbed(record, _rungs(told), told.records)], "wait")]
    if kind == "escalation.answered":
        return [_answer(told, record)]
    if kind == "escalation.expired":
        return [_row(record, f"{words.unanswered(body).capitalize()}, which means no", [], "bad")]
    if kind == "action.settled":
        return [_outcome(told, record)]
    if kind == "action.resolved":
        people = words.listed([told.person(row["person"]) for row in body["signed"]])
        said = body["resolution"]
        return [_row(record, f"{people} found out: {said['outcome']}", [words.safe(said["reason"])], "plain")]
    if kind == "obligation.reopened":
        people = words.listed([told.person(row["person"]) for row in body["signed"]])
        said = words.safe(body["reopening"]["reason"])
        return [_row(record, f"{people} let people be asked about it again", [said], "plain")]
    if kind == "review.cleared":
        said = body["review"]
        return [_row(record, f"{told.person(said['person'])} looked at it", [words.safe(said["note"])], "plain")]
    if kind == "request.signed":
        return [_row(record, f"Agent {body['agent']} signed the request with its own key",
                     [f"key {words.safe(body['key'])[:28]}..."], "plain")]  # fmt: skip
    return [_row(record, kind, [], "plain")]


def _rungs(told: Told) -> climbed.Rungs:
    return climbed.rungs_of(told.bundle(told.first.body["bundle"]))


def _decision(told: Told, record: Record) -> dict[str, Any]:
    body = record.body
    lines = [sentences.CODES.get(body["code"], body["code"])]
    if body["lifted"]:
        lines.append(f"{', '.join(body['lifted'])} lifted by people")
    if body["stage"] in ("policy", "monitor"):
        lines += rules_said(told, body)
    again = "again, " if record is not told.first else ""
    said = sentences.DISPOSITIONS[body["disposition"]]
    title = f"The gate decided: {again}{said}, {sentences.STAGES[body['stage']]}"
    return _row(record, title, lines, _TONES[body["disposition"]])


def _answer(told: Told, record: Record) -> dict[str, Any]:
    body = record.body
    approval = body["approval"]
    approved = approval["verdict"] == "approve"
    left = {"pending": "more people must answer", "approved": "that was enough", "refused": "that ends it"}
    title = f"{told.person(approval['person'])} {'approved' if approved else 'refused'}"
    return _row(record, title, [f"ladder {approval['ladder']}, signed with {key_said(body['key'])}",
                                left.get(body["state"], body["state"])], "good" if approved else "bad")  # fmt: skip


def _outcome(told: Told, record: Record) -> dict[str, Any]:
    body = record.body
    said = sentences.OUTCOMES.get(body["code"], body["code"])
    if body["code"] == "not_sent" and body["request_id"] in sentences.BARRIER:
        said += f", because {sentences.BARRIER[body['request_id']]}"
    lines = [said + (f" (HTTP {body['http_status']})" if body["http_status"] else "")]
    if body["ref"]:
        lines.append(f"the provider's reference is {words.safe(body['ref'])}")
    if body["attempts"] and body["code"] != "not_sent":
        lines.append(f"sent {words.times(body['attempts'])}")
    if body["settled"] is not None:
        lines.append(f"booked: {words.money(body['settled']['amount'], body['settled']['currency'])}")
    lines += [f"output {name} = {words.safe(value)}" for name, value in sorted(body["output"].items())]
    title = {
        "confirmed": "Done: the provider confirmed it", "failed": "Failed: nothing was moved",
        "unknown": "Unknown: it may or may not have happened",
    }[body["outcome"]]  # fmt: skip
    return _row(record, title, lines, _OUTCOMES[body["outcome"]])


def receipt(told: Told) -> dict[str, Any]:
    """Digests and places, and which signed head first covers them."""
    body, last = told.body, told.records[-1]
    head, newest = told.store.head_over(last.seq), told.store.head()
    return {
        "action": body["action"], "request": body["request"], "bundle": body["bundle"],
        "mandates": list(body["mandates"]), "obligation": body["obligation"],
        "records": [{"seq": r.seq, "kind": r.kind, "at": r.at, "digest": r.digest} for r in told.records],
        "covered": None if head is None else head[0], "head": None if newest is None else newest[0],
        "tier": body["tier"],
    }  # fmt: skip


def axes(told: Told) -> list[dict[str, str]]:
    """How far the records of this action reach, axis by axis: what a verifier may derive, which trusts more than this.

    Each is ``{"axis", "level", "shown"}``, with the verifier's own levels.
    """
    return [_authority(told), _integrity(told), _computation(told), _effect(told), _completeness(told)]


def _axis(axis: str, level: str, shown: str) -> dict[str, str]:
    return {"axis": axis, "level": level, "shown": shown}


def _authority(told: Told) -> dict[str, str]:
    people = [told.person(a.body["approval"]["person"]) for a in told.answers]
    signed = f"; {words.listed(sorted(set(people)))} signed an answer over these exact digests" if people else ""
    if any(record.kind == "request.signed" for record in told.records):
        return _axis("authority", "agent", "the agent's own key signed the request, under a signed mandate and a "
                                           "signed policy" + signed)  # fmt: skip
    return _axis("authority", "mandate", "mandate and policy are signed by people; that the agent asked is the "
                                         "operator's word" + signed)  # fmt: skip


def _integrity(told: Told) -> dict[str, str]:
    head = told.store.head_over(told.records[-1].seq)
    covered = "not covered by a signed head yet" if head is None else f"covered by the signed head of {head[0]:,}"
    seen = _seen(told)
    if seen is not None:
        return _axis("integrity", "witnessed", f"its records are in the log; {seen.said()}, so a rewrite with the "
                                               "deployment's own keys would show")  # fmt: skip
    if "witness" in told.bundle(told.first.body["bundle"]):
        return _axis("integrity", "log", f"its records are in the log, {covered}; its witnesses have not seen them yet")
    return _axis("integrity", "log", f"its records are in the log, {covered}; no witness is configured, so a rewrite "
                                     "with the deployment's own keys would not show to who kept no head")  # fmt: skip


def _computation(told: Told) -> dict[str, str]:
    return _axis("computation", "recorded", "facts and policy stand in the records, so the decision can be computed "
                                            "again; nothing else was executed again")  # fmt: skip


def _effect(told: Told) -> dict[str, str]:
    body, outcome = told.body, told.outcome
    if body["disposition"] not in EXECUTING:
        return _axis("effect", "none", "nothing was sent")
    if body["tier"] == "observing":
        return _axis("effect", "reported", "the agent's own process ran it and reported the outcome")
    if outcome is None:
        return _axis("effect", "open", "no outcome is recorded")
    if outcome.body["outcome"] == "unknown":
        return _axis("effect", "open", "whether anything happened is not known")
    if outcome.body["via"] == "people":
        return _axis("effect", "people", "two people found out and signed it; nothing else corroborates them here")
    return _axis("effect", "gate observed", "the gate recorded the provider's answer; nothing corroborates it here")


def _completeness(told: Told) -> dict[str, str]:
    if told.status in ("pending", "unknown"):
        return _axis(
            "completeness", "open", "the intent has no final outcome; not reconciled with the provider's books"
        )
    return _axis("completeness", "gap-free", "every record names its place in gap-free streams; not reconciled with "
                                             "the provider's books")  # fmt: skip


def covered_by(told: Told, published: int | None) -> Mapping[str, Any]:
    """What anybody outside could have seen of this: the head that was published, and what witnesses saw."""
    last, seen = told.records[-1].seq, _seen(told)
    return {
        "published": published, "within": published is not None and published > last,
        "wanted": "witness" in told.bundle(told.first.body["bundle"]),
        "witnesses": [] if seen is None else [seen.said(), seen.offset()],
    }  # fmt: skip


def _seen(told: Told) -> Seen | None:
    """The first head that covers all records of the action and that witnesses of its policy cosigned."""
    doc = told.bundle(told.first.body["bundle"]).get("witness")
    return None if doc is None else covering(told.store, told.records[-1].seq, rule_from(doc))
