"""``explain``, ``audit reperform``, ``export``, ``verify``: what the records say, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from countermark.cli.base import Here, as_json_option, bad, emit, good, opening, pass_here, reading
from countermark.cli.paths import approved, paths
from countermark.cli.start import DEMO_DIR
from countermark.model.errors import ConfigError, CountermarkError

if TYPE_CHECKING:
    from countermark.cli.base import Config
    from countermark.model.records import Record

MISMATCHES_SHOWN_MAX = 20


@click.command(name="explain")
@click.argument("ref", metavar="ID")
@click.option("--reveal", is_flag=True, help="Open sensitive values with the vault key.")
@as_json_option
@pass_here
def explain_(here: Here, ref: str, reveal: bool, as_json: bool) -> None:
    """Tell one action from the request to the outcome, in plain words.

    ID is an action (act_...), run (run_...), escalation (esc_...), record (12 or #12) or a provider's reference.
    """
    from countermark.audit import explain

    config = here.config()
    with reading(config) as store, opening(config, store) if reveal else nullcontext() as unseal:
        found = explain(store, ref, unseal=unseal)
    seqs = [record["seq"] for record in found.document["records"]]
    noted(config, "explain", min(seqs), max(seqs) + 1)
    emit(found.document, found.text, as_json=as_json)


@click.group()
def audit() -> None:
    """Check the records of this deployment."""


audit.add_command(paths)
audit.add_command(approved)


@audit.command()
@as_json_option
@pass_here
@click.pass_context
def reperform(ctx: click.Context, here: Here, as_json: bool) -> None:
    """Make every decision again from the records before it, and compare. Exit 1 when one differs."""
    from countermark.audit import bundles_of
    from countermark.audit import reperform as again
    from countermark.wiring import connectors, own_the_process

    def history(seq: int) -> Iterator[Record]:
        return store.records(0, seq)

    config = here.config()
    own_the_process()
    with reading(config) as store, _missing_bundle():
        noted(config, "audit", 0, store.size())
        report = again(store.records(), bundles_of(store), connectors.drafts(), history)
    counted = (
        ("records", report.records), ("decisions", report.decisions), ("facts", report.facts),
        ("budgets", report.budgets), ("requests rebuilt", report.requests), ("policies recompiled", report.recompiled),
        ("waived by monitoring", report.waived),
    )  # fmt: skip
    lines = [f"{name:<20}{count:>12,}" for name, count in counted]
    lines += [str(mismatch) for mismatch in report.mismatches[:MISMATCHES_SHOWN_MAX]]
    more = report.counted - min(len(report.mismatches), MISMATCHES_SHOWN_MAX)
    if more > 0:
        lines.append(f"and {more:,} more")
    if report.stopped is not None:
        lines.append(f"stopped at #{report.stopped}: nothing after it was checked")
    end = good("equal") if report.ok else bad(f"{report.counted:,} differ")
    lines.append(f"{end}: everything recorded follows from what came before" if report.ok else end)
    emit(report.document(), lines, as_json=as_json)
    ctx.exit(0 if report.ok else 1)


def noted(config: Config, what: str, start: int, stop: int) -> None:
    """Record the reading before anything is shown; where nothing can be recorded, say so."""
    from countermark.wiring import reading as log

    if stop > start and not log.record_reading(config, what, start, stop):
        click.echo("This reading is not recorded: nothing can be written here.", err=True)


@contextmanager
def _missing_bundle() -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise CountermarkError(f"the journal has no policy bundle {error}", code="store_failed") from None


@click.command()
@click.argument("pack", metavar="PACK", type=click.Path(path_type=Path))
@click.option(
    "--at", type=click.IntRange(min=1), metavar="SIZE", help="Up to the signed head of SIZE records (default: newest)."
)
@click.option("--disclose", type=click.Choice(["all", "none"]), default="none", show_default=True,
              help="Whether the pack shows sensitive values.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace PACK if it exists.")
@as_json_option
@pass_here
def export(
    here: Here, pack: Path, at: int | None, disclose: Literal["all", "none"], force: bool, as_json: bool
) -> None:
    """Write the evidence pack that an auditor verifies offline."""
    from countermark.audit import export_pack
    from countermark.authority import load_private
    from countermark.log import LogSigner

    if pack.exists() and not force:
        raise ConfigError(f"{pack} exists", hint="Name another file, or use --force to replace it.")
    config = here.config()
    signer = LogSigner(config.origin, load_private(config.keys / "log.pem"))
    with reading(config) as store, opening(config, store) as unseal:
        if at is None:
            head = store.head()  # before the record of this reading, which is none of what was asked for
            at = None if head is None else head[0]
        if at is not None and store.head_at(at) is not None:
            noted(config, "export", 0, at)
        made = export_pack(
            pack, store, signer, deployment=config.deployment, lane=config.lane, at=at, disclose=disclose, unseal=unseal
        )
    lines = [
        f"{good('Wrote')} {made.path}.",
        f"  records    {made.size:>10,}",
        f"  policies   {made.bundles:>10,}",
        f"  disclosed  {made.disclosed:>10,}",
        f"  withheld   {made.withheld:>10,}",
        f"  erased     {made.erased:>10,}",
        f"  root       {made.root}",
        "Size and root are the head that an auditor keeps, apart from the pack.",
    ]
    emit(made.document(), lines, as_json=as_json)


@click.command(name="verify")
@click.argument("pack", metavar="[PACK]", required=False)
@click.option("--trust", metavar="FILE", help="The auditor's trust file; without it the answer is incomplete.")
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON document.")
@click.pass_context
def verify_(ctx: click.Context, pack: str | None, trust: str | None, json_wanted: bool) -> None:
    """Check an evidence pack, as countermark-verify does. Without PACK: the last demo's.

    Exit codes: 0 verified, 1 refuted, 2 incomplete, 3 unreadable, 64 usage.
    """
    from countermark_verify import TrustError, as_json, as_text, load_trust, verify

    if pack is None:
        pack = str(DEMO_DIR / "evidence.zip")
        trust = trust or str(DEMO_DIR / "trust.json")
        if not Path(pack).is_file():
            raise click.UsageError("name a PACK, or run `countermark demo` here first")
    try:
        trusted = None if trust is None else load_trust(trust)
    except TrustError as error:
        raise click.UsageError(str(error)) from None
    report = verify(pack, trusted)
    click.echo(as_json(report) if json_wanted else as_text(report).removesuffix("\n"))
    ctx.exit(report.exit)
