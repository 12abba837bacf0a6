"""From committed records to events: what one record means for the people who are asked, or were.

An event's document holds names of the policy, amounts, and arguments that the tool does not declare sensitive. The
agent's reason and every sensitive value are sealed in the journal, and are never opened here. Text that others wrote
is one line of visible characters (``words.safe``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from countermark.model.clock import iso
from countermark.model.records import Record
from countermark.model.values import EXECUTING
from countermark.model.words import money, safe
from countermark.notify.text import title_of
from countermark.policy import Bundle, Ladder

TEXT_CHARS_MAX = 200  # of one text that somebody else wrote
REFERENCES_MAX = 8
LAST4_CHARS_MIN = 8  # of a shorter account, four characters would be most of it
FOLLOWED = frozenset((
    "escalation.raised", "escalation.climbed", "escalation.answered", "escalation.expired", "action.decided",
    "action.settled", "kill.set",
))  # fmt: skip
# Found in the bytes of every record that may be told of (canonical JSON has no spaces, and escapes a quoted quote).
_MARK = re.compile(rb'"kind":"(?:escalation\.|kill\.set|action\.settled)|"escalation":"esc_')
_INTENT = re.compile(rb'"intent":([0-9]{1,16}),"intent_digest"')
_ANSWERED = {"pending": "answered", "approved": "approved", "refused": "refused"}


class Threads(Protocol):
    """What earlier records said about escalations that are still told about."""

    def raised(self, escalation: str) -> int | None:
        """Seq of the record that raised it."""
        ...

    def of_intent(self, intent: int) -> str | None:
        """The escalation whose approval led to the intent at this seq."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """What is told. ``asks``: ladder -> rung that is asked by it; ``ladders``: ladder -> the roles asked now.

    ``intent`` is set where an approved action begins, ``final`` where nothing more will be told.
    """

    seq: int
    name: str
    escalation: str | None
    doc: Mapping[str, Any]
    asks: Mapping[str, int]
    ladders: Mapping[str, frozenset[str]]
    intent: int | None = None
    final: bool = False


class Events:
    """Makes events of records. ``console`` is the origin of the pages that a message links to, or ``""``."""

    def __init__(
        self, record: Callable[[int], Record], bundle: Callable[[str], Bundle], threads: Threads, console: str = ""
    ) -> None:
        self._record, self._bundle, self._threads = record, bundle, threads
        self._console = console

    def matters(self, raw: bytes) -> bool:
        """Whether a record's bytes may hold something to tell: most do not, and need not be parsed."""
        if _MARK.search(raw) is None:
            return False
        intent = _INTENT.search(raw)
        return (
            intent is None
            or b'"kind":"action.settled"' not in raw
            or self._threads.of_intent(int(intent[1])) is not None
        )

    def of(self, record: Record) -> Event | None:
        """The event of a record; None when there is nothing to tell."""
        if record.kind not in FOLLOWED:
            return None
        if record.kind == "kill.set":
            return self._stopped(record)
        found = self._told(record)
        if found is None:
            return None
        name, escalation, more = found
        seq = self._threads.raised(escalation)
        raised = record if record.kind == "escalation.raised" else None if seq is None else self._record(seq)
        return None if raised is None else self._event(record, name, raised, more)

    def _told(self, record: Record) -> tuple[str, str, dict[str, Any]] | None:
        """The event's name, its escalation, and what only this record says."""
        body = record.body
        if record.kind == "escalation.raised":
            return "asked", body["escalation"], {}
        if record.kind == "escalation.climbed":
            return "climbed", body["escalation"], {"because": body["because"]}
        if record.kind == "escalation.answered":
            approval = body["approval"]
            told = {"person": _text(approval["person"]), "ladder": approval["ladder"]}
            return _ANSWERED[body["state"]], body["escalation"], told
        if record.kind == "escalation.expired":
            return "expired", body["escalation"], {}
        if record.kind == "action.decided":
            if body["escalation"] is None:
                return None
            name = "sent" if body["disposition"] in EXECUTING else "voided"
            return name, body["escalation"], {"code": body["code"]}
        escalation = self._threads.of_intent(body["intent"])
        settled = body["settled"]
        moved = "" if settled is None else money(settled["amount"], settled["currency"])
        told = {"code": body["code"], "reference": _text(body["ref"]), "moved": moved}
        return None if escalation is None else (body["outcome"], escalation, told)

    def _event(self, record: Record, name: str, raised: Record, more: dict[str, Any]) -> Event:
        question = raised.body
        decided = self._record(question["decided"])
        bundle = self._bundle(question["bundle"])
        asks, due = _asked_now(record, question)
        doc = {
            **_place(record, name), "escalation": question["escalation"], "action": question["id"],
            **_about(decided, bundle), "rules": {k: list(v) for k, v in question["ladders"].items()},
            "rungs": dict(asks), "deadline": iso(due) if name in ("asked", "climbed") else None, "due": due,
            "zone": bundle.compiled.zone, "link": self._link(bundle, question["escalation"]), **more,
        }  # fmt: skip
        doc["title"] = title_of(doc)
        ladders = {
            ladder: roles_of(bundle.compiled.ladders.get(ladder), asks.get(ladder, 1)) for ladder in question["ladders"]
        }
        final = name in ("refused", "expired", "voided", "confirmed", "failed")
        return Event(record.seq, name, question["escalation"], doc, asks, ladders,
                     record.seq if name == "sent" else None, final)  # fmt: skip

    def _stopped(self, record: Record) -> Event:
        scope = record.body["scope"]
        what = "everything" if scope["kind"] == "deployment" else f"{scope['kind']} {_text(scope['value'])}"
        doc = {
            **_place(record, "stopped"), "escalation": None, "kill": record.body["kill"], "what": what,
            "reason": _text(record.body["reason"]), "zone": "UTC",
            "link": f"{self._console}/agents" if self._console else "",
        }  # fmt: skip
        doc["title"] = title_of(doc)
        return Event(record.seq, "stopped", None, doc, {}, {})

    def _link(self, bundle: Bundle, escalation: str) -> str:
        console = getattr(bundle.compiled, "console", "") or self._console
        return f"{console}/waiting/{escalation}" if console else ""


