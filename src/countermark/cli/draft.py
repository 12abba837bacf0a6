"""``policy diff`` and ``policy backtest``: what a draft would change, and what it would have said to past payments."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from countermark.cli.base import Here, as_json_option, emit, folded, opening, pass_here, read_file, reading
from countermark.model.errors import ConfigError

if TYPE_CHECKING:
    from countermark.cli.base import Config
    from countermark.journal import SqliteStore
    from countermark.policy import Bundle

_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{8,64}")
_AGO = re.compile(r"([1-9][0-9]{0,4})d")
LAST_DEFAULT = 10_000

last_option = click.option("--last", metavar="N", type=click.IntRange(min=1), help="Only the newest N decisions.")
since_option = click.option("--since", metavar="WHEN", help="Only from 2026-11-03 on, or from 30d ago.")


def compiled(config: Config, directory: Path | None = None) -> Bundle:
    """The bundle of the deployment's policy directory, or of another one. Raises ``PolicyError``."""
    from countermark.policy import compile_bundle, load_sources
    from countermark.wiring import connectors

    return compile_bundle(load_sources(directory or config.policy), connectors.drafts(), config.deployment)


def bundle_named(config: Config, store: SqliteStore, name: str | None) -> Bundle:
    """A bundle by its directory, or by its digest (or its first 8 hex digits) when the journal has it.

    Without a name: the deployment's policy directory. Raises ``ConfigError`` or ``PolicyError``.
    """
    from countermark.audit import bundles_of
    from countermark.model.records import read

    if name is None or Path(name).is_dir() or _DIGEST.fullmatch(name) is None:
        return compiled(config, None if name is None else Path(name))
    text = name.removeprefix("sha256:")
    # Canonical bytes have no space between a key and its value, and quotes within strings are escaped.
    raws = (raw for _, raw in store.raw(0, store.size()) if b'"kind":"policy.activated"' in raw)
    used = {record.body["activation"]["bundle"] for record in map(read, raws)}
    found = sorted(digest for digest in used if digest.removeprefix("sha256:").startswith(text))
    if len(found) != 1:
        raise ConfigError(f"{len(found)} policies that were in force begin with {text}", hint="Name a directory.")
    return bundles_of(store)(found[0])


def moment_us(text: str | None, zone: str, now_us: int) -> int | None:
    """``2026-11-03`` (its beginning in the zone) or ``30d`` (ago) in microseconds. Raises ``ConfigError``."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_us - timedelta(days=int(ago[1])) // timedelta(microseconds=1)
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=ZoneInfo(zone))
    except ValueError:
        raise ConfigError(f"{text!r} is no day", hint="Write 2026-11-03, or 30d for thirty days ago.") from None
    return (day.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def pseudonyms(config: Config) -> Callable[[str, str], str]:
    """Keyed pseudonyms as the gate makes them."""
    from countermark.model.digest import pseudonym
    from countermark.wiring import deployment

    key = deployment.read_key(config.keys / "pseudonym.key")
    return lambda kind, value: pseudonym(key, kind, value)


def now_us() -> int:
    from countermark.model.clock import SystemClock

    return SystemClock().now_us()


def preview(config: Config, draft: Bundle) -> None:
    """Show what the draft changes, and ask. Raises ``click.Abort``, also where nobody can answer."""
    from countermark.audit import diff_lines, policy_diff

    with reading(config) as store, opening(config, store) as unseal:
        found = policy_diff(store, draft, pseudonyms(config), last=LAST_DEFAULT, unseal=unseal)
    for line in diff_lines(found):
        folded(line, err=True)
    click.confirm("Put this in force?", abort=True, err=True)


@click.command()
@click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@last_option
@since_option
@as_json_option
@pass_here
def diff(here: Here, directory: Path | None, last: int | None, since: str | None, as_json: bool) -> None:
    """What a draft (DIR, default: the policy directory) changes against the policy in force.

    Limits, rules, people, payees, ladders and tools in words; which of the last decisions would have been other ones,
    each in the state that it really had; which open questions an activation voids. Without --last or --since: the last
    10,000 decisions. Nothing is recorded but that you looked.
    """
    from countermark.audit import diff_lines, policy_diff
    from countermark.cli.evidence import noted

    config = here.config()
    draft = compiled(config, directory)
    start = moment_us(since, draft.compiled.zone, now_us())
    count = last if last is not None else None if since is not None else LAST_DEFAULT
    with reading(config) as store, opening(config, store) as unseal:
        size = store.size()
        found = policy_diff(store, draft, pseudonyms(config), last=count, since=start, unseal=unseal)
    noted(config, "audit", 0, size)
    emit(found, diff_lines(found), as_json=as_json)


@click.command()
@click.option("--bundle", metavar="DIR", help="The policy: a directory, or the digest of one that was in force "
                                              "(default: the policy directory).")  # fmt: skip
@click.option("--import", "source", metavar="FILE", help="A list of payments as CSV, in place of the journal.")
@click.option("--agent", metavar="NAME", default="", help="Who asked, for lines of FILE that do not say.")
@click.option("--tool", metavar="NAME", default="", help="With which tool, for lines of FILE that do not say.")
@last_option
@since_option
@as_json_option
@pass_here
def backtest(
    here: Here, bundle: str | None, source: str | None, agent: str, tool: str, last: int | None, since: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """What a policy would have said to payments that were made: how many it lets pass, asks about, refuses.

    From the journal, every action in the state that it really had; or from FILE (docs/backtest.md lists its columns),
    through an empty journal under a made-up mandate. Each payment that would not simply pass is listed with the rule
    and its numbers.
    """
    from countermark.audit import PAYMENTS_BYTES_MAX, backtest_lines, backtest_list, read_payments
    from countermark.audit import backtest as from_journal
    from countermark.cli.evidence import noted

    if source is not None and last is not None:
        raise click.UsageError("--last counts decisions of the journal; --since works with --import too")
    config = here.config()
    with reading(config) as store:
        policy = bundle_named(config, store, bundle)
        start = moment_us(since, policy.compiled.zone, now_us())
        if source is not None:
            payments = read_payments(read_file(source, PAYMENTS_BYTES_MAX), policy, agent=agent, tool=tool)
            kept = [payment for payment in payments if start is None or payment.at >= start]
            found = backtest_list(kept, policy, pseudonyms(config))
        else:
            with opening(config, store) as unseal:
                found = from_journal(store, policy, pseudonyms(config), last=last, since=start, unseal=unseal)
        size = store.size()
    if source is None:
        noted(config, "audit", 0, size)
    emit(found, backtest_lines(found), as_json=as_json)
