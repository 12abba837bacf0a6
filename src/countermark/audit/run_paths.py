"""Runs of a definition held against one that may have been written later, and which runs deviate alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from countermark.audit.driven import DrivenRun, Source, acted, driven_run, driven_runs, names_of_runs
from countermark.audit.excepted import Exempt
from countermark.audit.preview import LISTED_MAX
from countermark.model.errors import ArgumentError
from countermark.model.sealing import ERASED
from countermark.workflow import Definition, Deviation, Path, nearest, path_of, receipt, svg, weakest

ALIKE_LISTED_MAX = 500  # runs named for one deviation; all are counted

_Alike = tuple[str, str, str]  # place, kind, what


@dataclass
class _Found:
    there: bool = False  # whether there is any run of that name, whenever it began
    checked: int = 0
    open: int = 0
    unknown: int = 0  # whose own definition is not here: arguments were not compared
    incomplete: int = 0  # of which an extract has only a part: what is missing was perhaps done
    sealed: int = 0  # whose values are withheld or erased: what they did cannot be told
    deviating: int = 0
    cleared: list[dict[str, Any]] = field(default_factory=list)
    cleared_count: int = 0
    runs: list[dict[str, Any]] = field(default_factory=list)
    alike: dict[_Alike, list[str]] = field(default_factory=dict)
    counts: dict[_Alike, int] = field(default_factory=dict)
    words: dict[_Alike, str] = field(default_factory=dict)


def audit_runs(
    source: Source, definition: Definition, *, since: int | None = None, exceptions: Sequence[Exempt] = (),
    run: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Hold every run of the definition's name against it.

    Args:
        since: only runs that began at that time or later, microseconds.
        exceptions: deviations that people have declared legitimate.
        run: only this one.

    Returns:
        ``{"definition", "name", "none", "checked", "open", "without_definition", "incomplete", "sealed", "deviating",
        "alike": [{place, kind, what, words, count, runs}], "runs": [RUN...], "more",
        "cleared": [{run, deviation, exception}], "cleared_count"}``. ``none`` is null, or what to say where no run has
        that name.
        RUN is ``{run, agent, started: {seq, at}, status, definition, planned: [places], actual: [{place, seq}],
        deviations: [{place, kind, what, seq, words, others}]}``; ``others`` is how many other runs deviate alike.
    """
    found = _Found()
    for one in driven_runs(source, name=definition.document["name"], run=run):
        found.there = True
        if since is not None and one.records[0].at < since:
            continue
        if not one.whole:
            found.incomplete += 1
        elif one.shut:
            found.sealed += 1
        else:
            _held(found, one, definition, exceptions)
    for row in found.runs:
        for deviation in row["deviations"]:
            deviation["others"] = found.counts[deviation["place"], deviation["kind"], deviation["what"]] - 1
    name = str(definition.document["name"])
    none = None if found.there else f"There is no run of {name} here."
    if none is not None and run is None:
        none = f"{none} {nearest(name, names_of_runs(source))}".strip()
    alike = sorted(found.alike, key=lambda key: (-found.counts[key], key))
    return {
        "definition": definition.digest, "name": name, "none": none, "checked": found.checked,
        "open": found.open, "without_definition": found.unknown, "incomplete": found.incomplete,
        "sealed": found.sealed, "deviating": found.deviating,
        "alike": [
            {"place": key[0], "kind": key[1], "what": key[2], "words": found.words[key], "count": found.counts[key],
             "runs": found.alike[key]}
            for key in alike
        ],
        "runs": found.runs, "more": found.deviating - len(found.runs), "cleared": found.cleared,
        "cleared_count": found.cleared_count,
    }  # fmt: skip


def _held(found: _Found, one: DrivenRun, definition: Definition, exceptions: Sequence[Exempt]) -> None:
    path = path_of(definition, one.own, one.records, event=one.event)
    found.checked += 1
    found.open += not path.ended
    found.unknown += one.own is None
    first = one.records[0]
    left: list[Deviation] = []
    for deviation in path.deviations:
        exempt = next((row for row in exceptions if row.covers(one.run, first.at, deviation)), None)
        if exempt is None:
            left.append(deviation)
            continue
        found.cleared_count += 1
        if len(found.cleared) < LISTED_MAX:
            afterwards = exempt.at > first.at
            cleared = {"run": one.run, "deviation": _said(deviation), "afterwards": afterwards}
            found.cleared.append({**cleared, "exception": exempt.document()})
    if not left:
        return
    found.deviating += 1
    for key, deviation in {(one.place, one.kind, one.what): one for one in left}.items():
        found.counts[key] = found.counts.get(key, 0) + 1
        found.words.setdefault(key, deviation.words)
        runs = found.alike.setdefault(key, [])
        if len(runs) < ALIKE_LISTED_MAX:
            runs.append(one.run)
    if len(found.runs) < LISTED_MAX:
        found.runs.append(_row(one, path, left))


def _said(deviation: Deviation) -> dict[str, Any]:
    return {"place": deviation.place, "kind": deviation.kind, "what": deviation.what, "seq": deviation.seq,
            "words": deviation.words}  # fmt: skip


def _row(one: DrivenRun, path: Path, left: Sequence[Deviation]) -> dict[str, Any]:
    first = one.records[0]
    return {
        "run": one.run, "agent": first.body["agent"], "started": {"seq": first.seq, "at": first.at},
        "status": one.status, "definition": one.digest, "planned": list(path.planned),
        "actual": [{"place": place, "seq": seq} for place, seq in path.actual],
        "deviations": [_said(deviation) for deviation in left],
    }  # fmt: skip


def run_drawn(source: Source, run: str, definition: Definition | None = None) -> str:
    """A run drawn on its definition, or on another one with its deviations, as SVG. Raises ``ArgumentError``."""
    found = _complete(source, run)
    planned = definition or _own(found)
    path = path_of(planned, found.own, found.records, event=found.event)
    return svg(planned, path.progress, deviations=path.marks())


def run_receipt(source: Source, run: str) -> dict[str, Any]:
    """The receipt of a run (``workflow.receipts``), with what its agents did. Raises ``ArgumentError``.

    A step of an agent has ``delegated``: ``{"run", "actions", "confirmed": {currency: amount}}`` of the agent's own
    run, and ``tier`` is the weakest of these effects too.
    """
    found = _complete(source, run)
    document = receipt(_own(found), found.records, event=found.event)
    agents = [step for step in document["steps"] if step["kind"] == "agent" and step["other"]]
    done = acted(source, {step["other"] for step in agents}) if agents else {}
    tiers = {line.last["tier"] for one in done.values() for line in one.lines.values()}
    for step in agents:
        of = done[step["other"]]
        step["delegated"] = {"run": step["other"], "actions": len(of.lines), "confirmed": of.moved()}
    document["tier"] = weakest([*tiers, *([document["tier"]] if document["tier"] else ())])
    return document


def _complete(source: Source, run: str) -> DrivenRun:
    found = driven_run(source, run)
    if not found.whole:
        raise ArgumentError("not all records of the run are here", field="run", code="incomplete_run")
    if found.shut:
        raise ArgumentError("the values of the run are sealed here, or were erased", field="run", code=ERASED)
    return found


def _own(found: DrivenRun) -> Definition:
    if found.own is None:
        raise ArgumentError("the run's definition is not among these records", field="run", code="unknown_definition")
    return found.own
