"""Holds, disclosures and erasures: made again from the records before each, and listed for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.audit import words
from countermark.audit.follow import Differs
from countermark.audit.hindsight import eyes_of
from countermark.audit.rebuild import hidden_of
from countermark.audit.sources import bundles_of, present_state
from countermark.authority import verify_erasure, verify_hold, verify_release
from countermark.journal import SqliteStore
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.records import Record, read
from countermark.model.values import is_reader
from countermark.policy import AGENT, Holding, Holdings, State, sealed_in, subject_of

_MARKS = (b'"$sd"', b'"kind":"data.erased"')


class Erasing:
    """``checks`` maps a kind to its check; ``see`` is told of every record, before it is folded."""

    def __init__(self, state: State, differs: Differs, intents: Mapping[int, Record]) -> None:
        self._state = state
        self._differs = differs
        self._intents = intents
        self._holdings = Holdings(state.bundle_of)
        self._left: Counter[str] = Counter()  # sealed values that were not erased, by alias
        self._aliases: dict[str, Counter[str]] = {}  # the same of each subject
        self.values: dict[str, int] = {}  # erased, by subject
        self.checks: Mapping[str, Callable[[Record], None]] = {
            "hold.set": self._held,
            "hold.cleared": self._released,
            "data.erased": self._erased,
            "data.disclosed": self._disclosed,
        }

    def see(self, record: Record) -> None:
        """Count what every subject has."""
        if sealed_in(record):
            self._holdings.add(record)
            own = self._aliases.setdefault(subject_of(record.body), Counter())
            own.update(hidden_of(record.body).keys())
            self._left.update(hidden_of(record.body).keys())
        elif record.kind == "data.erased":
            self._holdings.add(record)
            self._left.subtract(self._aliases.pop(record.body["erasure"]["subject"], Counter()))

    def _signed(self, what: str, verify: Callable[[], object]) -> None:
        try:
            verify()
        except CountermarkError as error:
            self._differs(what, "a document that verifies", str(error)[:300])

    def _held(self, record: Record) -> None:
        state, erasures = self._state, self._state.erasures
        self._signed("hold", lambda: verify_hold(record.body, deployment=state.deployment, people=state.people))
        if record.body["order"]["hold"] in (*erasures.holds, *erasures.ended):
            self._differs("hold", "an id that was never used", record.body["order"]["hold"])

    def _released(self, record: Record) -> None:
        state, body = self._state, record.body
        signed = {name: body[name] for name in ("release", "signed")}
        eyes = eyes_of(state.bundle, state.people)
        self._signed("release", lambda: verify_release(signed, deployment=state.deployment, eyes=eyes))
        self._differs("hold", body["release"]["hold"], body["hold"])
        if body["hold"] not in state.erasures.holds:
            self._differs("hold", "one that stands", body["hold"])

    def _erased(self, record: Record) -> None:
        state, body = self._state, record.body
        said, subject = body["erasure"], str(body["erasure"]["subject"])
        signed = {name: body[name] for name in ("erasure", "signed")}
        agent = subject[len(AGENT) :] if subject.startswith(AGENT) else None
        eyes = eyes_of(state.bundle, state.people, agent)
        self._signed("erasure", lambda: verify_erasure(signed, deployment=state.deployment, eyes=eyes))
        self._differs("generation", state.erasures.generation(subject), said["generation"])
        has = self._holdings.of.get(subject, Holding())
        for name in ("records", "values", "digest"):
            self._differs(name, getattr(has, name), said[name])
        self.values[subject] = self.values.get(subject, 0) + has.values
        self._differs("holds", [], state.erasures.holding(subject, has))
        if has.open or under_way(state, subject, lambda seq: self._intents[seq]):
            self._differs("subject", "one of which nothing is under way", subject)
        keep_s = has.keep_s(state.bundle)
        until = None if keep_s is None else has.until(keep_s)
        self._differs("retention", {"keep_s": keep_s, "until": until}, body["retention"])
        if until is not None and record.at < until:
            self._differs("at", f"not before {until}", record.at)

    def _disclosed(self, record: Record) -> None:
        body, fields = record.body, record.body["fields"]
        if not 0 < body["size"] <= record.seq:
            self._differs("size", "records that were there to be disclosed", body["size"])
        if not is_reader(body["reader"], self._state.people):
            self._differs("reader", "a user, or a person of the policy in force", body["reader"])
        if not fields or fields != sorted(set(fields)):
            self._differs("fields", "names, sorted, each once", fields)
        there = sum(self._left[alias] for alias in fields)
        if not 0 <= body["count"] <= there:
            self._differs("count", f"at most {there}", body["count"])


def under_way(state: State, subject: str, record_of: Callable[[int], Record]) -> bool:
    """Whether an intent of the subject is open or unknown, or a question about it waits for people."""
    if any(subject_of(parked.body) == subject for parked in state.parked.values()):
        return True
    return any(subject_of(record_of(seq).body) == subject for seq in state.open)


@dataclass(frozen=True, slots=True)
class Subject:
    """What one subject has, and what stands against erasing it. ``keep_s`` is None where no rule covers it."""

    name: str
    records: int
    values: int
    newest: int
    digest: str
    generation: int
    keep_s: int | None
    until: int | None
    holds: tuple[str, ...]
    busy: bool
    accounts: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "subject": self.name, "records": self.records, "values": self.values, "newest": self.newest,
            "erased_before": self.generation, "keep_s": self.keep_s, "until": self.until, "holds": list(self.holds),
            "under_way": self.busy, "accounts": list(self.accounts),
        }  # fmt: skip


def subjects(store: SqliteStore) -> list[Subject]:
    """Every subject that has sealed values, by name. ``accounts``: pseudonyms under which a payee was paid before."""
    with store.steady():
        state = present_state(store)
        holdings = Holdings(bundles_of(store))
        for _, raw in store.raw(0, state.size):
            if any(mark in raw for mark in _MARKS):
                holdings.add(read(raw))
        return [_listed(state, store, name, has) for name, has in sorted(holdings.of.items())]


def _listed(state: State, store: SqliteStore, name: str, has: Holding) -> Subject:
    keep_s = has.keep_s(state.bundle)
    return Subject(
        name, has.records, has.values, has.newest, has.digest, state.erasures.generation(name), keep_s,
        None if keep_s is None else has.until(keep_s), tuple(state.erasures.holding(name, has)),
        bool(has.open) or under_way(state, name, store.record), tuple(sorted(state.erasures.tied.get(name, ()))),
    )  # fmt: skip


def erasure_document(store: SqliteStore, subject: str, reason: str) -> dict[str, Any]:
    """What two people sign to erase a subject as it is now. Raises ``ArgumentError`` (``nothing_to_erase``)."""
    found = next((one for one in subjects(store) if one.name == subject), None)
    if found is None:
        raise ArgumentError("nothing is sealed for this subject", field="subject", code="nothing_to_erase",
                            hint="See `countermark erase --list`.")  # fmt: skip
    return {
        "v": 1, "deployment": present_state(store).deployment, "subject": subject, "generation": found.generation,
        "records": found.records, "values": found.values, "digest": found.digest, "reason": reason,
    }  # fmt: skip


def erased_by(store: SqliteStore, record: Record) -> Record | None:
    """The record of the erasure that took a decision's values, None when there was none."""
    if not sealed_in(record):
        return None
    with store.steady():
        seq = present_state(store).erasures.after(subject_of(record.body), record.seq)
        return None if seq is None else store.record(seq)


