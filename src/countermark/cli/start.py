"""``init``, ``demo``, ``upgrade``, ``bench``."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import click

from countermark.cli.base import Here, as_json_option, bad, emit, folded, good, pass_here, short

TEMPLATES = ("vendor-payments", "banking")
DEMO_DIR = Path("countermark-demo")


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--template", type=click.Choice(TEMPLATES), default=TEMPLATES[0], show_default=True,
              help="The policy to start from.")  # fmt: skip
@click.option("--deployment", metavar="NAME", help="The legal entity's name in records (default: made up).")
@as_json_option
def init(directory: Path, template: str, deployment: str | None, as_json: bool) -> None:
    """Make a deployment: configuration, policy, keys, an empty journal, first mandates."""
    from countermark.wiring import init_deployment

    made = init_deployment(directory, template, deployment)
    document = {
        "directory": str(made.root), "deployment": made.deployment, "log_key": made.log_key, "bundle": made.bundle,
        "people": {person: str(path) for person, path in made.people.items()}, "mandates": dict(made.mandates),
    }  # fmt: skip
    width = max(len(name) for name in ("log key", *made.people, *made.mandates))
    lines = [
        f"{good('Made')} the deployment {made.deployment} in {made.root}.",
        f"  {'log key':<{width}}  {made.log_key}",
        f"  {'policy':<{width}}  {short(made.bundle)}",
        *(f"  {agent:<{width}}  mandate {short(digest)}" for agent, digest in made.mandates.items()),
        "", "People's private keys. Each belongs to its person alone: move it away from here.",
        *(f"  {person:<{width}}  {path}" for person, path in made.people.items()),
        "", f"Next: edit {made.root / 'policy'}, then: countermark -C {made.root} policy check",
    ]  # fmt: skip
    emit(document, lines, as_json=as_json)


@click.command()
@click.option("--dir", "directory", metavar="DIR", type=click.Path(path_type=Path), default=DEMO_DIR, show_default=True,
              help="Where it writes.")  # fmt: skip
@as_json_option
@click.pass_context
def demo(ctx: click.Context, directory: Path, as_json: bool) -> None:
    """A day of an agent that pays invoices, with and without the gate, and the proof. Offline."""
    from countermark.wiring import demo as story

    figures = story.run_demo(directory, (lambda _: None) if as_json else folded)
    as_told = figures.get("honest") == "verified" and figures.get("rewritten", {}).get("verdict") == "refuted"
    words = ("verify", str(directory / "evidence.zip"), "--trust", str(directory / "trust.json"))
    end = f"Now: {_typed()} {shlex.join(words)}"
    emit(figures, ["", end if as_told else bad("The demo did not end as it should.")], as_json=as_json)
    if not as_told:
        ctx.exit(1)


def _typed() -> str:
    """How the program is called from here: `uv run` puts it on the path only while it runs."""
    on_path = "UV" not in os.environ and shutil.which("countermark") is not None
    return "countermark" if on_path else "uv run countermark"


@click.command(name="upgrade")
@as_json_option
@pass_here
def upgrade_(here: Here, as_json: bool) -> None:
    """Bring the journal's schema to this version."""
    from countermark.journal import SCHEMA, upgrade

    found = upgrade(here.config().journal)
    done = found != SCHEMA
    text = (
        f"The journal had schema {found}, now {SCHEMA}." if done else f"Nothing to do: the journal has schema {SCHEMA}."
    )
    emit({"found": found, "schema": SCHEMA}, text, as_json=as_json)


@click.command()
@click.option("--quick", is_flag=True, help="Rounds too short to be quoted.")
@as_json_option
def bench(quick: bool, as_json: bool) -> None:
    """Measure this machine: actions a second and their latency, beside the raw fsync rate."""
    from countermark.wiring import bench as measure

    figures = measure.run_bench(True, quick)
    emit(figures, measure.table(figures), as_json=as_json)
