"""``witness``: run a witness for other people's logs, with a directory and a key of its own."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import click

from countermark.cli.base import Directory, as_json_option, bad, emit
from countermark.cli.serve import check_installed

PORT = 8522

folder_argument = click.argument("folder", metavar="DIR", type=Directory())


@click.group()
def witness() -> None:
    """Run a witness: it cosigns the heads of logs, each time only if nothing that it saw before was changed.

    It belongs to somebody else than the logs: another machine, or at least another OS user and directory.
    """


@witness.command()
@folder_argument
@click.option("--name", metavar="NAME", required=True, help="Its key's name, such as witness.example.org/w1.")
@as_json_option
def init(folder: Path, name: str, as_json: bool) -> None:
    """Make a witness in DIR, with a key of its own, and print its verifier key."""
    from countermark.publish import make_witness

    vkey = make_witness(folder, name)
    emit({"directory": str(folder), "vkey": vkey}, vkey, as_json=as_json)


@witness.command()
@folder_argument
@click.argument("vkey", metavar="VKEY")
@as_json_option
def add(folder: Path, vkey: str, as_json: bool) -> None:
    """Cosign for the log of this verifier key too; a witness that is serving notices at once.

    A further key of a log that it knows is added to the one before.
    """
    from countermark.model.clock import SystemClock
    from countermark.publish import Witness

    origin = Witness(folder, SystemClock()).add_log(vkey)
    emit({"origin": origin}, f"Cosigns for {origin}.", as_json=as_json)


@witness.command()
@folder_argument
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", metavar="NUMBER", type=click.IntRange(0, 65_535), default=PORT, show_default=True,
              help="0 takes a free one.")  # fmt: skip
@click.option("--host-name", "names", metavar="NAME", multiple=True, help="A Host name to answer to behind a proxy.")
@click.option("--tls-cert", metavar="FILE", type=click.Path(path_type=Path), help="Certificate chain (PEM).")
@click.option("--tls-key", metavar="FILE", type=click.Path(path_type=Path), help="Its private key (PEM, mode 0600).")
@as_json_option
def serve(
    folder: Path, host: str, port: int, names: tuple[str, ...], tls_cert: Path | None, tls_key: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Answer `add-checkpoint` (C2SP tlog-witness) until SIGTERM or Ctrl-C. Needs the extra [server]."""
    check_installed()
    from countermark.model.clock import SystemClock
    from countermark.publish import Witness
    from countermark.server import serve_witness, witness_settings
    from countermark.wiring import configure_logs

    configure_logs()
    found = Witness(folder, SystemClock())
    settings = witness_settings(host, port, names, tls_cert, tls_key)
    serve_witness(found, settings, lambda url: _ready(url, found.vkey, as_json))


def _ready(url: str, vkey: str, as_json: bool) -> None:
    """One line, also in JSON: whoever started the witness waits for it."""
    click.echo(json.dumps({"url": url, "vkey": vkey}) if as_json else f"Witnessing at {url}: {vkey}")
    sys.stdout.flush()


@witness.command()
@folder_argument
@as_json_option
def show(folder: Path, as_json: bool) -> None:
    """Show the key, each log with the newest head that was cosigned, and what was refused and kept."""
    from countermark.model.clock import SystemClock
    from countermark.publish import Witness

    found = Witness(folder, SystemClock())
    logs = []
    lines = [found.vkey]
    for origin in found.origins():
        held, kept = found.held(origin), found.kept(origin)
        root = base64.b64encode(held.root).decode("ascii")
        logs.append({"origin": origin, "size": held.size, "root": root, "note": held.note.decode("utf-8"),
                     "refused": [str(path) for path in kept]})  # fmt: skip
        lines.append(f"{origin}  {held.size} records, root {root}")
        lines += [bad(f"  refused: {path.relative_to(folder)}") for path in kept]
    emit({"vkey": found.vkey, "name": found.name, "logs": logs}, lines, as_json=as_json)
