"""``log``: the log's public side as plain files, and single records with their proofs."""

from __future__ import annotations

from pathlib import Path

import click

from countermark.cli.base import Directory, Here, as_json_option, emit, good, pass_here, reading
from countermark.model.errors import ConfigError


@click.group()
def log() -> None:
    """The log's public side, heads and hashes; and single records, with the proof that they are in it."""


@log.command()
@click.argument("ref", metavar="ID")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="The proof (default: SEQ.tlog-proof here)."
)
@click.option("--record", "record_file", type=click.Path(path_type=Path), metavar="FILE",
              help="The record's bytes (default: SEQ.json).")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the files if they exist.")
@as_json_option
@pass_here
def proof(here: Here, ref: str, out: Path | None, record_file: Path | None, force: bool, as_json: bool) -> None:
    """Write the proof that one record is in the log, and the record itself (C2SP tlog-proof).

    ID is a record (12 or #12) or an action (act_...), then its decision. The head is the newest one that witnesses
    cosigned and that covers the record; where there is none, the newest. See `verify --record`.
    """
    from countermark.audit import prove
    from countermark.cli.evidence import noted

    config = here.config()
    with reading(config) as store:
        found = prove(store, ref)
        proof_file, bytes_file = out or Path(f"{found.seq}.tlog-proof"), record_file or Path(f"{found.seq}.json")
        for file in (proof_file, bytes_file):
            if file.exists() and not force:
                raise ConfigError(f"{file} exists", hint="Name another file, or use --force to replace it.")
        noted(config, "explain", found.seq, found.seq + 1)
    try:
        proof_file.write_bytes(found.proof)
        bytes_file.write_bytes(found.record)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}") from None
    seen = "witnesses cosigned it" if found.witnessed else "no witness cosigned it"
    lines = [
        f"{good('Wrote')} {proof_file} and {bytes_file}.",
        f"Record #{found.seq} in a log of {found.size:,} records; {seen}.",
    ]
    document = {
        "proof": str(proof_file), "record": str(bytes_file), "seq": found.seq, "size": found.size,
        "witnessed": found.witnessed,
    }  # fmt: skip
    emit(document, lines, as_json=as_json)


@log.command()
@click.argument("folder", metavar="DIR", type=Directory())
@click.option("--newest", is_flag=True, help="The newest signed head, whether or not witnesses cosigned it.")
@as_json_option
@pass_here
def publish(here: Here, folder: Path, newest: bool, as_json: bool) -> None:
    """Bring the files in DIR to the newest head: C2SP tlog-tiles for any static host or object store.

    Takes the newest head that witnesses cosigned when there is one. Writes only what is not there yet, and nothing at
    all over another log. Run it again whenever the files should go on.
    """
    from countermark.publish import note_to_publish, publish_static
    from countermark.wiring import log_signer

    config = here.config()
    vkeys = log_signer(config).vkeys
    with reading(config) as store:
        note, witnessed = note_to_publish(store, newest=newest)
        done = publish_static(folder, store, note, vkeys)
    document = {"directory": str(folder), "size": done.size, "tiles": done.tiles, "witnessed": witnessed}
    kind = "cosigned by witnesses" if witnessed else "signed by the log alone"
    emit(document, f"Published {done.size} records ({kind}): {done.tiles} new tiles.", as_json=as_json)
