"""The story of one action, told from its records: asked, decided, approved, done, and what is still unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from countermark.audit import accounts, climbed, sentences, words
from countermark.audit.erasing import fate
from countermark.audit.lookup import Near, OfKind, granted, kills, newest, revoked
from countermark.audit.rebuild import REASON, Unseal, hidden_of, is_decided, opened, request_of
from countermark.audit.rules import about, fact, numbers, rules_of
from countermark.audit.sources import bundle_document, present_state
from countermark.authority import fingerprint
from countermark.journal import SqliteStore
from countermark.model.records import Record
from countermark.model.tool import ToolSpec, Value, tool_from_document
from countermark.model.values import EXECUTING

REFUSED_STATES = ("denied", "refused", "expired")


@dataclass(frozen=True)
class Told:
    """One action with all its records, and how to look up what they point to."""

    store: SqliteStore
    records: tuple[Record, ...]
    unseal: Unseal | None
    near: Near | None = None

    @cached_property
    def decisions(self) -> list[Record]:
        return [record for record in self.records if record.kind == "action.decided"]

    @property
    def first(self) -> Record:
        return self.decisions[0]

    @property
    def last(self) -> Record:
        """The decision that counts: the newest."""
        return self.decisions[-1]

    @property
    def body(self) -> Mapping[str, Any]:
        return self.last.body

    def of(self, kind: str) -> list[Record]:
        return [record for record in self.records if record.kind == kind]

    @property
    def outcome(self) -> Record | None:
        settled = self.of("action.settled")
        return settled[-1] if settled else None

    @property
    def answers(self) -> list[Record]:
        return self.of("escalation.answered")

    @property
    def status(self) -> str:
        """``confirmed``, ``failed``, ``unknown``, ``pending``, ``denied``, ``refused``, ``expired`` or ``waiting``."""
        if self.outcome is not None:
            return str(self.outcome.body["outcome"])
        disposition = self.body["disposition"]
        if disposition in EXECUTING:
            return "pending"
        if disposition == "deny":
            return "denied"
        if any(answer.body["state"] == "refused" for answer in self.answers):
            return "refused"
        return "expired" if self.of("escalation.expired") else "waiting"

    @cached_property
    def compiled(self) -> Mapping[str, Any]:
        return self.bundle(self.body["bundle"])

    def bundle(self, digest: str) -> Mapping[str, Any]:
        """The compiled part of a bundle's document."""
        document = bundle_document(self.store, digest) if self.near is None else self.near.document(digest)
        return document["compiled"]  # type: ignore[no-any-return]

    @property
    def of_kind(self) -> OfKind | None:
        return None if self.near is None else self.near.of_kind

    def newest(self, action: str) -> int | None:
        """Seq of the newest record about another action."""
        return newest(self.store, "id:" + action) if self.near is None else self.near.newest("id:" + action)

    @cached_property
    def tool(self) -> ToolSpec | None:
        for document in self.compiled["tools"]:
            if document["name"] == self.body["tool"]:
                return tool_from_document(document)
        return None

    @cached_property
    def hidden(self) -> dict[str, Value]:
        """Sensitive values by alias, as far as the caller may see them and they are not erased."""
        if self.unseal is None:
            return {}
        return opened(self.last.body, self.unseal(self.last.seq))

    @cached_property
    def registered(self) -> Mapping[str, str]:
        """Names of the payees of now, for those that only an order made known."""
        if self.near is not None and self.near.names is not None:
            return self.near.names
        return {name: payee.name for name, payee in present_state(self.store).register.known.payees.items()}

    def payee(self, payee: str | None) -> str:
        """A payee by name; one that no bundle knows by what the agent gave."""
        for entry in self.compiled["payees"]:
            if entry["id"] == payee:
                return f"{entry['name']} ({payee})"
        if payee is not None and not payee.startswith("p:") and payee in self.registered:
            return f"{words.safe(self.registered[payee])} ({payee})"
        argument = None if self.tool is None else self.tool.one("payee")
        given = self.body["args"].get(argument.alias) if argument is not None else None
        account = given if type(given) is str else self.hidden.get(argument.alias) if argument is not None else None
        return f"an account that the policy does not know ({payee if account is None else words.safe(account)})"

    def person(self, name: str) -> str:
        """A person by name and ID."""
        for entry in self.compiled["people"]:
            if entry["id"] == name and entry["name"] != name:
                return f"{entry['name']} ({name})"
        return name

    def reference(self) -> str:
        """What is paid for, by the references of the business key: ``invoice 4711``."""
        tool = self.tool
        if tool is None:
            return ""
        values = {**{a: v for a, v in self.body["args"].items() if type(v) is not dict}, **self.hidden}
        named = [name for name in tool.once_per if name != "payee" and name in values]
        if not named:
            named = [arg.alias for arg in tool.args if arg.class_ == "reference" and arg.alias in values]
        return ", ".join(f"{name.replace('_', ' ')} {words.safe(values[name])}" for name in named)

    def amount(self) -> str:
        terms = self.body["terms"]
        return "" if terms["amount"] is None else words.money(terms["amount"], terms["currency"])

    def deal(self) -> str:
        """The action in a few words: ``9,900.00 EUR to Acme Paper GmbH (acme-paper), invoice 4711``."""
        payee = self.body["terms"]["payee"]
        parts = [self.amount() or self.body["tool"]]
        if payee is not None:
            parts[0] += f" to {self.payee(payee)}"
        return ", ".join([*parts, *filter(None, [self.reference()])])

    def subject(self) -> str:
        """What the headline is about."""
        return self.reference() or self.amount() or str(self.body["tool"])


def headline(told: Told) -> str:
    """The whole story in one or two sentences."""
    status, outcome = told.status, told.outcome
    if outcome is not None:
        return _settled_headline(told, outcome)
    if status == "pending":
        said = sentences.DISPOSITIONS[told.body["disposition"]]
        return f"Under way: {told.deal()} was {said}; no outcome is recorded yet."
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
