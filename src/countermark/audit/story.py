"""The story of one action, told from its records: asked, decided, approved, done, and what is still unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from countermark.audit import accounts, climbed, sentences, words
from countermark.audit.denials import because, rules_said
from countermark.audit.erasing import fate
from countermark.audit.lookup import granted
from countermark.audit.rebuild import REASON, hidden_of, is_decided, request_of
from countermark.audit.rules import about, fact
from countermark.audit.sources import bundle_document
from countermark.audit.told import Told
from countermark.authority import fingerprint
from countermark.model.records import Record
from countermark.model.tool import Value

REFUSED_STATES = ("denied", "refused", "expired")


def headline(told: Told, in_force: str = "") -> str:
    """The whole story in one or two sentences. ``in_force``: digest of the policy bundle of now, where it is known."""
    status, outcome = told.status, told.outcome
    if outcome is not None:
        return _settled_headline(told, outcome)
    if status == "pending":
        said = sentences.DISPOSITIONS[told.body["disposition"]]
        return f"Under way: {told.deal()} was {said}; no outcome is recorded yet."
    if status == "waiting" and in_force not in ("", told.body["bundle"]):
        return f"Waiting in vain: {told.deal()} cannot be approved any more: {sentences.IN_VAIN}. Nothing was sent."
    if status == "waiting":
        deadline = climbed.deadline(told.records) or told.last.at
        return f"Waiting: {told.deal()} needs an answer by people before {words.when(deadline)}. Nothing was sent."
    if status == "refused":
        people = words.listed([told.person(a.body["approval"]["person"]) for a in told.answers
                               if a.body["approval"]["verdict"] == "refuse"])  # fmt: skip
        return f"Refused: {people} said no to {told.deal()}. Nothing was sent."
    if status == "expired":
        return f"Not approved: {_unanswered(told)} for {told.deal()}, which means no. Nothing was sent."
    return f"Refused: {because(told)} Nothing was sent."


def _settled_headline(told: Told, outcome: Record) -> str:
    body = outcome.body
    if body["outcome"] == "confirmed":
        ref = f" as {body['ref']}" if body["ref"] else ""
        moved = body["settled"]
        differs = moved is not None and moved["amount"] != told.body["terms"]["amount"]
        other = (
            f" The provider moved {words.money(moved['amount'], moved['currency'])}, not what was asked."
            if differs
            else ""
        )
        return f"Done: {told.deal()}, confirmed{ref} on {words.day(outcome.at)}.{other}"
    if body["outcome"] == "failed":
        moved_on = accounts.why_not(told, outcome)
        return f"Failed: {told.deal()}: {outcome_said(body)}. {moved_on}Nothing was moved."
    return f"Unknown: {told.deal()}: {outcome_said(body)}. It may or may not have happened; do not pay it another way."


def outcome_said(body: Mapping[str, Any]) -> str:
    """What an outcome was, in words, with what stopped the request if it never left."""
    said: str = sentences.OUTCOMES.get(body["code"], body["code"])
    if body["code"] == "not_sent" and body["request_id"] in sentences.BARRIER:
        return f"{said}, because {sentences.BARRIER[body['request_id']]}"
    return said + (f" (HTTP {body['http_status']})" if body["http_status"] else "")


def asked(told: Told) -> list[str]:
    """What the agent asked for, and what it said about it."""
    body = told.first.body
    lines = [f"agent {body['agent']} asked on {words.when(told.first.at)} for {body['tool']}: {told.deal()}"]
    shown = {alias: value for alias, value in body["args"].items() if type(value) is not dict}
    hidden = [alias for alias in hidden_of(told.body) if alias not in told.hidden]
    lines += [f"{alias} = {words.safe(value)}" for alias, value in sorted({**shown, **_arguments(told)}.items())]
    if hidden:
        state, said = fate(told.store, told.last, opened=told.unseal is not None)
        named = ", ".join(sorted(a if a != REASON else "the reason" for a in hidden))
        lines += [f"{'withheld here' if state == 'withheld' else state}: {named}", *said]
    if REASON in told.hidden:
        lines.append(f"the agent's reason, unverified: {words.safe(told.hidden[REASON])}")
    claimed = body["claimed"]
    for name in ("model", "trace"):
        if claimed[name]:
            lines.append(f"{name}, as the agent says: {words.safe(claimed[name])}")
    if claimed["because"]:
        lines.append(f"it says that it relied on {words.safe(', '.join(claimed['because']))}")
    return lines


def _arguments(told: Told) -> dict[str, Value]:
    return {alias: value for alias, value in told.hidden.items() if alias != REASON}


def decided(told: Told) -> list[str]:
    """Every decision: disposition, stage, rules with numbers, facts."""
    lines = []
    for record in told.decisions:
        body = record.body
        lifted = f", with {', '.join(body['lifted'])} lifted by people" if body["lifted"] else ""
        code = f"{sentences.CODES.get(body['code'], body['code'])} [{body['code']}]"
        lines.append(
            f"{sentences.DISPOSITIONS[body['disposition']]} on {words.when(record.at)}, "
            f"{sentences.STAGES[body['stage']]}: {code}{lifted}"
        )
        if body["stage"] in ("policy", "monitor"):
            lines += rules_said(told, body)
    for name in sorted(told.body["facts"]):
        what = about(name, told.compiled)
        lines.append(f"fact {name} = {fact(name, told.body, told.compiled)}" + (f" ({what})" if what else ""))
    return lines + _budgets(told)


def _budgets(told: Told) -> list[str]:
    rows = told.body["budgets"]
    docs = granted(told.store, sorted({row[0] for row in rows}), told.last.seq, told.of_kind)
    return [
        f"budget of mandate {digest[7:19]}: {words.counted(used, docs[digest]['limits'][index]['currency'])} used "
        f"with this, of {words.limit(docs[digest]['limits'][index])}"
        for digest, index, used in rows
        if digest in docs
    ]


def approved(told: Told) -> list[str]:
    """Who was asked, who answered what, and when."""
    lines = []
    rungs = climbed.rungs_of(bundle_document(told.store, told.first.body["bundle"])["compiled"])
    for record in told.records:
        body = record.body
        if record.kind == "escalation.raised":
            lines += climbed.raised(body, rungs)
        elif record.kind == "escalation.climbed":
            lines.append(climbed.climbed(record, rungs, told.records))
        elif record.kind == "escalation.answered":
            verb = "approved" if body["approval"]["verdict"] == "approve" else "refused"
            lines.append(
                f"{told.person(body['approval']['person'])} {verb} on {words.when(record.at)} (ladder "
                f"{_rung(body['approval'], rungs)}, signed with {key_said(body['key'])}); then: {body['state']}"
            )
        elif record.kind == "escalation.expired":
            lines.append(f"{_unanswered(told)}, by {words.when(record.at)}")
        elif record.kind == "action.resolved":
            people = words.listed([told.person(row["person"]) for row in body["signed"]])
            said = body["resolution"]
            lines.append(f"{people} signed on {words.when(record.at)}: {said['outcome']}; {words.safe(said['reason'])}")
        elif record.kind == "obligation.reopened":
            people = words.listed([told.person(row["person"]) for row in body["signed"]])
            said = words.safe(body["reopening"]["reason"])
            lines.append(f"{people} signed on {words.when(record.at)} that people may be asked again: {said}")
        elif record.kind == "review.cleared":
            said = body["review"]
            lines.append(
                f"{told.person(said['person'])} looked at it on {words.when(record.at)}: {words.safe(said['note'])}"
            )
    if told.body["disposition"] == "flag" and not told.of("review.cleared"):
        lines.append("it waits in the review queue: nobody has looked at it yet")
    return lines


def key_said(text: str) -> str:
    """A person's key by its kind and the fingerprint that ``people list`` shows."""
    kind = "a passkey" if text.startswith("webauthn:") else "a key file"
    return f"{kind}, fingerprint {fingerprint(text)}"


