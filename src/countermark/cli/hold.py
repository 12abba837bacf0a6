"""``hold``: a legal hold keeps values from being erased; two people end it."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from countermark.cli.base import (
    Here,
    as_json_option,
    emit,
    good,
    key_option,
    pass_here,
    person_option,
    reading,
    table,
)
from countermark.cli.two import agree, enrolled_here, one_way, read_half, two_people, write_half
from countermark.model.errors import ConfigError

SCOPES = ("subject", "payee", "agent", "run", "all")


@click.group()
def hold() -> None:
    """Legal holds: what must not be erased, whatever the retention rules say."""


@hold.command(name="set")
@click.argument("scope", metavar="SCOPE", type=click.Choice(SCOPES))
@click.argument("value", metavar="[VALUE]", required=False)
@click.option("--reason", metavar="TEXT", required=True, help="Why; it stands in the record.")
@person_option
@key_option
@as_json_option
@pass_here
def set_(here: Here, scope: str, value: str | None, reason: str, person: str, key: Path, as_json: bool) -> None:
    """Hold what SCOPE covers: a subject, a payee, an agent, a run, or all; VALUE is its name.

    One person with a role signs. A payee's hold also covers the accounts that were the payee's before.
    """
    from countermark.authority import sign_hold
    from countermark.wiring import open_deployment

    if (value is None) != (scope == "all"):
        raise click.UsageError("everything is held: leave out VALUE" if scope == "all" else f"which {scope}?")
    config = here.config()
    private = enrolled_here(config, person, key)
    document = {
        "v": 1, "deployment": config.deployment, "hold": "hold_" + secrets.token_hex(8),
        "scope": {"kind": scope, "value": value or ""}, "reason": reason, "person": person,
    }  # fmt: skip
    with open_deployment(config.root, recover=False) as handle:
        name = handle.call("hold.set", sign_hold(document, private))
    emit({"hold": name, "scope": document["scope"]}, f"{good('Held')}: {name}", as_json=as_json)


@hold.command()
@click.argument("name", metavar="HOLD")
@click.option("--reason", metavar="TEXT", help="Why; it stands in the record.")
@two_people
@as_json_option
@pass_here
def clear(
    here: Here, name: str, reason: str | None, person: str, key: Path, out: Path | None, second: Path | None,
    yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """End a hold: two different people sign, the first into --out, the second with --second."""
    from countermark.authority import parse_release, sign_release
    from countermark.wiring import open_deployment

    one_way(out, second)
    config = here.config()
    private = enrolled_here(config, person, key)
    if out is not None:
        if reason is None:
            raise click.UsageError("say --reason")
        document = {"v": 1, "deployment": config.deployment, "hold": name, "reason": reason}
        write_half(out, "hold.clear", [document], [sign_release(document, person, private)])
        text = f"{good('Signed')} into {out}. Now somebody else: --second {out}"
        emit({"file": str(out), "release": document, "person": person}, text, as_json=as_json)
        return
    if reason is not None or second is None:
        raise click.UsageError("the second person signs what the first one said")
    documents, signed = read_half(second, "hold.clear", person)
    document = parse_release(documents[0]).document()
    if len(documents) != 1 or document["hold"] != name:
        raise ConfigError(f"{second} is about another hold")
    agree([f"Hold {name} ends: {_safe(str(document['reason']))}"], person, yes=yes, as_json=as_json)
    body = {"release": document, "signed": [signed[0], sign_release(document, person, private)]}
    with open_deployment(config.root, recover=False) as handle:
        done = handle.call("hold.clear", body)
    emit({"hold": done}, f"{good('Ended')}: {done}", as_json=as_json)


@hold.command(name="list")
@as_json_option
@pass_here
def list_(here: Here, as_json: bool) -> None:
    """The holds that stand."""
    from countermark.audit import present_state

    with reading(here.config()) as store:
        holds = present_state(store).erasures.holds
    rows = [{"hold": name, **scope} for name, scope in sorted(holds.items())]
    lines = table(("hold", "covers", "name"), [[row["hold"], row["kind"], row["value"]] for row in rows])
    emit({"holds": rows}, lines if rows else "No hold stands.", as_json=as_json)


def _safe(text: str) -> str:
    from countermark.audit import safe

    return safe(text)
