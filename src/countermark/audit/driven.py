"""The runs of definitions among the records of a journal or a pack, each with what its state is made of."""

from __future__ import annotations

import re
from array import array
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from countermark.audit.population import Population
from countermark.audit.rebuild import Unseal, open_run_record
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.records import Record, read
from countermark.model.sealing import is_sealed
from countermark.model.streams import RUN, kind_of, stream_of
from countermark.workflow import Definition, read_definition

_RUN = re.compile(rb'"run":"(run_[0-9a-f]{32})"')
DEFINITIONS_MAX = 256
_OF_A_RUN = ("action.", "run.", "escalation.", "compute.", "step.")


class Source(Protocol):
    """A journal or a pack."""

    def raw(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]: ...
    def record(self, seq: int) -> Record: ...
    def size(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A source together with what opens the values of its sealed runs."""

    source: Source
    unseal: Unseal

    def raw(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        return self.source.raw(start, stop)

    def record(self, seq: int) -> Record:
        return self.source.record(seq)

    def size(self) -> int:
        return self.source.size()


@dataclass(slots=True)
class DrivenRun:
    """A run with the records of its stream. ``own``: what it goes by now, None when its definition is not here.

    ``shut``: it is sealed, and some of its values cannot be opened here: nothing can be said of its steps.
    """

    run: str
    records: list[Record] = field(default_factory=list)
    own: Definition | None = None
    event: Any = None
    shut: bool = False

    def add(self, record: Record, source: Source) -> None:
        """Take the next record of its stream, opened if it is sealed."""
        if is_sealed(record):
            try:
                record = open_run_record(record, source.unseal if isinstance(source, Opened) else None)
            except CountermarkError:
                self.shut = True
        self.records.append(record)

    @property
    def started(self) -> Mapping[str, Any]:
        """The member ``workflow`` of its ``run.started``."""
        found: Mapping[str, Any] = self.records[0].body["workflow"]
        return found

    @property
    def status(self) -> str:
        """``running``, or how it ended."""
        return str(self.records[-1].body["workflow"]["status"]) if self.ended else "running"

    @property
    def ended(self) -> bool:
        return self.records[-1].kind == "run.ended"

    @property
    def whole(self) -> bool:
        """Whether no record of its stream is missing between the first and the last that are here."""
        stream = stream_of(RUN, self.run)
        return [record.streams[stream][0] for record in self.records] == list(range(len(self.records)))

    @property
    def digest(self) -> str:
        """Of the definition that it goes by now."""
        moved = [one.body["to"] for one in self.records if one.kind == "run.migrated"]
        return str(moved[-1] if moved else self.started["definition"])


def driven_runs(
    source: Source, *, name: str | None = None, run: str | None = None, most: int | None = None
) -> Iterator[DrivenRun]:  # fmt: skip
    """Every run of a definition, or those of a ``name``, or one: when it ended, and those that are open at the end.

    ``most``: only so many, those that began first. Of runs that are open meanwhile only the places of their records are
    kept, so that memory does not grow with what a journal holds.
    """
    definitions = _Definitions(source)
    found: dict[str, array[int]] = {}
    begun = 0
    for seq, raw in source.raw():
        kind = kind_of(raw)
        if kind == "workflow.defined":
            definitions.seqs[read(raw).body["digest"]] = seq
        elif kind == "run.started":
            body = read(raw).body
            of, named = str(body["run"]), body.get("workflow", {}).get("name")
            if named is not None and name in (None, named) and run in (None, of) and begun != most:
                begun += 1
                found[of] = array("q", [seq])
        elif kind.startswith(_OF_A_RUN):
            for of in {one.decode("ascii") for one in _RUN.findall(raw)} & found.keys():
                found[of].append(seq)
            if kind == "run.ended" and (of := str(read(raw).body.get("run", ""))) in found:
                yield _made(of, found.pop(of), definitions, source)
    for of, seqs in found.items():
        yield _made(of, seqs, definitions, source)


def acted(source: Source, runs: Collection[str]) -> dict[str, Population]:
    """What was asked for in each of these runs, of whatever kind they are."""
    found = {run: Population() for run in runs}
    for _, raw in source.raw():
        if kind_of(raw) in ("action.decided", "action.settled"):
            for run in {one.decode("ascii") for one in _RUN.findall(raw)} & found.keys():
                record = read(raw)
                if record.body["run"] == run:
                    found[run].add(record)
    return found


def names_of_runs(source: Source) -> set[str]:
    """The names of all definitions that runs were started of."""
    started = (read(raw).body for _, raw in source.raw() if kind_of(raw) == "run.started")
    return {str(body["workflow"]["name"]) for body in started if "workflow" in body}


def driven_run(source: Source, run: str) -> DrivenRun:
    """One run. Raises ``ArgumentError`` (``unknown_run``)."""
    for found in driven_runs(source, run=run):
        return found
    raise ArgumentError(
        f"there is no run of a definition {run[:60]!r}", field="run", code="unknown_run",
        hint="`countermark runs list` shows them. What an agent did in its own, `countermark explain RUN` says.",
    )  # fmt: skip


def recorded_definition(source: Source, digest: str) -> Definition | None:
    """A definition by its digest, as it was recorded."""
    mark = digest.encode("utf-8")
    for _, raw in source.raw():
        if mark in raw and kind_of(raw) == "workflow.defined":
            body = read(raw).body
            if body["digest"] == digest:
                return _checked(body["document"])
    return None


def _checked(document: Mapping[str, Any]) -> Definition | None:
    try:
        return read_definition(document)
    except CountermarkError:
        return None


class _Definitions:
    """Definitions where they stand; those used lately are kept."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.seqs: dict[str, int] = {}
        self._lately: OrderedDict[str, Definition | None] = OrderedDict()

    def get(self, digest: str) -> Definition | None:
        seq = self.seqs.get(digest)
        if seq is None:
            return None
        if digest not in self._lately:
            self._lately[digest] = _checked(self._source.record(seq).body["document"])
            if len(self._lately) > DEFINITIONS_MAX:
                self._lately.popitem(last=False)
        return self._lately[digest]


def _made(name: str, seqs: Iterable[int], definitions: _Definitions, source: Source) -> DrivenRun:
    run = DrivenRun(name)
    for record in (source.record(seq) for seq in seqs):
        if record.body.get("run") == name:
            run.add(record, source)
    run.own = definitions.get(run.digest)
    seq = run.started["trigger"]["record"]
    try:
        run.event = None if seq is None else source.record(seq).body["payload"]
    except CountermarkError:  # an extract need not have it: then what hangs on it is null
        run.event = None
    return run
