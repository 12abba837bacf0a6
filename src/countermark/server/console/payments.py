"""Every payment, the newest first, and one payment from the request to the provider's books."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from countermark.audit import DISPOSITIONS, STATUSES, Filter, Told, covered_by, find_page, payment_page, row_of, told_by
from countermark.journal import read_high_water
from countermark.model.errors import ArgumentError
from countermark.model.values import ACT_ID
from countermark.server.console.books import Shelf, building, with_books
from countermark.server.console.roles import WORDS
from countermark.server.console.visit import Page, Reply, Visit

FIELDS = ("agent", "tool", "payee", "status", "disposition", "day", "text", "others")


@with_books
async def payments(visit: Visit) -> Reply:
    """``GET /payments``: a page of the daybook, each line read from its own records."""
    wanted, before = _filter(visit), _place(visit.query.get("before", ""))

    def look(shelf: Shelf) -> dict[str, Any]:
        page = find_page(shelf.book, wanted, before)
        rows = [row_of(shelf.store, entry, shelf.ways) for entry in page.entries]
        return {"rows": rows, "older": page.older, "walked": page.walked, "size": shelf.book.size}

    found = await visit.console.books.ask(look)
    await visit.console.books.note(visit, "payments", "explain", 0, found["size"])
    asked = {name: value for name, value in visit.query.items() if value and name != "before"}
    compiled, names = visit.bundle.compiled, await visit.console.payees()
    return visit.html(
        "payments.html", **found, asked=asked, wanted=asdict(wanted), before=before, statuses=STATUSES,
        dispositions=DISPOSITIONS, agents=sorted(compiled.agents), tools=sorted(compiled.tools),
        payees=sorted(names.items(), key=lambda one: one[1]),
    )  # fmt: skip


def _filter(visit: Visit) -> Filter:
    values = {name: visit.query.get(name, "").strip() for name in FIELDS if name != "others"}
    wanted = Filter(**values, others=visit.query.get("others") == "1")
    wanted.check()
    return wanted


def _place(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise ArgumentError("there is no such place in the list", field="before")
    return int(text)


@with_books
async def payment(visit: Visit) -> Reply:
    """``GET /payments/{id}``."""
    return await _one(visit, reveal=False)


@with_books
async def reveal(visit: Visit) -> Reply:
    """``POST /payments/{id}/values``: the same with its sealed values opened, for those whose role lets them."""
    return await _one(visit, reveal=True)


async def _one(visit: Visit, *, reveal: bool) -> Reply:
    name = visit.params["id"]
    config = visit.console.config

    def look(shelf: Shelf) -> tuple[dict[str, Any], Any, int, int] | None:
        told: Told | None = None
        if ACT_ID.fullmatch(name) is not None:
            told = told_by(shelf.store, shelf.book, name, shelf.ways, shelf.unseal if reveal else None)
        if told is None:
            return None
        mark = read_high_water(config.high_water)
        seen = covered_by(told, None if mark is None else mark.size)
        return payment_page(told), seen, told.records[0].seq, told.records[-1].seq + 1

    found = await visit.console.books.ask(look)
    if found is None:
        raise ArgumentError("there is no payment with this ID here", field="id", code="unknown_action",
                            hint="Look for it in the list of payments.")  # fmt: skip
    page, seen, start, stop = found
    await visit.console.books.note(visit, f"{'open' if reveal else 'one'}:{name}", "explain", start, stop)
    return visit.html("payment.html", one=page, seen=seen, reveal=reveal, may_reveal=WORDS in visit.may)


PAGES = (
    Page("/payments", payments, nav="Payments", query=(*FIELDS, "before")),
    Page("/payments/{id}", payment),
    Page("/payments/{id}/values", reveal, "POST", WORDS),
    Page("/building", building, poll=True),
)