def _unanswered(told: Told) -> str:
    return words.unanswered(told.of("escalation.expired")[-1].body, "not enough people" if told.answers else "nobody")


def _rung(approval: Mapping[str, Any], rungs: climbed.Rungs) -> str:
    ladder = approval["ladder"]
    return f"{ladder}, rung {approval['rung']}" if len(rungs.get(ladder, ())) > 1 else str(ladder)


def done(told: Told) -> list[str]:
    """What happened at the provider, as far as the gate saw it."""
    lines = []
    for record in told.of("action.settled"):
        body = record.body
        via = {
            "execute": "",
            "recovery": ", when the gate recovered",
            "lookup": ", when the provider was asked again",
            "people": ", by the word of two people",
        }
        if body["code"] == "not_reported":
            via = {}
        ref = f", reference {body['ref']}" if body["ref"] else ""
        money = (
            ""
            if body["settled"] is None
            else f", {words.money(body['settled']['amount'], body['settled']['currency'])}"
        )
        sent = body["attempts"] and body["code"] != "not_sent"
        tries = f", sent {words.times(body['attempts'])}" if sent else ""
        lines.append(
            f"{body['outcome']} on {words.when(record.at)}{via.get(body['via'], '')}: "
            f"{outcome_said(body)} [{body['code']}]{ref}{money}{tries}"
        )
        lines += [f"output {name} = {words.safe(value)}" for name, value in sorted(body["output"].items())]
    if not lines:
        lines.append(
            "nothing is recorded: " + ("nothing was sent" if told.status not in ("pending",) else "no outcome yet")
        )
    return lines


