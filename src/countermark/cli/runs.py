"""``runs receipt``, ``runs graph`` and ``runs migrate``: what a run rests on, its picture, and a person's order."""

from __future__ import annotations

from pathlib import Path

import click

from countermark.cli.base import Here, as_json_option, emit, good, key_option, pass_here, private_key
from countermark.cli.paths import definition_named, records, write_text

pack_option = click.option("--pack", metavar="PACK", type=click.Path(path_type=Path, exists=True, dir_okay=False),
                           help="Read the run from a pack.")  # fmt: skip


@click.command()
@click.argument("name", metavar="RUN")
@pack_option
@as_json_option
@pass_here
def receipt(here: Here, name: str, pack: Path | None, as_json: bool) -> None:
    """What each step of a run rests on, and what was not run.

    Decisions and their policy, approvals, idempotency keys, the provider's references, and code, inputs and outputs by
    their digests. It says what the records say; how far they can be believed a verifier says.
    """
    from countermark.audit import receipt_lines, run_receipt

    with records(here, pack) as source:
        found = run_receipt(source, name)
    emit(found, receipt_lines(found), as_json=as_json)


@click.command()
@click.argument("name", metavar="RUN")
@click.option("--against", metavar="DEFINITION",
              help="Draw it on another definition, a YAML file or a digest, with its deviations.")  # fmt: skip
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write it there, not to the terminal.")
@pack_option
@pass_here
def graph(here: Here, name: str, against: str | None, out: Path | None, pack: Path | None) -> None:
    """Draw a run on its definition, as SVG: what was planned, and what happened."""
    from countermark.audit import run_drawn

    with records(here, pack) as source:
        drawn = run_drawn(source, name, None if against is None else definition_named(source, against))
    if out is None:
        click.echo(drawn)
    else:
        write_text(out, drawn)
        click.echo(f"{good('Wrote')} {out}.")


@click.command()
@click.argument("name", metavar="RUN")
@click.argument("file", metavar="FILE")
@click.option("--person", "--as", "person", metavar="NAME", required=True, help="Who signs, as the policy names them.")
@key_option
@click.option("--reason", metavar="TEXT", help="Why; it stands in the record.")
@as_json_option
@pass_here
def migrate(here: Here, name: str, file: str, person: str, key: Path, reason: str | None, as_json: bool) -> None:
    """Let an open run go on by another definition, in YAML; you sign that.

    What the run did must be, to the last argument, what FILE would have had it do so far. Nothing else makes a run go
    on by a changed definition.
    """
    from countermark.authority import sign_migration
    from countermark.cli.run import compiled
    from countermark.wiring import open_deployment

    config = here.config()
    definition, called = compiled(Path(file))
    with open_deployment(config.root) as handle:
        now = handle.call("workflow.show", {"run": name})["definition"]
        for other in (*called, definition):
            handle.call("workflow.define", {"document": dict(other.document)})
        order = {"run": name, "from": now, "to": definition.digest, "reason": reason or f"migrated by {person}"}
        document = {"v": 1, "deployment": config.deployment, **order}
        signed = sign_migration(document, person, private_key(key))
        found = handle.call("workflow.migrate", {**order, **signed})
    emit(found, f"{good('Migrated')} {name}: it goes on by {definition.digest}.", as_json=as_json)
