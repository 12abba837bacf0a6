"""One question to people: what a phone shows before anybody signs, in a fixed order, and the answers to it.

A session alone answers nothing. The page shows the digest of the exact document, a passkey signs it, the server makes
the document anew and the gate verifies the signature. To freeze the agent needs no key: whoever is here may stop.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from countermark.audit import Question, Unseal, question
from countermark.authority import build_approval
from countermark.journal import SqliteStore
from countermark.model.digest import APPROVAL
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.values import EXECUTING
from countermark.server.console import signing
from countermark.server.console.questions import Standing, limits_of, lines_of, standing
from countermark.server.console.roles import STOP, WORDS
from countermark.server.console.visit import Page, Reply, Visit
from countermark.server.console.waiting import ladders_for
from countermark.server.console.words import content_tag, plain

POLL_S = 3
REASON_CHARS_MAX = 200
LAST_CHARS = 4
VERDICTS = ("approve", "refuse")

_ESCALATION = re.compile(r"esc_[0-9a-f]{32}")
_OVER = ("approval_unknown", "approval_closed", "approval_expired", "approval_void")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it stands now. ``entry`` is the gate's word on what waits, None when it waits no more."""

    question: Question
    entry: Mapping[str, Any] | None
    outlook: Mapping[str, Any] | None
    history: Mapping[str, Any] | None

    @property
    def possible(self) -> bool:
        """Whether an approval would have it done, as the gate sees it now."""
        return self.outlook is None or self.outlook["disposition"] in EXECUTING

    @property
    def payee(self) -> tuple[str, str]:
        """The payee's name and ID, as the register has them now; both empty for one that nobody knows."""
        if self.history is not None:
            return str(self.history["name"]), str(self.history["payee"])
        return self.question.payee

    @property
    def last4(self) -> str:
        """The account's end: of the request itself, or, where that is withheld, of the register."""
        return self.question.account[-LAST_CHARS:] or ("" if self.history is None else str(self.history["last4"]))

    @property
    def tag(self) -> str:
        """Changes when the page should say something else."""
        seen = (len(self.question.told.records), self.entry is None, self.possible, self._rungs())
        return content_tag(repr(seen).encode())

    def _rungs(self) -> list[tuple[str, int]]:
        return [] if self.entry is None else [(k, v["rung"]) for k, v in self.entry.get("rungs", {}).items()]


async def show(visit: Visit) -> Reply:
    """``GET /waiting/{escalation}``."""
    asked = await _asked(visit, alike=True)
    said: Standing | None = None
    if asked.entry is not None:
        said = standing(visit, asked.entry, ladders_for(visit, asked.entry), (asked.history or {}).get("by"))
    outlook = asked.outlook or {}
    facts, q = outlook.get("facts") or None, asked.question
    return visit.html(
        "approval.html", asked=asked, q=q, said=said, lines=lines_of(q, facts), limits=limits_of(q, facts),
        checks=q.checks(facts), against=lines_of(q, facts, outlook.get("against", ())), fresh=facts is not None,
        forms=_forms(visit, asked, said), poll_s=POLL_S, name=visit.params["escalation"],
        withheld=WORDS not in visit.may,
    )  # fmt: skip


async def thread(visit: Visit) -> Reply:
    """``GET /waiting/{escalation}/thread``: what became of it; a page that would be another is reloaded."""
    asked = await _asked(visit)
    if asked.tag == visit.query.get("seen", ""):
        return Reply(204, b"")
    if asked.entry is not None or visit.query.get("open") == "1":
        return Reply(200, b"", ((b"hx-refresh", b"true"), *visit.more))
    return visit.html("approval_thread.html", asked=asked, q=asked.question, name=visit.params["escalation"],
                      poll_s=POLL_S)  # fmt: skip


async def answer(visit: Visit) -> Reply:
    """``POST /waiting/{escalation}/answer``: a passkey signed. The document is made here, from what the gate asks."""
    asked = await _asked(visit)
    verdict, ladder = visit.form.get("verdict", ""), visit.form.get("ladder", "")
    if verdict not in VERDICTS:
        raise ArgumentError("the answer is approve or refuse", field="verdict")
    document = _document(visit, asked, ladder, verdict)
    if verdict == "approve" and not asked.question.exact:
        raise ArgumentError(
            "the request cannot be shown as it was decided, so nobody approves it", code="approval_void"
        )
    keys = signing.passkeys_of(visit.who, visit.origin)
    await visit.console.call("answer", signing.signed("approval", APPROVAL, document, keys, visit.form))
    visit.console.all.counters.add("console_answers", verdict)
    return visit.go(f"/waiting/{visit.params['escalation']}")


