"""What an extract is about, and which records that takes (``docs/spec/pack.md``)."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from countermark.audit.lookup import REF_CHARS_MAX, holding
from countermark.audit.zipped import PackError
from countermark.journal import SqliteStore
from countermark.log import EpochManifest, leaf_hash, root_of, touch
from countermark.model.digest import RECORD, digest
from countermark.model.records import Record, read
from countermark.model.streams import AGENT, NAME, RUN, kind_of, stream_of, streams_of
from countermark.model.values import ACT_ID
from countermark.model.words import listed
from countermark.policy import day_bounds

HASH_BYTES = 32

_STREAMS = b',"streams":{'
_GENERAL = b'"g":'
_ACTION = re.compile(rb'"id":"(act_[0-9a-f]{32})"')
_RUN = re.compile(r"run_[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks for: a ``case`` (an action or a run), an ``agent`` or a ``workflow`` and a day, or days."""

    case: str = ""
    agent: str = ""
    workflow: str = ""  # a definition's name
    days: tuple[date, date] | None = None  # the first and the last


@dataclass(slots=True)
class Survey:
    """One pass over a log: its leaves, and where the general stream and the subject's have their records."""

    subject: str
    leaves: bytearray = field(default_factory=bytearray)
    general: list[int] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    claims: list[Mapping[str, Any]] = field(default_factory=list)
    bundle: str = ""  # the policy in force at the end

    def pass_over(self, store: SqliteStore, size: int) -> None:
        """Read every record once; only those of epochs and policies are parsed."""
        mark = f'"{self.subject}":'.encode("ascii")
        for seq, raw in store.raw(0, size):
            self.leaves += leaf_hash(raw)
            streams = raw.rindex(_STREAMS) + len(_STREAMS)
            if raw.startswith(_GENERAL, streams):
                self.general.append(seq)
                kind = kind_of(raw)
                if kind == "epoch.closed":
                    self.claims.append(read(raw).body)
                elif kind == "policy.activated":
                    self.bundle = read(raw).body["activation"]["bundle"]
            elif self.subject and raw.find(mark, streams) >= 0:
                self.own.append(seq)

    def root(self, low: int, high: int) -> bytes:
        """Root over a range of leaves."""
        part = self.leaves[low * HASH_BYTES : high * HASH_BYTES]
        return root_of([bytes(part[at : at + HASH_BYTES]) for at in range(0, len(part), HASH_BYTES)])


@dataclass(frozen=True, slots=True)
class Choice:
    """What an extract holds: its scope, the seqs of its records, the epochs that show that nothing is missing."""

    scope: Mapping[str, Any]
    seqs: list[int]
    epochs: list[Mapping[str, Any]]
    subject: str


def choose(store: SqliteStore, wanted: Wanted, size: int) -> tuple[Choice, Survey]:
    """Find the records of the first ``size`` that an extract is made of.

    Raises:
        PackError: no such case, or no policy says in which zone a day is.
        FactError: this machine does not know that zone.
    """
    case = _case(store, wanted.case, size) if wanted.case else {}
    subject = _subject(wanted, case)
    survey = Survey(subject)
    survey.pass_over(store, size)
    scope = _scope(store, wanted, case, survey)
    window = [claim for claim in survey.claims if claim["until"] > scope["from"]]
    reach = next((place for place, claim in enumerate(window) if claim["until"] >= scope["to"]), len(window))
    window = window[: reach + 1]
    low, high = (window[0]["from"], window[-1]["size"]) if window else (0, 0)
    within = set(
        survey.own[bisect_left(survey.own, low) : bisect_left(survey.own, high)] if subject else range(low, high)
    )
    beside = _beside(store, survey.own if subject else _others(survey.general, size), within)
    seqs = sorted(within.union(survey.general, beside))
    return Choice(scope, seqs, window, subject), survey


def _subject(wanted: Wanted, case: Mapping[str, Any]) -> str:
    """The stream that it is about; ``""`` of a period."""
    if case:
        return stream_of(RUN, case["run"])
    if wanted.workflow:
        return stream_of(NAME, wanted.workflow)
    return stream_of(AGENT, wanted.agent) if wanted.agent else ""


