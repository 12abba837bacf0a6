"""What waits for people: the list, the nearest deadline first, kept fresh without a reload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark.model.errors import ArgumentError
from countermark.server.console.roles import WORDS
from countermark.server.console.visit import Page, Reply, Visit
from countermark.server.console.words import content_tag

LISTED_MAX = 500
ASKED_AT_ONCE = 100
ROWS = 50
POLL_S = 4
SHARED_MS = 2_000
REFERENCE_CHARS_MAX = 60


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list. ``due`` is when the rung that is asked now ends; ``mine``: this person may answer it."""

    escalation: str
    agent: str
    tool: str
    amount: int | None
    currency: str | None
    payee: str
    reference: str
    due: int
    mine: bool
    so_far: int


async def waiting(visit: Visit) -> Reply:
    """``GET /waiting``."""
    return visit.html("waiting.html", **await _listed(visit), poll_s=POLL_S)


async def rows(visit: Visit) -> Reply:
    """``GET /waiting/rows``: the list again. Unchanged, it is not sent again: nothing moves under a finger."""
    values = await _listed(visit)
    if values["tag"] == visit.query.get("seen"):
        reply = visit.html("waiting_clock.html", **values)
        return Reply(200, reply.body, (*reply.headers, (b"hx-reswap", b"none")))
    return visit.html("waiting_rows.html", **values, poll_s=POLL_S)


async def _listed(visit: Visit) -> dict[str, Any]:
    page = _page(visit.query.get("page", "1"))
    entries = await _entries(visit)
    found = sorted((_row(visit, one) for one in entries), key=lambda row: (not row.mine, row.due, row.escalation))
    of_agents = {one["agent"]: one["agent_waits"] for one in entries}
    total = max(len(found), sum(of_agents.values()))
    most = max(of_agents.items(), key=lambda pair: pair[1], default=("", 0))
    pages = max(1, -(-len(found) // ROWS))
    page = min(page, pages)
    shown = found[(page - 1) * ROWS : page * ROWS]
    tag = content_tag(repr((shown, total, page, most)).encode())
    return {
        "rows": shown, "total": total, "listed": len(found), "page": page, "pages": pages, "tag": tag,
        "mine": sum(row.mine for row in found), "most": most,
    }  # fmt: skip


def _page(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:6]) <= LISTED_MAX:
        raise ArgumentError("there is no such page", field="page")
    return int(text[:6])


async def _entries(visit: Visit) -> list[Mapping[str, Any]]:
    """The newest that wait, of each agent its share. Pages that refresh themselves share one look at them."""
    console, steady = visit.console, visit.console.clock.steady_us()
    if visit.fragment and steady - console.looked[0] < SHARED_MS * 1_000:
        return list(console.looked[1])
    found: list[Mapping[str, Any]] = []
    while len(found) < LISTED_MAX:
        body: dict[str, Any] = {"limit": ASKED_AT_ONCE, "share": LISTED_MAX, "alike": False}
        if found:
            body["after"] = found[-1]["seq"]
        part = await visit.console.call("escalations", body)
        if not part:
            break
        found += part
    console.looked = (steady, found[:LISTED_MAX])
    return found[:LISTED_MAX]


def _row(visit: Visit, one: Mapping[str, Any]) -> Row:
    terms = one["terms"]
    nobody = "somebody the policy does not know" if terms["payee"] else "nobody"
    return Row(
        one["escalation"], one["agent"], one["tool"], terms["amount"], terms["currency"],
        one["payee_name"] or nobody, _reference(visit, one), due_of(one), bool(ladders_for(visit, one)),
        sum(len(people) for people in one["answers"].values()),
    )  # fmt: skip


def _reference(visit: Visit, one: Mapping[str, Any]) -> str:
    """What it is for, by the tool's references: ``invoice 4711``. For those who may see agents' values."""
    tool, values = visit.bundle.compiled.tools.get(one["tool"]), one["values"]
    if tool is None or values is None or WORDS not in visit.may:
        return ""
    named = [arg.alias for arg in tool.args if arg.class_ == "reference" and arg.alias in values]
    return ", ".join(f"{name.replace('_', ' ')} {values[name]}" for name in named)[:REFERENCE_CHARS_MAX]


def due_of(entry: Mapping[str, Any]) -> int:
    """When the first of its present rungs ends."""
    return min((rung["due"] for rung in entry["rungs"].values()), default=int(entry["not_after"]))


def ladders_for(visit: Visit, entry: Mapping[str, Any]) -> list[str]:
    """The ladders on which this person may answer now, as the gate says; it judges again when they do."""
    return sorted(name for name, rung in entry["rungs"].items() if visit.who.id in rung["people"])


PAGES = (
    Page("/waiting", waiting, nav="Waiting", query=("page",)),
    Page("/waiting/rows", rows, query=("page", "seen"), poll=True),
)
