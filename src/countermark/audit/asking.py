"""A question to people as they must see it before they answer: from the records and the exact bytes to be sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.audit import sentences, words
from countermark.audit.lookup import final, first_of, holding, newest
from countermark.audit.rebuild import REASON, Unseal, is_decided, request_of
from countermark.audit.rules import Compared, about, compared, fact, numbers, rules_of, shown
from countermark.audit.story import outcome_said
from countermark.audit.told import Told
from countermark.journal import SqliteStore
from countermark.model.errors import ArgumentError
from countermark.model.records import Record
from countermark.model.tool import Value
from countermark.model.values import EXECUTING

LOOKED_MAX = 1_024
NEAR_RECORDS = 20_000  # after the question, looked through for what belongs to it
OVER = ("refused", "expired", "denied", "confirmed", "failed")


Looked = dict[str, tuple[int, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Ruled:
    """A rule, with what it compared, and the same in words."""

    id: str
    compared: tuple[Compared, ...]
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """A fact of the decision: what it counts, its value in words; ``limit`` is the number it is held against."""

    name: str
    about: str
    said: str
    value: int | None = None
    limit: int | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the thread: ``state`` is one word, ``said`` a sentence."""

    at: int
    state: str
    said: str


@dataclass(frozen=True)
class Question:
    """One escalation, whole. ``exact`` is None where values were erased or are withheld, so that nothing can be said
    about the bytes; False where they are not those that were decided: then nobody must sign.
    """

    told: Told
    raised: Record
    exact: bool | None
    args: Mapping[str, Value]
    sends: str

    @property
    def body(self) -> Mapping[str, Any]:
        """The body of the record that asked."""
        return self.raised.body

    @property
    def decided(self) -> Record:
        """The decision that led to the question."""
        return self.told.first

    @property
    def payee(self) -> tuple[str, str]:
        """The payee's name and ID as the policy of the question has them; both empty for one that it does not know."""
        found = self._entry()
        return ("", "") if found is None else (str(found["name"]), str(found["id"]))

    @property
    def account(self) -> str:
        """The account to which the request goes, whatever a policy or register says of its payee.

        Empty where there is none, or where it is withheld or erased.
        """
        argument = None if self.told.tool is None else self.told.tool.one("payee")
        return str(self.args.get(argument.alias, "")) if argument is not None else ""

    def _entry(self) -> Mapping[str, Any] | None:
        payee = self.body["terms"]["payee"]
        return next((one for one in self.told.compiled["payees"] if one["id"] == payee), None)

    @property
    def reason(self) -> str:
        """What the agent says about it, unverified; empty where it said nothing or it is withheld."""
        return str(self.told.hidden.get(REASON, ""))

    def rules(self, facts: Mapping[str, Any] | None = None, names: Sequence[str] | None = None) -> list[Ruled]:
        """The rules that people are asked to lift, or those of ``names``, each with what it compared.

        The numbers are those of the decision, or those of ``facts``, which the gate knows now.
        """
        body, compiled = self._with(facts), self.told.compiled
        known = rules_of(compiled)
        asked = [name for ids in self.body["ladders"].values() for name in ids] if names is None else names
        return [
            Ruled(name, tuple(compared(known[name], body, compiled)), tuple(numbers(known[name], body, compiled)))
            if name in known else Ruled(name, (), ())
            for name in asked
        ]  # fmt: skip

    def checks(self, facts: Mapping[str, Any] | None = None) -> list[Checked]:
        """Every fact of the decision in words, those with a limit first."""
        body, compiled = self._with(facts), self.told.compiled
        found = []
        for name, value in sorted(body["facts"].items()):
            most = compiled["limits"].get(f"window_{name}")
            count = type(value) is int and most is not None
            unit = "money" if count and self._is_money(name) else ""
            said = fact(name, body, compiled)
            found.append(Checked(name, about(name, compiled), said, value if count else None, most, unit))
        return sorted(found, key=lambda one: (one.limit is None, one.name))

    def _is_money(self, name: str) -> bool:
        return any(one["name"] == name and one.get("of") == "amount" for one in self.told.compiled["facts"])

    def _with(self, facts: Mapping[str, Any] | None) -> Mapping[str, Any]:
        return self.decided.body if facts is None else {**self.decided.body, "facts": facts}

    def number(self, value: int, unit: str) -> str:
        """A number in its unit, money in the currency of the question."""
        return shown(value, unit, self.decided.body)

    def thread(self) -> list[Step]:
        """What became of it so far: asked, answered, decided again, sent, settled."""
        return [step for record in self.told.records for step in self._steps(record)]

    def _steps(self, record: Record) -> list[Step]:
        body = record.body
        if record.kind == "escalation.raised":
            return [Step(record.at, "asked", f"{body['agent']} asked, and the gate asked people.")]
        if record.kind == "escalation.climbed":
            why = "nobody answered in time" if body["because"] == "deadline" else "nobody could be reached"
            return [
                Step(record.at, "asked", f"Others were asked: {why} (ladder {body['ladder']}, rung {body['rung']}).")
            ]
        if record.kind == "escalation.answered":
            return [self._answer(record)]
        if record.kind == "escalation.expired":
            return [
                Step(record.at, "expired", f"{words.unanswered(body).capitalize()}, which means no. Nothing was sent.")
            ]
        if record.kind == "action.decided" and record is not self.decided:
            return [self._again(record)]
        if record.kind == "action.settled":
            said = outcome_said(body)
            ref = f" Reference {words.safe(body['ref'])}." if body["ref"] else ""
            return [Step(record.at, body["outcome"], f"{said[0].upper()}{said[1:]}.{ref}")]
        return []

    def _answer(self, record: Record) -> Step:
        approval = record.body["approval"]
        yes = approval["verdict"] == "approve"
        name, left = self.told.person(approval["person"]), record.body["state"] == "pending"
        said = f"{name} {'approved' if yes else 'refused'}." + (" Others still have to answer." if left else "")
        return Step(record.at, "approved" if yes else "refused", said)

    def _again(self, record: Record) -> Step:
        body = record.body
        if body["disposition"] in EXECUTING:
            settled = self.told.outcome
            if settled is None:
                return Step(record.at, "pending", "The gate decided again, allowed it, and is sending it.")
            if settled.body["code"] == "not_sent":
                return Step(record.at, "allowed", "The gate decided again, and allowed it.")
            return Step(record.at, "sent", "The gate decided again, allowed it, and sent it.")
        said = sentences.CODES.get(body["code"], body["code"])
        return Step(record.at, "denied", f"The gate decided again, and refused it: {said}. Nothing was sent.")

    @property
    def over(self) -> bool:
        """Whether nothing more will be recorded about it."""
        return self.told.status in OVER


