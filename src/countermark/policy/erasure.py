"""What a subject has, how long it must be kept, which holds stand, and what was erased: folds over records.

The subject of an action's sealed values is its payee, else its agent; that of a sealed run's stands in its records. All
of this follows from the records and the bundles that they name, so that whoever has them recomputes whether an erasure
was right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from countermark.model.clock import US
from countermark.model.digest import SUBJECT, digest_of
from countermark.model.records import GENESIS, Record
from countermark.model.sealing import is_sealed

if TYPE_CHECKING:
    from countermark.policy.bundle import Bundle
    from countermark.policy.state import State

AGENT = "agent:"
NO_TOOL = ""  # under which the values of sealed runs are kept: the rule of tools without one


def subject_of(body: Mapping[str, Any]) -> str:
    """Whose the values of a record of an action or of a sealed run are."""
    if "subject" in body:
        return str(body["subject"])
    payee = body["terms"]["payee"]
    return str(payee) if payee is not None else AGENT + str(body["agent"])


def sealed_in(record: Record) -> int:
    """How many values of a record stand there as digests."""
    if record.kind != "action.decided":
        return int(is_sealed(record))
    body = record.body
    return sum(type(value) is dict for value in body["args"].values()) + (body["claimed"]["reason"] is not None)


def key_name(subject: str, generation: int) -> str:
    """The vault's name of a subject's key. After an erasure the next value gets a new key, under a new name."""
    return subject if generation == 0 else f"{subject}#{generation}"


@dataclass(slots=True)
class Holding:
    """What one subject has that was not erased. ``newest`` is microseconds; ``keep`` is tool -> the longest rule.

    ``open``: sealed runs of it that have not ended.
    """

    records: int = 0
    values: int = 0
    digest: str = GENESIS
    newest: int = 0
    keep: dict[str, int | None] = field(default_factory=dict)
    agents: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    seqs: list[int] = field(default_factory=list)

    def add(self, record: Record, bundle_of: Callable[[str], Bundle]) -> None:
        body = record.body
        self.records += 1
        self.values += sealed_in(record)
        self.digest = digest_of(SUBJECT, [self.digest, record.digest])
        self.newest = record.at
        self.agents.add(body["agent"])
        self.runs.add(body["run"])
        self.seqs.append(record.seq)
        if record.kind == "action.decided":
            self.rule(body["tool"], bundle_of(body["bundle"]))
        elif record.kind == "run.started":
            self.rule(NO_TOOL, bundle_of(body["workflow"]["bundle"]))
            self.open.add(body["run"])
        elif record.kind == "run.ended":
            self.open.discard(body["run"])

    def rule(self, tool: str, bundle: Bundle) -> None:
        """A longer rule counts, a shorter one never does."""
        retention = bundle.compiled.retention
        found = None if retention is None else retention.of(tool)
        known = self.keep.get(tool)
        self.keep[tool] = found if known is None else known if found is None else max(known, found)

    def keep_s(self, bundle: Bundle | None) -> int | None:
        """For how many seconds it must be kept, the rule in force included; None where a tool has no rule at all."""
        if bundle is not None:
            for tool in list(self.keep):
                self.rule(tool, bundle)
        rules = list(self.keep.values())
        return None if not rules or None in rules else max(rule for rule in rules if rule is not None)

    def until(self, keep_s: int) -> int:
        """When the duty ends (microseconds): it runs from the newest record."""
        return self.newest + keep_s * US


class Holdings:
    """Folds records into what every subject has, or ``only`` one."""

    def __init__(self, bundle_of: Callable[[str], Bundle], only: str | None = None) -> None:
        self._bundle_of = bundle_of
        self._only = only
        self.of: dict[str, Holding] = {}
        self.responses: list[str] = []  # digests of what providers answered, of ``only``

    def add(self, record: Record) -> None:
        if record.kind == "data.erased":
            self.of.pop(record.body["erasure"]["subject"], None)
        elif sealed_in(record):
            subject = subject_of(record.body)
            if self._only in (None, subject):
                self.of.setdefault(subject, Holding()).add(record, self._bundle_of)
        elif self._only is not None and record.kind == "action.settled" and subject_of(record.body) == self._only:
            self.responses.append(record.body["response"])


@dataclass(slots=True)
class Erasures:
    """Legal holds that stand, and what was erased.

    ``holds``: id -> scope. ``ended``: ids of cleared ones, which are not used again. ``erased``: subject -> the seqs of
    its ``data.erased`` records. ``tied``: payee -> the pseudonyms of accounts that were once its own.
    """

    holds: dict[str, Mapping[str, str]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    erased: dict[str, list[int]] = field(default_factory=dict)
    tied: dict[str, set[str]] = field(default_factory=dict)

    def generation(self, subject: str) -> int:
        """How often the subject was erased."""
        return len(self.erased.get(subject, ()))

    def key_of(self, subject: str) -> str:
        """The vault's name of the key for the subject's next value."""
        return key_name(subject, self.generation(subject))

    def destroyed(self) -> Iterator[str]:
        """The vault's names of all keys that are gone."""
        for subject, seqs in self.erased.items():
            for generation in range(len(seqs)):
                yield key_name(subject, generation)

    def after(self, subject: str, seq: int) -> int | None:
        """The erasure that took the values sealed at ``seq``."""
        return next((erased for erased in self.erased.get(subject, ()) if erased > seq), None)

    def holding(self, subject: str, has: Holding) -> list[str]:
        """The ids of the holds that keep a subject's values, sorted."""
        return sorted(name for name, scope in self.holds.items() if self._covers(scope, subject, has))

    def _covers(self, scope: Mapping[str, str], subject: str, has: Holding) -> bool:
        kind, value = scope["kind"], scope["value"]
        if kind == "payee":
            return subject == value or subject in self.tied.get(value, ())
        found: Mapping[str, bool] = {
            "all": True, "subject": subject == value, "agent": value in has.agents or subject == AGENT + value,
            "run": value in has.runs,
        }  # fmt: skip
        return found[kind]

    def tie(self, body: Mapping[str, Any]) -> None:
        """A payee's account was changed: both accounts' pseudonyms are the payee's for a hold."""
        for pseudonym in (body["was"], body["now"]):
            if pseudonym is not None:
                self.tied.setdefault(body["details"]["payee"], set()).add(pseudonym)

    def dump(self) -> dict[str, Any]:
        return {
            "holds": {name: dict(scope) for name, scope in self.holds.items()}, "ended": sorted(self.ended),
            "erased": dict(self.erased), "tied": {payee: sorted(names) for payee, names in self.tied.items()},
        }  # fmt: skip

    @classmethod
    def load(cls, doc: Mapping[str, Any]) -> Erasures:
        tied = {payee: set(names) for payee, names in doc["tied"].items()}
        return cls(dict(doc["holds"]), set(doc["ended"]), {k: list(v) for k, v in doc["erased"].items()}, tied)


def held(state: State, record: Record, _: Callable[[], Iterable[Record]]) -> None:
    order = record.body["order"]
    state.erasures.holds[order["hold"]] = order["scope"]


def released(state: State, record: Record, _: Callable[[], Iterable[Record]]) -> None:
    hold = record.body["release"]["hold"]
    state.erasures.holds.pop(hold, None)
    state.erasures.ended.add(hold)


def erased(state: State, record: Record, _: Callable[[], Iterable[Record]]) -> None:
    state.erasures.erased.setdefault(record.body["erasure"]["subject"], []).append(record.seq)
