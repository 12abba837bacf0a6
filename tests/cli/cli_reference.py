"""Writes ``docs/reference/cli.md``: ``python tests/cli/cli_reference.py > docs/reference/cli.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
from click.testing import CliRunner

from countermark.cli import main

HEAD = """\
# The command line

What `--help` says, word for word; a test compares. Exit codes: 0 done, 1 an error (one shape: `error: message [code]`,
then what to do), 64 wrong usage; `act`, `approvals approve`, `policy try`, `recover` and `verify` say more with theirs.
`--json` prints one document on standard output, also for an error, wrong usage or an abort. Colours appear only on a
terminal, and never when `NO_COLOR` is set.
"""


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every command with the words that lead to it."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from commands(found, (*path, name))


def help_of(path: tuple[str, ...]) -> str:
    """The help text of one command."""
    result = CliRunner().invoke(main, [*path[1:], "--help"], prog_name="countermark")
    if result.exit_code != 0:
        raise SystemExit(result.output)
    return result.stdout


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for path in commands(main, ("countermark",)):
        parts.append(f"\n## {' '.join(path)}\n\n```\n{help_of(path)}```\n")
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(reference())
