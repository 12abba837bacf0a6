"""``review``: the queue of flagged actions, which were done and wait for somebody to look."""

from __future__ import annotations

from pathlib import Path

import click

from countermark.cli.base import Here, as_json_option, emit, good, key_option, pass_here, person_option, reading, table
from countermark.cli.two import enrolled_here
from countermark.model.errors import ArgumentError


@click.group()
def review() -> None:
    """Look at what was done and flagged."""


@review.command(name="list")
@as_json_option
@pass_here
def list_(here: Here, as_json: bool) -> None:
    """The flagged actions that nobody has looked at, the oldest first."""
    from countermark.audit import money, review_queue, review_row, when

    with reading(here.config()) as store:
        found = [review_row(record) for record in review_queue(store)]
    rows = [
        [
            row["id"], row["agent"],
            "" if row["terms"]["amount"] is None else money(row["terms"]["amount"], row["terms"]["currency"]),
            row["terms"]["payee"] or "", ", ".join(row["reasons"]), when(row["at"]),
        ]
        for row in found
    ]  # fmt: skip
    lines = table(("action", "agent", "amount", "payee", "rules", "decided"), rows, right=(2,))
    emit(found, lines or ["Nothing waits to be looked at."], as_json=as_json)


@review.command()
@click.argument("ref", metavar="ID")
@key_option
@person_option
@click.option("--note", metavar="TEXT", required=True, help="What you found; it stands in the record.")
@as_json_option
@pass_here
def clear(here: Here, ref: str, key: Path, person: str, note: str, as_json: bool) -> None:
    """Sign that you looked at a flagged action (ID: act_..., or a record or reference of it).

    The agent's owner cannot. It changes nothing about the action; see `countermark explain` first.
    """
    from countermark.audit import explain, review_queue
    from countermark.authority import sign_review
    from countermark.wiring import open_deployment

    config = here.config()
    private = enrolled_here(config, person, key)
    with reading(config) as store:
        name = explain(store, ref).document.get("id")
        decided = next((record for record in review_queue(store) if record.body["id"] == name), None)
    if decided is None:
        raise ArgumentError("this action does not wait to be looked at", field="id", code="not_waiting",
                            hint="See `countermark review list`.")  # fmt: skip
    document = {
        "deployment": config.deployment, "action": name, "decided_digest": decided.digest, "person": person,
        "note": note,
    }  # fmt: skip
    with open_deployment(config.root, recover=False) as handle:
        cleared = handle.call("review.clear", sign_review(document, private))
    emit({"cleared": cleared, "person": person}, f"{good('Cleared')} {cleared}.", as_json=as_json)
