"""``backup``, ``restore`` and ``lane``: a copy, a successor lane made of it, and the two people who open that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import (
    Directory,
    Here,
    as_json_option,
    bad,
    careful,
    emit,
    good,
    key_option,
    pass_here,
    person_option,
    private_key,
    reading,
    short,
)
from countermark.model.errors import AuthorityError

if TYPE_CHECKING:
    from countermark.cli.base import Config
    from countermark.model.records import Record

SHOWN_MAX = 200
_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("target", metavar="TARGET", type=Directory())
@click.option("--with-keys", is_flag=True, help="Copy keys/ too. Keep such a backup as you keep the keys.")
@as_json_option
@pass_here
def backup(here: Here, target: Path, with_keys: bool, as_json: bool) -> None:
    """Copy the deployment to TARGET, a new directory, while the gate goes on.

    The copied log is read and compared with its signed head before the copy gets its name.
    """
    from countermark.wiring import make_backup

    made = make_backup(here.config(), target, with_keys=with_keys)
    document = {
        "target": str(target), "deployment": made.deployment, "lane": made.lane, "made_at": made.made_at,
        "size": made.size, "root": made.root, "with_keys": made.with_keys, "files": dict(made.files),
    }  # fmt: skip
    lines = [f"{good('Copied')} {made.size:,} records to {target}; its log is the one that its head signed."]
    if with_keys:
        lines.append(careful("It holds the keys: whoever has it can sign as this log and open every sealed value."))
    else:
        lines.append("Without keys/: keep a copy of that apart, or nothing can be restored.")
    emit(document, lines, as_json=as_json)


@click.command()
@click.argument("source", metavar="BACKUP", type=_PATH)
@click.argument("directory", metavar="DIR", type=Directory())
@click.option("--keys", type=_PATH, metavar="FOLDER", help="The deployment's keys, when the backup has none.")
@click.option("--head", type=_PATH, metavar="FILE",
              help="The longest head that was kept: the lost high-water file, or a signed head.")  # fmt: skip
@click.option("--offline", is_flag=True, help="Do not ask the providers; the record says so.")
@as_json_option
def restore(source: Path, directory: Path, keys: Path | None, head: Path | None, offline: bool, as_json: bool) -> None:
    """Make a successor lane in DIR from a backup. It stays closed until two people accept it.

    It declares which records are known to be lost, and takes the business keys of every payment that the providers
    list since. Stop the old gate for good first.
    """
    from countermark.wiring import restore_backup

    made = restore_backup(source, directory, keys=keys, head=head, offline=offline)
    document = {
        "directory": str(made.root), "lane": made.lane, "log_key": made.log_key, "size": made.size, "lost": made.lost,
        "succession": made.succession, "imported": made.imported, "asked": list(made.asked),
        "unasked": list(made.unasked),
    }  # fmt: skip
    lines = [
        f"{good('Restored')} {made.size:,} records as lane {made.lane} in {directory}. It is {bad('closed')}.",
        _gap(made.lost),
        f"{made.imported:,} movements that the records do not have were found"
        + (f" at {', '.join(made.asked)}." if made.asked else "; no provider was asked."),
        *([careful(f"Not asked: {', '.join(made.unasked)}. What it did is not known.")] if made.unasked else []),
        *([careful(_SINCE)] if made.lost != 0 else []),
        f"log key  {made.log_key}",
        "Next: lane show; two different people: lane accept; then principals grant mandates anew.",
    ]
    emit(document, lines, as_json=as_json)


def _gap(lost: int | None) -> str:
    if lost is None:
        return careful("No longer head was given, so how many records were lost cannot be established.")
    return f"{lost:,} records are known to be lost." if lost else "No lost record is known."


_SINCE = (
    "A key removed since the backup signs again, a payee has the account of then, and a refusal of since is gone: "
    "repeat those orders (people remove, payee set, payee close) before the lane is accepted."
)


@click.group()
def lane() -> None:
    """A restored lane: look at what was found, and open it."""


@lane.command(name="show")
@as_json_option
@pass_here
def show(here: Here, as_json: bool) -> None:
    """The newest restore: what is lost, what the providers moved since, and who has accepted."""
    found = _succession(here.config())
    if found is None:
        emit({"lane": here.config().lane, "restored": False}, "This lane was never restored.", as_json=as_json)
        return
    emit(found, _lines(found), as_json=as_json)


@lane.command(name="accept")
@person_option
@key_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
@pass_here
@click.pass_context
def accept_(ctx: click.Context, here: Here, person: str, key: Path, yes: bool, as_json: bool) -> None:
    """Sign that you have looked at a restored lane. The second person's signature opens it."""
    from countermark.authority import accept
    from countermark.wiring import open_deployment

    config = here.config()
    found = _succession(config)
    if found is None or not found["closed"]:
        raise AuthorityError("no restored lane waits to be accepted", code="nothing_to_accept")
    private = private_key(key)
    if not yes:
        click.echo("\n".join(_lines(found)), err=True)
        click.confirm("Accept this lane as the successor?", abort=True, err=True)
    order = {
        "deployment": config.deployment, "lane": found["lane"], "succession": found["succession"],
        "imported": found["imported"], "bundle": found["bundle"], "person": person,
    }  # fmt: skip
    with open_deployment(config.root, recover=False) as handle:
        answer = handle.call("lane.accept", accept(order, private))
    said = good("The lane is open. Every mandate has ended: principals grant anew.")
    emit(answer, said if answer["open"] else "Accepted; one more person must.", as_json=as_json)


