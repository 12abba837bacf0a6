"""``console``: sign in to the pages with a key file."""

from __future__ import annotations

from pathlib import Path

import click

from countermark.cli.base import as_json_option, emit, key_option, person_option, private_key


@click.group()
def console() -> None:
    """The pages on which people look and answer."""


@console.command()
@click.argument("nonce")
@click.option("--deployment", metavar="NAME", required=True, help="As the page says.")
@click.option("--page", metavar="ORIGIN", required=True, help="Address of the page, without anything behind the port.")
@person_option
@key_option
@as_json_option
def link(nonce: str, deployment: str, page: str, person: str, key: Path, as_json: bool) -> None:
    """Sign in to the console with a key file: prints a code for the login page, which shows this whole command.

    Needs no deployment here. The code opens one session, in the browser that showed NONCE, within five minutes. The
    session lets its browser look and stop, and answers nothing: each answer is signed by itself. Paste the code only
    into the page whose address you typed yourself: a code that somebody else asks you for signs them in.
    """
    from countermark.authority import SessionOrder, sign_session, until_of, write_code

    order = SessionOrder(deployment, person, nonce, page.rstrip("/"), until_of(nonce))
    code = write_code(sign_session(order.document(), private_key(key)))
    emit({"code": code, "page": page, "not_after": order.not_after}, [code], as_json=as_json)
