"""``status``: what the committed records say, read beside whoever owns the deployment; nothing is asked or changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import (
    Here,
    as_json_option,
    bad,
    careful,
    emit,
    good,
    pass_here,
    reading,
    short,
    table,
)

if TYPE_CHECKING:
    from countermark.cli.base import Config
    from countermark.journal import SqliteStore
    from countermark.policy import State

OPEN_SHOWN_MAX = 20


@click.command()
@as_json_option
@pass_here
def status(here: Here, as_json: bool) -> None:
    """Head, kills, open and unknown actions, what waits for people, mandates with their budgets."""
    config = here.config()
    from countermark.audit import kills, present_state
    from countermark.model.clock import SystemClock

    with reading(config) as store:
        state = present_state(store)
        document = _document(config, store, state, max(state.at, SystemClock().now_us()))
        found = kills(store, list(state.kills), store.size())
        for kill in document["kills"]:
            kill["reason"] = found[kill["kill"]]["reason"]
    emit(document, _lines(document), as_json=as_json)


def _document(config: Config, store: SqliteStore, state: State, now: int) -> dict[str, Any]:
    from countermark.audit import newest_seen
    from countermark.policy import is_stale, standing
    from countermark.wiring import credentials, owner_lives

    head = store.head()
    bundle = state.bundle
    rule = None if bundle is None else bundle.compiled.witness
    seen = newest_seen(store, rule)
    return {
        "directory": str(config.root), "deployment": config.deployment, "lane": config.lane,
        "gate": "running" if owner_lives(config.lock) else "not running", "records": state.size,
        "head": None if head is None else {"size": head[0], "root": _root(head[1])},
        "bundle": None if bundle is None else bundle.digest, "log": config.origin, "log_key": state.log_key,
        "people": {
            name: [str(key) for key in person.keys] for name, person in state.people.items() if person.keys
        },
        "credentials": credentials(config), "lacking": state.seats.lacking(),
        "kills": [{"kill": name, **scope} for name, scope in state.kills.items()], "runs": len(state.runs),
        "mandates": standing(state, now),
        "open": [
            {"seq": seq, "id": i.id, "tool": i.tool, "status": i.status, "at": i.at} for seq, i in state.open.items()
        ],
        "unknown": sum(intent.status == "unknown" for intent in state.open.values()), "unreviewed": state.unreviewed,
        "witnessed": None if seen is None else {**seen.document(), "said": seen.said(), "offset": seen.offset()},
        "witnesses": "none" if rule is None else "stale" if is_stale(rule, state.witnessed, now) else "ok",
        "waiting": [
            {
                "escalation": name, "id": e.body["id"], "not_after": e.body["not_after"],
                "late": e.body["not_after"] <= now,
            }
            for name, e in state.parked.items()
        ],
    }  # fmt: skip


def _root(note: bytes) -> str:
    """The root line of a signed head (C2SP tlog-checkpoint: origin, size, root), base64 as a trust file has it."""
    return note.split(b"\n")[2].decode("ascii")


def mandate_rows(mandates: list[dict[str, Any]]) -> list[str]:
    """Mandates as an aligned table, a line for each limit."""
    from countermark.audit import day, limit, safe
    from countermark.cli.mandate_tree import numbers

    rows = []
    for entry in mandates:
        state = "revoked" if entry["revoked"] else "in force" if entry["in_force"] else "not in force"
        who = [safe(entry["agent"]), safe(entry["principal"])]
        first = [short(entry["mandate"]), *who, day(entry["not_after"]), state]
        for row in entry["limits"] or [None]:
            used = ["", "", ""] if row is None else numbers(row)
            rows.append([*first, *used, "no limits of its own" if row is None else limit(row)])
            first = [""] * 5
    head = ("mandate", "agent", "principal", "until", "state", "used", "held", "free", "of")
    return table(head, rows, right=(5, 6, 7))


def _behind(found: dict[str, Any]) -> list[str]:
    """Whether enough different people stand behind the policy for the credentials that there are."""
    if not found["lacking"]:
        return ["people      author, activator and approvers are different people"]
    lines = [f"people      {'; '.join(found['lacking'])}"]
    if found["credentials"] == "live":
        return [*map(bad, lines), bad("            so the live credentials are not used [not_enough_people]")]
    return [*lines, "            allowed with test keys; a live credential would not be used"]


def _witnessed(found: dict[str, Any]) -> list[str]:
    """Who outside has seen the log, and whether money stands still for want of them."""
    seen = found["witnessed"]
    if found["witnesses"] == "none":
        return ["witnesses   none: nobody outside would notice a rewrite"]
    said = "nobody has answered yet" if seen is None else seen["said"]
    lines = [f"witnesses   {said}"] if seen is None else [f"witnesses   {said}", f"            {seen['offset']}"]
    return (
        [*lines, bad("            too old: money is denied [witness_stale]")]
        if found["witnesses"] == "stale"
        else lines
    )


def _lines(found: dict[str, Any]) -> list[str]:
    from countermark.audit import safe, stopped, when

    gate = good("running") if found["gate"] == "running" else found["gate"]
    head = found["head"]
    lines = [
        f"deployment  {found['deployment']} ({found['directory']})",
        f"gate        {gate}",
        f"records     {found['records']:,}",
        f"head        {'none' if head is None else str(head['size']) + ' records, root ' + head['root']}",
        f"log key     {found['log_key']}",
        *_witnessed(found),
        f"policy      {short(found['bundle'])}",
        *_behind(found),
        f"open runs   {found['runs']:,}",
        f"kills       {len(found['kills'])}",
    ]
    for kill in found["kills"]:
        lines.append(careful(f"  {kill['kill']}  {stopped(kill['kind'], kill['value'], safe(kill['reason']))}"))
    lines.append(f"open        {len(found['open']):,} intents without a final outcome, {found['unknown']:,} unknown")
    for item in found["open"][:OPEN_SHOWN_MAX]:
        lines.append(f"  #{item['seq']}  {item['id']}  {item['tool']}  {item['status']}  since {when(item['at'])}")
    lines.append(f"waiting     {len(found['waiting']):,} for people")
    for item in found["waiting"][:OPEN_SHOWN_MAX]:
        late = "deadline passed" if item["late"] else f"until {when(item['not_after'])}"
        lines.append(f"  {item['escalation']}  {late}")
    lines.append(f"review      {found['unreviewed']:,} flagged, and nobody has looked")
    rows = mandate_rows(found["mandates"])
    return [*lines, "", *rows] if rows else lines
