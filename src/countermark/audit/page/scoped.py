"""What the page of an extract says of its scope: what it is about, what is of that, and what only stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.audit.page.gather import LISTED_MAX, Gathered
from countermark.audit.page.markup import Child, Html, table, tag
from countermark.audit.page.sections import Figures, number, section, sum_of
from countermark.audit.page.timeline import short
from countermark.audit.page.times import both
from countermark.model.records import Record


def beginnings(figures: Figures) -> bool:
    """Whether the pack holds of its subject only where runs began and ended: a workflow's day."""
    return "scope" in figures and figures["scope"]["kind"] == "workflow"


def _runs(found: Gathered, scope: Mapping[str, Any]) -> Html:
    """What the pack of a workflow's day holds and does not hold, and its runs."""
    rows: list[list[Child | list[Child]]] = []
    for name, records in list(found.runs.items())[:LISTED_MAX]:
        begun, ended = (_at(records, kind) for kind in ("run.started", "run.ended"))
        if not any(scope["from"] <= record.at < scope["to"] for record in records):
            continue
        status = ended.body["workflow"]["status"] if ended is not None else "no end in this pack"
        rows.append([tag("code", name), both(begun.at, found.zone) if begun is not None else "", status,
                     both(ended.at, found.zone) if ended is not None else ""])  # fmt: skip
    return section(
        "question", "Question and scope",
        tag("p", _asked(scope), " and how did they end?"),
        tag("p", tag("b", "This pack does not say what was paid. "), "It holds where runs of this workflow began and "
            "where they ended, and all orders, mandates, policies and stops of the log. What the steps of these runs "
            "did (decisions, answers of people, payments, sums) is not in this pack, whatever it was. The pack of one "
            "run has it: ", tag("code", "countermark export case.zip --case RUN"), "; that of an agent's day, what the "
            "agent paid: ", tag("code", "countermark export day.zip --agent AGENT --day DAY"), ".", cls="notice"),
        tag("p", "Scope: from ", both(scope["from"], found.zone), " until before ", both(scope["to"], found.zone), ". ",
            _held(scope)),
        table(("run", "began", "ended as", "ended"), rows, "Runs that began or ended in that time") if rows
        else tag("p", "No run of it began or ended in that time."),
        tag("p", f"The first {LISTED_MAX} runs are listed.") if len(found.runs) > LISTED_MAX else None,
    )  # fmt: skip


def _at(records: list[Record], kind: str) -> Record | None:
    return next((record for record in records if record.kind == kind), None)


def question(found: Gathered, figures: Figures) -> Html:
    """Question and scope, with the control totals of what was decided within the scope's times."""
    if beginnings(figures):
        return _runs(found, figures["scope"])
    scope, inside = figures["scope"], figures["inside"]
    beside = figures["actions"] - inside["actions"]
    return section(
        "question", "Question and scope",
        tag("p", _asked(scope), " under whose authority, and what is there to show it?"),
        tag("p", "Scope: from ", both(scope["from"], found.zone), " until before ", both(scope["to"], found.zone), ". ",
            _held(scope)),
        tag("p", "Actions first decided in that time: ", number(figures, "inside/actions"), "."),
        tag("div",
            tag("div", tag("h3", "Asked for, in the scope"), _sums(figures, "asked")),
            tag("div", tag("h3", "Confirmed, in the scope"), _sums(figures, "totals")), cls="grid"),
        tag("p", f"Beside the scope: {many(beside, 'other action')}, decided before or after, since an epoch is longer "
            "than the scope and an action is here with all its records. They are lines of population.csv and count in "
            "every other figure of this page, and not in the ones above.", cls="notice") if beside else None,
        tag("p", "The actions are the lines of ", tag("code", "population.csv"), ": ", number(figures, "actions"),
            " of them. Orders, mandates, policies and stops are all here, of the whole log."),
    )  # fmt: skip


def _sums(figures: Figures, name: str) -> Html:
    return (
        tag("ul", sum_of(figures, f"inside/{name}")) if figures["inside"][name] else tag("p", "Nothing with an amount.")
    )


def _asked(scope: Mapping[str, Any]) -> list[Child]:
    if scope["kind"] == "agent":
        return ["What did agent ", tag("b", short(scope["agent"])), " do on ", tag("b", scope["day"]),
                f" ({short(scope['zone'])}),"]  # fmt: skip
    if scope["kind"] == "workflow":
        return ["Which runs of the workflow ", tag("b", short(scope["workflow"])), " began or ended on ",
                tag("b", scope["day"]), f" ({short(scope['zone'])})"]  # fmt: skip
    if scope["kind"] == "case":
        about: list[Child] = [" about action ", tag("code", scope["action"])] if scope["action"] else []
        return ["What happened in run ", tag("code", short(scope["run"])), *about, ","]
    return ["What did all agents do in a period,"]


def _held(scope: Mapping[str, Any]) -> str:
    if scope["kind"] == "period":
        return "Every record of that time is in this pack."
    if scope["kind"] == "workflow":
        whose = "the beginning and end of a run of it"
    else:
        whose = "this agent" if scope["kind"] == "agent" else "this run"
    return f"Every record of {whose} in that time is in this pack; that none is missing is for the check to show."


def many(count: int, what: str) -> str:
    """``1 action``, ``2 actions``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
