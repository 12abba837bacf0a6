"""``serve``: the gate over HTTP, owning the deployment."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import click

from countermark.cli.base import Here, as_json_option, pass_here
from countermark.model.errors import ConfigError

NEEDED = ("httptools", "jinja2", "msgspec", "jwt", "starlette", "uvicorn")


@click.command()
@click.option("--host", metavar="ADDRESS", help="Where to listen (default: serve.host, else 127.0.0.1).")
@click.option("--port", metavar="NUMBER", type=click.IntRange(0, 65_535), help="0 takes a free one (default: 8521).")
@click.option("--tls-cert", metavar="FILE", type=click.Path(path_type=Path), help="Certificate chain (PEM).")
@click.option("--tls-key", metavar="FILE", type=click.Path(path_type=Path), help="Its private key (PEM, mode 0600).")
@as_json_option
@pass_here
def serve(
    here: Here, host: str | None, port: int | None, tls_cert: Path | None, tls_key: Path | None, as_json: bool
) -> None:
    """Serve the deployment over HTTP until SIGTERM or Ctrl-C.

    The server owns the deployment: it alone decides, holds the credentials and sends. Agents show a token, a JWT or a
    signed request; people sign. Prints one line when it is ready. Told to stop, it answers what is under way and
    closes the gate; told twice, it waits for no client, and still loses no record. Needs the extra [server].
    """
    check_installed()
    from countermark.server import serve as run
    from countermark.wiring import configure_logs

    configure_logs()
    config = here.config()
    own = config.serve
    settings = replace(
        own, host=own.host if host is None else host, port=own.port if port is None else port,
        tls_cert=tls_cert or own.tls_cert, tls_key=tls_key or own.tls_key,
    )  # fmt: skip
    run(config, settings, lambda url, console: _ready(url, console, settings.tier, as_json))


def _ready(url: str, console: str, tier: str, as_json: bool) -> None:
    """One line, also in JSON: whoever started the server waits for it."""
    said = f"Serving on {url} ({tier})." + (f" People answer at {console}." if console else "")
    text = json.dumps({"url": url, "tier": tier, "console": console}) if as_json else said
    click.echo(text)
    sys.stdout.flush()


def check_installed() -> None:
    """Raises ``ConfigError`` when the extra [server] is not there."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"serving needs the extra [server]: {missing[0]} is not installed", code="missing_extra",
            hint="Install it: `uv add 'countermark[server]'`, or `pip install 'countermark[server]'`.",
        )  # fmt: skip
