"""``explain``, ``audit reperform``, ``export``, ``verify``: what the records say, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import Here, as_json_option, bad, emit, good, opening, pass_here, reading
from countermark.cli.epoch import lines_of, reach, remarks, wanted_of
from countermark.cli.paths import approved, paths
from countermark.cli.start import DEMO_DIR
from countermark.model.errors import ConfigError, CountermarkError

if TYPE_CHECKING:
    from countermark.audit import Disclose
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

    ID is an action (act_...), run (run_...), escalation (esc_...), record (12 or #12), a call id, an invoice or a
    provider's reference.
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
    lines += [f"erased: {count:,} values of {subject}" for subject, count in report.erased.items()]
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
    "--at",
    type=click.IntRange(min=1),
    metavar="SIZE",
    help="Up to the signed head of SIZE records (default: the newest that was witnessed, else the newest).",
)
@click.option("--disclose", metavar="FIELDS", default="none", show_default=True,
              help="Sensitive values that the pack shows: all, none, or aliases with commas between them.")  # fmt: skip
@click.option("--to", metavar="NAME", help="Who gets the disclosed values; it stands in the record.")
@click.option("--reason", metavar="TEXT", default="", help="Why they are disclosed; it stands in the record.")
@click.option("--case", metavar="ID", help="Only the run of an action (act_..., or its invoice), or a run (run_...).")
@click.option("--agent", metavar="NAME", help="Only what an agent did on a day.")
@click.option("--workflow", metavar="NAME", help="Only the beginnings and ends of a workflow's runs on a day.")
@click.option("--day", metavar="YYYY-MM-DD", help="The day, in the zone of the policy in force.")
@click.option("--from", "start", metavar="YYYY-MM-DD", help="Only a period, from the beginning of this day.")
@click.option("--until", "end", metavar="YYYY-MM-DD", help="The last day of the period.")
@click.option("--force", is_flag=True, help="Replace PACK if it exists.")
@as_json_option
@pass_here
def export(
    here: Here, pack: Path, at: int | None, disclose: str, to: str | None, reason: str, case: str | None,
    agent: str | None, workflow: str | None, day: str | None, start: str | None, end: str | None, force: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Write the evidence pack that an auditor verifies offline: of the whole log, or an extract of it.

    FIELDS are aliases of sensitive arguments, and $reason for what the agent said. Which of them were shown to whom is
    recorded before the pack is written.

    An extract shows that nothing of its subject is missing; an epoch is closed first, so that it reaches this moment.
    """
    from countermark.audit import export_extract, export_pack, head_to_show
    from countermark.wiring import log_signer

    if pack.exists() and not force:
        raise ConfigError(f"{pack} exists", hint="Name another file, or use --force to replace it.")
    chosen = _chosen(disclose, to, reason)
    config = here.config()
    wanted = wanted_of(case, agent, day, start, end, workflow)
    if wanted is not None and at is None:
        reach(config, wanted)
    if at is None:
        _seen(config)
    signer = log_signer(config)
    with reading(config) as store, opening(config, store) as unseal:
        if at is None:  # before the record of this reading, which is none of what was asked for
            at = head_to_show(store)
        if at is not None and store.head_at(at) is not None:
            noted(config, "export", 0, at)
        how: dict[str, Any] = {
            "deployment": config.deployment, "lane": config.lane, "at": at, "disclose": chosen, "unseal": unseal,
            "before": lambda fields, size, count: _disclosed(config, to or "", reason, fields, size, count),
        }  # fmt: skip
        for remark in [] if wanted is None else remarks(store, wanted):
            click.echo(remark, err=True)
        if wanted is None:
            made = export_pack(pack, store, signer, **how)
        else:
            made = export_extract(pack, store, signer, wanted, **how)
    of = "" if made.scope is None else f"  (of {made.size:,} in the log up to this head)"
    lines = [
        f"{good('Wrote')} {made.path}.",
        f"  records    {made.size if made.scope is None else made.records:>10,}{of}",
        f"  policies   {made.bundles:>10,}",
        f"  disclosed  {made.disclosed:>10,}",
        f"  withheld   {made.withheld:>10,}",
        f"  erased     {made.erased:>10,}",
        f"  root       {made.root}",
        *lines_of(made),
        f"  later      {made.later:>10,}  (records of the log after this head)",
        "Witnesses cosigned this head." if made.witnessed else "No witness has cosigned this head.",
        "Size and root are the head that an auditor keeps, apart from the pack.",
    ]
    emit(made.document(), lines, as_json=as_json)


