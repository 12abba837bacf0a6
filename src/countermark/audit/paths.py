"""Paths: every action that was carried out, held against a rule that may have been written later.

The same pass as the back-test decides each again in the state that it really had. A deviation is told as what the rule
requires and what really happened, in the true order, with what came too late.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from countermark.audit.preview import LISTED_MAX, references, words_of
from countermark.audit.rebuild import Unseal
from countermark.audit.redecide import Again, Pseudonym, Redecision
from countermark.audit.rules import Rule, rules_of
from countermark.audit.sources import bundles_of, present_state
from countermark.audit.words import lasting, span
from countermark.facts import OUTPUT, FactDef, subject_of
from countermark.journal import SqliteStore
from countermark.model.errors import PolicyError
from countermark.model.records import Record
from countermark.model.values import EXECUTING
from countermark.policy import Bundle

KEPT_MAX = 2 * LISTED_MAX
BEFORE_MAX, AFTER_MAX = 3, 1  # events shown around an action, of each fact that the rule reads

Group = tuple[str, tuple[Any, ...]]


def rule_ids(store: SqliteStore, bundle: Bundle) -> list[str]:
    """The forbids of a bundle that the policy in force does not have, or has otherwise. Raises ``PolicyError``."""
    present = present_state(store).bundle
    known = {} if present is None else rules_of(present.document["compiled"])
    return _differing(known, rules_of(bundle.document["compiled"]))


def forbids_in(cedar: str) -> list[str]:
    """The ids of the forbids of a Cedar text."""
    return sorted(name for name, rule in rules_of({"cedar": cedar}).items() if rule.forbids)


def _differing(known: Mapping[str, Rule], rules: Mapping[str, Rule]) -> list[str]:
    found = [name for name, rule in rules.items() if rule.forbids and (name not in known or known[name] != rule)]
    if not found:
        raise PolicyError("nothing in it forbids anything that the policy in force does not forbid as well",
                          hint="Name the rules to check with --rule, or give a bundle with a new one.")  # fmt: skip
    return sorted(found)


def audit_paths(
    store: SqliteStore, bundle: Bundle, pseudonymous: Pseudonym, rules: Collection[str], *, since: int | None = None,
    unseal: Unseal | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Hold every action that was carried out against the forbids ``rules`` of ``bundle``.

    Returns:
        ``{"bundle", "rules": [{id, text, required}], "checked", "failed", "deviating", "deviations": [...], "more",
        "cleared": [...], "cleared_count", "undecided": [...], "undecided_count"}``. A deviation is ``{seq, at, id,
        agent, run, tool, terms, references, outcome, ref, rules, words, in_force: {bundle, since, had}, required,
        actual: [{seq, at, settled_at, tool, outcome, output, why}]}``; in ``actual`` the action itself has ``why``
        null. Cleared ones passed under an exception, with its ticket. ``failed`` ones moved nothing.
    """
    known = rules_of(bundle.document["compiled"])
    unknown = sorted(set(rules) - known.keys())
    if unknown:
        raise PolicyError(f"the bundle has no rule {unknown[0]!r}", hint=f"It has {', '.join(sorted(known))}.")
    with store.steady():
        again = Redecision(bundle, bundles_of(store), pseudonymous, unseal)
        seen = _Seen(bundle, [known[name] for name in sorted(rules)], since)
        for one in again.run(seen.watched(store.records()), lambda r: r.body["disposition"] in EXECUTING):
            seen.carried_out(one)
        return _Report(store, bundle, known, seen).document()


