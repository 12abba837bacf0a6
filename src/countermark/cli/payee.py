"""``payee``: who may be paid, and to which account; a person's signed change of it."""

from __future__ import annotations

import secrets
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
    pass_here,
    person_option,
    reading,
    table,
)
from countermark.cli.two import enrolled_here
from countermark.model.errors import ArgumentError, AuthorityError

if TYPE_CHECKING:
    from countermark.policy import Register

ORDER_S = 3_600  # for so long a signed order may be handed in


@click.group()
def payee() -> None:
    """See and set who is paid, and to which account."""


_reason = click.option("--reason", metavar="TEXT", required=True, help="Why, or the ticket; it stands in the record.")


@payee.command(name="list")
@as_json_option
@pass_here
def list_(here: Here, as_json: bool) -> None:
    """Every payee with its present account, and since when it has it."""
    from countermark.audit import safe, when

    found = _register(here).listed()
    rows = [
        [
            row["payee"], safe(row["name"]), safe(row["account"]) or "closed",
            "" if row["since"] is None else when(row["since"]), row["by"] or "the policy",
        ]
        for row in found
    ]  # fmt: skip
    lines = table(("payee", "name", "account", "since", "set by"), rows)
    emit(found, lines or ["Nobody can be paid yet."], as_json=as_json)


@payee.command()
@click.argument("name", metavar="ID")
@as_json_option
@pass_here
def show(here: Here, name: str, as_json: bool) -> None:
    """A payee's account, every change of it, what was paid to which, and whom it could be taken for."""
    from countermark.audit import safe
    from countermark.policy import alike

    register = _register(here)
    told = register.history(name)
    account = register.known.payees[name].account
    others = alike(register.known.payees, name=told["name"], account=account, but=name)
    lines = [f"{safe(told['name'])} ({name})", f"  account  {safe(account) or 'none: closed'}", *said(told)]
    lines += [careful(f"  looks like {safe(row.name)} ({row.payee}), by its {row.because}") for row in others]
    emit({**told, "account": account, "alike": [row.document() for row in others]}, lines, as_json=as_json)


def said(told: dict[str, Any]) -> list[str]:
    """What changed, and what was paid to which account: lines for people who decide."""
    from countermark.audit import safe, when

    lines = [
        f"  account changed on {when(change['at'])} by {change['by'] or 'a policy'}, "
        f"from {_last(safe(change['from']))} to {_last(safe(change['to']))}"
        for change in told["changes"]
        if change["at"] is not None
    ]
    counts = [f"{one['count']} to {_last(safe(one['last4']))}" for one in told["paid"]]
    return [*lines, f"  payments confirmed: {', '.join(counts) or 'none'}"]


def _last(shown: str) -> str:
    return f"...{shown}" if shown else "no account"


@payee.command(name="set")
@click.argument("name", metavar="ID")
@click.option("--account", metavar="ACCOUNT", required=True, help="The provider's name for where the money goes.")
@click.option("--name", "title", metavar="NAME", help="What the payee is called (needed for a new one).")
@_reason
@key_option
@person_option
@click.option("--confirm-alike", is_flag=True, help="You have seen whom it could be taken for, and mean this one.")
@as_json_option
@pass_here
def set_(
    here: Here, name: str, account: str, title: str | None, reason: str, key: Path, person: str, confirm_alike: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Sign to which account a payee is paid from now on; a new ID is a new payee.

    Needs the role `payees`. What waits for people is void then, and while the account is new they are asked.
    """
    if not account:
        raise click.UsageError("an account is not empty; to close a payee use `countermark payee close`")
    _order(here, (name, title, account, reason), key, person, confirmed=confirm_alike, as_json=as_json)


@payee.command()
@click.argument("name", metavar="ID")
@_reason
@key_option
@person_option
@as_json_option
@pass_here
def close(here: Here, name: str, reason: str, key: Path, person: str, as_json: bool) -> None:
    """Sign that a payee is paid no more: its account is refused from now on."""
    if name not in _register(here).known.payees:
        raise ArgumentError(f"no payee has the ID {name}", field="name", code="payee_unknown",
                            hint="See `countermark payee list`.")  # fmt: skip
    _order(here, (name, None, "", reason), key, person, confirmed=True, as_json=as_json)


def _register(here: Here) -> Register:
    from countermark.audit import present_state

    with reading(here.config()) as store:
        return present_state(store).register


def _order(
    here: Here, wanted: tuple[str, str | None, str, str], key: Path, person: str, *, confirmed: bool, as_json: bool
) -> None:
    """Show what changes, sign it, hand it in."""
    from countermark.authority import set_payee
    from countermark.model.clock import US, SystemClock
    from countermark.policy import alike
    from countermark.wiring import open_deployment

    name, title, account, reason = wanted
    config = here.config()
    private = enrolled_here(config, person, key)
    register = _register(here)
    before = register.known.payees.get(name)
    if before is None and title is None:
        raise ArgumentError(
            f"no payee has the ID {name}, and a new one needs a name", field="name", code="payee_unknown",
            hint="Is it written as in `countermark payee list`? For a new one add --name.",
        )  # fmt: skip
    called = title or (before.name if before is not None else "")
    seen = alike(register.known.payees, name=called, account=account, but=name) if account else []
    if seen and not confirmed:
        from countermark.audit import safe

        listed = "; ".join(f"{safe(row.name)} ({row.payee}), by its {row.because}" for row in seen)
        raise AuthorityError(f"it could be taken for {listed}", code="payee_alike",
                             hint="If they are different, add --confirm-alike.")  # fmt: skip
    previous = register.previous(name)
    document = {
        "v": 1, "deployment": config.deployment, "payee": name, "name": called, "account": account,
        "previous": None if previous is None else previous.document(), "alike": [row.payee for row in seen],
        "reason": reason, "person": person, "not_after": SystemClock().now_us() + ORDER_S * US,
        "nonce": secrets.token_hex(16),
    }  # fmt: skip
    with open_deployment(config.root, recover=False) as handle:
        answer = handle.call("payee.set", set_payee(document, private))
    emit(answer, _told(name, None if before is None else before.account, account), as_json=as_json)


def _told(name: str, before: str | None, account: str) -> list[str]:
    from countermark.audit import safe
    from countermark.policy import last4

    moved = f"to {_last(safe(last4(account)))}"
    moved = f"a new payee, paid {moved}" if before is None else f"from {_last(safe(last4(before)))} {moved}"
    after = "Payments to it are refused." if not account else "People are asked while it is new, if the policy says so."
    return [f"{good('Recorded')} {name}: {moved}.", after]
