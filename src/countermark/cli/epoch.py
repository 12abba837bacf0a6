"""``epoch close``, and what an extract needs of it: that an epoch which is closed reaches its end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING

import click

from countermark.cli.base import Here, as_json_option, emit, good, pass_here, reading
from countermark.model.errors import ConfigError, CountermarkError

if TYPE_CHECKING:
    from countermark.audit import Exported, Wanted
    from countermark.cli.base import Config
    from countermark.journal import SqliteStore


@click.group()
def epoch() -> None:
    """Epochs: what proves that a part of the log is complete."""


@epoch.command(name="close")
@as_json_option
@pass_here
def close_(here: Here, as_json: bool) -> None:
    """Close an epoch now, over everything that was recorded so far.

    A gate closes one each day at midnight, in the zone of the policy in force.
    """
    found = close_epoch(here.config())
    if found["closed"]:
        text = f"{good('Closed')} epoch {found['epoch']:,}."
    else:
        text = "Nothing was recorded since the last epoch was closed."
    emit(found, text, as_json=as_json)


def close_epoch(config: Config) -> dict[str, int | None]:
    """Close an epoch through the process that owns the deployment, or in its place."""
    from countermark.wiring import open_deployment

    with open_deployment(config.root, recover=False) as handle:
        found: dict[str, int | None] = handle.call("epoch.close", {})
    return found


def wanted_of(
    case: str | None,
    agent: str | None,
    day: str | None,
    start: str | None,
    end: str | None,
    workflow: str | None = None,
) -> Wanted | None:
    """What the options of ``export`` ask for; None: the whole log. Raises ``UsageError``."""
    from countermark.audit import Wanted

    if (agent is None and workflow is None) != (day is None):
        raise click.UsageError("--day belongs to --agent or --workflow, and they to it")
    if (start is None) != (end is None):
        raise click.UsageError("--from and --until belong together")
    chosen = [part for part in (case, agent, workflow, start) if part is not None]
    if len(chosen) > 1:
        raise click.UsageError("choose one: --case, --agent or --workflow with --day, or --from with --until")
    if case is not None:
        return Wanted(case=case)
    if agent is not None and day is not None:
        return Wanted(agent=agent, days=(_day(day), _day(day)))
    if workflow is not None and day is not None:
        return Wanted(workflow=workflow, days=(_day(day), _day(day)))
    if start is not None and end is not None:
        first, last = _day(start), _day(end)
        if last < first:
            raise click.UsageError("--until is before --from")
        return Wanted(days=(first, last))
    return None


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{text[:20]!r} is no day: write it like 2026-11-02") from None


def reach(config: Config, wanted: Wanted) -> None:
    """Close an epoch before an extract is made, unless one reaches its end already.

    Where that cannot be, the extract says how far it reaches.
    """
    from countermark.audit import present_state
    from countermark.policy import day_bounds

    with reading(config) as store:
        state = present_state(store)
    zone = None if state.bundle is None else state.bundle.compiled.zone
    if zone is not None and wanted.days is not None and day_bounds(wanted.days[1], zone)[1] <= state.epoch.until:
        return
    try:
        close_epoch(config)
    except CountermarkError as error:
        click.echo(f"No epoch was closed: {error.message}", err=True)
    except OSError as error:
        raise ConfigError(f"no epoch could be closed: {error.strerror}") from None


def remarks(store: SqliteStore, wanted: Wanted) -> Iterator[str]:
    """What an extract may be empty of, or may not hold yet: a name that nobody had, a day that is not over."""
    from countermark.audit import holding, present_state
    from countermark.model.clock import SystemClock
    from countermark.policy import day_bounds

    name = wanted.agent or wanted.workflow
    if name and next(holding(store, name, 0, store.size()), None) is None:
        what = "agent" if wanted.agent else "workflow"
        yield f"No {what} {name[:64]!r} was ever recorded here: the pack shows that there is nothing."
    bundle = present_state(store).bundle
    if wanted.days is not None and bundle is not None:
        begin, end = day_bounds(wanted.days[1], bundle.compiled.zone)
        now = SystemClock().now_us()
        if now < end:
            when = "has not begun" if now < begin else "is not over"
            yield f"{wanted.days[1]} {when} in {bundle.compiled.zone}: what follows is not in the pack."


def lines_of(made: Exported) -> list[str]:
    """What ``export`` says of an extract beside its numbers."""
    if made.scope is None:
        return []
    kinds = {"case": "a case", "agent": "an agent's day", "workflow": "a workflow's day", "period": "a period"}
    kind = kinds[made.scope["kind"]]
    lines = [f"An extract: {kind}, with all orders, mandates, policies and stops."]
    if made.scope["kind"] == "workflow":
        lines.append(
            "It holds where runs began and ended, and not what they did or paid: export a run with --case RUN."
        )
    if made.scope["kind"] == "case" and made.scope["run"] == "":
        lines.append("The action names no run: the case is everything of its agent that names none.")
    if not made.reaches:
        lines.append("It is not over, or no epoch covers it yet: that it is complete cannot be established.")
    return lines
