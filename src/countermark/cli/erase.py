"""``erase``: two people erase what is sealed for one subject, and nothing else (docs/erasure.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import (
    Here,
    as_json_option,
    careful,
    emit,
    good,
    pass_here,
    reading,
    table,
)
from countermark.cli.two import agree, enrolled_here, one_way, out_option, read_half, second_option, write_half
from countermark.model.errors import ConfigError

if TYPE_CHECKING:
    from countermark.audit import Subject
    from countermark.cli.base import Config


@click.command()
@click.argument("subject", metavar="[SUBJECT]", required=False)
@click.option("--list", "listing", is_flag=True, help="List every subject, and what stands against erasing it.")
@click.option("--reason", metavar="TEXT", help="Why, without personal data; it stands in the record for ever.")
@click.option("--person", metavar="NAME", help="Who signs, as the policy names them.")
@click.option(
    "--key", metavar="FILE", type=click.Path(path_type=Path), help="The signer's private key (PEM, mode 0600)."
)
@out_option
@second_option
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@as_json_option
@pass_here
def erase(
    here: Here, subject: str | None, listing: bool, reason: str | None, person: str | None, key: Path | None,
    out: Path | None, second: Path | None, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Erase every value that is sealed for SUBJECT: a payee (its id, or p:...), or agent:NAME. No proof breaks.

    The first person says --reason and signs into --out; the second sees it and signs with --second. It is refused under
    a legal hold, while a retention duty runs, and while something of the subject is under way.
    """
    config = here.config()
    if listing:
        if subject is not None or out is not None or second is not None:
            raise click.UsageError("--list stands alone")
        _list(config, as_json=as_json)
        return
    if subject is None or person is None or key is None:
        raise click.UsageError("which SUBJECT, and who signs (--person, --key)?")
    one_way(out, second)
    private = enrolled_here(config, person, key)
    if second is not None:
        if reason is not None:
            raise click.UsageError("the second person signs what the first one said")
        _hand_in(config, subject, second, person, private, yes=yes, as_json=as_json)
        return
    if reason is None or out is None:
        raise click.UsageError("say --reason")
    from countermark.audit import erasure_document
    from countermark.authority import sign_erasure

    with reading(config) as store:
        document = erasure_document(store, subject, reason)
    write_half(out, "erase", [document], [sign_erasure(document, person, private)])
    text = [*_shown(document), f"{good('Signed')} into {out}. Now somebody else: --second {out}"]
    emit({"file": str(out), "erasure": document, "person": person}, text, as_json=as_json)


def _hand_in(config: Config, subject: str, half: Path, person: str, private: Any, *, yes: bool, as_json: bool) -> None:
    from countermark.authority import parse_erasure, sign_erasure
    from countermark.wiring import open_deployment

    documents, signed = read_half(half, "erase", person)
    document = parse_erasure(documents[0]).document()
    if len(documents) != 1 or document["subject"] != subject:
        raise ConfigError(f"{half} is about another subject")
    agree(_shown(document), person, yes=yes, as_json=as_json)
    body = {"erasure": document, "signed": [signed[0], sign_erasure(document, person, private)]}
    with open_deployment(config.root, recover=False) as handle:
        done = handle.call("erase", body)
    text = f"{good('Erased')} {done['values']:,} values of {subject}, by record #{done['seq']}."
    emit(done, text, as_json=as_json)


def _shown(document: dict[str, Any]) -> list[str]:
    """What a person signs, in words."""
    from countermark.audit import safe

    return [
        f"Erase what is sealed for {safe(document['subject'])}",
        f"  records  {document['records']:,}",
        f"  values   {document['values']:,}",
        f"  because  {safe(document['reason'])}",
        careful("  Nobody can undo this. Backups of the vault keep the key until they expire."),
    ]


def _list(config: Config, *, as_json: bool) -> None:
    from countermark.audit import subjects

    with reading(config) as store:
        found = subjects(store)
    rows = [[one.name, f"{one.values:,}", f"{one.records:,}", _state(one)] for one in found]
    lines = table(("subject", "values", "records", "may be erased"), rows) if rows else "Nothing is sealed here."
    emit({"subjects": [one.document() for one in found]}, lines, as_json=as_json)


def _state(one: Subject) -> str:
    from countermark.audit import when

    if one.holds:
        return "no: legal hold " + ", ".join(one.holds)
    if one.busy:
        return "no: something is under way"
    return "no: no retention rule" if one.until is None else f"from {when(one.until)}"
