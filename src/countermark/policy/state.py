"""The state of a lane: a pure fold over its records. Gate, re-performance and back-test run this same code.

``State.apply`` cannot fail on a record that the gate sealed; everything a decision depends on lives here, so
``facts(n) = f(records < n)`` holds by construction. Nothing here reads a clock, a disk or a network.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.authority import Person, place_of
from countermark.facts import BudgetMachine, FactMachine
from countermark.model.records import GENESIS, Record
from countermark.model.values import EXECUTING
from countermark.policy import erasure, roll, rotation
from countermark.policy.bundle import Bundle
from countermark.policy.engine import Engine
from countermark.policy.epochs import Closed, closed_by
from countermark.policy.parked import BodyOf, Escalation, Parked, asked_of
from countermark.policy.register import Register
from countermark.policy.rows import DictStreams, Keys, Streams
from countermark.policy.runs import Runs, event_key
from countermark.policy.seats import Seats
from countermark.policy.separation import note_asked
from countermark.policy.succession import Succession, accepted, imported, succeeded
from countermark.policy.witness import Witnessed


@dataclass(slots=True)
class OpenIntent:
    """An intent without a final outcome. ``status`` is ``open`` or ``unknown``."""

    id: str
    tool: str
    at: int
    status: str
    obligation: str | None
    reference: str | None = None  # digest of what stood behind an argument


class State:
    """Everything that earlier records say, ready for the next decision.

    ``body_of`` reads the body of a record at a seq; without it the bodies of what waits for people are kept.
    """

    def __init__(
        self, keys: Keys, bundle_of: Callable[[str], Bundle], streams: Streams | None = None,
        body_of: BodyOf | None = None,
    ) -> None:  # fmt: skip
        self.keys = keys
        self.streams = DictStreams() if streams is None else streams
        self.bundle_of = bundle_of
        self.size = 0
        self.prev = GENESIS
        self.at = 0
        self.deployment = ""
        self.log_key = ""
        self.rotation: tuple[str, str, int] | None = None  # the log's key before and after, and until when both sign
        self.runs = Runs(keys, body_of)
        self.mandates: dict[str, Mapping[str, Any]] = {}
        self._chains: dict[str, tuple[str, ...]] = {}  # of granted mandates: what stands above one never changes
        self.revoked: set[str] = set()
        self.kills: dict[str, Mapping[str, Any]] = {}
        self.succession: Succession | None = None  # a restored lane that people have not accepted yet
        self.refused: dict[str, int] = {}
        self.unreviewed = 0  # flagged actions that nobody has looked at
        self.open: dict[int, OpenIntent] = {}
        self._body_of = body_of
        self.parked = Parked(bundle_of, body_of)
        self.waiting: dict[str, int] = {}  # obligation -> seq of the escalation that asks people about it
        self._asking: dict[str, str] = {}
        self.engine: Engine | None = None
        self.activation: str | None = None  # digest of the record that put the bundle in force
        self.roll = roll.Roll()
        self.activator = ""
        self.register = Register()
        self.erasures = erasure.Erasures()
        self.facts = FactMachine((), self.register.since)
        self.budgets = BudgetMachine()
        self.epoch = Closed()
        self.witnessed: Witnessed | None = None
        self.unwitnessed = False  # a past that no policy wanted witnessed, decided again by one that does

    @property
    def log_keys(self) -> tuple[str, ...]:
        """The log's key, and the one before it: a head that is published now may be older than the rotation."""
        return (self.log_key,) if self.rotation is None else (self.log_key, self.rotation[0])

    @property
    def bundle(self) -> Bundle | None:
        """The bundle in force."""
        return self.engine.bundle if self.engine is not None else None

    @property
    def people(self) -> Mapping[str, Person]:
        """Everybody, with the keys that sign for them now: the bundle's and those enrolled, without those removed."""
        return self.roll.people

    def stands_in(self, at: int) -> Mapping[str, Collection[str]]:
        """Who answers for whom at ``at``: a person -> those who are away and named them."""
        return self.roll.stand_ins(at)

    @property
    def seats(self) -> Seats:
        """Who stands behind the policy in force."""
        return Seats(self.bundle, self.activator, self.roll.people)

    def newest(self, action: str) -> int | None:
        """Seq of the newest record about an action: its outcome, else its decision or the end of its escalation."""
        seq = self.keys.get("id:" + action)
        return None if seq is None else self.keys.get(f"st:{seq}") or seq

    def chain(self, mandate: str) -> tuple[str, ...]:
        """Mandate digests from ``mandate`` up to its root; unknown ones end the chain."""
        known = self._chains.get(mandate)
        if known is not None:
            return known
        found: list[str] = []
        at: str | None = mandate
        while at is not None and at not in found:
            found.append(at)
            doc = self.mandates.get(at)
            at = doc["parent"] if doc is not None else None
        chain = tuple(found)
        if all(digest in self.mandates for digest in found):
            self._chains[mandate] = chain
        return chain

    def apply(self, record: Record, history: Callable[[], Iterable[Record]]) -> None:
        """Fold one record. ``history`` yields all earlier records, for facts that a new bundle backfills."""
        handler = _HANDLERS.get(record.kind)
        if handler is not None:
            handler(self, record, history)
        self.size = record.seq + 1
        self.prev = record.digest
        self.at = record.at
        for name, place in record.streams.items():
            self.streams.put(name, (place[0], record.digest))

    def _started(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.deployment = record.body["deployment"]
        self.log_key = record.body["log_key"]

    def _activated(self, record: Record, history: Callable[[], Iterable[Record]]) -> None:
        self.engine = Engine(self.bundle_of(record.body["activation"]["bundle"]))
        self.register.activated(self.engine.bundle, record, first=self.activation is None)
        self.facts = self.facts.redefine(self.engine.bundle.compiled.facts, history())
        self.activation, self.activator = record.digest, record.body["activation"]["activator"]
        roll.activated(self, self.engine.bundle, record.seq)

    def _granted(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        doc, digest = record.body["mandate"], record.body["digest"]
        self.mandates[digest] = doc
        self.budgets.grant(digest, doc["limits"])

    def _accepted(self, record: Record, history: Callable[[], Iterable[Record]]) -> None:
        self._granted(record, history)
        for name in record.body["redeems"]:
            self.keys.put("rd:" + name, record.seq)

    def _revoked(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.revoked.add(record.body["revocation"]["mandate"])

    def _run_started(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.runs.started(record.body, record.seq)

    def _run_ended(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.runs.ended(record.body)

    def _defined(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.keys.put("wf:" + record.body["digest"], record.seq)

    def _received(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.keys.put(event_key(record.body["source"], record.body["event"]), record.seq)

    def _decided(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        body = record.body
        self.keys.put("id:" + body["id"], record.seq)
        if body["escalation"] is not None:
            self._unpark(body["escalation"])
        if body["disposition"] == "flag":
            self.unreviewed += 1
        run = self.runs.get(body["run"])
        if run is not None and run.boundary is not None:
            run.boundary.decided(body, holds=body["disposition"] in EXECUTING)
        if body["disposition"] in EXECUTING:
            behind = (body.get("reference") or {}).get("digest")
            self.open[record.seq] = OpenIntent(body["id"], body["tool"], record.at, "open", body["obligation"], behind)
            if body["obligation"] is not None:
                self.keys.put("ob:" + body["obligation"], record.seq)
            self.facts.apply(record)
            self.budgets.apply(record)
        elif body["disposition"] == "escalate" and body["obligation"] is not None:
            self._asking[body["id"]] = body["obligation"]  # the raising record follows in the same transaction

    def _settled(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        body = record.body
        self.keys.put(f"st:{body['intent']}", record.seq)
        intent = self.open.get(body["intent"])
        if intent is not None:
            if body["outcome"] == "unknown":
                intent.status = "unknown"
            else:
                del self.open[body["intent"]]
                if body["outcome"] == "failed" and body["tier"] != "observing" and intent.obligation is not None:
                    self._free("ob:" + intent.obligation, body["intent"])
        if body["outcome"] == "confirmed" and body["tier"] != "observing":
            self.register.paid(body["terms"]["payee"], body["intent"])
        run = self.runs.get(body["run"])
        if run is not None and run.boundary is not None:
            run.boundary.settled(body)
        self.facts.apply(record)
        self.budgets.apply(record)

    def _free(self, key: str, intent: int) -> None:
        if self.keys.get(key) == intent:  # else a restore found that another payment took it
            self.keys.put(key, None)

    def _raised(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        body = record.body
        self.keys.put("es:" + body["escalation"], record.seq)
        parked = self.parked.raised(body, record.seq, self._asking.pop(body["id"], None))
        if parked.obligation is not None:
            self.waiting[parked.obligation] = record.seq
            note_asked(self.keys, parked.obligation, body["agent"], record.seq)

    def _no_longer_waits(self, parked: Escalation) -> None:
        if parked.obligation is not None and self.waiting.get(parked.obligation) == parked.seq:
            del self.waiting[parked.obligation]

    def _unpark(self, escalation: str) -> None:
        parked = self.parked.gone(escalation)
        if parked is not None:
            self._no_longer_waits(parked)

    def _answered(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        body = record.body
        parked = self.parked.get(body["escalation"])
        if parked is None:
            return
        parked.state = body["state"]
        if parked.state != "pending":
            self._no_longer_waits(parked)
        approval = body["approval"]
        if body["state"] == "refused":
            if parked.obligation is not None:
                self.refused[parked.obligation] = record.seq
            self.parked.gone(body["escalation"])
            self.keys.put("id:" + body["id"], record.seq)
        else:
            place = self._place(parked, approval["ladder"], approval["person"], record.at)
            parked.answer(approval["ladder"], approval["person"], place)
            self.parked.moved(parked)

    def _place(self, parked: Escalation, ladder: str, person: str, at: int) -> str:
        """Whose place in the quorum an approval takes."""
        stands_in, bundle = self.stands_in(at), self.bundle
        if person not in stands_in or bundle is None:
            return person
        asked, known = asked_of(parked, bundle.compiled, ladder), self.people.get(person)
        if asked is None or known is None:
            return person
        return place_of(known, asked.roles, self.people, stands_in) or person

    def _climbed(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        body = record.body
        parked = self.parked.get(body["escalation"])
        if parked is not None:
            parked.climb(body["ladder"], body["rung"], body["due"])
            self.parked.moved(parked)

    def _expired(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self._unpark(record.body["escalation"])
        self.keys.put("id:" + record.body["id"], record.seq)

    def _killed(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.kills[record.body["kill"]] = record.body["scope"]

    def _cleared(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.kills.pop(record.body["clearance"]["kill"], None)

    def _reviewed(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.keys.put("rv:" + record.body["id"], record.seq)
        self.unreviewed -= 1

    def _payee_changed(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.register.changed(record)
        self.erasures.tie(record.body)

    def _epoch_closed(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.epoch = closed_by(record.body)

    def _imported(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.keys.put("ob:" + record.body["obligation"], record.seq)

    def _reopened(self, record: Record, read: Callable[[], Iterable[Record]]) -> None:
        self.keys.put("ro:" + record.body["id"], record.seq)
        self.refused = {name: seq for name, seq in self.refused.items() if seq != record.body["refused"]}

    def _witnessed(self, record: Record, _: Callable[[], Iterable[Record]]) -> None:
        self.witnessed = Witnessed(record.body["size"], record.body["answered"])

    def dump(self) -> dict[str, Any]:
        """A snapshot as JSON: a cache, never evidence. ``load`` restores this state; keys and streams are not in it."""
        return {
            "size": self.size, "prev": self.prev, "at": self.at, "deployment": self.deployment,
            "log_key": self.log_key, "rotation": None if self.rotation is None else list(self.rotation),
            "runs": self.runs.dump(),
            "mandates": dict(self.mandates), "revoked": sorted(self.revoked), "kills": dict(self.kills),
            "refused": dict(self.refused), "unreviewed": self.unreviewed,
            "succession": None if self.succession is None else self.succession.dump(),
            "open": [[k, v.id, v.tool, v.at, v.status, v.obligation, v.reference] for k, v in self.open.items()],
            "parked": self.parked.dump(),
            "bundle": None if self.engine is None else self.engine.bundle.digest,
            "activation": self.activation, "activator": self.activator,
            "roll": self.roll.dump(), "register": self.register.dump(),
            "erasures": self.erasures.dump(),
            "facts": self.facts.dump(), "budgets": self.budgets.dump(),
            "epoch": list(self.epoch),
            "witnessed": None if self.witnessed is None else list(self.witnessed),
        }  # fmt: skip

    def load(self, doc: Mapping[str, Any]) -> None:
        """Restore what ``dump`` wrote."""
        self.size, self.prev, self.at = doc["size"], doc["prev"], doc["at"]
        self.deployment, self.log_key = doc["deployment"], doc["log_key"]
        handed = doc["rotation"]
        self.rotation = None if handed is None else (handed[0], handed[1], handed[2])
        self.runs.load(doc["runs"])
        self.mandates, self.revoked, self.kills = dict(doc["mandates"]), set(doc["revoked"]), dict(doc["kills"])
        self.refused, self.unreviewed = dict(doc["refused"]), doc["unreviewed"]
        self.succession = None if doc["succession"] is None else Succession(*doc["succession"])
        self.open = {row[0]: OpenIntent(*row[1:]) for row in doc["open"]}
        self.parked = Parked(self.bundle_of, self._body_of)
        self.parked.load(doc["parked"])
        self.waiting = {
            parked.obligation: parked.seq
            for parked in self.parked.values()
            if parked.obligation is not None and parked.state == "pending"
        }
        self.activation, self.activator = doc["activation"], doc["activator"]
        self.register.load(doc["register"])
        self.erasures = erasure.Erasures.load(doc["erasures"])
        if doc["bundle"] is not None:
            self.engine = Engine(self.bundle_of(doc["bundle"]))
            self.facts = FactMachine(self.engine.bundle.compiled.facts, self.register.since)
            self.facts.load(doc["facts"])
        self.roll.load(doc["roll"], self.bundle)
        self.budgets.load(doc["budgets"])
        self.epoch = Closed(*doc["epoch"])
        self.witnessed = None if doc["witnessed"] is None else Witnessed(*doc["witnessed"])


_HANDLERS: Mapping[str, Callable[[State, Record, Callable[[], Iterable[Record]]], None]] = {
    "gate.started": State._started,
    "policy.activated": State._activated,
    "mandate.granted": State._granted,
    "mandate.accepted": State._accepted,
    "mandate.revoked": State._revoked,
    "run.started": State._run_started,
    "run.ended": State._run_ended,
    "workflow.defined": State._defined,
    "event.received": State._received,
    "action.decided": State._decided,
    "action.settled": State._settled,
    "escalation.raised": State._raised,
    "escalation.answered": State._answered,
    "escalation.climbed": State._climbed,
    "escalation.expired": State._expired,
    "key.enrolled": roll.enrolled,
    "key.rotated": rotation.rotated,
    "key.removed": roll.removed,
    "absence.set": roll.away,
    "kill.set": State._killed,
    "kill.cleared": State._cleared,
    "lane.succeeded": succeeded,
    "lane.imported": imported,
    "lane.accepted": accepted,
    "review.cleared": State._reviewed,
    "obligation.imported": State._imported,
    "obligation.reopened": State._reopened,
    "payee.changed": State._payee_changed,
    "epoch.closed": State._epoch_closed,
    "hold.set": erasure.held,
    "hold.cleared": erasure.released,
    "data.erased": erasure.erased,
    "head.witnessed": State._witnessed,
}
