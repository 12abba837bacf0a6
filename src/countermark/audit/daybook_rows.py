"""What the daybook keeps of a record: rows, gathered for some hundred records and then written at once. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

DAY_US = 86_400_000_000
REFERENCE_CHARS_MAX = 128
WORDS_MAX = 8  # of one reference

_ABOUT = frozenset(
    ("action.settled", "action.resolved", "escalation.raised", "escalation.answered", "escalation.climbed",
     "escalation.expired", "review.cleared", "obligation.reopened")
)  # fmt: skip
_STREAMED = ("action.", "run.", "escalation.", "request.")
_START = re.compile(r"(?:^|(?<=[^0-9a-z]))[0-9a-z]")
_NAMES: Mapping[str, tuple[str, str]] = {  # kind -> where in the body its name stands
    "kill.set": ("", "kill"), "kill.cleared": ("clearance", "kill"), "mandate.granted": ("", "digest"),
    "mandate.accepted": ("", "digest"), "mandate.revoked": ("revocation", "mandate"),
    "policy.activated": ("activation", "bundle"),
}  # fmt: skip


def words_of(reference: str) -> list[str]:
    """Where a search may begin in a reference: ``INV-4711`` -> ``inv-4711``, ``4711``."""
    text = reference[:REFERENCE_CHARS_MAX].casefold().replace("\n", " ")
    starts = [found.start() for found in _START.finditer(text)][:WORDS_MAX]
    return [text[start:] for start in starts] if starts[:1] == [0] else [text, *(text[start:] for start in starts)]


@dataclass(frozen=True, slots=True)
class References:
    """By tool, the arguments of a bundle that say what is paid for."""

    by_tool: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, compiled: Mapping[str, Any]) -> References:
        """From a compiled bundle's document."""
        return cls(
            {
                tool["name"]: tuple(
                    dict.fromkeys(
                        [*(name for name in tool["once_per"] if name != "payee"),
                         *(arg["alias"] for arg in tool["args"] if arg["class"] == "reference")]
                    )
                )
                for tool in compiled["tools"]
            }
        )  # fmt: skip

    def found(self, body: Mapping[str, Any]) -> list[str]:
        """The references of a decision that stand there in clear."""
        values = (body["args"].get(alias) for alias in self.by_tool.get(body["tool"], ()))
        return [str(value) for value in values if type(value) in (str, int)]


@dataclass(slots=True)
class Row:
    """One action. ``first`` and ``last`` are its first and newest decision, ``newest`` the newest record about it."""

    first: int
    last: int
    newest: int
    at: int
    id: bytes
    agent: str
    tool: str
    payee: str
    status: str
    disposition: str
    money: bool
    words: str

    def values(self) -> tuple[Any, ...]:
        """As the table has it."""
        return (
            self.first, self.last, self.newest, self.at // DAY_US, self.id, self.agent, self.tool, self.payee,
            self.status, self.disposition, int(self.money), self.words,
        )  # fmt: skip


_DECIDED = {"allow": "pending", "flag": "pending", "escalate": "waiting", "deny": "denied"}


class Batch:
    """Rows and changes of rows. ``known`` answers with first record and status of an action that is written already."""

    def __init__(
        self, known: Callable[[bytes], tuple[int, str] | None], references: Callable[[str], References]
    ) -> None:
        self._known = known
        self._references = references
        self._fresh: dict[bytes, Row] = {}
        self._status: dict[int, str] = {}  # of rows that are written already, as changed here
        self.changes: list[tuple[int | None, int, str, str | None, int]] = []
        self.named: list[tuple[int, str]] = []
        self.about: list[tuple[int, int]] = []
        self.words: list[tuple[str, int]] = []
        self.events: list[tuple[int, str, str]] = []

    @property
    def rows(self) -> list[Row]:
        return list(self._fresh.values())

    def add(self, document: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        """Take in a record; ``before`` is the one before it."""
        kind, seq, body = document["kind"], document["seq"], document["body"]
        if kind == "action.decided":
            self._decided(document, before)
        elif kind in _ABOUT:
            self._later(kind, seq, body)
        if not kind.startswith(_STREAMED):
            inner, name = _NAMES.get(kind, ("", ""))
            said = (body.get(inner, {}) if inner else body).get(name, "") if name else ""
            self.events.append((seq, kind, str(said)))

    def _decided(self, document: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        seq, body = document["seq"], document["body"]
        name = bytes.fromhex(body["id"][4:])
        status = _DECIDED[body["disposition"]]
        place = None if body["escalation"] is None else self._place(name)  # a further decision follows an approval
        if place is not None:
            self.about.append((place[0], seq))
            self._change(name, place[0], seq, seq, status, body["disposition"])
            return
        terms = body["terms"]
        words = [word for text in self._references(body["bundle"]).found(body) for word in words_of(text)]
        self._fresh[name] = Row(
            seq, seq, seq, document["at"], name, body["agent"], body["tool"], terms["payee"] or "", status,
            body["disposition"], terms["amount"] is not None, "".join(f"\n{word}" for word in words) + "\n",
        )  # fmt: skip
        self.words += [(word, seq) for word in words]
        if before is not None and before["kind"] == "request.signed" and before["body"]["id"] == body["id"]:
            self.about.append((seq, before["seq"]))

    def _later(self, kind: str, seq: int, body: Mapping[str, Any]) -> None:
        name = bytes.fromhex(body["id"][4:])
        place = self._place(name)
        if place is None:
            return
        first, status = place
        self.about.append((first, seq))
        if kind == "review.cleared":  # says nothing of what became of it
            return
        if kind == "action.settled":
            status = body["outcome"]
            self._called(name, first, body["ref"])
        elif kind == "escalation.expired" and status == "waiting":
            status = "expired"
        elif kind == "escalation.answered" and body["state"] == "refused" and status == "waiting":
            status = "refused"
        self._change(name, first, None, seq, status, None)

    def _called(self, name: bytes, first: int, ref: str) -> None:
        """The provider's reference leads to the action as well."""
        if not ref:
            return
        words = words_of(ref)
        self.words += [(word, first) for word in words]
        row = self._fresh.get(name)
        if row is None:
            self.named.append((first, "\n".join(words)))
        else:
            row.words += "\n".join(words) + "\n"

    def _place(self, name: bytes) -> tuple[int, str] | None:
        row = self._fresh.get(name)
        if row is not None:
            return row.first, row.status
        place = self._known(name)
        return None if place is None else (place[0], self._status.get(place[0], place[1]))

    def _change(
        self, name: bytes, first: int, last: int | None, newest: int, status: str, disposition: str | None
    ) -> None:
        row = self._fresh.get(name)
        if row is None:
            self._status[first] = status
            self.changes.append((last, newest, status, disposition, first))
            return
        row.newest, row.status = newest, status
        if last is not None and disposition is not None:
            row.last, row.disposition = last, disposition