def probe(now_us: int, deployment: str, console: str = "") -> dict[str, Any]:
    """The document of a message that only tries a channel."""
    doc = {"event": "test", "seq": 0, "at": iso(now_us), "escalation": None, "zone": "UTC", "link": console}
    return {**doc, "deployment": deployment, "title": f"A test message of {deployment}: nothing waits, nothing moved"}


def roles_of(ladder: Ladder | None, rung: int) -> frozenset[str]:
    """The roles that a ladder's rung asks; none when the policy does not know it."""
    if ladder is None:
        return frozenset()
    rungs = getattr(ladder, "rungs", ())
    return frozenset(rungs[rung - 1].roles if 0 < rung <= len(rungs) else ladder.roles)


def _asked_now(record: Record, question: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    """Ladder -> rung that this record asks, and until when."""
    if record.kind == "escalation.raised":
        due = question.get("due") or {}
        return dict.fromkeys(question["ladders"], 1), min([question["not_after"], *due.values()])
    if record.kind == "escalation.climbed":
        return {record.body["ladder"]: record.body["rung"]}, record.body["due"]
    return {}, question["not_after"]


def _place(record: Record, name: str) -> dict[str, Any]:
    return {"event": name, "seq": record.seq, "at": iso(record.at)}


def _about(decided: Record, bundle: Bundle) -> dict[str, Any]:
    """Who asks for what, without any value that the tool declares sensitive."""
    body, terms = decided.body, decided.body["terms"]
    tool = bundle.compiled.tools.get(body["tool"])
    payee = bundle.compiled.payees.get(terms["payee"] or "")
    where = None if tool is None else tool.one("payee")
    account = "" if where is None or where.sensitive else body["args"].get(where.alias)
    references = {} if tool is None else {
        arg.alias: _text(body["args"][arg.alias])
        for arg in tool.args
        if arg.class_ == "reference" and not arg.sensitive and _plain(body["args"].get(arg.alias))
    }  # fmt: skip
    amount = terms["amount"]
    return {
        "agent": body["agent"], "tool": body["tool"], "amount": amount, "currency": terms["currency"],
        "amount_text": "" if amount is None else money(amount, terms["currency"]),
        "payee": terms["payee"], "payee_name": "" if payee is None else _text(payee.name),
        "account_last4": _text(account[-4:]) if type(account) is str and len(account) >= LAST4_CHARS_MIN else "",
        "references": dict(sorted(references.items())[:REFERENCES_MAX]),
    }  # fmt: skip


def _plain(value: object) -> bool:
    return type(value) in (str, int, bool)


def _text(value: object) -> str:
    text = safe(value)
    return text if len(text) <= TEXT_CHARS_MAX else text[: TEXT_CHARS_MAX - 1] + "…"
