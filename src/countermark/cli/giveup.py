"""``giveup``: a person takes the number of a payment that waits on a chain, so that it cannot take effect any more."""

from __future__ import annotations

import click

from countermark.cli.base import Here, as_json_option, careful, emit, folded, good, pass_here
from countermark.cli.resolve import intent_of
from countermark.model.errors import ConfigError


@click.command()
@click.argument("ref", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@as_json_option
@pass_here
def giveup(here: Here, ref: str, yes: bool, as_json: bool) -> None:
    """Give up a payment that waits on a chain: its number goes to a transfer of nothing to the account itself.

    Whichever of the two is final first settles the action, and the gate finds out which; until then the action stays
    unknown. ID is the action (act_...), or a record or reference of it. Whoever can read the account's key can do this.
    """
    from countermark.audit import bundles_of, money
    from countermark.cli.base import reading
    from countermark.model.onchain import call_of
    from countermark.wiring import custody, evm_settings

    config = here.config()
    if config.evm is None:
        raise ConfigError("no chain is configured", hint="Nothing of this deployment waits on one.")
    body = intent_of(config, ref).body
    with reading(config) as store:
        tool = bundles_of(store)(body["bundle"]).compiled.tools[body["tool"]]
    if tool.evm is None:
        raise ConfigError("this action is on no chain", code="nothing_waits", hint="Settle it: `countermark resolve`.")
    terms = body["terms"]
    asked = "nothing" if terms["amount"] is None else money(terms["amount"], terms["currency"])
    folded(f"{body['tool']}: {asked}, {body['id']}", err=as_json)
    folded(careful("If it is mined first, it is paid all the same."), err=as_json)
    if not yes:
        click.confirm("Give its number to a transfer of nothing", abort=True, err=as_json)
    call = call_of(tool.evm, {name: value for name, value in body["args"].items() if type(value) is not dict})
    connector = evm_settings.evm_connector(
        config.evm, config.nonces, config.journal, lambda reference: custody.resolve_secret(reference, config.root),
        lambda chain_id: None,  # it moves nothing, so it needs nobody behind the policy
    )  # fmt: skip
    try:
        name = connector.cancel(call, body["key"])
    finally:
        connector.close()
    text = f"{good('Sent')}: {name}. `countermark recover` asks what became of the action."
    emit({"action": body["id"], "hash": name}, text, as_json=as_json)
