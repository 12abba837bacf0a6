"""The policy: what is in force in words and who put it there, what a draft would change, and its tests."""

from __future__ import annotations

from typing import Any

from countermark.audit import minute, money, rules_of, span
from countermark.model.clock import US
from countermark.policy import Bundle
from countermark.server.console.books import Shelf, with_books
from countermark.server.console.jobs import CLI, Bounds, Job
from countermark.server.console.limits import payment_words
from countermark.server.console.roles import WORDS
from countermark.server.console.visit import Page, Reply, Visit

DAY_US = 86_400 * US
DRAFT, TESTS = "policy-draft", "policy-tests"
ROWS_MAX = 50
HISTORY_MAX = 10
BOUNDS = Bounds(time_s=300, cpu_s=300)


@with_books
async def policy(visit: Visit) -> Reply:
    """``GET /policy``."""

    def look(shelf: Shelf) -> list[dict[str, Any]]:
        found = []
        for record in shelf.ways.of_kind("policy.activated", shelf.store.size()):
            order = record.body["activation"]
            second = record.body.get("second")
            found.append({
                "at": record.at, "seq": record.seq, "bundle": order["bundle"], "author": order["author"],
                "activator": order["activator"], "second": None if second is None else second["person"],
            })  # fmt: skip
            if len(found) == HISTORY_MAX:
                break
        return found

    history = await visit.console.books.ask(look)
    compiled = visit.bundle.compiled
    return visit.html(
        "policy.html", digest=visit.bundle.digest, history=history, payment=payment_words(visit),
        windows=windows_of(visit.bundle), rows_max=ROWS_MAX, rules=rules_in_words(visit.bundle),
        hours=hours_of(visit.bundle),
        ladders=sorted(compiled.ladders.values(), key=lambda one: one.id), people=people_of(visit),
        tools=tools_of(visit), author=compiled.author, currencies=compiled.currencies, jobs=_jobs(visit),
        may_draft=WORDS in visit.may,
    )  # fmt: skip


def windows_of(bundle: Bundle) -> list[str]:
    """Each window limit in a sentence."""
    compiled = bundle.compiled
    currency = compiled.currencies[0] if len(compiled.currencies) == 1 else None
    rules = rules_of(bundle.document["compiled"])
    said = []
    for fact in compiled.facts:
        most = compiled.limits.get(f"window_{fact.name}")
        if fact.kind != "window" or most is None:
            continue
        what = money(most, currency) if fact.of == "amount" else f"{most:,} payments"
        per = [name for name in fact.group if name != "currency"]
        rule = rules.get(f"limits.window.{fact.name}")
        then = f"above it {rule.ladder} is asked" if rule is not None and rule.ladder else "more is refused"
        each = f" for each {' and '.join(per)}" if per else ""
        said.append(f"{fact.name.replace('_', ' ')}: {what} in any {span(fact.over_us)}{each}; {then}")
    return said


def hours_of(bundle: Bundle) -> str:
    """When payments may be made, in words; empty when at any time."""
    limits = bundle.compiled.limits
    if "hours_from" not in limits:
        return ""
    return f"payments from {minute(limits['hours_from'])} to {minute(limits['hours_to'])} ({bundle.compiled.zone})"


def rules_in_words(bundle: Bundle) -> list[dict[str, Any]]:
    """Rules that are not made from limits: their names, whom they ask, how they mark."""
    rules = rules_of(bundle.document["compiled"])
    return [
        {"id": rule.id, "ladder": rule.ladder, "flag": rule.flag, "text": rule.text}
        for name, rule in sorted(rules.items())
        if not name.startswith(("limits.", "tools."))
    ]


def people_of(visit: Visit) -> list[dict[str, Any]]:
    """Who is enrolled now, and with how many keys."""
    found = []
    for person in sorted(visit.people.values(), key=lambda one: one.id):
        keys = [str(key) for key in getattr(person, "keys", ())]
        passkeys = sum(key.startswith("webauthn:") for key in keys)
        found.append({
            "id": person.id, "name": person.name, "roles": sorted(person.roles), "passkeys": passkeys,
            "files": len(keys) - passkeys,
        })  # fmt: skip
    return found


def tools_of(visit: Visit) -> list[dict[str, Any]]:
    """The tools, and how long those that are only monitored stay so."""
    found = []
    for tool in sorted(visit.bundle.compiled.tools.values(), key=lambda one: one.name):
        left = None if tool.monitor is None else max(0, tool.monitor - visit.now)
        found.append({
            "name": tool.name, "class": tool.class_, "once_per": list(tool.once_per), "monitor": tool.monitor,
            "days_left": None if left is None else left // DAY_US, "over": left == 0,
        })  # fmt: skip
    return found


def _jobs(visit: Visit) -> dict[str, Job | None]:
    """What was compared and tested; nothing for those who may not compare: it shows decisions with what agents say."""
    if WORDS not in visit.may:
        return {"draft": None, "tests": None}
    return {"draft": visit.console.jobs.get(DRAFT), "tests": visit.console.jobs.get(TESTS)}


async def begin(visit: Visit) -> Reply:
    """``POST /policy/draft``: compare the deployment's policy directory with what is in force, and run its tests."""
    what = visit.form.get("what", "")
    root = str(visit.console.config.root)
    if what == "tests":
        visit.console.jobs.start(TESTS, visit.who.id, CLI, ["-C", root, "policy", "test", "--json"], BOUNDS)
    else:
        size = await visit.console.read(lambda store, unseal: store.size())
        await visit.console.books.note(visit, "draft", "audit", 0, size)
        visit.console.jobs.start(DRAFT, visit.who.id, CLI, ["-C", root, "policy", "diff", "--json"], BOUNDS)
    return visit.go("/policy")


async def draft(visit: Visit) -> Reply:
    """``GET /policy/draft``: how far that is; polled while it runs."""
    return visit.html("policy_draft.html", jobs=_jobs(visit), may_draft=WORDS in visit.may, rows_max=ROWS_MAX)


PAGES = (
    Page("/policy", policy, nav="Policy"),
    Page("/policy/draft", draft, poll=True),
    Page("/policy/draft", begin, "POST", WORDS, form=("what",)),
)
