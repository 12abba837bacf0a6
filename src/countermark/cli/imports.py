"""``import paid``: obligations that were settled before the gate, so that no agent pays them again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import (
    Here,
    as_json_option,
    emit,
    good,
    pass_here,
    read_file,
    reading,
    table,
)
from countermark.cli.two import enrolled_here, one_way, read_half, two_people, write_half
from countermark.model.errors import ConfigError

if TYPE_CHECKING:
    from countermark.cli.base import Config


@click.group(name="import")
def import_() -> None:
    """Bring in what happened before the gate."""


@import_.command()
@click.argument("file", metavar="[FILE]", required=False)
@click.option("--tool", metavar="NAME", default="", help="The tool whose obligations these are, for lines without one.")
@click.option("--source", metavar="TEXT", help="Where the list comes from; it stands in the records (default: FILE).")
@two_people
@as_json_option
@pass_here
def paid(
    here: Here, file: str | None, tool: str, source: str | None, person: str, key: Path, out: Path | None,
    second: Path | None, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Record obligations that were paid before the gate: their business keys are taken from then on.

    FILE has one obligation in each line: JSON objects, or CSV with a head line. The columns are those of the tool's
    business key (once_per: `payee` by id or account, the others by alias), `ref`, `date` (YYYY-MM-DD) and `tool`. At
    most 500; all of them are recorded or none. Two people sign: the first into --out, the second with --second.
    """
    one_way(out, second)
    config = here.config()
    if second is not None:
        if file is not None or tool or source is not None:
            raise click.UsageError("the second person signs what the first one read")
        _hand_in(config, second, person, key, yes=yes, as_json=as_json)
        return
    if file is None or out is None:
        raise click.UsageError("which FILE?")
    from countermark.authority import sign_import

    documents = _documents(config, file, tool, source or Path(file).name)
    private = enrolled_here(config, person, key)
    write_half(out, "import", documents, [sign_import(document, person, private) for document in documents])
    text = [*_rows(documents), f"{good('Signed')} {len(documents)} into {out}. Now somebody else: --second {out}"]
    emit({"file": str(out), "obligations": len(documents), "person": person}, text, as_json=as_json)


def _documents(config: Config, file: str, tool: str, source: str) -> list[dict[str, Any]]:
    from countermark.audit import import_documents, present_state, read_paid
    from countermark.gate import IMPORTED_MAX
    from countermark.model.digest import pseudonym
    from countermark.wiring import deployment

    lines = read_paid(read_file(file), tool)
    if len(lines) > IMPORTED_MAX:
        raise ConfigError(f"{len(lines)} obligations, and one import takes {IMPORTED_MAX}", hint="Split the file.")
    secret = deployment.read_key(config.keys / "pseudonym.key")
    with reading(config) as store:
        return import_documents(present_state(store), lines, source, lambda kind, value: pseudonym(secret, kind, value))


def _rows(documents: list[dict[str, Any]]) -> list[str]:
    from countermark.audit import safe

    rows = [
        [row["tool"], safe(", ".join(f"{name} {value}" for name, value in row["pairs"])), safe(row["ref"]), row["date"]]
        for row in documents
    ]
    return table(("tool", "obligation", "ref", "date"), rows)


def _hand_in(config: Config, half: Path, person: str, key: Path, *, yes: bool, as_json: bool) -> None:
    from countermark.authority import parse_import, sign_import
    from countermark.wiring import open_deployment

    documents, signed = read_half(half, "import", person)
    documents = [parse_import(document).document() for document in documents]
    private = enrolled_here(config, person, key)
    click.echo("\n".join(_rows(documents)), err=as_json)
    sources = ", ".join(Counter(document["source"] for document in documents))
    if not yes:
        question = f"Sign as {person} that these {len(documents)} are paid ({sources})"
        click.confirm(question, abort=True, err=as_json)
    rows = [
        {"import": document, "signed": [first, sign_import(document, person, private)]}
        for document, first in zip(documents, signed, strict=True)
    ]
    with open_deployment(config.root, recover=False) as handle:
        answer = handle.call("import", {"paid": rows})
    emit(answer, f"{good('Imported')} {answer['imported']}, from record #{answer['first']}.", as_json=as_json)