def question(
    store: SqliteStore, name: str, unseal: Unseal | None, looked: Looked | None = None
) -> Question:  # fmt: skip
    """The escalation of a name (``esc_...``), with everything that people must see.

    ``looked`` remembers between calls how far the records after each question were looked through; it is filled here.

    Raises:
        ArgumentError: ``unknown_action``.
        StoreError: the journal cannot be read.
    """
    seq = newest(store, "es:" + name)
    if seq is None:
        raise ArgumentError("no such question was ever asked here", field="escalation", code="unknown_action")
    raised = store.record(seq)
    told = Told(store, _records(store, raised, {} if looked is None else looked), unseal)
    sealed = None if unseal is None else unseal(told.first.seq)
    found = None if told.tool is None else request_of(told.first.body, told.tool, sealed)
    if found is None:
        clear = {alias: value for alias, value in told.first.body["args"].items() if type(value) is not dict}
        return Question(told, raised, None, clear, "")
    request, args = found
    exact = is_decided(told.first.body, request, sealed) and told.first.digest == raised.body["decided_digest"]
    return Question(told, raised, exact, args, f"{request.method} {words.escaped(request.url)}")


def _records(store: SqliteStore, raised: Record, looked: Looked) -> tuple[Record, ...]:
    """The question's records in their order: all that stand near it, and the newest wherever it stands."""
    name, first = str(raised.body["id"]), first_of(store, raised)
    last = newest(store, "id:" + name)
    stop = store.size() if last is None or not final(store.record(last)) else last + 1
    near = min(stop, raised.seq + NEAR_RECORDS)
    start, known = looked.get(name, (first.seq, ()))
    found = {seq: store.record(seq) for seq in known}
    for record in holding(store, name, start, near):
        if record.body.get("id") == name:
            found[record.seq] = record
    if len(looked) >= LOOKED_MAX:
        looked.clear()
    looked[name] = (max(start, near), tuple(found))
    settled = None if last is None else store.key(f"st:{last}")
    for seq in (last, settled):
        if seq is not None and seq not in found:
            found[seq] = store.record(seq)
    return tuple(found[seq] for seq in sorted(found))
