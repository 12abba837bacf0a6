"""``actions``: what was paid and refused, the newest first."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from countermark.cli.base import Here, as_json_option, emit, good, pass_here, reading, table
from countermark.cli.evidence import noted
from countermark.model.errors import StoreError

if TYPE_CHECKING:
    from countermark.audit import Daybook
    from countermark.cli.base import Config

LIMIT, LIMIT_MAX = 50, 10_000
SHORT_CHARS = 12  # of an action's ID
STATUSES = ("confirmed", "failed", "unknown", "pending", "waiting", "denied", "refused", "expired")
HEAD = ("record", "time", "action", "agent", "tool", "amount", "payee", "for", "decided", "status", "code")


@click.command()
@click.option("--day", metavar="YYYY-MM-DD",
              help="The day, in the zone of the policy in force (default: today; with --run, every day).")  # fmt: skip
@click.option("--agent", metavar="NAME", default="", help="Only what this agent asked for.")
@click.option("--run", "run", metavar="RUN", default="", help="Only those of a run.")
@click.option("--payee", metavar="ID", default="", help="Only those to a payee, as the policy names it.")
@click.option("--status", type=click.Choice(STATUSES), help="Only those of which this became.")
@click.option("--limit", metavar="N", type=click.IntRange(1, LIMIT_MAX), default=LIMIT, show_default=True,
              help="How many are listed; the figures at the end are over all.")  # fmt: skip
@as_json_option
@pass_here
def actions(
    here: Here, day: str | None, agent: str, run: str, payee: str, status: str | None, limit: int, as_json: bool
) -> None:
    """List actions, the newest first: what was paid, and what was refused.

    An action belongs to the day on which it was first decided; status and code say what has become of it since.
    ``countermark explain '#N'`` tells the one that begins with record N.
    """
    from countermark.audit import Filter, actions_in, present_state, span_of, whole_span
    from countermark.model.clock import SystemClock
    from countermark.policy import day_bounds

    config = here.config()
    wanted = Filter(agent=agent, payee=payee, status=status or "", others=True)
    with reading(config) as store, _daybook(config) as book:
        bundle = present_state(store).bundle
        zone = "UTC" if bundle is None else bundle.compiled.zone
        shown = None if run and day is None else _day(day, zone, SystemClock().now_us())
        span = whole_span(store) if shown is None else span_of(store, *day_bounds(shown, zone))
        found = actions_in(store, book, wanted, span, run=run, limit=limit)
    noted(config, "explain", span.low, span.high)
    document = {"day": None if shown is None else shown.isoformat(), "zone": zone, **found}
    emit(document, _lines(document), as_json=as_json)


def _day(text: str | None, zone: str, now: int) -> date:
    if text is None:
        return datetime.fromtimestamp(now // 1_000_000, UTC).astimezone(ZoneInfo(zone)).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{text[:20]!r} is no day: write it like 2026-11-02") from None


@contextmanager
def _daybook(config: Config) -> Iterator[Daybook]:
    """The deployment's daybook; where it cannot be written, one that is made for this look alone."""
    from countermark.audit import DAYBOOK, Daybook

    with tempfile.TemporaryDirectory(prefix="countermark-") as folder:
        try:
            book = Daybook(config.root / DAYBOOK)
        except StoreError:
            book = Daybook(Path(folder) / "daybook.db")
        try:
            yield book
        finally:
            book.close()


def _lines(found: dict[str, Any]) -> list[str]:
    from countermark.audit import money

    rows, counted, zone = found["actions"], found["counted"], ZoneInfo(found["zone"])
    when = "of every day" if found["day"] is None else f"of {found['day']}"
    total = sum(counted.values())
    said = ", ".join(f"{count:,} {status}" for status, count in counted.items()) or "none"
    lines = [*table(HEAD, [_row(row, zone, found["day"] is None) for row in rows], right=(5,)), ""] if rows else []
    lines.append(f"Actions {when} ({found['zone']}): {said}.")
    if total > len(rows):
        lines.append(f"The newest {len(rows):,} of {total:,} are listed: see --limit.")
    for currency, amount in found["confirmed"].items():
        lines.append(f"Confirmed: {good(money(amount, currency))}.")
    if found["malformed"]:
        codes = ", ".join(f"{count:,} {code}" for code, count in found["malformed"].items())
        lines.append(f"Requests that were no valid action, and were refused: {codes}.")
    return lines


def _row(row: dict[str, Any], zone: ZoneInfo, dated: bool) -> list[str]:
    at = datetime.fromtimestamp(row["at"] // 1_000_000, UTC).astimezone(zone)
    code = row["outcome"] or row["code"]
    return [
        f"#{row['seq']}", f"{at:%Y-%m-%d %H:%M:%S}" if dated else f"{at:%H:%M:%S}", row["id"][:SHORT_CHARS],
        row["agent"], row["tool"], row["amount"] or "", row["payee"] or "", row["reference"], row["disposition"],
        row["status"], "" if code in ("ok", "allowed") else code,
    ]  # fmt: skip
