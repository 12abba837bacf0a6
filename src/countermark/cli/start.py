"""``init``, ``demo``, ``upgrade``, ``bench``."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import Directory, Here, as_json_option, bad, emit, folded, good, pass_here, short
from countermark.model.errors import ConfigError

if TYPE_CHECKING:
    from countermark.wiring import Made

TEMPLATES = ("vendor-payments", "banking", "chain-payments")
DEMO_DIR = Path("countermark-demo")


@click.command()
@click.argument("directory", metavar="DIR", type=Directory())
@click.option("--template", type=click.Choice(TEMPLATES), default=TEMPLATES[0], show_default=True,
              help="The policy to start from.")  # fmt: skip
@click.option("--policy", metavar="FOLDER", type=click.Path(path_type=Path),
              help="A policy of your own to start from; {{KEY:PERSON}} where a key belongs.")  # fmt: skip
@click.option("--deployment", metavar="NAME", help="The legal entity's name in records (default: made up).")
@click.option("--stripe-origin", metavar="URL", help="Where Stripe is: a simulator's address, instead of its own.")
@click.option(
    "--from-mcp",
    "server",
    metavar="SERVER",
    help="Draft the tools of an MCP server, all denied: its command line or URL. DIR may be a deployment.",
)
@click.option("--connector", metavar="NAME", default="mcp", show_default=True, help="What to call that server.")
@click.option(
    "--server-env",
    "env",
    metavar="VAR=REF",
    multiple=True,
    help="A variable for its command: env:NAME or file:PATH; may be repeated.",
)
@click.option(
    "--server-secret", "secret", metavar="REF", default="", help="The bearer token for its URL, by reference."
)
@as_json_option
def init(
    directory: Path, template: str, policy: Path | None, deployment: str | None, stripe_origin: str | None,
    server: str | None, connector: str, env: tuple[str, ...], secret: str, as_json: bool,
) -> None:  # fmt: skip
    """Make a deployment: configuration, policy, keys, an empty journal, first mandates."""
    from countermark.policy import folder_files
    from countermark.wiring import init_deployment, mcp_init

    if stripe_origin is not None and (directory / "countermark.toml").exists():
        raise ConfigError(f"{directory} is a deployment already", hint="Leave --stripe-origin out.")
    files = None if policy is None else folder_files(policy)
    offer = None
    if server is not None:  # it is asked before anything is made, so that nothing is left when it does not answer
        variables = {name: value for name, _, value in (pair.partition("=") for pair in env)}
        offer = mcp_init.ask_server(connector, server, variables, secret, directory)
    made = None
    if offer is None or not (directory / "countermark.toml").exists():
        made = init_deployment(directory, template, deployment, stripe_origin=stripe_origin, policy=files)
    document = {"directory": str(directory)} if made is None else _document(made)
    lines = [] if made is None else _lines(made)
    if offer is not None:
        mcp_init.write_offer(directory, offer)
        document |= {"connector": connector, "drafted": offer.count}
        tools = directory / "policy" / "tools.toml"
        lines += [
            *([""] if lines else []), f"{good('Drafted')} {offer.count} tools of {connector} in {tools}, all denied.",
            f"Next: say what they and their arguments are; what is missing: countermark -C {directory} policy check",
        ]  # fmt: skip
    emit(document, lines, as_json=as_json)


def _document(made: Made) -> dict[str, Any]:
    return {
        "directory": str(made.root), "deployment": made.deployment, "log_key": made.log_key, "bundle": made.bundle,
        "people": {person: str(path) for person, path in made.people.items()}, "mandates": dict(made.mandates),
    }  # fmt: skip


def _lines(made: Made) -> list[str]:
    width = max(len(name) for name in ("log key", *made.people, *made.mandates))
    return [
        f"{good('Made')} the deployment {made.deployment} in {made.root}.",
        f"  {'log key':<{width}}  {made.log_key}",
        f"  {'policy':<{width}}  {short(made.bundle)}",
        *(f"  {agent:<{width}}  mandate {short(digest)}" for agent, digest in made.mandates.items()),
        "", "People's private keys. Each belongs to its person alone: move it away from here.",
        *(f"  {person:<{width}}  {path}" for person, path in made.people.items()),
        "", f"Next: edit {made.root / 'policy'}, then: countermark -C {made.root} policy check",
    ]  # fmt: skip


_dir_option = click.option("--dir", "directory", metavar="DIR", type=Directory(), default=DEMO_DIR,
                           show_default=True, help="Where it writes.")  # fmt: skip


@click.group(invoke_without_command=True)
@_dir_option
@as_json_option
@click.pass_context
def demo(ctx: click.Context, directory: Path, as_json: bool) -> None:
    """A day of an agent that pays invoices, with and without the gate, and the proof. Offline."""
    if ctx.invoked_subcommand is not None:
        return
    from countermark.wiring import demo as story

    figures = story.run_demo(directory, (lambda _: None) if as_json else folded)
    as_told = figures.get("honest") == "verified" and figures.get("rewritten", {}).get("verdict") == "refuted"
    met = figures.get("witness", {"asked": False})
    as_told = as_told and met.get("refused") == "witness_other_log" if met["asked"] else as_told
    words = ("verify", str(directory / "evidence.zip"), "--trust", str(directory / "trust.json"))
    _end(ctx, figures, as_told, words, as_json)


@demo.command()
@click.argument("number", type=click.Choice(("1", "2")))
@_dir_option
@as_json_option
@click.pass_context
def incident(ctx: click.Context, number: str, directory: Path, as_json: bool) -> None:
    """An incident that is found three weeks later: reconstructed, and blocked with a rule in force. Offline.

    1: vendors paid before they were screened, or on an old list. 2: approved for one account, paid to another.
    """
    from countermark.wiring import demo_incident

    figures = demo_incident.run_incident(int(number), directory, (lambda _: None) if as_json else folded)
    words = ("-C", figures["reconstructed"]["deployment"], "audit", "paths", figures["rule"])
    _end(ctx, figures, figures["as_told"], words, as_json)


@demo.command()
@_dir_option
@as_json_option
@click.pass_context
def anchor(ctx: click.Context, directory: Path, as_json: bool) -> None:
    """The demo's log in a contract, and an insider whose second history the chain refuses. Run the demo first.

    Needs the extra [evm] and `anvil`, an EVM node for one machine (npm: @foundry-rs/anvil), which it starts itself.
    """
    from countermark.wiring import demo_anchor

    figures = demo_anchor.run_anchor(directory, (lambda _: None) if as_json else folded)
    words = ("verify", str(directory / demo_anchor.PACK), "--trust", str(directory / demo_anchor.TRUST))
    _end(ctx, figures, demo_anchor.as_told(figures), words, as_json)


def _end(ctx: click.Context, figures: dict[str, Any], as_told: bool, words: tuple[str, ...], as_json: bool) -> None:
    """The figures, and the command that shows the same once more; exit 1 when it did not end as it should."""
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
    """Bring the journal's schema to this version. There is one schema so far, so nothing is changed."""
    from countermark.journal import SCHEMA, upgrade

    found = upgrade(here.config().journal)
    document = {"found": found, "schema": SCHEMA, "changed": False}
    emit(document, f"Nothing to do: the journal has schema {SCHEMA}, as this version.", as_json=as_json)


@click.command()
@click.option("--quick", is_flag=True, help="Rounds too short to be quoted.")
@as_json_option
def bench(quick: bool, as_json: bool) -> None:
    """Measure this machine: actions a second and their latency, beside the raw fsync rate."""
    from countermark.wiring import bench as measure

    figures = measure.run_bench(True, quick)
    emit(figures, measure.table(figures), as_json=as_json)
