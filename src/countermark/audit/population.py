"""``population.csv``: one line for each action of a pack, so that a sample can be drawn from the whole (``pack.md``).

A cell that a spreadsheet would take for a formula is disarmed here, and in a way that can be undone: the text of a
cell was chosen by an agent, and the person who opens the file trusts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from countermark.model.records import Record
from countermark.model.values import EXECUTING

COLUMNS = (
    "seq", "at", "id", "run", "agent", "call_id", "tool", "payee", "amount", "currency", "asked", "decided",
    "disposition", "stage", "code", "answers", "settled", "outcome", "outcome_code", "settled_amount",
    "settled_currency", "ref",
)  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Control characters, line ends of any kind and what cannot be seen; the backslash that writes them; and the semicolon,
# which many countries' spreadsheets split lines at, whatever the quotes say.
_SPELLED = re.compile(r"[\x00-\x1f\x7f-\xa0\\;\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]")
_FORMULA = re.compile(r" *[=+\-@'\uff1d\uff0b\uff0d\uff20]")


@dataclass
class Line:
    """One action: its first decision, its newest one, the answers of people, its newest outcome."""

    first: Mapping[str, Any]
    seq: int
    at: int
    last: Mapping[str, Any]
    decided: int
    answers: list[str] = field(default_factory=list)
    outcome: Mapping[str, Any] | None = None
    settled: int | None = None

    @property
    def state(self) -> str:
        """What became of it: the outcome, ``open`` for an intent without one, else nothing."""
        if self.outcome is not None:
            return str(self.outcome["outcome"])
        return "open" if self.last["disposition"] in EXECUTING else ""


class Population:
    """Every action of a sequence of records, in the order of their first decisions."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.lines: dict[str, Line] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take one record in; the ones of other kinds change nothing."""
        body = record.body
        if record.kind == "action.decided":
            known = self.lines.get(body["id"])
            if known is None:
                self.lines[body["id"]] = Line(body, record.seq, record.at, body, record.seq)
            else:
                known.last, known.decided = body, record.seq
        elif record.kind == "escalation.answered" and body["id"] in self.lines:
            approval = body["approval"]
            self.lines[body["id"]].answers.append(f"{approval['verdict']} {approval['person']}")
        elif record.kind == "action.settled" and body["id"] in self.lines:
            line = self.lines[body["id"]]
            line.outcome, line.settled = body, record.seq

    def asked(self) -> dict[str, int]:
        """What the actions asked for, in minor units per currency: a control total over every line."""
        totals: dict[str, int] = {}
        for line in self.lines.values():
            terms = line.first["terms"]
            if terms["amount"] is not None and terms["currency"] is not None:
                totals[terms["currency"]] = totals.get(terms["currency"], 0) + terms["amount"]
        return dict(sorted(totals.items()))

    def inside(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """Control totals over the lines that were first decided within a scope's times: an extract has others too."""
        own = [line for line in self.lines.values() if scope["from"] <= line.at < scope["to"]]
        asked: dict[str, int] = {}
        for line in own:
            terms = line.first["terms"]
            _count(asked, terms["amount"], terms["currency"])
        moved = _moved(own)
        sums = {
            name: [[currency, str(amount)] for currency, amount in sorted(totals.items())]
            for name, totals in (("asked", asked), ("totals", moved))
        }
        return {"actions": len(own), **sums}

    def moved(self) -> dict[str, int]:
        """What was confirmed of all actions, in minor units per currency."""
        return dict(sorted(_moved(self.lines.values()).items()))

    def csv(self) -> bytes:
        """The file: RFC 4180, UTF-8, a header, lines in the order of ``seq``."""
        rows = [",".join(COLUMNS), *(_row(line) for line in self.lines.values())]
        return "".join(f"{row}\r\n" for row in rows).encode("utf-8")


def _moved(lines: Iterable[Line]) -> dict[str, int]:
    """What was confirmed, in minor units per currency."""
    totals: dict[str, int] = {}
    for line in lines:
        if line.outcome is not None and line.outcome["outcome"] == "confirmed":
            booked = line.outcome["settled"] or line.outcome["terms"]
            _count(totals, booked["amount"], booked["currency"] or line.outcome["terms"]["currency"])
    return totals


def _row(line: Line) -> str:
    first, last, outcome = line.first, line.last, line.outcome or {}
    settled = outcome.get("settled") or {}
    return ",".join(
        cell(value)
        for value in (
            line.seq, moment(line.at), first["id"], first["run"], first["agent"], first["call_id"], first["tool"],
            first["terms"]["payee"], first["terms"]["amount"], first["terms"]["currency"], first["disposition"],
            line.decided, last["disposition"], last["stage"], last["code"], ", ".join(line.answers), line.settled,
            line.state, outcome.get("code"), settled.get("amount"), settled.get("currency"), outcome.get("ref"),
        )
    )  # fmt: skip


def _count(totals: dict[str, int], amount: int | None, currency: str | None) -> None:
    if amount is not None and currency is not None:
        totals[currency] = totals.get(currency, 0) + amount


def moment(at_us: int) -> str:
    """``2026-11-03T09:12:03.000000Z``."""
    return f"{(_EPOCH + timedelta(microseconds=at_us)).strftime('%Y-%m-%dT%H:%M:%S.%f')}Z"


def cell(value: str | int | None) -> str:
    """A whole number stands bare, nothing as nothing, and text in quotes, spelled so that no program runs it."""
    if value is None or value == "":
        return ""
    if isinstance(value, int):
        return str(value)
    text = _SPELLED.sub(lambda match: f"\\u{ord(match[0]):04x}", value).replace('"', '""')
    return f'"{"" if _FORMULA.match(text) is None else chr(39)}{text}"'
