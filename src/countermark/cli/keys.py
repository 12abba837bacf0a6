"""``keys``: make a key pair for a person, an agent or the log."""

from __future__ import annotations

from pathlib import Path

import click

from countermark.cli.base import as_json_option, emit


@click.group()
def keys() -> None:
    """Make keys."""


@keys.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@as_json_option
def new(file: Path, as_json: bool) -> None:
    """Write a new private key to FILE (mode 0600) and print its public half, for the policy."""
    from countermark.authority import generate, public_of, save_private

    private = generate()
    save_private(file, private)
    public = str(public_of(private))
    emit({"file": str(file), "public": public}, public, as_json=as_json)
