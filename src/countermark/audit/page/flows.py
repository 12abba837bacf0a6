"""Runs of definitions, each drawn on its definition: what was planned, and what happened; no script, no style."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from countermark.audit.driven import DrivenRun, driven_runs
from countermark.audit.page.markup import Html, tag
from countermark.model.errors import CountermarkError, StoreError
from countermark.model.records import Record, read
from countermark.model.streams import seq_of
from countermark.workflow import path_of, svg

RUNS_MAX = 12
BYTES_MAX = 400_000  # of all drawings


@dataclass
class Flows:
    """``figures``: those that are drawn; ``runs``: of which runs.

    ``left``: how many more runs there are; ``part``: of how many not all records are here; ``shut``: of how many the
    definition or values are not.
    """

    figures: list[Html] = field(default_factory=list)
    runs: set[str] = field(default_factory=set)
    left: int = 0
    part: int = 0
    shut: int = 0

    def section(self) -> Iterator[Html]:
        """What the section on paths has of them."""
        if not (self.figures or self.left or self.part or self.shut):
            return
        yield tag("h3", "Runs of workflows")
        if self.figures:
            yield tag("p", "Each run on the definition that it went by: boxes are planned; words, and solid borders, "
                      "are what happened; dashed is what was not run. A definition written later is held against these "
                      "records by ", tag("code", "countermark audit paths FILE.yaml --pack PACK"), ".")  # fmt: skip
        yield from self.figures
        if self.part:
            yield tag("p", f"{_runs(self.part)} not drawn, because this pack does not hold all of their records, and "
                      "what their steps did cannot be seen here. The pack of one run has it: ",
                      tag("code", "countermark export case.zip --case RUN"), ".")  # fmt: skip
        if self.shut:
            yield tag("p", f"{_runs(self.shut)} not drawn: their values are sealed here, or their definition is not "
                      "among these records.")  # fmt: skip
        if self.left:
            yield tag("p", f"{_runs(self.left)} not drawn for want of room: ",
                      tag("code", "countermark runs graph RUN --pack PACK"), " does.")  # fmt: skip


def _runs(count: int) -> str:
    return "1 run is" if count == 1 else f"{count:,} runs are"


class _Raws:
    """Records that are in memory, as a source of runs."""

    def __init__(self, raws: Sequence[bytes]) -> None:
        self._raws = {seq_of(raw): raw for raw in raws}

    def raw(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        yield from self._raws.items()

    def record(self, seq: int) -> Record:
        """The record of this number. Raises ``StoreError``: an extract need not have it."""
        raw = self._raws.get(seq)
        if raw is None:
            raise StoreError(f"record {seq} is not here")
        return read(raw)

    def size(self) -> int:
        return len(self._raws)


def flows_of(raws: Sequence[bytes], scope: Mapping[str, Any] | None = None) -> Flows:
    """The drawings of the first runs of definitions among canonical records; ``scope`` is that of an extract."""
    found = Flows()
    begun = sum(1 for raw in raws if b'"kind":"run.started"' in raw and "workflow" in read(raw).body)
    if not begun:
        return found
    of = str(scope["run"]) if scope is not None and scope["kind"] == "case" else None
    whole = scope is None or scope["kind"] == "period"
    runs = sorted(driven_runs(_Raws(raws), most=RUNS_MAX if whole else None), key=lambda run: run.records[0].seq)
    taken = 0
    for run in runs:
        if not run.whole or not (whole or run.run == of or run.ended):
            found.part += 1  # of a run that goes on, what others did since its beginning need not be here
            continue
        drawn = _drawn(run)
        if drawn is None:
            found.shut += 1
            continue
        if len(found.figures) == RUNS_MAX or taken + len(drawn) > BYTES_MAX:
            continue
        taken += len(drawn)
        found.runs.add(run.run)
        found.figures.append(_figure(run, drawn))
    found.left = begun - len(found.figures) - found.part - found.shut
    return found


def _drawn(run: DrivenRun) -> str | None:
    """The drawing; None when its definition or its values are not here."""
    if run.own is None or run.shut:
        return None
    try:
        path = path_of(run.own, run.own, run.records, event=run.event)
    except (CountermarkError, KeyError, TypeError, ValueError):  # forged records, which a verifier names
        return None
    return svg(run.own, path.progress, deviations=path.marks(), style=False)


def _figure(run: DrivenRun, drawn: str) -> Html:
    name = str(run.started["name"])
    return tag(
        "figure",
        tag("figcaption", tag("b", "Run "), run.run, f" of {name}: {run.status}"),
        tag("div", Html(drawn), cls="wide", tabindex="0", role="group", aria_label=f"Path of the run {run.run}"),
    )  # fmt: skip
