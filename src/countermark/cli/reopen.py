"""``reopen``: two people let an obligation that somebody refused be asked about again."""

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
@click.option("--reason", metavar="TEXT", help="Why it may be asked about again; it stands in the record.")
@two_people
@as_json_option
@pass_here
def reopen(
    here: Here, ref: str, reason: str | None, person: str, key: Path, out: Path | None, second: Path | None, yes: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Let what a person refused be asked about again: two different people sign that.

    The first says why with --reason and signs into --out; the second sees it and signs with --second. ID is the action
    that was refused (act_...), or a record of it. Nothing is paid by this: the agent asks anew, with another call id,
    and the policy decides, with people where it asks them. What was paid meanwhile stays taken.
    """
    one_way(out, second)
    config = here.config()
    refusal = refusal_of(config, ref)
    private = enrolled_here(config, person, key)
    if second is not None:
        if reason is not None:
            raise click.UsageError("the second person signs what the first one said")
        _hand_in(config, refusal, second, person, private, yes=yes, as_json=as_json)
        return
    if reason is None or out is None:
        raise click.UsageError("say --reason")
    from countermark.authority import sign_reopening

    document = {
        "v": 1, "deployment": config.deployment, "action": refusal.body["id"], "refusal_digest": refusal.digest,
        "reason": reason,
    }  # fmt: skip
    write_half(out, "reopen", [document], [sign_reopening(document, person, private)])
    text = [*shown(refusal, document), f"{good('Signed')} into {out}. Now somebody else: --second {out}"]
    emit({"file": str(out), "reopening": document, "person": person}, text, as_json=as_json)


def _hand_in(
    config: Config, refusal: Record, half: Path, person: str, private: Any, *, yes: bool, as_json: bool
) -> None:
    from countermark.authority import parse_reopening, sign_reopening
    from countermark.wiring import open_deployment

    documents, signed = read_half(half, "reopen", person)
    document = parse_reopening(documents[0]).document()
    if len(documents) != 1 or document["refusal_digest"] != refusal.digest:
        raise ConfigError(f"{half} is about another refusal")
    agree(shown(refusal, document), person, yes=yes, as_json=as_json)
    body = {"reopening": document, "signed": [signed[0], sign_reopening(document, person, private)]}
    with open_deployment(config.root, recover=False) as handle:
        action = handle.call("reopen", body)
    emit({"reopened": action}, f"{good('Reopened')} {action}: it may be asked about again, with a new call id.",
         as_json=as_json)  # fmt: skip


def refusal_of(config: Config, ref: str) -> Record:
    """The refusal that is meant, if it holds a business key. Raises ``ArgumentError``."""
    from countermark.audit import explain, present_state
    from countermark.cli.base import reading

    with reading(config) as store:
        name = explain(store, ref).document.get("id")
        for seq in present_state(store).refused.values():
            record = store.record(seq)
            if record.body["id"] == name:
                return record
    raise ArgumentError(
        "no refusal of this action holds a business key", field="id", code="not_refused",
        hint="A denial names the refusal that holds it: see `countermark explain`.",
    )  # fmt: skip


def shown(refusal: Record, document: dict[str, Any]) -> list[str]:
    """What a person signs, in words."""
    from countermark.audit import money, safe, when

    body, terms = refusal.body, refusal.body["terms"]
    return [
        f"{body['id']} of agent {body['agent']}",
        f"  amount   {'none' if terms['amount'] is None else money(terms['amount'], terms['currency'])}",
        f"  payee    {safe(terms['payee'] or 'none')}",
        f"  refused  by {body['approval']['person']} on {when(refusal.at)}",
        f"  because  {safe(document['reason'])}",
        careful("  It may be asked about again, and is paid if the policy, and whoever it asks, say yes."),
    ]
