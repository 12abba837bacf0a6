"""Runs of workflows: those that are open and those that ended last, and one of them drawn on its definition."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from markupsafe import Markup

from countermark.journal import SqliteStore
from countermark.model.errors import ArgumentError, ConfigError
from countermark.model.values import RUN
from countermark.server.console.visit import Page, Reply, Visit

POLL_S = 2
SHOWN_MAX = 100
NAME_CHARS_MAX = 64


async def runs(visit: Visit) -> Reply:
    """``GET /runs``."""
    return visit.html("runs.html", **await _listed(visit))


async def runs_part(visit: Visit) -> Reply:
    """``GET /runs/now``: the lists again."""
    return _unless_seen(visit, "runs_part.html", await _listed(visit))


async def _listed(visit: Visit) -> dict[str, Any]:
    name = visit.query.get("name", "").strip()[:NAME_CHARS_MAX]
    try:
        found = await visit.console.call("workflow.list", {"name": name, "limit": SHOWN_MAX + 1})
    except ConfigError as error:  # the extra is not installed: there are no runs, and the page says why
        return _marked({"open": [], "ended": [], "why": error.message, "name": name, "more": False})

    def times(store: SqliteStore) -> list[dict[str, Any]]:
        return [{**row, "at": store.record(row["ended"]).at, "began": store.record(row["started"]).at}
                for row in found["ended"]]  # fmt: skip

    ended = await visit.console.read(lambda store, unseal: times(store))
    more = len(found["open"]) > SHOWN_MAX
    return _marked({"open": found["open"][:SHOWN_MAX], "ended": ended, "why": "", "name": name, "more": more})


async def run(visit: Visit) -> Reply:
    """``GET /runs/{run}``."""
    return visit.html("run.html", **await _one(visit))


async def run_part(visit: Visit) -> Reply:
    """``GET /runs/{run}/now``: the drawing and the steps again, until the run is over."""
    return _unless_seen(visit, "run_part.html", await _one(visit))


async def _one(visit: Visit) -> dict[str, Any]:
    name = visit.params["run"]
    if RUN.fullmatch(name) is None:
        raise ArgumentError("there is no run with this ID here", field="run", code="unknown_run")
    found: dict[str, Any] = await visit.console.call("workflow.show", {"run": name, "graph": True})
    # The drawing's texts are escaped where it is made; it has attributes and classes, no style and no script.
    return _marked({"one": {**found, "graph": Markup(found["graph"])}})  # noqa: S704


def _marked(values: dict[str, Any]) -> dict[str, Any]:
    """With a mark of what is shown: who has seen it needs it not again, and a drawing stays where it was scrolled."""
    return {**values, "mark": sha256(repr(values).encode()).hexdigest()[:16], "poll_s": POLL_S}


def _unless_seen(visit: Visit, template: str, values: dict[str, Any]) -> Reply:
    return Reply(204, b"") if visit.query.get("mark") == values["mark"] else visit.html(template, **values)


PAGES = (
    Page("/runs", runs, nav="Runs", query=("name",)),
    Page("/runs/now", runs_part, query=("name", "mark"), poll=True),
    Page("/runs/{run}", run),
    Page("/runs/{run}/now", run_part, query=("mark",), poll=True),
)
