"""``token``: API tokens of agents: issue, list, rotate, revoke. The plain token is shown once and kept nowhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from countermark.cli.base import Here, as_json_option, careful, emit, good, pass_here, reading, table
from countermark.model.errors import AuthorityError, ConfigError

if TYPE_CHECKING:
    from countermark.authority import Token, TokenBook
    from countermark.cli.base import Config

DAYS = 90
DAYS_MAX = 366
OVERLAP_HOURS = 24
OVERLAP_HOURS_MAX = 720
S_A_DAY = 86_400

_out = click.option("--out", metavar="FILE", type=click.Path(path_type=Path),
                    help="Write the token to a new FILE (mode 0600) and do not print it.")  # fmt: skip
_days = click.option("--days", type=click.IntRange(1, DAYS_MAX), default=DAYS, show_default=True,
                     help="How long it is valid.")  # fmt: skip


@click.group()
def token() -> None:
    """Issue, list, rotate and revoke the tokens with which agents reach the server."""


@token.command()
@click.argument("agent", metavar="AGENT")
@click.option("--tool", "tools", metavar="NAME", multiple=True, help="Only for this tool; may be repeated.")
@click.option("--run", "run", metavar="RUN", default="", help="Only for this run.")
@_days
@_out
@as_json_option
@pass_here
def issue(here: Here, agent: str, tools: tuple[str, ...], run: str, days: int, out: Path | None, as_json: bool) -> None:
    """Make a token for AGENT. It is shown this once: the deployment keeps only a digest."""
    from countermark.authority import issue as make
    from countermark.model.clock import SystemClock
    from countermark.wiring import TokenFile

    config = here.config()
    _check_names(config, agent, tools)
    now = SystemClock().now_us()

    with _Paper(out) as paper:
        made, plain = TokenFile(config.root).change(
            lambda book: _told(*make(book, agent, now, life_s=days * S_A_DAY, tools=tools, run=run))
        )
        paper.write(plain)
    _show(made, plain, out, as_json)


@token.command()
@click.argument("name", metavar="ID")
@click.option("--overlap-hours", type=click.IntRange(0, OVERLAP_HOURS_MAX), default=OVERLAP_HOURS, show_default=True,
              help="How long the old one goes on working.")  # fmt: skip
@_days
@_out
@as_json_option
@pass_here
def rotate(here: Here, name: str, overlap_hours: int, days: int, out: Path | None, as_json: bool) -> None:
    """Make the next token for the agent of the token ID, with the same scope; the old one ends after the overlap."""
    from countermark.authority import rotate as make
    from countermark.model.clock import SystemClock
    from countermark.wiring import TokenFile

    now = SystemClock().now_us()
    with _Paper(out) as paper:
        made, plain = TokenFile(here.config().root).change(
            lambda book: _told(*make(book, name, now, life_s=days * S_A_DAY, overlap_s=overlap_hours * 3_600))
        )
        paper.write(plain)
    _show(made, plain, out, as_json)


@token.command()
@click.argument("name", metavar="ID")
@as_json_option
@pass_here
def revoke(here: Here, name: str, as_json: bool) -> None:
    """End the token ID now: the next request that shows it is refused."""
    from countermark.authority import revoke_token
    from countermark.model.clock import SystemClock
    from countermark.wiring import TokenFile

    now = SystemClock().now_us()
    TokenFile(here.config().root).change(lambda book: (revoke_token(book, name, now), None))
    emit({"id": name, "state": "revoked"}, f"{good('revoked')} {name}", as_json=as_json)


@token.command(name="list")
@as_json_option
@pass_here
def list_(here: Here, as_json: bool) -> None:
    """Show tokens: whose, for what, until when. Ended ones are shown for thirty days."""
    from countermark.audit import when
    from countermark.model.clock import SystemClock, iso
    from countermark.wiring import TokenFile

    now = SystemClock().now_us()
    found = sorted(TokenFile(here.config().root).book().tokens.values(), key=lambda one: (one.agent, one.issued))
    rows = [
        (one.id, one.agent, one.state(now), when(one.not_after), ", ".join(one.scope.tools) or "all", one.scope.run)
        for one in found
    ]
    document = {
        "tokens": [
            {
                "id": one.id, "agent": one.agent, "state": one.state(now), "tools": list(one.scope.tools),
                "run": one.scope.run or None, "not_before": iso(one.not_before), "not_after": iso(one.not_after),
            }
            for one in found
        ]
    }  # fmt: skip
    emit(document, table(("id", "agent", "state", "until", "tools", "run"), rows) or "no tokens", as_json=as_json)


class _Paper:
    """The file for a token, made before the token is: a token that nobody could read would be valid all the same."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._handle = -1
        self._written = False

    def __enter__(self) -> _Paper:
        if self._path is not None:
            try:
                self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise ConfigError(f"{self._path} cannot be created: {error.strerror}") from None
        return self

    def write(self, plain: str) -> None:
        if self._path is not None:
            os.write(self._handle, plain.encode("ascii") + b"\n")
            os.fsync(self._handle)
            self._written = True

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            os.close(self._handle)
            if not self._written:
                self._path.unlink(missing_ok=True)


def _told(book: TokenBook, made: Token, plain: str) -> tuple[TokenBook, tuple[Token, str]]:
    return book, (made, plain)


def _check_names(config: Config, agent: str, tools: tuple[str, ...]) -> None:
    """A token for an agent or a tool that the policy in force does not know would be a misspelt one."""
    from countermark.audit import present_state

    with reading(config) as store:
        bundle = present_state(store).bundle
    if bundle is None or agent not in bundle.compiled.agents:
        raise AuthorityError(f"the policy in force has no agent {agent}", code="unknown_agent")
    if unknown := sorted(set(tools) - bundle.compiled.tools.keys()):
        raise ConfigError(f"the policy in force has no tool {unknown[0]}", code="unknown_tool")


def _show(made: Token, plain: str, out: Path | None, as_json: bool) -> None:
    from countermark.audit import when
    from countermark.model.clock import iso

    document = {
        "id": made.id, "agent": made.agent, "not_after": iso(made.not_after), "tools": list(made.scope.tools),
        "run": made.scope.run or None, **({"token": plain} if out is None else {"file": str(out)}),
    }  # fmt: skip
    lines = [
        f"{good('issued')} {made.id} for agent {made.agent}, until {when(made.not_after)}",
        f"  {plain}" if out is None else f"  written to {out}",
    ]
    if out is None:
        lines.append(careful("  Keep it now: it is not shown again."))
    emit(document, lines, as_json=as_json)
