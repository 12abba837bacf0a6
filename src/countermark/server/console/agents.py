"""Agents, their mandates as a tree, and what is stopped. To stop needs a session; to lift or to end, a signature."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

from countermark.audit import Near, stopped
from countermark.model.digest import CLEARANCE, REVOCATION
from countermark.model.errors import ArgumentError
from countermark.server.console import signing
from countermark.server.console.books import Shelf, with_books
from countermark.server.console.limits import mandate_of
from countermark.server.console.roles import LOOK, STOP
from countermark.server.console.visit import Page, Reply, Visit

SCOPES = ("agent", "tool", "payee", "mandate", "deployment")
REASON_CHARS_MAX = 500
MANDATES_MAX = 500  # drawn; the rest is counted
STOPS_MAX = 200  # the newest are drawn

_DONE = re.compile(r"stopped-[0-9]{1,6}|lifted|ended")
_NAMED = {"kill": re.compile(r"kill_[0-9a-f]{16}"), "mandate": re.compile(r"sha256:[0-9a-f]{64}")}

# What each order is: the document's name, its domain, the member that names its object, the operation.
ORDERS: Mapping[str, tuple[str, str, str, str]] = {
    "clear": ("clearance", CLEARANCE, "kill", "kill.clear"),
    "revoke": ("revocation", REVOCATION, "mandate", "mandate.revoke"),
}


@with_books
async def agents(visit: Visit) -> Reply:
    """``GET /agents``."""
    status, mandates, payees = await asyncio.gather(
        visit.console.call("status"), visit.console.call("mandates"), visit.console.payees()
    )
    names = sorted(visit.bundle.compiled.agents)
    stops = [dict(one) for one in status["kills"][-STOPS_MAX:]]

    def look(shelf: Shelf) -> dict[str, Any]:
        last = {name: _last(shelf, name) for name in names}
        return {"last": last, "kills": [_stop(shelf.ways, shelf, one) for one in stops]}

    found = await visit.console.books.ask(look)
    tree = _tree(mandates)
    compiled = visit.bundle.compiled
    return visit.html(
        "agents.html", agents=[_agent(visit, name, found["last"][name], mandates) for name in names],
        kills=found["kills"], further=len(status["kills"]) - len(stops),
        tree=tree[:MANDATES_MAX], more=len(tree) - MANDATES_MAX, scopes=SCOPES,
        done=_done(visit.query.get("done", "")), known={
            "agent": names, "tool": sorted(compiled.tools), "payee": sorted(payees),
            "mandate": [one["mandate"] for one in mandates if one["in_force"]][:MANDATES_MAX],
        },
    )  # fmt: skip


def _done(text: str) -> str:
    """What a form here has just done, of what it can have done; a link says nothing else in our name."""
    return text if _DONE.fullmatch(text) else ""


def _last(shelf: Shelf, agent: str) -> Mapping[str, Any] | None:
    """When and what an agent asked for last."""
    seq = shelf.book.last_of(agent)
    record = None if seq is None else shelf.store.record(seq)
    if record is None or record.kind != "action.decided" or record.body["agent"] != agent:
        return None
    return {"at": record.at, "id": record.body["id"], "tool": record.body["tool"]}


def _stop(ways: Near, shelf: Shelf, one: Mapping[str, Any]) -> dict[str, Any]:
    record = shelf.book.event(shelf.store, "kill.set", one["kill"])
    reason = record.body["reason"] if record is not None else "restored" if one["kind"] == "deployment" else ""
    return {**one, "said": stopped(one["kind"], one["value"], reason), "at": None if record is None else record.at}


def _agent(
    visit: Visit, name: str, last: Mapping[str, Any] | None, mandates: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    agent = visit.bundle.compiled.agents[name]
    owner = visit.people.get(agent.owner)
    return {
        "id": name, "owner": agent.owner if owner is None else owner.name or owner.id, "last": last,
        "own_keys": len(agent.keys), "mandates": sum(one["agent"] == name and one["in_force"] for one in mandates),
    }  # fmt: skip


def _tree(mandates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mandates with their depth, each below its parent, in the order in which they were granted."""
    below: dict[str | None, list[Mapping[str, Any]]] = {}
    known = {one["mandate"] for one in mandates}
    for one in mandates:
        below.setdefault(one["parent"] if one["parent"] in known else None, []).append(one)
    found: list[dict[str, Any]] = []
    todo = [(one, 0) for one in reversed(below.get(None, []))]
    while todo:
        one, depth = todo.pop()
        found.append({**mandate_of(one), "depth": depth})
        todo += [(child, depth + 1) for child in reversed(below.get(one["mandate"], []))]
    return found