def _case(store: SqliteStore, case: str, size: int) -> dict[str, Any]:
    """The run that a case is about, and its action if it is one's."""
    if _RUN.fullmatch(case):
        return {"run": case, "action": None}
    if ACT_ID.fullmatch(case) is None:
        record = _about(store, case, size)
    else:
        seq = store.key("id:" + case)
        record = store.record(seq) if seq is not None and seq < size else _found(store, case, size)
    if record is None:
        raise PackError(f"there is no action or run {case[:60]!r}",
                        hint="Give act_..., run_... or an invoice: `countermark explain NAME` shows them.")  # fmt: skip
    return {"run": record.body["run"], "action": record.body["id"]}


def _about(store: SqliteStore, name: str, size: int) -> Record | None:
    """The decision about the one action that has a name, such as an invoice, among its clear arguments."""
    found: dict[str, Record] = {}
    for record in holding(store, name[:REF_CHARS_MAX], 0, size):
        if record.kind == "action.decided" and name in record.body["args"].values():
            found.setdefault(record.body["id"], record)
    if len(found) > 1:
        raise PackError(f"{len(found)} actions are about {name[:60]!r}", hint=f"Name one: {listed(found)}.")
    return next(iter(found.values()), None)


def _found(store: SqliteStore, action: str, size: int) -> Record | None:
    """A record about an action that the keys' table does not have yet, or of which it has a later one."""
    mark = f'"id":"{action}"'.encode()
    for _, raw in store.raw(0, size):
        if mark in raw and kind_of(raw) == "action.decided":
            record = read(raw)
            if record.body["id"] == action:
                return record
    return None


def _scope(store: SqliteStore, wanted: Wanted, case: Mapping[str, Any], survey: Survey) -> dict[str, Any]:
    if case:
        if not survey.own:
            raise PackError(f"there is no run {case['run'][:60]!r}", hint="Name one as `countermark explain` shows it.")
        end = survey.claims[-1]["until"] if survey.claims else 0
        begin = store.record(survey.own[0]).at
        return {"kind": "case", **case, "from": begin, "to": max(end, begin + 1)}
    raw = store.bundle(survey.bundle) if survey.bundle else None
    if raw is None or wanted.days is None:
        raise PackError("no policy says in which time zone a day is", hint="Run `countermark policy activate`.")
    zone = zone_of(raw)
    first, last = wanted.days
    begin, end = day_bounds(first, zone)[0], day_bounds(last, zone)[1]
    if not wanted.agent and not wanted.workflow:
        return {"kind": "period", "from": begin, "to": end}
    kind = "workflow" if wanted.workflow else "agent"
    whose = {"kind": kind, kind: wanted.workflow or wanted.agent}
    return {**whose, "day": first.isoformat(), "zone": zone, "from": begin, "to": end}


def zone_of(bundle: bytes) -> str:
    """The time zone of a bundle's canonical document."""
    import orjson

    zone: str = orjson.loads(bundle)["compiled"]["zone"]
    return zone


def _beside(store: SqliteStore, own: Iterable[int], inside: Collection[int]) -> Iterator[int]:
    """Those of ``own`` that are not inside, and belong to what is: records of the same actions and runs."""
    actions: set[str] = set()
    runs: set[str] = set()
    for seq in inside:
        raw = store.raw_at(seq)
        if raw is not None and not raw.startswith(_GENERAL, raw.rindex(_STREAMS) + len(_STREAMS)):
            body = read(raw).body
            actions.add(body.get("id", ""))
            runs.add(body.get("run", ""))
    if not actions:
        return
    for seq in own:
        raw = None if seq in inside else store.raw_at(seq)
        if raw is None:
            continue
        found = _ACTION.search(raw)
        if found is not None and found[1].decode("ascii") not in actions:
            continue  # its action's id is the only one in its body with this name
        record = read(raw)
        begins = record.kind in ("run.started", "run.ended") and record.body["run"] in runs
        if begins or (record.body.get("id") or None) in actions:
            yield seq


def _others(general: list[int], size: int) -> Iterator[int]:
    """Every seq that is not in the general stream."""
    known = set(general)
    return (seq for seq in range(size) if seq not in known)


def manifest_of(store: SqliteStore, claim: Mapping[str, Any]) -> EpochManifest:
    """The streams of an epoch, gathered again. Raises ``PackError`` when they are not what its record says."""
    rows: dict[str, list[Any]] = {}
    for _, raw in store.raw(claim["from"], claim["size"]):
        touch(rows, streams_of(raw), digest(RECORD, raw))
    manifest = EpochManifest(rows)
    if manifest.root().hex() != claim["manifest"]:
        raise PackError(f"epoch {claim['epoch']} is not what its record says", hint="The journal was altered.")
    return manifest
