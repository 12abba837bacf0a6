"""``anchor``: heads of the log on a chain, which refuses a second history of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import Here, as_json_option, careful, emit, good, pass_here, short
from countermark.model.errors import ConfigError

if TYPE_CHECKING:
    from countermark.cli.base import Config
    from countermark.publish import ChainAnchor
    from countermark.wiring import anchor_settings


@click.group()
def anchor() -> None:
    """Heads of the log in a contract on an EVM chain such as Avalanche's C-Chain.

    The contract takes a head only after the one before it, by its root, and never a smaller one: a second history of
    this log cannot be anchored there, whoever holds the keys.
    """


def _configured(config: Config) -> anchor_settings.AnchorConfig:
    if config.anchor is None:
        raise ConfigError(
            "no anchor is configured", hint="Add [publish.anchor] with chain_id, rpc and key to countermark.toml."
        )
    return config.anchor


def _made(config: Config) -> ChainAnchor:
    from countermark.model.clock import SystemClock
    from countermark.wiring import anchoring

    _configured(config)
    made = anchoring.anchor_of(config, SystemClock())
    if made is None:
        raise ConfigError("no contract is configured", hint="Deploy one: `countermark anchor deploy`.")
    return made


@anchor.command()
@as_json_option
@pass_here
def deploy(here: Here, as_json: bool) -> None:
    """Make the anchor contract: once for a deployment and a chain. The account of the configured key owns it."""
    from countermark.model.clock import SystemClock
    from countermark.publish import deploy_anchor
    from countermark.wiring import anchoring

    config = here.config()
    one = _configured(config)
    if one.contract:
        raise ConfigError("a contract is configured already", hint="Take publish.anchor.contract out to make another.")
    rpc = anchoring.rpc_of(config, one)
    try:
        found = deploy_anchor(rpc, anchoring.signer_of(config, one), anchoring.fees_of(one), SystemClock())
    finally:
        rpc.close()
    document = {"chain_id": one.chain_id, "contract": found.contract, "owner": found.owner, "tx": found.tx,
                "gas": found.gas}  # fmt: skip
    lines = [
        good(f"The contract stands at {found.contract} on chain {one.chain_id}, and {found.owner} owns it."),
        f"It cost {found.gas:,} units of gas. Add it to countermark.toml:",
        "",
        f'  contract = "{found.contract}"',
        "",
        "Auditors take address and owner from you by another way than a pack.",
    ]
    emit(document, lines, as_json=as_json)


@anchor.command()
@as_json_option
@pass_here
def publish(here: Here, as_json: bool) -> None:
    """Anchor the newest published head now, or go on with the anchor under way; recorded once it is final."""
    from countermark.wiring import anchoring

    config = here.config()
    made = _made(config)
    try:
        answer = made.publish(anchoring.published_head(config))
    finally:
        made.close()
    if answer is None:
        emit({"published": None}, ["The contract holds this head already."], as_json=as_json)
        return
    kind, body = answer
    recorded = anchoring.record_anchor(config, kind, body)
    block = body["block"]
    lines = [
        good(f"Anchored: {body['size']} records, root {short(body['root'])}, as number {body['sequence']}."),
        f"Block {block['number']} of chain {body['chain_id']}, hash {block['hash']}",
    ]
    if not recorded:
        lines.append(careful("The running gate records it with its next head."))
    shown = ("size", "root", "chain_id", "contract", "sequence", "block")
    document = {"published": {name: body[name] for name in shown}, "recorded": recorded}
    emit(document, lines, as_json=as_json)


@anchor.command()
@as_json_option
@pass_here
def show(here: Here, as_json: bool) -> None:
    """What the contract holds of this log, and whether that is a head of it. Nothing is sent or recorded."""
    config = here.config()
    made = _made(config)
    try:
        owner, found = made.show()
    finally:
        made.close()
    one = made.settings
    document: dict[str, Any] = {
        "chain_id": one.chain_id, "contract": one.contract, "owner": owner, "origin": one.origin,
        "sequence": found.sequence, "size": found.size, "root": found.root.hex() if found.sequence else None,
    }  # fmt: skip
    lines = [f"contract  {one.contract} on chain {one.chain_id}", f"owner     {owner}", f"log       {one.origin}"]
    if found.sequence:
        lines.append(good(f"anchored  {found.size} records as number {found.sequence}: a head of this log"))
    else:
        lines.append(careful("anchored  nothing yet"))
    emit(document, lines, as_json=as_json)
