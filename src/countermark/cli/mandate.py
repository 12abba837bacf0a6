"""``mandate``: sign a grant of authority, end one, list them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import (
    Here,
    as_json_option,
    careful,
    emit,
    good,
    key_option,
    mandate_named,
    pass_here,
    person_option,
    private_key,
    read_file,
    read_object,
    reading,
)
from countermark.model.errors import ConfigError

if TYPE_CHECKING:
    from countermark.cli.base import Config

DAYS = 90
US_A_DAY = 86_400_000_000
FULL = (
    "v", "deployment", "parent", "principal", "agent", "agent_key", "tools", "payees", "limits", "named", "purpose",
    "not_before", "not_after", "nonce",
)  # fmt: skip
SHORT = ("principal", "agent", "agent_key", "tools", "payees", "limits", "named", "purpose", "parent", "days")


@click.group()
def mandate() -> None:
    """Grant authority to agents, end it, show it."""


@mandate.command()
@click.argument("file", metavar="FILE")
@key_option
@as_json_option
@pass_here
def grant(here: Here, file: str, key: Path, as_json: bool) -> None:
    """Sign the mandate in FILE and record it.

    FILE is a whole mandate document (docs/spec/record.md), or a short one that is completed here: {principal, agent,
    purpose, tools?, payees?, limits?, named?, parent?, agent_key?, days?}. Tools and payees default to all, days to 90;
    `named` lists values in the clear, such as invoice numbers that the principal named.

    A limit is {amount, currency, over_us}: the amount in minor units; over_us is 0 for each payment, microseconds for
    any window of that length, null for the mandate's whole life. With the currency "*" the amount counts payments.
    """
    from countermark.authority import grant as sign
    from countermark.wiring import open_deployment

    config = here.config()
    document = read_object(file, tuple(dict.fromkeys(FULL + SHORT)), ("principal", "agent", "purpose"))
    if "v" not in document:
        document = _completed(config, document, file)
    signed = sign(document, private_key(key))
    with open_deployment(config.root, recover=False) as handle:
        digest = handle.call("mandate.grant", signed)
    unknown = _unknown(config, document)
    lines = [f"{good('Granted')} {digest} to agent {document['agent']}."]
    lines += [f"  {careful('warning')}  {text}" for text in unknown]
    found = {"mandate": digest, "agent": document["agent"], "principal": document["principal"], "warnings": unknown}
    emit(found, lines, as_json=as_json)


def _unknown(config: Config, document: dict[str, Any]) -> list[str]:
    """What a mandate names and the policy in force does not know: a later policy may, but often it is a slip."""
    from countermark.audit import present_state

    with reading(config) as store:
        state = present_state(store)
    if state.bundle is None:
        return []
    compiled, payees = state.bundle.compiled, state.register.known.payees
    named = (
        ("tool", document["tools"], compiled.tools),
        ("payee", [p for p in document["payees"] if not p.startswith("p:")], payees),
        ("currency", [row["currency"] for row in document["limits"]], compiled.currencies),
    )
    return [
        f"the policy in force has no {what} {name}"
        for what, names, known in named
        for name in dict.fromkeys(names)
        if name != "*" and name not in known
    ]


def _completed(config: Config, given: dict[str, Any], file: str) -> dict[str, Any]:
    """A whole document from a short one. Named values become pseudonyms, so that records do not show them."""
    from countermark.model.clock import US, SystemClock
    from countermark.model.digest import pseudonym
    from countermark.policy import normal
    from countermark.wiring import deployment
    from countermark.wiring import init as making

    extra = given.keys() - set(SHORT)
    if extra:
        raise ConfigError(f"{file}: {min(extra)!r} belongs to a whole mandate document, which has 'v' as well")
    days, named = given.pop("days", DAYS), given.pop("named", [])
    if type(days) is not int or not 1 <= days <= 3_660:
        raise ConfigError(f"{file}: 'days' must be 1 to 3660")
    if type(named) is not list or any(type(value) not in (str, int) for value in named):
        raise ConfigError(f"{file}: 'named' must list strings or integers")
    key = deployment.read_key(config.keys / "pseudonym.key")
    now = SystemClock().now_us()
    return making.mandate_document(
        config.deployment, given.pop("principal"), given.pop("agent"), not_before=now - US,
        not_after=now + days * US_A_DAY, named=[pseudonym(key, "named", normal(value)) for value in named], **given,
    )  # fmt: skip


@mandate.command()
@click.argument("digest", metavar="DIGEST")
@key_option
@person_option
@click.option("--reason", metavar="TEXT", help="Why; it stands in the record.")
@as_json_option
@pass_here
def revoke(here: Here, digest: str, key: Path, person: str, reason: str | None, as_json: bool) -> None:
    """End a mandate and all below it, at once. DIGEST may be its first hex digits."""
    from countermark.audit import present_state
    from countermark.authority import revoke as sign
    from countermark.wiring import open_deployment

    config = here.config()
    with reading(config) as store:
        known = mandate_named(present_state(store).mandates, digest)
    order = {
        "deployment": config.deployment, "mandate": known, "person": person,
        "reason": reason or f"revoked by {person}",
    }  # fmt: skip
    signed = sign(order, private_key(key))
    with open_deployment(config.root, recover=False) as handle:
        answer = handle.call("mandate.revoke", signed)
    emit(answer, [f"{good('Ended')} {known}.", *in_flight(answer)], as_json=as_json)


def in_flight(answer: dict[str, Any]) -> list[str]:
    """Effects that had already left when a stop was set: nobody can call them back."""
    return [f"  already under way: #{item['seq']} {item['id']} {item['tool']}" for item in answer["in_flight"]]


@mandate.command()
@click.argument("digest", metavar="[DIGEST]", required=False)
@as_json_option
@pass_here
def show(here: Here, digest: str | None, as_json: bool) -> None:
    """Draw the mandates as a tree, with what is used, held and free of each limit.

    With DIGEST, or its first hex digits, only that mandate and those below it. Held is what payments under way have
    reserved; a limit further up may leave less free than the mandate itself does.
    """
    from countermark.audit import present_state
    from countermark.cli.mandate_tree import drawn
    from countermark.model.clock import SystemClock
    from countermark.policy import standing

    with reading(here.config()) as store:
        state = present_state(store)
        found = standing(state, max(state.at, SystemClock().now_us()))
        only = None if digest is None else mandate_named(state.mandates, digest)
        kept = [entry for entry in found if only is None or only in state.chain(entry["mandate"])]
    lines = drawn(kept, only)
    if only is not None:
        lines += ["", f"digest   {only}"]
    emit(kept, lines or ["No mandate was granted yet."], as_json=as_json)


@mandate.command()
@click.argument("file", metavar="FILE")
@click.option("--source", metavar="NAME", help="Whose it is: an [ap2.NAME] of the policy; its only one, if left out.")
@as_json_option
@pass_here
def accept(here: Here, file: str, source: str | None, as_json: bool) -> None:
    """Accept the AP2 payment mandate in FILE: verify it, and record the mandate that it becomes.

    FILE is an SD-JWT of AP2 v0.2, open or closed, or a closed one below its open one. Each is redeemed once. The
    mandates can be delegated further, and spend within each other's limits, as any others.
    """
    from countermark.cli.mandate_tree import drawn
    from countermark.wiring import open_deployment

    text = read_file(file).decode("ascii", "replace").strip()
    body = {"ap2": text} | ({} if source is None else {"source": source})
    with open_deployment(here.config().root, recover=False) as handle:
        digests = handle.call("mandate.accept", body)["mandates"]
        found = [entry for entry in handle.call("mandates", {}) if entry["mandate"] in digests]
    emit({"accepted": digests, "mandates": found}, [good("Accepted."), *drawn(found)], as_json=as_json)
