"""``kill``: stop a scope at once; lift the stop with a person's signature."""

from __future__ import annotations

from pathlib import Path

import click

from countermark.cli.base import Here, as_json_option, emit, good, key_option, pass_here, person_option, private_key
from countermark.cli.mandate import in_flight

SCOPES = ("deployment", "agent", "tool", "mandate", "payee")


@click.group()
def kill() -> None:
    """Stop everything, an agent, a tool, a mandate or a payee."""


@kill.command(name="set")
@click.argument("scope", metavar="SCOPE", type=click.Choice(SCOPES))
@click.argument("value", metavar="[VALUE]", required=False)
@click.option("--reason", metavar="TEXT", required=True, help="Why; it stands in the record.")
@as_json_option
@pass_here
def set_(here: Here, scope: str, value: str | None, reason: str, as_json: bool) -> None:
    """Stop a scope: SCOPE is deployment, agent, tool, mandate or payee, VALUE its name. Nobody needs a key to stop.

    When this returns, nothing new of the scope starts; what was already under way is listed.
    """
    from countermark.wiring import open_deployment

    if value is None and scope != "deployment":
        raise click.UsageError(f"which {scope}? Give its name as VALUE.")
    with open_deployment(here.config().root) as handle:
        answer = handle.call("kill.set", {"kind": scope, "value": value or "", "reason": reason})
    what = "everything" if scope == "deployment" else f"{scope} {value}"
    emit(answer, [f"{good('Stopped')} {what}: {answer['kill']}", *in_flight(answer)], as_json=as_json)


@kill.command()
@click.argument("name", metavar="KILL")
@key_option
@person_option
@click.option("--reason", metavar="TEXT", help="Why; it stands in the record.")
@as_json_option
@pass_here
def clear(here: Here, name: str, key: Path, person: str, reason: str | None, as_json: bool) -> None:
    """Lift a stop."""
    from countermark.authority import clear as sign
    from countermark.wiring import open_deployment

    config = here.config()
    order = {
        "deployment": config.deployment, "kill": name, "person": person, "reason": reason or f"cleared by {person}"
    }  # fmt: skip
    signed = sign(order, private_key(key))
    with open_deployment(config.root) as handle:
        cleared = handle.call("kill.clear", signed)
    emit({"cleared": cleared, "person": person}, f"{good('Lifted')} {cleared}.", as_json=as_json)