async def freeze(visit: Visit) -> Reply:
    """``POST /waiting/{escalation}/freeze``: stop the agent that asked, at once. This needs no key."""
    asked = await _asked(visit)
    reason = plain(visit.form.get("reason", ""), REASON_CHARS_MAX)
    said = f"{visit.who.id}, from the console" + (f": {reason}" if reason else "")
    await visit.console.call("kill.set", {"kind": "agent", "value": asked.question.body["agent"], "reason": said})
    visit.console.all.counters.add("console_stops", "agent")
    return visit.go(f"/waiting/{visit.params['escalation']}")


async def _asked(visit: Visit, *, alike: bool = False) -> Asked:
    """The question, what the gate says about it now, and the payee's history; ``alike``: and whom it is like."""
    name = visit.params["escalation"]
    if _ESCALATION.fullmatch(name) is None:
        raise ArgumentError("no such question was ever asked here", field="escalation", code="unknown_action")
    console, words = visit.console, WORDS in visit.may

    def read(store: SqliteStore, unseal: Unseal) -> Question:
        return question(store, name, unseal if words else None, console.questions)

    found = await console.read(read)
    page = await console.call("escalations", {"limit": 1, "after": found.raised.seq + 1, "alike": alike})
    entry = page[0] if page and page[0]["escalation"] == name else None
    if entry is None and not found.over:  # answered in between: what stands in the journal is newer now
        found = await console.read(read)
    outlook = None if entry is None else await _outlook(visit, name)
    if outlook is None:
        entry = None
    return Asked(found, entry, outlook, await _history(visit, found))


async def _outlook(visit: Visit, name: str) -> Mapping[str, Any] | None:
    """What would be decided now if everybody said yes; None when it does not wait any more."""
    try:
        outlook: Mapping[str, Any] = await visit.console.call("escalation.preview", {"escalation": name})
    except CountermarkError as error:
        if error.code not in _OVER:
            raise
        return None
    return outlook


async def _history(visit: Visit, found: Question) -> Mapping[str, Any] | None:
    """What is known about the payee, of the policy or of the register; None for one that nobody knows."""
    payee = found.body["terms"]["payee"]
    if payee is None or payee.startswith("p:"):
        return None
    try:
        history: Mapping[str, Any] = await visit.console.call("payee.history", {"payee": payee})
    except CountermarkError as error:
        if error.code != "unknown_payee":
            raise
        return None
    return history


def _document(visit: Visit, asked: Asked, ladder: str, verdict: Any) -> dict[str, Any]:
    """The approval that this person would sign: from what the gate says waits, never from the browser."""
    if asked.entry is None:
        raise ArgumentError("this question is not waiting for an answer any more", code="approval_expired")
    return build_approval(
        asked.entry, deployment=visit.console.config.deployment, ladder=ladder, verdict=verdict, person=visit.who.id
    )


def _forms(visit: Visit, asked: Asked, said: Standing | None) -> dict[str, Any] | None:
    """What each button needs; None when this person cannot answer here."""
    if said is None or not said.ladder:
        return None
    keys = signing.passkeys_of(visit.who, visit.origin)
    host = urlsplit(visit.origin).hostname or ""
    challenges = {
        verdict: signing.Challenge.of(
            APPROVAL, _document(visit, asked, said.ladder, verdict), host, [key.credential for key in keys]
        )
        for verdict in VERDICTS
    }
    return {"ladder": said.ladder, "passkeys": len(keys), **challenges}


_PATH = "/waiting/{escalation}"
PAGES = (
    Page(_PATH, show),
    Page(_PATH + "/thread", thread, query=("seen", "open"), poll=True),
    Page(_PATH + "/answer", answer, "POST", form=("verdict", "ladder", *signing.FIELDS)),
    Page(_PATH + "/freeze", freeze, "POST", STOP, form=("reason",)),
)
