"""How full every limit is: of the policy's windows by agent or payee, and of every mandate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark.audit import counted, limit, money, rules_of, span
from countermark.server.console.visit import Page, Reply, Visit

POLL_S = 10
GROUP_WORDS = {"agent": "agent", "payee": "payee", "tool": "tool", "run": "run", "mandate": "mandate"}


@dataclass(frozen=True, slots=True)
class Gauge:
    """One limit of one group: amounts in words, and the numbers of its bar. ``total`` is 0 where nothing limits."""

    name: str
    used: str
    held: str
    free: str
    parts: tuple[tuple[int, str], ...]
    total: int
    said: str
    next_at: int | None = None
    next: str = ""
    over: bool = False


async def limits(visit: Visit) -> Reply:
    """``GET /limits``."""
    return visit.html("limits.html", **await _shown(visit), poll_s=POLL_S)


async def part(visit: Visit) -> Reply:
    """``GET /limits/now``: the numbers again."""
    return visit.html("limits_part.html", **await _shown(visit), poll_s=POLL_S)


async def _shown(visit: Visit) -> dict[str, Any]:
    found = await visit.console.call("limits")
    mandates, payees = await visit.console.call("mandates"), await visit.console.payees()
    return {
        "windows": [_window(visit, one, payees) for one in found["windows"]], "payment": payment_words(visit),
        "mandates": [mandate_of(one) for one in mandates if one["in_force"]], "at": found["at"],
        "others": sum(not one["in_force"] for one in mandates),
    }  # fmt: skip


def gauge(
    name: str, used: int, held: int, limit_: int | None, words: Any, row: Mapping[str, Any] | None = None
) -> Gauge:
    """A bar and its words. ``words`` says an amount."""
    free = 0 if limit_ is None else max(0, limit_ - used - held)
    over = limit_ is not None and used + held > limit_
    said = f"{words(used)} used, {words(held)} held" + ("" if limit_ is None else f", {words(free)} free")
    kind = "over" if over else "used"
    return Gauge(
        name, words(used), words(held), words(free), ((used, kind), (held, "held")), limit_ or 0, f"{name}: {said}",
        None if row is None else row["next_at"], "" if row is None else words(row["next"]), over,
    )  # fmt: skip


def _window(visit: Visit, one: Mapping[str, Any], payees: Mapping[str, str]) -> dict[str, Any]:
    """A window with the gauges of its groups."""
    fields, of_money = one["group"], one["of"] == "amount"
    gauges = []
    for row in one["groups"]:
        currency = row["group"][fields.index("currency")] if "currency" in fields else None
        words = _amounts(str(currency)) if of_money and currency is not None else _counts
        names = [_named(payees, field, value) for field, value in zip(fields, row["group"], strict=True)
                 if field != "currency"]  # fmt: skip
        gauges.append(gauge(", ".join(names) or "everything", row["used"], row["held"], one["limit"], words, row))
    total = None if one["limit"] is None else _limit_words(visit, one)
    return {
        "name": one["name"], "total": total, "over": span(one["over_us"]), "above": above(visit, one["name"]),
        "per": [field for field in fields if field != "currency"], "gauges": gauges, "more": one["more"],
    }  # fmt: skip


def _limit_words(visit: Visit, one: Mapping[str, Any]) -> str:
    currencies = visit.bundle.compiled.currencies
    if one["of"] != "amount":
        return _counts(one["limit"])
    return money(one["limit"], currencies[0] if len(currencies) == 1 else None)


def above(visit: Visit, window: str) -> str:
    """What happens above a window: people are asked, or it is refused."""
    rule = rules_of(visit.bundle.document["compiled"]).get(f"limits.window.{window}")
    if rule is None:
        return "a rule of the policy reads it"
    return "refused above" if rule.ladder is None else f"above it, {rule.ladder} is asked"


def _named(payees: Mapping[str, str], field: str, value: object) -> str:
    if field == "payee":
        known = payees.get(str(value))
        return known if known is not None else f"a payee that the policy does not know ({str(value)[:12]})"
    return f"{GROUP_WORDS.get(field, field)} {value}"


def _amounts(currency: str) -> Any:
    return lambda amount: money(amount, currency)


def _counts(count: int) -> str:
    return f"{count:,} payment" + ("" if count == 1 else "s")


def payment_words(visit: Visit) -> list[str]:
    """The limits on each payment, in words."""
    compiled = visit.bundle.compiled
    numbers, currency = compiled.limits, compiled.currencies[0] if len(compiled.currencies) == 1 else None
    said = []
    for name, words in (("payment_max", "never more than {}"), ("payment_ask_above", "above {} people answer first"),
                        ("payment_flag_above", "above {} it is paid and marked for review")):  # fmt: skip
        if name in numbers:
            said.append(words.format(money(numbers[name], currency)))
    return said


def mandate_of(one: Mapping[str, Any]) -> dict[str, Any]:
    """A mandate with the gauges of its limits; one on each payment has no gauge, only words."""
    gauges, each = [], []
    for row in one["limits"]:
        if row["over_us"] == 0:
            each.append(limit(row))
            continue
        currency = row["currency"]
        gauges.append(gauge(limit(row), row["used"], row["held"], row["amount"],
                            lambda amount, currency=currency: counted(amount, currency)))  # fmt: skip
    return {**one, "gauges": gauges, "each": each}


PAGES = (Page("/limits", limits, nav="Limits"), Page("/limits/now", part, poll=True))