def unknown(told: Told) -> list[str]:
    """What these records do not show."""
    lines, body = [], told.body
    status = told.status
    if status == "pending":
        lines.append("whether it happened: no outcome is recorded; after a crash the gate asks the provider")
    elif status == "unknown":
        lines.append("whether it happened: the provider could not say yet")
    elif status == "confirmed" and body["terms"]["amount"] is not None:
        word = "two people's" if told.outcome is not None and told.outcome.body["via"] == "people" else "the provider's"
        lines.append(f"whether the money arrived: this is {word} word to the gate, not the payee's")
    if body["claimed"]["reason"] is not None or body["claimed"]["because"]:
        lines.append("whether what the agent says about its reasons is true")
    if status not in REFUSED_STATES:
        lines.append(sentences.TIERS.get(body["tier"], body["tier"]))
    return lines


def evidence(told: Told) -> list[str]:
    """The records, and whether a signed head covers them."""
    lines = [f"#{r.seq} {r.kind} {words.when(r.at)} {r.digest}" for r in told.records]
    lines.append(f"action {told.body['action']}")
    lines.append(f"request {told.body['request']}{_rebuilt(told)}")
    lines.append(f"policy {told.body['bundle']}")
    head = told.store.head()
    if head is not None:
        lines.append(f"the newest signed head covers {head[0]:,} records")
    return lines


def _rebuilt(told: Told) -> str:
    """Whether the exact bytes could be made again from what is visible here."""
    if told.tool is None:
        return ""
    sealed = None if told.unseal is None else told.unseal(told.last.seq)
    found = request_of(told.body, told.tool, sealed)
    if found is None:
        return ", not rebuilt here: values are " + fate(told.store, told.last, opened=told.unseal is not None)[0]
    return (
        ", rebuilt here with the same digest"
        if is_decided(told.body, found[0], sealed)
        else ", and the rebuilt one DIFFERS"
    )


SECTIONS = (
    ("Asked", asked), ("Decided", decided), ("People", approved), ("Provider", done), ("Unknown", unknown),
    ("Evidence", evidence),
)  # fmt: skip


def sections(told: Told) -> Sequence[tuple[str, list[str]]]:
    """The parts of the story that have something to say."""
    return [(title, lines) for title, tell in SECTIONS if (lines := tell(told))]