def _seen(config: Config) -> None:
    """Where no gate runs, open one: what a command recorded just before it ended may have no cosignature yet."""
    from countermark.audit import head_to_show
    from countermark.wiring import open_deployment

    with reading(config) as store:
        newest = store.head()
        if newest is None or head_to_show(store) == newest[0]:
            return
    try:
        with open_deployment(config.root, recover=False):
            pass
    except (CountermarkError, OSError) as error:
        click.echo(f"Witnesses were not asked again: {error}", err=True)


def _chosen(disclose: str, to: str | None, reason: str) -> Disclose:
    """What is disclosed. Whoever chooses fields says for whom. Raises ``click.UsageError``."""
    if disclose == "none" and (to is not None or reason):
        raise click.UsageError("nothing is disclosed: leave out --to and --reason")
    if disclose == "all":
        return "all"
    if disclose == "none":
        return "none"
    fields = {field.strip() for field in disclose.split(",")} - {""}
    if not fields or to is None or not to.strip():
        raise click.UsageError("say which FIELDS, and --to whom")
    return fields


def _disclosed(config: Config, to: str, reason: str, fields: list[str], size: int, count: int) -> None:
    """Record a disclosure before the pack is there; where nothing can be recorded, say so."""
    from countermark.wiring import reading as log

    if not log.record_disclosure(config, to, reason, fields, size, count):
        click.echo("This disclosure is not recorded: nothing can be written here.", err=True)


@click.command(name="verify")
@click.argument("pack", metavar="[PACK]", required=False)
@click.option("--trust", metavar="FILE", help="The auditor's trust file; without it the answer is incomplete.")
@click.option("--record", metavar="FILE", help="PACK is a .tlog-proof, and this the record that it is of.")
@click.option("--rpc", metavar="CHAIN_ID=URL", multiple=True,
              help="Ask this node of yours for the blocks of that chain's anchors.")  # fmt: skip
@click.option("--only", type=click.Choice(["integrity"]),
              help="Only hashes, order, streams and heads (V01 to V08); the answer is incomplete at best.")  # fmt: skip
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(1, 64),
    help="Read records in N processes (1: in this one"
    " alone); without it, for a large pack, in as many as there are processors. The report is the same.",
)
@click.option("--ticks", metavar="N", type=click.IntRange(1),
              help="What executing pure steps of workflows again may take in all.")  # fmt: skip
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON document.")
@click.option("--page-digest", is_flag=True, help="Print the digest of the script in a pack's page, and stop.")
@click.pass_context
def verify_(
    ctx: click.Context,
    pack: str | None,
    trust: str | None,
    record: str | None,
    rpc: tuple[str, ...],
    only: str | None,
    jobs: int | None,
    ticks: int | None,
    json_wanted: bool,
    page_digest: bool,
) -> None:
    """Check an evidence pack, as countermark-verify does. Without PACK: the last demo's.

    Exit codes: 0 verified, 1 refuted, 2 incomplete, 3 unreadable, 64 usage, 70 no
    verdict, since a process of it ended early.
    """
    from countermark_verify import (
        BUDGET_TICKS,
        EXIT_FAILED,
        TrustError,
        WorkerError,
        as_json,
        as_text,
        examiners,
        load_trust,
        parse_nodes,
        verify,
        verify_proof,
    )  # fmt: skip

    if page_digest:
        from countermark.audit import script_digest

        click.echo(script_digest())
        return
    if pack is None:
        pack = str(DEMO_DIR / "evidence.zip")
        trust = trust or str(DEMO_DIR / "trust.json")
        if not Path(pack).is_file():
            raise click.UsageError("name a PACK, or run `countermark demo` here first")
    try:
        trusted = None if trust is None else load_trust(trust)
        nodes = parse_nodes(rpc)
    except TrustError as error:
        raise click.UsageError(str(error)) from None
    if only is not None and record is not None:
        raise click.UsageError("--only is for packs, not for the proof of a record")
    try:
        with examiners(jobs if record is None else 1, pack) as examiner:
            report = (
                verify(pack, trusted, nodes, only=only, examiner=examiner, ticks=ticks or BUDGET_TICKS)
                if record is None
                else verify_proof(pack, record, trusted)
            )
    except WorkerError as error:
        click.echo(f"{error}; nothing was established", err=True)
        ctx.exit(EXIT_FAILED)
    click.echo(as_json(report) if json_wanted else as_text(report, pack).removesuffix("\n"))
    ctx.exit(report.exit)
