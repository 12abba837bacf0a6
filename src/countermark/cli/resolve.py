"""``resolve``: two people settle by hand what the provider could not say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import Here, as_json_option, careful, emit, good, pass_here
from countermark.cli.two import agree, enrolled_here, one_way, read_half, two_people, write_half
from countermark.model.errors import ArgumentError, ConfigError

if TYPE_CHECKING:
    from countermark.cli.base import Config
    from countermark.model.records import Record


@click.command()
@click.argument("ref", metavar="ID")
@click.option("--outcome", type=click.Choice(["confirmed", "failed"]), help="What became of it.")
@click.option("--ref", "reference", metavar="TEXT", default="", help="The provider's reference of what was moved.")
@click.option("--amount", metavar="N", type=click.IntRange(min=0),
              help="What was moved, in minor units (default: what was asked).")  # fmt: skip
@click.option("--reason", metavar="TEXT", help="How you know; it stands in the record.")
@two_people
@as_json_option
@pass_here
def resolve(
    here: Here, ref: str, outcome: str | None, reference: str, amount: int | None, reason: str | None, person: str,
    key: Path, out: Path | None, second: Path | None, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Settle by hand an action that stays unknown: two different people sign how it ended.

    The first says so with --outcome and --reason and signs into --out; the second sees it and signs with --second. ID
    is the action (act_...), or a record or reference of it. Ask the provider first (`countermark recover`): a `failed`
    frees the obligation, so that it may be paid again.
    """
    one_way(out, second)
    config = here.config()
    intent = intent_of(config, ref)
    private = enrolled_here(config, person, key)
    if second is not None:
        if outcome is not None or amount is not None or reason is not None or reference:
            raise click.UsageError("the second person signs what the first one said")
        _hand_in(config, intent, second, person, private, yes=yes, as_json=as_json)
        return
    if outcome is None or reason is None or out is None:
        raise click.UsageError("say --outcome and --reason")
    from countermark.authority import sign_resolution

    moved = intent.body["terms"]["amount"] if amount is None else amount
    document = {
        "v": 1, "deployment": config.deployment, "action": intent.body["id"], "intent_digest": intent.digest,
        "outcome": outcome, "ref": reference, "amount": moved if outcome == "confirmed" else None, "reason": reason,
    }  # fmt: skip
    if outcome == "failed" and amount is not None:
        raise click.UsageError("nothing was moved by what failed: leave out --amount")
    write_half(out, "resolve", [document], [sign_resolution(document, person, private)])
    text = [*shown(intent, document), f"{good('Signed')} into {out}. Now somebody else: --second {out}"]
    emit({"file": str(out), "resolution": document, "person": person}, text, as_json=as_json)


def _hand_in(
    config: Config, intent: Record, half: Path, person: str, private: Any, *, yes: bool, as_json: bool
) -> None:
    from countermark.authority import parse_resolution, sign_resolution
    from countermark.wiring import open_deployment

    documents, signed = read_half(half, "resolve", person)
    document = parse_resolution(documents[0]).document()
    if len(documents) != 1 or document["action"] != intent.body["id"] or document["intent_digest"] != intent.digest:
        raise ConfigError(f"{half} is about another action")
    agree(shown(intent, document), person, yes=yes, as_json=as_json)
    body = {"resolution": document, "signed": [signed[0], sign_resolution(document, person, private)]}
    with open_deployment(config.root, recover=False) as handle:
        result = handle.call("resolve", body)
    text = f"{good('Settled')}: {result['action']} {result['status']} [{result['code']}] {result['ref']}".rstrip()
    emit(result, text, as_json=as_json)


def intent_of(config: Config, ref: str) -> Record:
    """The intent that is meant. Raises ``ArgumentError``."""
    from countermark.audit import explain, present_state
    from countermark.cli.base import reading

    with reading(config) as store:
        name = explain(store, ref).document.get("id")
        state = present_state(store)
        for seq, intent in state.open.items():
            if intent.id == name:
                return store.record(seq)
    raise ArgumentError(
        "the action has no intent, or is settled already", field="id", code="not_unknown",
        hint="`countermark status` lists those that are open.",
    )  # fmt: skip


def shown(intent: Record, document: dict[str, Any]) -> list[str]:
    """What a person signs, in words."""
    from countermark.audit import money, safe, when

    terms = intent.body["terms"]
    asked = "none" if terms["amount"] is None else money(terms["amount"], terms["currency"])
    lines = [
        f"{intent.body['tool']} for agent {intent.body['agent']}, decided on {when(intent.at)}",
        f"  action   {intent.body['id']}",
        f"  amount   {asked}",
        f"  payee    {safe(terms['payee'] or 'none')}",
        f"  became   {document['outcome']}" + (f", reference {safe(document['ref'])}" if document["ref"] else ""),
        f"  because  {safe(document['reason'])}",
    ]
    if document["amount"] is not None and document["amount"] != terms["amount"]:
        other = money(document["amount"], terms["currency"])
        lines.append(careful(f"  moved    {other}, not what was asked: the tool will be stopped"))
    if document["outcome"] == "failed":
        lines.append(careful("  The obligation is free again: it may be paid once more."))
    return lines