def fate(store: SqliteStore, record: Record, *, opened: bool) -> tuple[str, list[str]]:
    """Why a decision's values are not shown, in a word, and who erased them. ``opened``: the caller may see them."""
    found = erased_by(store, record)
    if found is not None:
        said = found.body["erasure"]
        people = words.listed([row["person"] for row in found.body["signed"]])
        return "erased", [f"erased by {people} on {words.when(found.at)} (#{found.seq}): {words.safe(said['reason'])}"]
    return ("erased", ["no record says who erased them"]) if opened else ("withheld", [])


def told_hold(body: Mapping[str, Any]) -> str:
    """``hold.set`` in a sentence."""
    order = body["order"]
    kind, value = order["scope"]["kind"], order["scope"]["value"]
    what = "everything" if kind == "all" else f"{kind} {value}"
    return f"{order['person']} put a legal hold on {what}: {words.safe(order['reason'])} [{order['hold']}]."


def told_release(body: Mapping[str, Any]) -> str:
    """``hold.cleared`` in a sentence."""
    people = words.listed([row["person"] for row in body["signed"]])
    return f"{people} ended the legal hold {body['hold']}: {words.safe(body['release']['reason'])}."


def told_erasure(body: Mapping[str, Any]) -> str:
    """``data.erased`` in a sentence."""
    said, people = body["erasure"], words.listed([row["person"] for row in body["signed"]])
    return (
        f"{people} erased the {said['values']:,} sealed values of {said['subject']} in {said['records']:,} records: "
        f"{words.safe(said['reason'])}. They had to be kept until {words.when(body['retention']['until'])}."
    )


def told_disclosure(body: Mapping[str, Any]) -> str:
    """``data.disclosed`` in a sentence."""
    to = words.safe(body["to"]) or "somebody who is not named"
    why = f": {words.safe(body['reason'])}" if body["reason"] else ""
    fields = words.safe(", ".join(body["fields"]))
    return f"{body['reader']} disclosed {body['count']:,} values ({fields}) of {body['size']:,} records to {to}{why}."


TOLD: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "hold.set": told_hold,
    "hold.cleared": told_release,
    "data.erased": told_erasure,
    "data.disclosed": told_disclosure,
}
