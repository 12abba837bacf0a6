"""The words of a message: a title, lines of label and value, and a whole plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from countermark.model.clock import US
from countermark.model.words import written

_TITLES = {
    "asked": "Waiting for an answer", "climbed": "Still waiting for an answer", "answered": "One person approved",
    "approved": "Approved", "refused": "Refused", "expired": "No answer any more", "voided": "Approved, and not sent",
    "sent": "Being sent", "confirmed": "Confirmed", "failed": "Failed", "unknown": "Not known whether it happened",
}  # fmt: skip
_WHAT_IT_MEANS = {
    "asked": "The action is parked. No answer means no.",
    "climbed": "Further people are asked now. No answer means no.",
    "answered": "Other people still have to answer.",
    "approved": "The policy in force decides once more before anything is sent.",
    "refused": "Nothing is sent, and the same obligation cannot be asked for again.",
    "expired": "Time is over, its run was cancelled, or its policy replaced. No answer means no: nothing is sent.",
    "voided": "The policy in force decided once more, and no longer lets it pass: nothing is sent.",
    "sent": "The decision is recorded, and the gate sends the request.",
    "confirmed": "The provider says that it is done.",
    "failed": "Nothing was moved, as far as the provider says.",
    "unknown": "The provider could not say. It is not sent again blindly; the gate keeps asking.",
    "stopped": "Nothing of it is sent until a person lifts the stop.",
    "test": "Whoever reads this is reached by this channel.",
}
_CLIMBED = {
    "deadline": "the people before them did not answer in time",
    "unreachable": "no message reached the people before them",
}
NOTE = (
    "This message carries no authority. An answer counts only when it is signed, on the page or with "
    "`countermark approvals`."
)

_DOT = re.compile(r"(?<=[^\s.])\.(?=[^\W\d_]{2})")


def unlinked(text: str) -> str:
    """Text that somebody else wrote, so that no reader of mail or chat makes a link of a part of it."""
    return _DOT.sub("[.]", text.replace("://", "[:]//"))


def title_of(doc: Mapping[str, Any]) -> str:
    """One line: what happened, and to which payment."""
    if doc["event"] == "stopped":
        return f"Stopped: {unlinked(doc['what'])}"
    about, payee = doc["amount_text"] or doc["tool"], _payee(doc)
    return f"{_TITLES[doc['event']]}: {about}" + (f" to {unlinked(payee)}" if payee else "")


def _payee(doc: Mapping[str, Any]) -> str:
    """The policy's name of a payee, else the id by which people registered it; one that nobody knows has neither."""
    payee = doc["payee"] or ""
    return doc["payee_name"] or ("a payee that is not known" if payee.startswith("p:") else payee)


def moment(at_us: int, zone: str) -> str:
    """``3 Nov 2026, 14:12:03 (Europe/Berlin)``, in the bundle's zone."""
    try:
        local = datetime.fromtimestamp(at_us // US, UTC).astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        local, zone = datetime.fromtimestamp(at_us // US, UTC), "UTC"
    return f"{written(local)}, {local:%H:%M:%S} ({zone})"


def lines_of(doc: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and value of everything that a message says below its title; no value has more than one line."""
    name = doc["event"]
    rows: list[tuple[str, str]] = [("Meaning", _WHAT_IT_MEANS[name])]
    if name == "stopped":
        rows += [("Reason given", unlinked(doc["reason"]))]
    if doc["escalation"] is not None:
        rows += _of_escalation(doc)
    return [(label, value) for label, value in rows if value]


def _of_escalation(doc: Mapping[str, Any]) -> list[tuple[str, str]]:
    rules = [f"{rule} (ladder {ladder})" for ladder, ids in doc["rules"].items() for rule in ids]
    rungs = [f"{ladder}, rung {rung}" for ladder, rung in doc["rungs"].items()]
    return [
        ("Amount", doc["amount_text"]), ("Payee", unlinked(_payee(doc))),
        ("Account", f"ends in {doc['account_last4']}" if doc["account_last4"] else ""),
        ("Agent", doc["agent"]), ("Tool", doc["tool"]),
        *((f"The agent's {alias}", unlinked(value)) for alias, value in doc["references"].items()),
        ("Asked by the rule", ", ".join(rules)), ("Asked now", ", ".join(rungs)),
        ("Asked because", _CLIMBED.get(doc.get("because", ""), "")),
        ("Answered by", doc.get("person", "")), ("Moved", doc.get("moved", "")),
        ("Code", doc.get("code", "")), ("Provider's reference", unlinked(doc.get("reference", ""))),
        ("Answer before", moment(doc["due"], doc["zone"]) if doc["deadline"] else ""),
        ("Escalation", doc["escalation"]),
    ]  # fmt: skip


def plain_text(doc: Mapping[str, Any]) -> str:
    """The whole message for a reader of plain text; the link stands alone on its line."""
    rows = [doc["title"], "", *(f"{label}: {value}" for label, value in lines_of(doc))]
    if doc["link"]:
        rows += ["", doc["link"]]
    return "\n".join([*rows, "", NOTE, ""])