async def stop(visit: Visit) -> Reply:
    """``POST /agents/stop``: anybody with a session; after the answer no new effect of the scope starts."""
    kind, reason = visit.form.get("kind", ""), visit.form.get("reason", "").strip()
    value = "" if kind == "deployment" else visit.form.get("value", "").strip()
    if not reason:
        raise ArgumentError("say why it is stopped: whoever lifts it must know", field="reason")
    body = {"kind": kind, "value": value, "reason": f"{visit.who.id}: {reason}"[:REASON_CHARS_MAX]}
    found = await visit.console.call("kill.set", body)
    return visit.go("/agents", done=f"stopped-{len(found['in_flight'])}")


async def order(visit: Visit) -> Reply:
    """``POST /agents/order``: shows the document that would be signed, and asks for the passkey."""
    what, document = _document(visit)
    name, domain, member, _ = ORDERS[what]
    keys = signing.passkeys_of(visit.who, visit.origin)
    rp_id = keys[0].rp_id if keys else ""
    asked = signing.Challenge.of(domain, document, rp_id, [key.credential for key in keys])
    return visit.html(
        "order.html", what=what, name=name, document=document, of=document[member], asked=asked, here=bool(keys),
        command=_command(what, document, member), reason=document["reason"],
    )  # fmt: skip


async def sign(visit: Visit) -> Reply:
    """``POST /agents/order/signed``: the signed document, which the gate verifies."""
    what, document = _document(visit)
    name, domain, _, op = ORDERS[what]
    keys = signing.passkeys_of(visit.who, visit.origin)
    await visit.console.call(op, signing.signed(name, domain, document, keys, visit.form))
    return visit.go("/agents", done="lifted" if what == "clear" else "ended")


def _document(visit: Visit) -> tuple[str, dict[str, Any]]:
    what, reason = visit.form.get("what", ""), visit.form.get("reason", "").strip()
    if what not in ORDERS:
        raise ArgumentError("there is no such order", field="what")
    if not 1 <= len(reason) <= REASON_CHARS_MAX:
        raise ArgumentError(f"give a reason of 1 to {REASON_CHARS_MAX} characters", field="reason")
    member, of = ORDERS[what][2], visit.form.get("of", "")
    if _NAMED[member].fullmatch(of) is None:
        raise ArgumentError(f"this is the name of no {member}", field="of")
    return what, {
        "deployment": visit.console.config.deployment, member: of, "person": visit.who.id,
        "reason": " ".join(reason.split()),
    }  # fmt: skip


def _command(what: str, document: Mapping[str, Any], member: str) -> str:
    verb = "kill clear" if what == "clear" else "mandate revoke"
    return f"countermark {verb} {document[member]} --person {document['person']} --key FILE --reason ..."


_ORDER = ("what", "of", "reason")
PAGES = (
    Page("/agents", agents, nav="Agents", query=("done",)),
    Page("/agents/stop", stop, "POST", STOP, form=("kind", "value", "reason")),
    Page("/agents/order", order, "POST", LOOK, form=_ORDER),
    Page("/agents/order/signed", sign, "POST", LOOK, form=(*_ORDER, *signing.FIELDS)),
)
