"""The top group: finds commands on demand, and turns every error into one shape and one exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from countermark.cli.base import Here, no_address
from countermark.model.errors import ConfigError, CountermarkError

EXIT_ERROR = 1
EXIT_USAGE = 64  # sysexits.h EX_USAGE; click's own 2 would mean `incomplete` to who scripts `verify`

# A command's module is imported when it is asked for; none of these imports a room below before it runs.
COMMANDS: Mapping[str, str] = {
    "init": "countermark.cli.start:init",
    "demo": "countermark.cli.start:demo",
    "serve": "countermark.cli.serve:serve",
    "mcp": "countermark.cli.mcp:mcp",
    "act": "countermark.cli.act:act",
    "run": "countermark.cli.run:run",
    "runs": "countermark.cli.run:runs",
    "actions": "countermark.cli.actions:actions",
    "explain": "countermark.cli.evidence:explain_",
    "status": "countermark.cli.look:status",
    "recover": "countermark.cli.recover:recover",
    "resolve": "countermark.cli.resolve:resolve",
    "reopen": "countermark.cli.reopen:reopen",
    "giveup": "countermark.cli.giveup:giveup",
    "review": "countermark.cli.review:review",
    "import": "countermark.cli.imports:import_",
    "doctor": "countermark.cli.doctor:doctor",
    "upgrade": "countermark.cli.start:upgrade_",
    "backup": "countermark.cli.backup:backup",
    "restore": "countermark.cli.backup:restore",
    "lane": "countermark.cli.backup:lane",
    "policy": "countermark.cli.policy:policy",
    "mandate": "countermark.cli.mandate:mandate",
    "approvals": "countermark.cli.approvals:approvals",
    "notify": "countermark.cli.notify:notify",
    "anchor": "countermark.cli.anchor:anchor",
    "kill": "countermark.cli.kill:kill",
    "payee": "countermark.cli.payee:payee",
    "hold": "countermark.cli.hold:hold",
    "erase": "countermark.cli.erase:erase",
    "console": "countermark.cli.console:console",
    "keys": "countermark.cli.keys:keys",
    "people": "countermark.cli.people:people",
    "token": "countermark.cli.token:token",
    "log": "countermark.cli.log:log",
    "witness": "countermark.cli.witness:witness",
    "audit": "countermark.cli.evidence:audit",
    "epoch": "countermark.cli.epoch:epoch",
    "export": "countermark.cli.evidence:export",
    "verify": "countermark.cli.evidence:verify_",
    "bench": "countermark.cli.start:bench",
}
# These make a deployment, or can do without one.
WITHOUT = frozenset(("init", "demo", "restore", "witness", "verify", "bench", "run", "keys"))


class App(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, name = where.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def main(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:
        """Run; every way out is an exit code: 1 for an error, 64 for wrong usage, else what the command says."""
        words = list(sys.argv[1:] if args is None else args)
        more["standalone_mode"] = False
        try:
            code = super().main(words, *rest, **more)
        except click.Abort:
            click.echo("Aborted.", err=True)
            hint = "Nothing is signed without a yes. Was an action under way? Ask again with the same run and call_id."
            _document(CountermarkError("stopped before the end", code="aborted", hint=hint), as_json="--json" in words)
            code = EXIT_ERROR
        except click.ClickException as error:
            error.show()
            wrong = CountermarkError(error.format_message(), code="bad_usage", hint="See --help.")
            _document(wrong, as_json="--json" in words)
            code = EXIT_USAGE
        except CountermarkError as error:
            _show(error, as_json="--json" in words)
            code = EXIT_ERROR
        sys.exit(code if type(code) is int else 0)


def _show(error: CountermarkError, *, as_json: bool) -> None:
    """The one shape of an error for people, on standard error; with ``--json`` the one document as well."""
    colour = False if os.environ.get("NO_COLOR") else None  # outside of any command's context
    click.echo(f"{click.style('error:', fg='red')} {error.message} [{error.code}]", err=True, color=colour)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
    _document(error, as_json=as_json)


def _document(error: CountermarkError, *, as_json: bool) -> None:
    if as_json:
        found = {"code": error.code, "message": error.message, "hint": error.hint, "retryable": error.retryable}
        click.echo(json.dumps({"error": found}, ensure_ascii=False))


@click.group(
    name="countermark",
    cls=App,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "terminal_width": 100},
)
@click.option(
    "-C", "directory", metavar="DIR", help="The deployment (default: COUNTERMARK_DIR, else the nearest upwards)."
)
@click.version_option(package_name="countermark", message="countermark %(version)s")
@click.pass_context
def main(ctx: click.Context, directory: str | None) -> None:
    """The second stamp for autonomous agents that move money."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    makes = ctx.invoked_subcommand in WITHOUT
    # said before anything heavy is loaded
    if directory is not None and not Path(no_address(directory)).is_dir() and not makes:
        raise ConfigError(f"there is no directory {directory}", hint="Run `countermark init DIR`.")
    ctx.obj = Here(directory)