def _succession(config: Config) -> dict[str, Any] | None:
    from countermark.audit import present_state

    with reading(config) as store:
        state = present_state(store)
        records: list[Record] = []
        for record in store.records():
            if record.kind == "lane.succeeded":
                records = [record]
            elif record.kind in ("lane.imported", "lane.accepted"):
                records.append(record)
    if not records:
        return None
    body = records[0].body
    known = body["known"]
    return {
        "lane": body["lane"], "restored": True, "closed": state.succession is not None, "at": records[0].at,
        "succession": records[0].digest, "predecessor": body["predecessor"], "known": known,
        "lost": None if known is None else known["size"] - body["predecessor"]["size"],
        "activity": body["activity"], "bundle": None if state.bundle is None else state.bundle.digest,
        "imported": sum(record.kind == "lane.imported" for record in records),
        "movements": [dict(record.body) for record in records if record.kind == "lane.imported"],
        "accepted": [record.body["acceptance"]["person"] for record in records if record.kind == "lane.accepted"],
    }  # fmt: skip


def _lines(found: dict[str, Any]) -> list[str]:
    from countermark.audit import money, safe, when

    activity = found["activity"]
    lines = [
        f"Lane {found['lane']}, {bad('closed') if found['closed'] else good('open')}; restored {when(found['at'])} "
        f"from {found['predecessor']['size']:,} records of {found['predecessor']['lane']}.",
        _gap(found["lost"]),
        *([careful(_SINCE)] if found["closed"] and found["lost"] != 0 else []),
        f"Policy {short(found['bundle'])}. Accepted by: {', '.join(map(safe, found['accepted'])) or 'nobody'}.",
        f"Asked since {when(activity['since'])}: {', '.join(activity['asked']) or 'no provider'}.",
        *([careful(f"Not asked: {', '.join(activity['unasked'])}.")] if activity["unasked"] else []),
        f"{found['imported']:,} movements that the records do not have" + (":" if found["movements"] else "."),
    ]
    for move in found["movements"][:SHOWN_MAX]:
        terms = move["terms"]
        taken = ", ".join(text for _, text in move["pairs"]) if move["pairs"] else "no business key of this policy"
        ours = "" if move["key"] else ", not by this gate"
        lines.append(
            f"  {when(move['moved_at'])}  {money(terms['amount'], terms['currency'])}  {safe(move['ref'])}  "
            f"{safe(move['tool'])}  {safe(taken)}{ours}"
        )
    if len(found["movements"]) > SHOWN_MAX:
        lines.append(f"  and {len(found['movements']) - SHOWN_MAX:,} more: --json has them all")
    return lines
