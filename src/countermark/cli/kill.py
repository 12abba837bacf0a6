"""``kill``: stop a scope at once; lift the stop with a person's signature."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from countermark.cli.base import (
    HEX_MIN,
    Here,
    as_json_option,
    emit,
    good,
    key_option,
    pass_here,
    person_option,
    private_key,
    reading,
)
from countermark.cli.mandate import in_flight
from countermark.model.errors import ArgumentError, ConfigError

if TYPE_CHECKING:
    from countermark.cli.base import Config

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
    if value is not None and scope == "deployment":
        raise click.UsageError("the whole deployment is stopped: leave out VALUE")
    config = here.config()
    value = "" if scope == "deployment" else _known(config, scope, value or "")
    with open_deployment(config.root, recover=False) as handle:
        answer = handle.call("kill.set", {"kind": scope, "value": value, "reason": reason})
    what = "everything" if scope == "deployment" else f"{scope} {value}"
    emit(answer, [f"{good('Stopped')} {what}: {answer['kill']}", *in_flight(answer)], as_json=as_json)


def _known(config: Config, scope: str, value: str) -> str:
    """The name as records have it. A stop with a misspelt name would stop nothing, so that is refused."""
    from countermark.audit import present_state

    with reading(config) as store:
        state = present_state(store)
    if state.bundle is None:
        raise ConfigError("no policy is active, so nothing can happen here")
    compiled, known = state.bundle.compiled, state.register.known
    if scope == "mandate":
        names = sorted(state.mandates)
        wanted = value.removeprefix("sha256:")
        close = [name for name in names if len(wanted) >= HEX_MIN and name.removeprefix("sha256:").startswith(wanted)]
        if len(close) == 1:
            return close[0]
    else:
        names = sorted({"agent": compiled.agents, "tool": compiled.tools, "payee": known.payees}[scope])
        if value in names or (scope == "payee" and value.startswith("p:")):
            return value
        if scope == "payee" and value in known.by_account:
            return known.by_account[value]
    raise ConfigError(
        f"there is no {scope} {value}, so nothing would be stopped",
        hint=f"Known: {', '.join(names)}. Or stop the deployment.",
    )


def _stands(config: Config, name: str) -> None:
    """A stop that does not stand cannot be lifted: say whether somebody has lifted it, and which ones stand."""
    from countermark.audit import explain, present_state

    with reading(config) as store:
        state = present_state(store)
        if name in state.kills or state.succession is not None:
            return
        hint = f"Stops that stand: {', '.join(state.kills) or 'none'}."
        try:
            ended = explain(store, name).document.get("ended")
        except ArgumentError:
            ended = None
    if ended is None:
        raise ConfigError(f"there is no stop {name}", hint=hint)
    raise ConfigError(f"the stop {name} was lifted already: {ended['summary']} (#{ended['seq']})", hint=hint)


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
    _stands(config, name)
    order = {
        "deployment": config.deployment, "kill": name, "person": person, "reason": reason or f"cleared by {person}"
    }  # fmt: skip
    signed = sign(order, private_key(key))
    with open_deployment(config.root, recover=False) as handle:
        cleared = handle.call("kill.clear", signed)
    emit({"cleared": cleared, "person": person}, f"{good('Lifted')} {cleared}.", as_json=as_json)
