"""What the page says, gathered in one pass over the records of a pack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from countermark.audit.population import Population
from countermark.audit.words import unanswered
from countermark.model.records import PUBLICATIONS, Record
from countermark.model.values import EXECUTING

_OF_THE_LOG = PUBLICATIONS | {"epoch.closed"}  # nobody's orders: thousands of them would hide those
_NO_ORDERS = ("run.", "log.", "action.refused", "compute.", "step.")  # what runs and the log do by themselves
WAIVED = ("would_deny", "would_escalate")
LISTED_MAX = 200  # of what is listed one by one: the rest is counted, and the CSV has it


@dataclass
class Action:
    """One action as the timeline tells it. The records are those of the action, oldest first."""

    seq: int
    at: int
    first: Mapping[str, Any]
    records: list[Record] = field(default_factory=list)
    reviewed: bool = False

    @property
    def decisions(self) -> list[Record]:
        return [record for record in self.records if record.kind == "action.decided"]

    @property
    def last(self) -> Record:
        return self.decisions[-1]

    @property
    def outcome(self) -> Record | None:
        settled = [record for record in self.records if record.kind == "action.settled"]
        return settled[-1] if settled else None

    @property
    def state(self) -> str:
        """What became of it, in one word."""
        outcome = self.outcome
        if outcome is not None:
            return str(outcome.body["outcome"])
        if self.last.body["disposition"] in EXECUTING:
            return "open"
        if self.last.body["disposition"] == "deny":
            return "denied"
        if any(record.kind == "escalation.expired" for record in self.records):
            return "expired"
        answers = [record.body["state"] for record in self.records if record.kind == "escalation.answered"]
        return answers[-1] if answers else "waiting"


@dataclass
class Gathered:
    """Everything that the sections need. Lists hold at most what a page can show; counters count everything."""

    actions_max: int
    bundles: Mapping[str, Mapping[str, Any]]
    population: Population = field(default_factory=Population)
    kinds: Counter[str] = field(default_factory=Counter)
    dispositions: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    waived: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WAIVED, 0))
    totals: Counter[str] = field(default_factory=Counter)
    tiers: set[str] = field(default_factory=set)
    first_at: int | None = None
    last_at: int = 0
    last_seq: int = 0
    zone: str = "UTC"
    deployment: str = ""
    versions: dict[str, None] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    signed: int = 0
    policies: list[Record] = field(default_factory=list)
    orders: list[Record] = field(default_factory=list)  # kills, payees, keys, mandates, imports, resolutions, restores
    answers: list[Record] = field(default_factory=list)
    exceptions: list[tuple[int, int, str, str]] = field(default_factory=list)  # seq, at, what, action id
    exceptional: Counter[str] = field(default_factory=Counter)
    pauses: list[tuple[int, int, int, bool]] = field(default_factory=list)  # from seq, from, to, in order?
    stopped: tuple[int, int] | None = None
    lost: list[str] = field(default_factory=list)
    sealed: int = 0
    defined: list[Record] = field(default_factory=list)  # workflows, the first ones
    runs: dict[str, list[Record]] = field(default_factory=dict)  # of definitions: where each began, and ended

    def add(self, record: Record) -> None:
        """Take one record in."""
        kind = record.kind
        self.first_at = record.at if self.first_at is None else self.first_at
        self.kinds[kind] += 1
        self.population.add(record)
        if kind == "gate.started":
            self._started(record)
        elif kind == "gate.stopped":
            self.stopped = (record.seq, record.at)
        elif kind == "policy.activated":
            self._activated(record)
        elif kind == "action.decided":
            self._decided(record)
        elif kind == "action.settled":
            self._settled(record)
        elif kind.startswith("escalation."):
            self._asked(record)
        elif kind == "request.signed":
            self.signed += 1
        elif kind in ("run.started", "run.ended") and "workflow" in record.body:
            self.runs.setdefault(record.body["run"], []).append(record)
        elif kind == "workflow.defined":
            if len(self.defined) < LISTED_MAX:
                self.defined.append(record)
        elif kind not in _OF_THE_LOG and not kind.startswith(_NO_ORDERS):
            self._order(record)
        self.last_at, self.last_seq = record.at, record.seq

    def _note(self, what: str, record: Record, action: str = "") -> None:
        """Something that an auditor reads one by one."""
        self.exceptional[what] += 1
        if self.exceptional[what] <= LISTED_MAX:
            self.exceptions.append((record.seq, record.at, what, action))

    def _started(self, record: Record) -> None:
        self.deployment = record.body["deployment"]
        self.versions[record.body["version"]] = None
        if record.seq and len(self.pauses) < LISTED_MAX:
            orderly = self.stopped is not None
            since = self.stopped if self.stopped is not None else (self.last_seq, self.last_at)
            self.pauses.append((since[0], since[1], record.at, orderly))
        self.stopped = None

    def _activated(self, record: Record) -> None:
        bundle = self.bundles.get(record.body["activation"]["bundle"])
        if bundle is not None:
            self.zone = bundle["compiled"]["zone"]
        self.policies.append(record)

    def _decided(self, record: Record) -> None:
        body = record.body
        self.dispositions[body["disposition"]] += 1
        self.codes[body["disposition"], body["code"]] += 1
        hidden = [value for value in body["args"].values() if isinstance(value, dict)]
        self.sealed += len(hidden) + (body["claimed"]["reason"] is not None)
        if body["stage"] == "monitor" and body["code"] in self.waived:
            self.waived[body["code"]] += 1
            self._note("waived by monitoring", record, body["id"])
        if body["disposition"] in EXECUTING:
            self.tiers.add(body["tier"])
        if body["disposition"] == "flag":
            self._note("flagged for review", record, body["id"])
        elif body["disposition"] in ("deny", "escalate"):
            self._note({"deny": "denied", "escalate": "people were asked"}[body["disposition"]], record, body["id"])
        if body["lifted"]:
            self._note("a rule was lifted by an approval", record, body["id"])
        self._keep(record)

    def _settled(self, record: Record) -> None:
        body = record.body
        self.outcomes[body["outcome"]] += 1
        if body["outcome"] == "confirmed":
            moved = body["settled"] or body["terms"]
            currency = moved["currency"] or body["terms"]["currency"]
            if moved["amount"] is not None and currency is not None:
                self.totals[currency] += moved["amount"]
        if body["code"] == "booked_differently":
            self._note("booked otherwise than asked", record, body["id"])
        if body["via"] == "people":
            self._note("settled by people", record, body["id"])
        self._keep(record)

    def _asked(self, record: Record) -> None:
        if record.kind == "escalation.answered":
            self.answers.append(record)
        if record.kind == "escalation.expired":
            self._note(unanswered(record.body), record, record.body["id"])
        self._keep(record)

    def _order(self, record: Record) -> None:
        self.orders.append(record)
        said = {
            "kill.set": "stopped", "kill.cleared": "a stop was lifted", "payee.changed": "a payee's details changed",
            "key.enrolled": "a key was enrolled", "key.removed": "a key was removed",
            "absence.set": "somebody stands in", "obligation.imported": "paid before the gate",
            "obligation.reopened": "what a person refused may be asked about again",
            "lane.succeeded": "restored from a backup", "key.rotated": "the log's key was handed over",
            "hold.set": "a legal hold was set", "hold.cleared": "a legal hold ended",
            "data.erased": "values were erased", "data.disclosed": "sealed values were shown to somebody",
        }.get(record.kind)  # fmt: skip
        if record.kind == "lane.succeeded":
            known, size = record.body["known"], record.body["predecessor"]["size"]
            if known is None:
                self.lost.append(f"an unknown number of records before seq {record.seq}")
            elif known["size"] > size:
                self.lost.append(f"{known['size'] - size:,} records before seq {record.seq}")
        if said is not None:
            self._note(said, record)
        if record.kind in ("action.resolved", "review.cleared", "obligation.reopened"):
            self._keep(record)

    def _keep(self, record: Record) -> None:
        """The records of the first actions stay, for the timeline."""
        known = self.actions.get(record.body["id"])
        if known is None and record.kind == "action.decided" and len(self.actions) < self.actions_max:
            known = self.actions[record.body["id"]] = Action(record.seq, record.at, record.body)
        if known is not None:
            known.records.append(record)

    def open_and_unknown(self) -> tuple[list[str], list[str]]:
        """Actions without an outcome, and those whose outcome nobody knows."""
        states = [(line.first["id"], line.state) for line in self.population.lines.values()]
        return [name for name, state in states if state == "open"], [n for n, state in states if state == "unknown"]