@dataclass
class _Seen:
    """What one pass over the records collects."""

    bundle: Bundle
    rules: Sequence[Rule]
    since: int | None
    checked: int = 0
    # Seq, rules broken, and the decision itself of the first ones only: a rule may be broken a million times.
    deviating: list[tuple[int, list[str], Again | None]] = field(default_factory=list)
    cleared: list[tuple[Again, list[str]]] = field(default_factory=list)
    cleared_count: int = 0
    undecided: list[Again] = field(default_factory=list)
    undecided_count: int = 0
    outcomes: dict[int, int] = field(default_factory=dict)  # intent -> seq of its newest outcome
    asked: dict[str, list[int]] = field(default_factory=dict)  # action -> seqs of questions to people, and of answers
    activated: list[tuple[int, int]] = field(default_factory=list)  # seq, at
    events: dict[Group, list[int]] = field(default_factory=dict)  # fact and group -> seqs of deciding records

    def __post_init__(self) -> None:
        read = {name for rule in self.rules for name in rule.reads}
        self.facts = [fact for fact in self.bundle.compiled.facts if fact.name in read and fact.kind != "grounded"]
        self.tickets = {
            name: rule.ticket
            for name, rule in rules_of(self.bundle.document["compiled"]).items()
            if rule.ticket is not None
        }

    def watched(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records as they pass; outcomes and activations are remembered."""
        for record in records:
            if record.kind == "action.settled":
                self.outcomes[record.body["intent"]] = record.seq
            elif record.kind in ("escalation.raised", "escalation.answered"):
                self.asked.setdefault(record.body["id"], []).append(record.seq)
            elif record.kind == "policy.activated":
                self.activated.append((record.seq, record.at))
            yield record

    def carried_out(self, one: Again) -> None:
        """An action that was let through then, and what the rule says about it."""
        record, judgement = one.record, one.judgement
        for fact in self.facts:
            group = _group(fact, one.body)
            if group is not None and _about(fact, one.body):
                self.events.setdefault((fact.name, group), []).append(record.seq)
        if self.since is not None and record.at < self.since:
            return
        self.checked += 1
        if judgement.stage not in ("policy", "monitor"):
            self.undecided_count += 1
            if len(self.undecided) < LISTED_MAX:
                self.undecided.append(one)
            return
        named = {rule.id for rule in self.rules}
        broken = sorted((named & set(judgement.reasons)) - set(record.body["lifted"]))
        tickets = sorted(self.tickets.keys() & set(judgement.reasons))
        if broken:
            self.deviating.append((record.seq, broken, one if len(self.deviating) < KEPT_MAX else None))
        elif tickets:
            self.cleared_count += 1
            if len(self.cleared) < LISTED_MAX:
                self.cleared.append((one, tickets))


def _group(fact: FactDef, body: Mapping[str, Any]) -> tuple[Any, ...] | None:
    subject = subject_of(body)
    values = tuple(subject.get(name) for name in fact.group)
    return None if None in values else values


def _about(fact: FactDef, body: Mapping[str, Any]) -> bool:
    """Whether the action is of the tools and arguments that the fact counts, whatever came out of it."""
    subject = subject_of(body)
    return all(_among(subject.get(name), values) for name, values in fact.where if not name.startswith(OUTPUT))


def _among(value: Any, values: Iterable[Any]) -> bool:
    """Whether a value is one of several; Python holds True == 1, JSON does not."""
    return any(type(value) is type(one) and value == one for one in values)


class _Report:
    """From what was collected to the document; looks up the records that it shows."""

    def __init__(self, store: SqliteStore, bundle: Bundle, known: Mapping[str, Rule], seen: _Seen) -> None:
        self._store = store
        self._bundle = bundle
        self._known = known
        self._seen = seen
        self._facts = {fact.name: fact for fact in seen.facts}
        self._had: dict[str, Mapping[str, Rule]] = {}

    def document(self) -> dict[str, Any]:
        seen = self._seen
        moved = [(broken, one) for seq, broken, one in seen.deviating if self._outcome_of(seq) != "failed"]
        listed = [(broken, one) for broken, one in moved if one is not None][:LISTED_MAX]
        return {
            "bundle": self._bundle.digest,
            "rules": [
                {"id": rule.id, "text": rule.text, "required": self._required([rule.id])} for rule in seen.rules
            ],
            "checked": seen.checked, "failed": len(seen.deviating) - len(moved), "deviating": len(moved),
            "deviations": [self._deviation(one, broken) for broken, one in listed], "more": len(moved) - len(listed),
            "cleared_count": seen.cleared_count, "undecided_count": seen.undecided_count,
            "cleared": [
                {**self._head(one), "exceptions": [{"id": name, "ticket": seen.tickets[name]} for name in names]}
                for one, names in seen.cleared
            ],
            "undecided": [
                {**self._head(one), "words": words_of(one, self._known, self._bundle.document["compiled"])}
                for one in seen.undecided
            ],
        }  # fmt: skip

    def _settled(self, intent: int) -> Record | None:
        seq = self._seen.outcomes.get(intent)
        return None if seq is None else self._store.record(seq)

    def _outcome_of(self, intent: int) -> str:
        settled = self._settled(intent)
        return "pending" if settled is None else str(settled.body["outcome"])

    def _head(self, one: Again) -> dict[str, Any]:
        record, settled = one.record, self._settled(one.record.seq)
        return {
            "seq": record.seq, "at": record.at, **{n: record.body[n] for n in ("id", "agent", "run", "tool")},
            "terms": dict(one.body["terms"]), "references": references(one.body, self._bundle),
            "outcome": self._outcome_of(record.seq), "ref": "" if settled is None else settled.body["ref"],
        }  # fmt: skip

    def _deviation(self, one: Again, broken: list[str]) -> dict[str, Any]:
        return {
            **self._head(one), "rules": broken,
            "words": words_of(_only(one, broken), self._known, self._bundle.document["compiled"]),
            "in_force": self._in_force(one.record, broken), "required": self._required(broken),
            "actual": self._actual(one, broken),
        }  # fmt: skip

    def _in_force(self, record: Record, broken: list[str]) -> dict[str, Any]:
        """Under which policy it was decided, since when, and which of the rules that policy had, word for word."""
        digest = record.body["bundle"]
        if digest not in self._had:
            self._had[digest] = rules_of(bundles_of(self._store)(digest).document["compiled"])
        place = bisect_left(self._seen.activated, (record.seq, 0)) - 1
        since = self._seen.activated[place][1] if place >= 0 else None
        had = [name for name in broken if self._had[digest].get(name) == self._known[name]]
        return {"bundle": digest, "since": since, "had": had}

    def _required(self, names: Iterable[str]) -> list[str]:
        """What had to happen first, or had not to, by each fact that the rules read."""
        said: dict[str, str] = {}
        for rule in (self._known[name] for name in names):
            for name in rule.reads:
                if name in self._facts and name not in said:
                    said[name] = f"{name}: {'' if rule.wants(name) else 'no '}{required(self._facts[name])}"
        return list(said.values())

    def _actual(self, one: Again, broken: list[str]) -> list[dict[str, Any]]:
        """The action and what the rule's facts look at around it, in the order of the records."""
        why: dict[int, list[str]] = {}
        for name in dict.fromkeys(fact for rule in broken for fact in self._known[rule].reads if fact in self._facts):
            fact = self._facts[name]
            seqs = self._seen.events.get((name, _group(fact, one.body) or ()), [])
            place = bisect_left(seqs, one.record.seq)
            own = seqs[place : place + 1] == [one.record.seq]  # an action can be of the kind that a fact counts
            for seq in seqs[max(0, place - BEFORE_MAX) : place + AFTER_MAX + own]:
                if seq != one.record.seq:
                    why.setdefault(seq, []).append(f"{name}: {self._why(fact, self._store.record(seq), one.record)}")
        rows = [self._event(self._store.record(seq), reasons) for seq, reasons in why.items()]
        rows += [self._asked(self._store.record(seq)) for seq in self._seen.asked.get(one.record.body["id"], ())]
        return sorted([*rows, self._event(one.record, None)], key=lambda row: row["seq"])

    def _asked(self, record: Record) -> dict[str, Any]:
        """A question to people about the action, or their answer."""
        approval = record.body.get("approval")
        said = "asked" if approval is None else f"{approval['person']} said {approval['verdict']}"
        return {
            "seq": record.seq, "at": record.at, "tool": "people", "outcome": said, "settled_at": None, "output": {},
            "why": [],
        }  # fmt: skip

    def _event(self, record: Record, why: list[str] | None) -> dict[str, Any]:
        settled = self._settled(record.seq)
        return {
            "seq": record.seq, "at": record.at, "tool": record.body["tool"], "outcome": self._outcome_of(record.seq),
            "settled_at": None if settled is None else settled.at,
            "output": {} if settled is None else dict(settled.body["output"]), "why": why,
        }  # fmt: skip

    def _why(self, fact: FactDef, event: Record, action: Record) -> str:
        """Why an event counts for the action, or does not."""
        settled = self._settled(event.seq)
        at = event.at
        if fact.use == "floor":
            if settled is None or settled.body["outcome"] != "confirmed":
                return "was not confirmed"
            if settled.body["tier"] == "observing":
                return "was only reported by the agent's own program"
            for name, values in fact.where:
                found = settled.body["output"].get(name.removeprefix(OUTPUT))
                if name.startswith(OUTPUT) and not _among(found, values):
                    what = "nothing" if found is None else found
                    return f"{name.removeprefix(OUTPUT)} was {what}"
            at = settled.at
        if (settled.seq if fact.use == "floor" and settled is not None else event.seq) > action.seq:
            return f"came {lasting(at - action.at)} after it"
        if fact.over_us and action.at - at > fact.over_us:
            return f"was {lasting(action.at - at)} before it, more than {span(fact.over_us)}"
        return f"counts, {lasting(action.at - at)} before it"


def _only(one: Again, rules: list[str]) -> Again:
    """The verdict of these rules alone."""
    return replace(one, judgement=one.judgement._replace(reasons=tuple(rules)))


def required(fact: FactDef) -> str:
    """A fact as something that had to happen first: ``screening.check confirmed within 1 day before, per payee``."""
    tools = next((values for name, values in fact.where if name == "tool"), ())
    what = " or ".join(str(tool) for tool in tools) or "an action"
    done = "confirmed" if fact.use == "floor" else "asked for"
    over = f" within {span(fact.over_us)} before" if fact.over_us else " before"
    per = f", of the same {' and '.join(name.removeprefix('args.') for name in fact.group)}" if fact.group else ""
    only = [
        f"{name.removeprefix(OUTPUT).removeprefix('args.')} {' or '.join(str(value) for value in values)}"
        for name, values in fact.where
        if name != "tool"
    ]
    return f"{what} {done}{over}{per}" + (f", with {' and '.join(only)}" if only else "")
